"""`cert config show`: every setting, its value and where it came from."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from cert.core.config import CERTConfig
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert config show --origin",
    "cert config show --json | jq -r .device",
    codes=PRINT_CODES,
)

# A longer value does not push the origins of all the others out of sight.
_MAX_WIDTH = 40

app = typer.Typer(
    no_args_is_help=True,
    # Otherwise `[tool.cert]` is taken for markup and vanishes.
    rich_markup_mode=None,
    help="Show the settings and where they come from.",
)


@app.callback()
def config() -> None:
    """Show the settings and where they come from."""


@app.command("show", epilog=EPILOG)
def show(
    *,
    origin: Annotated[
        bool, typer.Option("--origin", help="Also say where each value comes from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config_file: Annotated[
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
    """Print every setting, one a line; secrets in values are masked.

    The nearest source wins: flag, environment, --config FILE (else ./cert.yaml or [tool.cert] of
    ./pyproject.toml), the user's own file, default.
    """
    from cert_cli.errors import run_command  # noqa: PLC0415 - not for --help

    def body(_: Interrupts) -> ExitCode:
        from cert.core.config import CERTConfig  # noqa: PLC0415 - loads pydantic
        from cert_cli.stdout import print_text  # noqa: PLC0415 - beside it

        settings = CERTConfig.load(config_file=config_file)
        text = (_render_json if as_json else _render_text)(settings, origin=origin)
        return print_text(text)

    run_command(body, debug=debug)


def _render_json(config: CERTConfig, *, origin: bool) -> str:
    values = _values(config)
    if not origin:
        return json.dumps(values, indent=2) + "\n"
    origins = config.origins()
    shown = {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
    return json.dumps(shown, indent=2) + "\n"


def _render_text(config: CERTConfig, *, origin: bool) -> str:
    from cert.observability.controls import escape_controls  # noqa: PLC0415 - not for --help

    values = {name: escape_controls(_text(value)) for name, value in _values(config).items()}
    origins = config.origins()
    name_width = max(map(len, values))
    value_width = min(_MAX_WIDTH, max(map(len, values.values())))
    lines = []
    for name, value in values.items():
        line = f"{name:<{name_width}}  {value}"
        if origin:
            line = f"{line:<{name_width + 2 + value_width}}  {origins[name]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _values(config: CERTConfig) -> dict[str, object]:
    from cert.observability.redaction import redact_values  # noqa: PLC0415 - not for --help

    values = redact_values(config.model_dump(mode="json"))
    return cast("dict[str, object]", values)


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
