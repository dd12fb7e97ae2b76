"""`cert exit-codes`: what the exit codes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert exit-codes", "cert exit-codes --json | jq -r '.\"3\".meaning'", codes=PRINT_CODES
)


def exit_codes(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, by code.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Print every exit code and its meaning. Where several apply: 5, 4, 1, 3."""

    def body(_: Interrupts) -> ExitCode:
        import json  # noqa: PLC0415 - not for --help

        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        if as_json:
            table = {
                str(int(one)): {"meaning": one.meaning, "when": one.detail} for one in ExitCode
            }
            return print_text(json.dumps(table, indent=2) + "\n")
        lines = [f"{int(one):>3}  {one.meaning}: {one.detail}" for one in ExitCode]
        return print_text("\n".join([*lines, "", "Where several apply: 5, 4, 1, 3."]) + "\n")

    run_command(body, debug=debug)
