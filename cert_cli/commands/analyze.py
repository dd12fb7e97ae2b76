"""`cert analyze`: one prompt, or each line of an input, measured and judged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli.errors import run_command
from cert_cli.options import SharedFlags, with_shared_flags
from cert_cli.terminal import is_live
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.core.config import CERTConfig
    from cert.inputs.case import PromptCase, RefusedInput
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts
    from cert_cli.session import Job

EPILOG = epilog(
    "cert analyze 'Once upon a time'",
    "cert analyze 'Once upon a time' --model ./my-model --policy strict -o records.jsonl",
    "cert analyze 'The capital of France is' --response ' Paris.'",
    "printf 'one\\ntwo\\n' | cert analyze - --format human",
)


@with_shared_flags
def analyze(
    *,
    prompt: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            metavar="[PROMPT|-]",
            help="The prompt; `-`, or nothing at the end of a pipe, reads stdin.",
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            show_default=False,
            help="Read prompts as `cert batch` does: by extension, one a line in text. Repeatable.",
        ),
    ] = None,
    response: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            show_default=False,
            help="Measure this text after the prompt instead of generating one.",
        ),
    ] = None,
    flags: SharedFlags,
) -> None:
    """Measure a prompt: generate a text, or take one, and judge how sure the model was of it."""

    def body(interrupts: Interrupts) -> ExitCode:
        from cert_cli.session import load_config, run  # noqa: PLC0415 - not for --help

        config = load_config(flags)
        return run(_job(prompt, file or [], response, flags), flags, config, interrupts)

    run_command(body, debug=flags.debug)


def _job(prompt: str | None, files: list[str], response: str | None, flags: SharedFlags) -> Job:
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
    from cert.inputs.reader import (  # noqa: PLC0415 - the same
        ReadOptions,
        case_from_argument,
        read_cases,
    )
    from cert_cli.session import Job  # noqa: PLC0415 - the same
    from cert_cli.stdin import check_stdin  # noqa: PLC0415 - the same

    if prompt is not None and files:
        raise ConfigurationError("a prompt and -f were both given", hint="give one of them")
    is_argument = prompt is not None and prompt != "-"
    if response is not None and not is_argument:
        raise ConfigurationError(
            "--response belongs to one prompt given as an argument",
            hint="for many, use `cert batch` with a response field",
        )
    if is_argument:
        text = prompt or ""

        def read_argument(config: CERTConfig) -> Iterator[PromptCase | RefusedInput]:
            return iter(
                [case_from_argument(text, response=response, max_chars=config.max_prompt_chars)]
            )

        return Job(command="analyze", sources=(), read=read_argument)
    sources = files or ["-"]
    if prompt is None and not files and is_live(sys.stdin):
        raise ConfigurationError(
            "no prompt was given", hint="cert analyze 'Once upon a time', or `-` to type prompts"
        )
    check_stdin(sources, no_input=flags.no_input, quiet=flags.quiet)

    def read_sources(config: CERTConfig) -> Iterator[PromptCase | RefusedInput]:
        return read_cases(sources, ReadOptions(max_chars=config.max_prompt_chars))

    return Job(command="analyze", sources=sources, read=read_sources)
