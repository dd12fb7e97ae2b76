"""`cert bundle`: a ledger and everything that an auditor needs to check it, in one file."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert bundle -o evidence.zip",
    "cert bundle ./ledger -o evidence.zip --with-content",
    "cert verify evidence.zip --key public-key.pem --head head.note",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def bundle(
    ledger: Annotated[
        str | None,
        typer.Argument(
            metavar="LEDGER", show_default=False, help="Its folder, instead of the configured one."
        ),
    ] = None,
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
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            show_default=False,
            help="Settings, instead of ./cert.yaml or pyproject.toml.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Pack the ledger, its checkpoints, policies, public key and a verifier into one file.

    README.txt inside says to an auditor what it is, what it shows and what not, and how to check
    it without installing anything. The same ledger gives the same bytes.
    """

    def body(_: Interrupts) -> ExitCode:
        raise NotImplementedError((ledger, output, with_content, config))

    run_command(body, debug=debug)
