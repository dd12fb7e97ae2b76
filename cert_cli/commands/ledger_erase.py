"""`cert ledger erase`: the texts behind one record's commitment."""

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
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger", metavar="DIR", show_default=False, help="Instead of the configured one."
        ),
    ] = None,
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
    """Erase a record's prompt and output for good; the record and its numbers stay.

    Only of records with `content: committed`. An `erased` record says what was erased and why, and
    the ledger verifies as before. Backups and bundles made with --with-content are not reached.
    """

    def body(_: Interrupts) -> ExitCode:
        raise NotImplementedError((record_id, reason, yes, no_input, ledger, config))

    run_command(body, debug=debug)
