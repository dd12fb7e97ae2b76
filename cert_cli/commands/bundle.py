"""`cert bundle`: a ledger and everything that an auditor needs to check it, in one file."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.evidence.bundle import Bundle
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert bundle -o evidence.zip",
    "cert bundle ./ledger -o evidence.zip --with-content",
    "cert verify evidence.zip --key public-key.pem --head head.note",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def bundle(
    ledger: flags.LedgerArgument = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="The .zip.")
    ],
    with_content: Annotated[
        bool,
        typer.Option(
            "--with-content", help="Also pack the texts behind commitments (content.sqlite)."
        ),
    ] = False,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Pack the ledger, its checkpoints, policies, public key and a verifier into one file.

    README.txt inside says to an auditor what it is, what it shows and what not, and how to check
    it without installing anything. The same ledger gives the same bytes. Send the key's
    fingerprint, which this prints, by another way.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert.evidence.bundle import write_bundle  # noqa: PLC0415 - not for --help
        from cert_cli.files import check_target  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        check_target(output)
        folder = find_ledger(ledger, load_settings(config))
        written = write_bundle(folder, output, with_content=with_content)
        print_text(_describe(written, output))
        return _warn(written)

    run_command(body, debug=debug)


def _describe(written: Bundle, output: Path) -> str:
    found = written.report
    return (
        f"{output}: {found.records} records, {found.state}, {written.packed.size_bytes} bytes\n"
        f"sha256 of the file       {written.packed.sha256}\n"
        f"fingerprint of the key   {written.key.fingerprint}\n"
    )


def _warn(written: Bundle) -> ExitCode:
    from cert.ledger.findings import State  # noqa: PLC0415 - not for --help

    found = written.report
    if found.state is State.UNSEALED:
        report(
            "warning: no checkpoint covers the last records",
            hint="cert ledger head seals them, where the key is; then pack again",
        )
    elif found.state is not State.UNANCHORED:
        report(
            f"error: the ledger is {found.state}; it was packed as it is",
            hint="`cert verify` says what is wrong",
        )
        return ExitCode.INTEGRITY
    return ExitCode.PASS
