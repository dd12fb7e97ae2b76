"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys

from cert.core.errors import ConfigurationError
from cert.observability.controls import escape_controls
from cert_cli.terminal import is_live

_MAX_REASON_CHARS = 2000
_YES = frozenset({"y", "yes"})


def confirm(what: str, *, yes: bool, no_input: bool) -> None:
    """Go on only if somebody wants it.

    Args:
        what: What is to be done, as a sentence.
        yes: Of --yes: nobody is asked.
        no_input: Of --no-input: nobody may be asked.

    Raises:
        ConfigurationError: Nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if no_input or not is_live(sys.stdin) or sys.stderr is None:
        raise ConfigurationError(
            f"{what} That cannot be undone, and nobody can be asked; nothing was changed",
            hint="look at it, then say --yes",
        )
    sys.stderr.write(escape_controls(f"{what} That cannot be undone. Go on? [y/N] "))
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in _YES:
        raise ConfigurationError("not confirmed; nothing was changed")


def check_reason(reason: str) -> str:
    """See that a reason can stand in a record.

    Raises:
        ConfigurationError: It is empty, too long, or no text.
    """
    text = reason.strip()
    if not 1 <= len(text) <= _MAX_REASON_CHARS or not text.isprintable():
        raise ConfigurationError(
            f"--reason takes 1 to {_MAX_REASON_CHARS} characters on one line",
            hint="it stays in the ledger for good, so name no person in it",
        )
    return text
