"""`cert serve-metrics`: what is in ledgers, as Prometheus metrics."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert_cli.interrupts import Interrupts

_option = partial(typer.Option, show_default=False)

EPILOG = epilog(
    "cert serve-metrics",
    "cert serve-metrics nightly=/var/lib/cert/ledger ./other-ledger --key public-key.pem",
    "cert serve-metrics ./ledger --once | promtool check metrics",
    "cert serve-metrics ./ledger ./canary --canary prompts.txt --canary-ledger ./canary",
    codes=(
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.INCOMPLETE,
        ExitCode.UNAVAILABLE,
        ExitCode.BUG,
        ExitCode.INTERRUPTED,
        ExitCode.TERMINATED,
    ),
)


def serve_metrics(  # noqa: PLR0913 - one parameter a flag
    *,
    ledgers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]DIR...",
            show_default=False,
            help="Ledgers to follow; NAME becomes the label `ledger`, else the folder's name does. "
            "One that is not there yet is waited for. [default: the configured ledger]",
        ),
    ] = None,
    host: Annotated[
        str | None,
        _option(
            metavar="ADDRESS",
            help="Where to listen; not loopback needs a token. [default: 127.0.0.1]",
        ),
    ] = None,
    port: Annotated[
        int | None, _option(metavar="N", help="0 takes a free one. [default: 9090]")
    ] = None,
    token_file: Annotated[
        Path | None, _option(metavar="FILE", help="Holds the bearer token that scrapers must show.")
    ] = None,
    state: Annotated[
        str | None,
        _option(
            metavar="FILE|none",
            help="Keeps counts over a restart. [default: serve-metrics.json in the user's state "
            "folder; with --once, none]",
        ),
    ] = None,
    interval: Annotated[
        float,
        typer.Option(min=0.1, max=86_400, metavar="SECONDS", help="Between two looks."),
    ] = 5.0,
    key: Annotated[
        str | None,
        _option(
            metavar="PUB",
            help="The key that the ledgers must be of: a file, or ed25519:... "
            "[default: the setting verify_key, else the one that each names itself]",
        ),
    ] = None,
    canary: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Prompts to run now and then, on the configured model, recorded as any run.",
        ),
    ] = None,
    canary_interval: Annotated[
        float,
        typer.Option(min=1, max=10_000_000, metavar="SECONDS", help="Between two such runs."),
    ] = 3600.0,
    canary_ledger: Annotated[
        Path | None,
        _option(metavar="DIR", help="Where they are recorded. [default: the configured ledger]"),
    ] = None,
    once: Annotated[bool, _option("--once", help="Print the metrics to stdout, and end.")] = False,
    config: Annotated[
        Path | None,
        _option(metavar="FILE", help="Settings, instead of ./cert.yaml or pyproject.toml."),
    ] = None,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Only errors on stderr.")] = False,
    verbose: Annotated[int, _option("--verbose", "-v", count=True, help="Log more.")] = 0,
    log_format: Annotated[
        Literal["json", "human"] | None,
        _option(help="Of log lines on stderr. [default: json]"),
    ] = None,
    debug: Annotated[bool, _option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Serve what is in ledgers as metrics: for runs that end before anyone could scrape them.

    Ledgers are followed as they grow, read-only; a scrape reads nothing. Links and checkpoints of
    what is new are checked on the way, which replaces no `cert verify`. /livez, /readyz and
    /healthz are beside /metrics. Ctrl-C or SIGTERM keeps the counts and ends.
    """
    given: dict[str, object] = {
        "metrics_host": host,
        "metrics_port": port,
        "token_file": None if token_file is None else str(token_file),
        "log_format": log_format,
        "log_level": "ERROR" if quiet else "DEBUG" if verbose else "WARNING" if once else None,
    }

    def body(interrupts: Interrupts) -> ExitCode:
        from cert.core.config import CERTConfig  # noqa: PLC0415 - not for --help
        from cert_cli import exporting  # noqa: PLC0415 - the same

        settings = CERTConfig.load(given, config_file=config)
        settings.apply(stream=sys.stderr)
        asked = exporting.Export(
            ledgers=ledgers or (),
            state=state,
            key=key,
            interval_s=interval,
            canary=canary,
            canary_interval_s=canary_interval,
            canary_ledger=canary_ledger,
        )
        if once:
            return exporting.print_once(asked, settings)
        return exporting.serve_metrics(asked, settings, interrupts, quiet=quiet)

    run_command(body, debug=debug)
