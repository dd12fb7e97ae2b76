"""The flags that the recording commands share, once.

A flag that was not given is None and leaves its setting to the environment, the files and the
defaults (`cert config show --origin`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

OUTPUT_FORMATS = ("jsonl", "human")
NO_LEDGER = "none"

_option = partial(typer.Option, show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFlags:
    """What was given on the command line; None, False or 0 where nothing was."""

    model: Annotated[
        str | None,
        _option(
            "--model",
            "-m",
            metavar="SPEC",
            help="`reference`, a folder, or hf:ORG/NAME. [default: reference]",
        ),
    ] = None
    server: Annotated[
        str | None,
        _option(
            metavar="URL",
            help="Let a running `cert serve` measure; CERT_TOKEN or CERT_TOKEN_FILE is its token.",
        ),
    ] = None
    preload: Annotated[
        bool | None,
        _option(
            "--preload/--no-preload",
            help="Load the model before reading any input; otherwise both go on side by side.",
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, _option(help="Where the model runs. [default: auto]")
    ] = None
    quantize: Annotated[
        Literal["none", "8bit", "4bit"] | None,
        _option(help="Weights in fewer bits; the record says which kind ran. [default: none]"),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        _option(help="Precision of the weights. [default: auto]"),
    ] = None
    policy: Annotated[
        str | None,
        _option(
            metavar="ID|FILE",
            help="The thresholds. [default: `reference` for the reference model, else `default`]",
        ),
    ] = None
    max_new_tokens: Annotated[
        int | None, _option(metavar="N", help="Tokens to generate at most. [default: 64]")
    ] = None
    temperature: Annotated[float | None, _option(metavar="T", help="0 is greedy. [default: 0]")] = (
        None
    )
    top_k: Annotated[
        int | None,
        _option(metavar="K", help="Sample among the K most probable; 0 is all. [default: 0]"),
    ] = None
    top_p: Annotated[
        float | None,
        _option(metavar="P", help="Sample within this probability mass. [default: 1]"),
    ] = None
    seed: Annotated[
        int | None,
        _option(metavar="N", help="Keys sampling; otherwise one is drawn and recorded."),
    ] = None
    stop: Annotated[
        list[str] | None,
        _option(metavar="TEXT", help="End a generation before this text. Repeatable."),
    ] = None
    chat: Annotated[
        Literal["auto", "always", "never"] | None,
        _option(help="Whether to apply the model's chat template. [default: auto]"),
    ] = None
    timeout: Annotated[
        float | None, _option(metavar="SECONDS", help="Limit a prompt, from its submission on.")
    ] = None
    output: Annotated[
        list[str] | None,
        _option(
            "--output",
            "-o",
            metavar="[FORMAT:]PATH",
            help="Also write here; FORMAT is jsonl (default) or human. Repeatable. Files get "
            "mode 0600; links are not followed.",
        ),
    ] = None
    ledger: Annotated[
        str | None,
        _option(
            "--ledger",
            metavar="DIR",
            help="Where the evidence goes: signed, append-only; auto is the user's own folder. "
            "[default: auto]",
        ),
    ] = None
    no_ledger: Annotated[
        bool, _option("--no-ledger", help="Keep no evidence but what is printed or goes to -o.")
    ] = False
    format: Annotated[
        Literal["auto", "human", "jsonl"],
        typer.Option(help="Of stdout; auto is human on a terminal and jsonl elsewhere."),
    ] = "auto"
    content: Annotated[
        Literal["full", "committed", "omitted"] | None,
        _option(
            help="Whether records hold prompts, texts and token ids, commit to them (the texts lie "
            "beside the ledger and can be erased), or leave them out. [default: full]"
        ),
    ] = None
    config: Annotated[
        Path | None,
        _option(metavar="FILE", help="Settings, instead of ./cert.yaml or pyproject.toml."),
    ] = None
    offline: Annotated[
        bool | None,
        _option(
            "--offline/--allow-download",
            help="Whether to stay off the network. [default: --offline]",
        ),
    ] = None
    expect_digest: Annotated[
        str | None,
        _option(metavar="sha256:HEX", help="Refuse any other model than the one of this digest."),
    ] = None
    textfile: Annotated[
        Path | None,
        _option(
            metavar="FILE.prom",
            help="At the end, however it comes, write exit code, times and counts here for "
            "node_exporter's textfile collector: renamed into place, mode 0644.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        _option("--dry-run", help="Count the work, estimate what it takes, and do nothing."),
    ] = False
    no_input: Annotated[
        bool, _option("--no-input", help="Never wait for somebody to type prompts.")
    ] = False
    correlation_id: Annotated[
        str | None, _option(metavar="ID", help="Stands in records and log lines.")
    ] = None
    quiet: Annotated[
        bool, _option("--quiet", "-q", help="Only errors on stderr: no notes, progress or summary.")
    ] = False
    verbose: Annotated[
        int, _option("--verbose", "-v", count=True, help="Log what happens; -vv logs more.")
    ] = 0
    log_format: Annotated[
        Literal["json", "human"] | None, _option(help="Of log lines on stderr. [default: human]")
    ] = None
    color: Annotated[
        bool | None,
        _option("--color/--no-color", help="Otherwise NO_COLOR, FORCE_COLOR and TERM decide."),
    ] = None
    debug: Annotated[bool, _option("--debug", help="Show tracebacks.")] = False

    def overrides(self) -> dict[str, object]:
        """Return the settings that were given, by the name that the configuration has for them."""
        values = {name: getattr(self, name) for name in _SETTINGS}
        given = {name: value for name, value in values.items() if value is not None}
        if self.no_ledger:
            given["ledger"] = NO_LEDGER
        if self.quiet:
            given["log_level"] = "ERROR"
        elif self.verbose:
            given["log_level"] = "INFO" if self.verbose == 1 else "DEBUG"
        return given


_SETTINGS = (
    "model",
    "server",
    "preload",
    "device",
    "quantize",
    "dtype",
    "policy",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "stop",
    "chat",
    "timeout",
    "content",
    "ledger",
    "offline",
    "log_format",
)


def with_shared_flags(
    command: Callable[..., None], *, without: Collection[str] = ()
) -> Callable[..., None]:
    """Give a command the shared flags: its parameter `flags` is made of them.

    Typer reads a command's flags off its signature; this writes that signature.

    Args:
        command: Takes `flags`.
        without: Names of the flags that it has no use for; they stay as if not given.
    """
    hints = get_type_hints(SharedFlags, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(SharedFlags)
        if field.name not in without
    ]
    own = inspect.signature(command, eval_str=True)
    parameters = [one for one in own.parameters.values() if one.name != "flags"]

    def run(**values: Any) -> None:  # noqa: ANN401 - whatever the signature below says
        flags = SharedFlags(**{one.name: values.pop(one.name) for one in shared})
        if flags.textfile is None or flags.dry_run:
            command(**values, flags=flags)
            return
        from cert_cli.textfile import written_at_end  # noqa: PLC0415 - only if asked for

        with written_at_end(flags.textfile, command.__name__):
            command(**values, flags=flags)

    signature = own.replace(
        parameters=[
            *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters),
            *shared,
        ]
    )
    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run
