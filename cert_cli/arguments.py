"""Arguments and flags that commands about ledgers and keys have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LedgerArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="LEDGER", show_default=False, help="Its folder, instead of the configured one."
    ),
]
LedgerOption = Annotated[
    Path | None,
    typer.Option(
        "--ledger", metavar="DIR", show_default=False, help="Instead of the configured one."
    ),
]
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        show_default=False,
        help="Folder of the signing keys, instead of the configured one.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", show_default=False, help="Instead of stdout."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="Settings, instead of ./cert.yaml or pyproject.toml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
