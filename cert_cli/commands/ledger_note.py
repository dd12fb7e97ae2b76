"""`cert ledger note`: what a person wants to be on record."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert ledger note 'run 2 repeats run 1 after the driver update'",
    "cert ledger note 'reviewed by the safety board, minutes 14' ./ledger",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def note(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", show_default=False, help="1 to 2000 characters.")
    ],
    ledger: flags.LedgerArgument = None,
    *,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Append a note to the ledger, for good: no secrets, no personal data. Prints the record."""

    def body(_: Interrupts) -> ExitCode:
        from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
        from cert.evidence.note_record import build_note_record  # noqa: PLC0415 - the same
        from cert.ledger.appender import open_ledger  # noqa: PLC0415 - the same
        from cert.ledger.canonical import canonical_bytes  # noqa: PLC0415 - the same
        from cert.ledger.key_source import keys_of  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text, write_stdout  # noqa: PLC0415 - the same
        from cert_cli.terminal import is_live  # noqa: PLC0415 - the same

        settings = load_settings(config, keys=keys)
        folder = find_ledger(ledger, settings)
        try:
            record = canonical_bytes(build_note_record(text))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        with open_ledger(folder, keys_of(settings)) as opened:
            (entry,) = opened.append([record])
        if is_live(sys.stdout):
            return print_text(f"noted as record {entry.seq} of {folder}\n")
        write_stdout(entry.line + b"\n")
        return ExitCode.PASS

    run_command(body, debug=debug)
