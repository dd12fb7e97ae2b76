"""`cert schema`: the JSON Schema of the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli.errors import run_command
from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert schema > record.schema.json",
    "cert schema | jq '.\"$defs\" | keys'",
    codes=PRINT_CODES,
)


def schema(
    *, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    """Print the JSON Schema (2020-12) of every kind of record."""

    def body(_: Interrupts) -> ExitCode:
        import json  # noqa: PLC0415 - not for --help

        from cert.evidence.schema import record_schema  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        return print_text(json.dumps(record_schema(), indent=2, sort_keys=True) + "\n")

    run_command(body, debug=debug)
