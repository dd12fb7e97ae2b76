"""`cert batch`: many prompts, as a stream, into a file that can be continued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli.errors import run_command
from cert_cli.options import SharedFlags, with_shared_flags
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.core.config import CERTConfig
    from cert.inputs.case import PromptCase, RefusedInput
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert batch prompts.txt -o records.jsonl",
    "cert batch cases.csv --prompt-field question --id-field nr -o records.jsonl -q",
    "cert batch answers.jsonl --response-field answer --max-errors 1% -o records.jsonl",
    "cat prompts.txt | cert batch - | jq .assessment.verdict",
)


@with_shared_flags
def batch(  # noqa: PLR0913 - one parameter a flag
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...|-", show_default=False, help="Inputs, in this order; `-` is stdin."
        ),
    ],
    input_format: Annotated[
        Literal["auto", "text", "jsonl", "csv", "parquet"],
        typer.Option(help="auto goes by the file's extension."),
    ] = "auto",
    prompt_field: Annotated[str, typer.Option(metavar="NAME", help="Holds the prompt.")] = "prompt",
    id_field: Annotated[str, typer.Option(metavar="NAME", help="Holds a stable id.")] = "id",
    response_field: Annotated[
        str,
        typer.Option(metavar="NAME", help="Holds a text to measure instead of generating one."),
    ] = "response",
    label_field: Annotated[
        str, typer.Option(metavar="NAME", help="Holds the expected outcome.")
    ] = "label",
    group_field: Annotated[
        str, typer.Option(metavar="NAME", help="Holds the group, for rates by group.")
    ] = "group",
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            show_default=False,
            help="Between two prompts of a text, or two fields of a CSV.",
        ),
    ] = None,
    resume: Annotated[
        Literal["auto", "never"],
        typer.Option(
            help="auto continues -o files that exist, if they are of this input and these "
            "settings; never refuses them."
        ),
    ] = "auto",
    max_errors: Annotated[
        str,
        typer.Option(
            metavar="N|P%",
            help="Errors and refused lines tolerated before the exit code is 4. The run goes on "
            "to its end either way.",
        ),
    ] = "0",
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Take the first N input lines only."
        ),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="Prompts that run side by side. [default: 16]"
        ),
    ] = None,
    flags: SharedFlags,
) -> None:
    """Measure many prompts; one record for every line of input, in input order.

    With -o the same command continues where it stopped, whatever stopped it.
    """

    def body(interrupts: Interrupts) -> ExitCode:
        from cert.inputs.reader import ReadOptions, read_cases  # noqa: PLC0415 - not for --help
        from cert.runner.tally import parse_error_budget  # noqa: PLC0415 - the same
        from cert_cli.session import Job, load_config, run  # noqa: PLC0415 - the same
        from cert_cli.stdin import check_stdin  # noqa: PLC0415 - the same

        config = load_config(flags, batch_rows=batch_rows)
        budget = parse_error_budget(max_errors)
        check_stdin(sources, no_input=flags.no_input, quiet=flags.quiet)

        def read(config: CERTConfig) -> Iterator[PromptCase | RefusedInput]:
            options = ReadOptions(
                input_format=input_format,
                prompt_field=prompt_field,
                id_field=id_field,
                response_field=response_field,
                label_field=label_field,
                group_field=group_field,
                delimiter=delimiter,
                max_chars=config.max_prompt_chars,
            )
            return read_cases(sources, options)

        job = Job(
            command="batch",
            sources=sources,
            read=read,
            resumes=resume == "auto",
            never_resumes=resume == "never",
            limit=limit,
            budget=budget,
            is_batch=True,
            options={
                "format": input_format,
                "fields": [prompt_field, id_field, response_field, label_field, group_field],
                "delimiter": delimiter,
            },
        )
        return run(job, flags, config, interrupts)

    run_command(body, debug=flags.debug)
