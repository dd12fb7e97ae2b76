"""`cert ledger prune`: remove old records whose time has come, after exporting them."""

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
    "cert ledger prune --before 2027-01-01 --export 2026.zip --reason 'retention' --dry-run",
    "cert ledger prune --before 2027-01-01 --export 2026.zip --reason 'retention' --yes",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def prune(  # noqa: PLR0913 - one parameter a flag
    *,
    before: Annotated[
        str,
        typer.Option(
            metavar="DATE",
            show_default=False,
            help="Only files whose records are all older, as YYYY-MM-DD in UTC.",
        ),
    ],
    export: Annotated[
        Path,
        typer.Option(
            metavar="FILE.zip",
            show_default=False,
            help="Where the removed records go first; can be verified by itself.",
        ),
    ],
    reason: Annotated[
        str,
        typer.Option(metavar="TEXT", show_default=False, help="Why; it stays in the ledger."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and do nothing.")
    ] = False,
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
    """Remove closed files of old records; what is left verifies as before.

    Refused for records younger than the setting `retention_days`, and unless the whole ledger
    verifies and the export was written and read back. A `pruned` record says what went, when and
    why. Texts behind commitments of removed records are deleted and are not in the export. Running
    the command again finishes what was cut off.
    """

    def body(_: Interrupts) -> ExitCode:
        raise NotImplementedError((before, export, reason, dry_run, yes, no_input, ledger, config))

    run_command(body, debug=debug)
