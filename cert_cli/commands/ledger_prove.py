"""`cert ledger prove`: a proof of one record, or that the ledger continues an older head."""

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
    "cert ledger prove 41 -o record-41.tlog-proof",
    "cert ledger prove --from head.note -o consistency.txt",
    "python cert_verify.py --proof record-41.tlog-proof --key public-key.pem",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def prove(  # noqa: PLR0913 - one parameter a flag
    seq: Annotated[
        int | None,
        typer.Argument(
            metavar="SEQ", min=0, show_default=False, help="The record's number, its `_seq`."
        ),
    ] = None,
    *,
    from_head: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="HEADFILE",
            show_default=False,
            help="Prove instead that the ledger continues this head, which `cert ledger head` "
            "wrote earlier.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False, help="Instead of stdout."
        ),
    ] = None,
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
    """Write a proof that whoever trusts the key can check alone, without the ledger.

    With SEQ: that this record is in the ledger that the newest checkpoint signs. With --from: that
    nothing before that head was changed, removed or inserted since.
    """

    def body(_: Interrupts) -> ExitCode:
        raise NotImplementedError((seq, from_head, output, ledger, config))

    run_command(body, debug=debug)
