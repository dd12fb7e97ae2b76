"""`cert ledger erase`: the texts behind one record's commitment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert ledger erase 6f0c8a1e-7d55-4c1a-9a5e-0d9c1b0f7a11 --reason 'Art. 17 request 2031-07'",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def erase(  # noqa: PLR0913 - one parameter a flag
    record_id: Annotated[
        str, typer.Argument(metavar="RECORD_ID", show_default=False, help="The record's `id`.")
    ],
    *,
    reason: Annotated[
        str,
        typer.Option(metavar="TEXT", show_default=False, help="Why; it stays in the ledger."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Never wait for an answer; needs --yes.")
    ] = False,
    ledger: flags.LedgerOption = None,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Erase a record's prompt and output for good; the record and its numbers stay.

    Only of records with `content: committed`. An `erased` record says what was erased and why, and
    the ledger verifies as before. Backups and bundles made with --with-content are not reached.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert.ledger.appender import open_ledger  # noqa: PLC0415 - not for --help
        from cert.ledger.erase import erase as erase_content  # noqa: PLC0415 - the same
        from cert.ledger.key_source import keys_of  # noqa: PLC0415 - the same
        from cert_cli.confirmation import check_reason, confirm  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        words = check_reason(reason)
        settings = load_settings(config, keys=keys)
        folder = find_ledger(ledger, settings)
        confirm(
            f"The content of record {record_id} in {folder} will be erased.",
            yes=yes,
            no_input=no_input,
        )
        with open_ledger(folder, keys_of(settings)) as opened:
            seqs = erase_content(opened, record_id, words)
        report("note: backups, and bundles made with --with-content, still hold the content")
        numbers = ", ".join(map(str, seqs))
        return print_text(f"erased the content of record {numbers} ({record_id})\n")

    run_command(body, debug=debug)
