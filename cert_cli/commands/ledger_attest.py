"""`cert ledger attest`: what a run found, as a signed attestation for other tools."""

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
    "cert ledger attest 6f0c8a1e-7d55-4c1a-9a5e-0d9c1b0f7a11 -o run.intoto.json",
    "cert ledger ls --json | jq -r '.runs[-1].run_id' | xargs cert ledger attest",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def attest(  # noqa: PLR0913 - one parameter a flag
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID", show_default=False, help="The run's; `cert ledger ls` lists them."
        ),
    ],
    *,
    output: flags.OutputOption = None,
    ledger: flags.LedgerOption = None,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Write what a finished run found as an in-toto test result in a DSSE envelope.

    The ledger is verified and sealed first. The attestation names its checkpoint and is signed by
    the key in force; it is a summary, and the evidence is the ledger.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert_cli.attest import attest_run  # noqa: PLC0415 - not for --help
        from cert_cli.files import write_output  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import write_stdout  # noqa: PLC0415 - the same

        settings = load_settings(config, keys=keys)
        folder = find_ledger(ledger, settings)
        attested = attest_run(folder, settings, run_id)
        data = attested.envelope + b"\n"
        if output is None:
            write_stdout(data)
        else:
            write_output(output, data, ledger=folder)
        report(
            f"note: {attested.result} by the records of run {run_id}; signed by "
            f"{attested.key.text}, with the checkpoint of {attested.size} records"
        )
        return ExitCode.PASS

    run_command(body, debug=debug)
