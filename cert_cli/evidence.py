"""Where a command's evidence goes: its ledger, or none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.core.places import ledger_folder
from cert.ledger.appender import open_ledger
from cert.ledger.errors import LedgerError
from cert.ledger.key_source import keys_of
from cert.runner.ledger_run import LedgerRun
from cert_cli.errors import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.core.config import CERTConfig
    from cert.ledger.appender import Ledger
    from cert.ledger.keys import Signer

_ELSEWHERE: Final = "--ledger DIR names another, --no-ledger keeps none"


@contextmanager
def open_evidence(config: CERTConfig, *, quiet: bool) -> Iterator[LedgerRun | None]:
    """Open the ledger that the settings name for one run, and seal it at the end.

    Yields:
        What writes the run; None as `open_configured_ledger`.

    Raises:
        ConfigurationError, LedgerError: As `open_configured_ledger`.
    """
    with open_configured_ledger(config, quiet=quiet) as ledger:
        if ledger is None:
            yield None
            return
        run = LedgerRun(ledger, warns_only=config.on_ledger_failure == "warn")
        try:
            yield run
        finally:
            run.release()


@contextmanager
def open_configured_ledger(config: CERTConfig, *, quiet: bool) -> Iterator[Ledger | None]:
    """Open the ledger that the settings name, and seal it at the end.

    Yields:
        The ledger, or None where none is wanted, or where it cannot be opened and
        `on_ledger_failure` is `warn`.

    Raises:
        ConfigurationError: Content is to be committed to, and there is no ledger to keep it beside.
        LedgerError: The ledger cannot be opened, or not be sealed at the end.
    """
    folder = ledger_folder(config.ledger)
    if folder is None:
        if config.content == "committed":
            raise ConfigurationError(
                "content: committed keeps the texts beside a ledger, and there is none",
                hint="leave out --no-ledger, or use --content omitted",
            )
        yield None
        return
    made: list[Signer] = []
    try:
        ledger = open_ledger(folder, keys_of(config, created=made.append))
    except LedgerError as error:
        if config.on_ledger_failure != "warn":
            raise
        report(f"warning: no evidence is kept: {error.message}", hint=error.hint)
        yield None
        return
    if not quiet:
        if made:
            report(
                f"note: made a signing key, {made[0].public.text}; keep a copy of this public half "
                "elsewhere (cert keys show prints it), for whoever verifies"
            )
        if config.origins()["ledger"] == "default":
            report(f"note: recorded in {folder} ({_ELSEWHERE})")
    try:
        yield ledger
    finally:
        ledger.close()
