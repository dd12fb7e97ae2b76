"""The program's commands. Nothing of the library is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from cert import __version__
from cert_cli.commands import (
    analyze,
    batch,
    bundle,
    completion,
    config,
    coordinate,
    exit_codes,
    health,
    init,
    keys,
    ledger,
    schema,
    serve,
    serve_metrics,
    verify,
)

_ORDER = (
    "analyze",
    "batch",
    "coordinate",
    "health",
    "serve-metrics",
    "serve",
    "verify",
    "ledger",
    "keys",
    "bundle",
    "init",
    "config",
    "schema",
    "exit-codes",
    "completion",
)


class _Ordered(TyperGroup):
    """Lists commands in the order of `_ORDER`; Typer has groups after all others."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # narrower
        """Names of the commands, in order."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="cert",
    cls=_Ordered,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Measure how sure a language model is of every token, judge it, and record the evidence.",
    epilog="`cert COMMAND --help` has examples and exit codes.",
)
app.command("analyze", epilog=analyze.EPILOG)(analyze.analyze)
app.command("batch", epilog=batch.EPILOG)(batch.batch)
app.command("coordinate", epilog=coordinate.EPILOG)(coordinate.coordinate)
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("serve-metrics", epilog=serve_metrics.EPILOG)(serve_metrics.serve_metrics)
app.command("health", epilog=health.EPILOG)(health.health)
app.command("verify", epilog=verify.EPILOG)(verify.verify)
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.app, name="keys")
app.command("bundle", epilog=bundle.EPILOG)(bundle.bundle)
app.add_typer(init.app, name="init")
app.add_typer(config.app, name="config")
app.command("schema", epilog=schema.EPILOG)(schema.schema)
app.command("exit-codes", epilog=exit_codes.EPILOG)(exit_codes.exit_codes)
app.command("completion", epilog=completion.EPILOG)(completion.completion)


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - Typer's callback
    if is_asked:
        typer.echo(f"cert {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Measure how sure a language model is of every token, judge it, and record the evidence."""
