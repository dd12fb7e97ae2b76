"""`cert ledger head`: the newest signed checkpoint, to be kept elsewhere."""

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
    "cert ledger head > head.note",
    "cert ledger head ./ledger -o /mnt/elsewhere/head.note --timestamp",
    "cert verify --head head.note",
    codes=(
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.INCOMPLETE,
        ExitCode.INTEGRITY,
        ExitCode.UNAVAILABLE,
    ),
)


def head(  # noqa: PLR0913 - one parameter a flag
    ledger: flags.LedgerArgument = None,
    *,
    output: flags.OutputOption = None,
    timestamp: Annotated[
        bool,
        typer.Option(
            "--timestamp",
            help="Also have the authority of the setting timestamp_url say that it existed now "
            "(RFC 3161); the token is kept beside the checkpoint.",
        ),
    ] = False,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Print the newest signed checkpoint: keep it where whoever can write the ledger cannot.

    With it, `cert verify --head FILE` shows that nothing up to it was taken away or replaced.
    Records that no checkpoint covers yet are sealed first, if the ledger's key is at hand.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert_cli.files import write_output  # noqa: PLC0415 - not for --help
        from cert_cli.heads import load_head, stamp_head  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import write_stdout  # noqa: PLC0415 - the same

        settings = load_settings(config, keys=keys)
        folder = find_ledger(ledger, settings)
        signed, lacking = load_head(folder, settings)
        if timestamp and not stamp_head(folder, signed, settings.timestamp_url):
            report("note: this checkpoint has a time stamp already; it stays")
        if output is None:
            write_stdout(signed.note)
        else:
            write_output(output, signed.note, ledger=folder)
        if lacking is not None:
            report(f"warning: {lacking}", hint="run this where the ledger's key is")
        report(
            f"note: this is the head of {signed.checkpoint.size} records; keep it where whoever "
            "can write the ledger cannot",
            hint="later: cert verify --head FILE",
        )
        return ExitCode.PASS

    run_command(body, debug=debug)
