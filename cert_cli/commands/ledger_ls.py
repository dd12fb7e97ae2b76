"""`cert ledger ls`: what a ledger holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert ledger ls",
    "cert ledger ls ./ledger --json | jq -r '.runs[] | select(.phase != \"end\") | .run_id'",
    codes=PRINT_CODES,
)


def ls(
    ledger: flags.LedgerArgument = None,
    *,
    as_json: flags.JsonOption = False,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """List segments, policies, runs and checkpoints; nothing is verified or written."""

    def body(_: Interrupts) -> ExitCode:
        from cert.evidence.overview import load_overview  # noqa: PLC0415 - not for --help
        from cert.ledger.reader import FolderReader  # noqa: PLC0415 - the same
        from cert_cli.byte_meter import ByteMeter  # noqa: PLC0415 - the same
        from cert_cli.ledger_view import to_json, to_text  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        settings = load_settings(config)
        folder = find_ledger(ledger, settings)
        reader = FolderReader(folder)
        total = sum(one.size_bytes for one in reader.segments)
        meter = ByteMeter(total, is_wanted=True, color=None)
        with meter.running():
            overview = load_overview(reader, progress=meter.advance)
        return print_text(to_json(overview) if as_json else to_text(overview, str(folder)))

    run_command(body, debug=debug)
