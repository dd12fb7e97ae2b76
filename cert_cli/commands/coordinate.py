"""`cert coordinate`: several agents against one, on the same tasks and for the same money."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli.errors import run_command
from cert_cli.options import SharedFlags, with_shared_flags
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert coordinate sample_prompts/tasks.jsonl --dry-run",
    "cert coordinate sample_prompts/tasks.jsonl --limit 12",
    "cert coordinate tasks.jsonl -m ./model --strategy debate --strategy parallel",
    "cert coordinate tasks.jsonl -m qwen -m llama --base-url http://127.0.0.1:8000",
    "cert coordinate tasks.jsonl -m anthropic:MODEL --prices prices.yaml --max-usd 5",
)
_NOT_SHARED = (
    "model",
    "server",
    "preload",
    "policy",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "stop",
    "timeout",
    "expect_digest",
)
_option = partial(typer.Option, show_default=False)


class StrategyName(StrEnum):
    """The kinds of arm that coordinate; Typer takes no list of literals."""

    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    DEBATE = "debate"


@partial(with_shared_flags, without=_NOT_SHARED)
def coordinate(  # noqa: PLR0913 - one parameter a flag
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...|-", show_default=False, help="Tasks, as JSON Lines or CSV."
        ),
    ],
    model: Annotated[
        list[str] | None,
        _option(
            "--model",
            "-m",
            metavar="SPEC",
            help="Who answers: `reference`, a folder or hf:ORG/NAME here; anthropic:NAME there; "
            "with --base-url any name of that server. Once for all agents, or once for each; the "
            "first one is the model alone, too. [default: reference]",
        ),
    ] = None,
    strategy: Annotated[
        list[StrategyName] | None,
        _option(help="How agents work together. Repeatable. [default: debate]"),
    ] = None,
    agents: Annotated[
        int | None,
        _option(
            metavar="N", min=2, max=64, help="How many. [default: one a model, or 3 of one model]"
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=32, help="Of a debate, after the first answers.")
    ] = 1,
    decide: Annotated[
        Literal["auto", "vote", "aggregate"],
        typer.Option(
            help="How parallel answers and a debate become one; auto votes where tasks have labels."
        ),
    ] = "auto",
    replicates: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=1000, help="Runs of each task in each arm."),
    ] = 3,
    matched: Annotated[
        Literal["auto", "self_consistency", "best_of_n", "none"],
        typer.Option(
            help="What the strategy's tokens are given to, spent on one model; without it nothing "
            "can be beneficial."
        ),
    ] = "auto",
    self_refine: Annotated[
        bool,
        typer.Option("--self-refine", help="Also let one agent refine its own answer as often."),
    ] = False,
    placebo: Annotated[
        bool,
        typer.Option("--placebo", help="Also show the agents answers to other tasks."),
    ] = False,
    judge: Annotated[
        list[str] | None,
        _option(
            metavar="SPEC",
            help="Models that judge the tasks whose evaluator is `judge` or `judge_pair`. "
            "Repeatable.",
        ),
    ] = None,
    judge_repeats: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, help="How often each judge is asked.")
    ] = 3,
    max_tokens: Annotated[
        int | None,
        _option(
            metavar="N", min=1, help="Tokens of a reply at most. [default: 1024; of `reference` 24]"
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="Limit a call with all its attempts."),
    ] = 120.0,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=0.0, help="Of models here; 0 makes replicates equal."),
    ] = 1.0,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=2**53 - 1, help="Keys order, placebos, sampling of models here."
        ),
    ] = 0,
    base_url: Annotated[
        str | None,
        _option(
            metavar="URL",
            help="A server with /v1/messages (vLLM, llama.cpp, Ollama, ...): all models are its.",
        ),
    ] = None,
    api_version: Annotated[
        str | None,
        _option(
            metavar="DATE",
            help="Sent as anthropic-version, for example 2023-06-01. [default: the SDK's]",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Holds the server's key. [default: ANTHROPIC_API_KEY, for Anthropic alone]",
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        _option(
            metavar="FILE", help="What tokens cost, by model, as YAML; its digest is recorded."
        ),
    ] = None,
    max_usd: Annotated[
        float | None,
        _option(metavar="USD", min=0.0, help="Stop before a server's calls might cost more."),
    ] = None,
    max_total_tokens: Annotated[
        int | None,
        _option(metavar="N", min=0, help="Stop before a server's calls might take more tokens."),
    ] = None,
    concurrency: Annotated[
        int | None,
        _option(
            metavar="N", min=1, max=256, help="Calls in flight. [default: 16 here, 8 at a server]"
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        _option(metavar="DIR", help="Templates in place of the built-in ones, as YAML files."),
    ] = None,
    baselines: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Keep the single agent's replies here, and take those of the very same question "
            "and circumstances from it.",
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="M",
            min=0.0,
            max=0.99,
            help="By how much a beneficial strategy may fall short of the same tokens spent alone.",
        ),
    ] = 0.05,
    confidence: Annotated[
        float, typer.Option(metavar="C", min=0.5, max=0.9999, help="Of the intervals.")
    ] = 0.95,
    min_tasks: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Fewer tasks are never enough for beneficial."),
    ] = 10,
    limit: Annotated[
        int | None, _option(metavar="N", min=1, help="Take the first N tasks only.")
    ] = None,
    input_format: Annotated[
        Literal["auto", "jsonl", "csv"], typer.Option(help="auto goes by the file's extension.")
    ] = "auto",
    resume: Annotated[
        Literal["auto", "never"],
        typer.Option(
            help="auto goes on with an unfinished run of the same plan in the ledger; never "
            "begins a new one."
        ),
    ] = "auto",
    flags: SharedFlags,
) -> None:
    """Compare agents that work together with one model alone, and say what may be concluded.

    A task holds id, prompt, label and evaluator; sample_prompts/tasks.jsonl has 48.
    """

    def body(interrupts: Interrupts) -> ExitCode:
        from cert.coordination.plan import Decide, Kind  # noqa: PLC0415 - not for --help
        from cert_cli.coordination_choices import Choices  # noqa: PLC0415 - the same
        from cert_cli.coordination_session import run  # noqa: PLC0415 - the same
        from cert_cli.session import load_config  # noqa: PLC0415 - the same
        from cert_cli.stdin import check_stdin  # noqa: PLC0415 - the same

        config = load_config(flags)
        check_stdin(sources, no_input=flags.no_input, quiet=flags.quiet)
        choices = Choices(
            sources=sources,
            input_format=input_format,
            limit=limit,
            models=model or _default_model(config.model, base_url),
            agents=agents,
            strategies=tuple(map(Kind, dict.fromkeys(strategy or [StrategyName.DEBATE]))),
            rounds=rounds,
            decide=None if decide == "auto" else Decide(decide),
            replicates=replicates,
            matched=matched,
            has_refine=self_refine,
            has_placebo=placebo,
            judges=judge or (),
            judge_repeats=judge_repeats,
            max_tokens=max_tokens,
            timeout_s=timeout,
            temperature=temperature,
            seed=seed,
            prompts=prompts,
            base_url=base_url,
            api_version=api_version,
            api_key_file=api_key_file,
            prices=prices,
            max_usd=max_usd,
            max_total_tokens=max_total_tokens,
            concurrency=concurrency,
            baselines=baselines,
            margin=margin,
            confidence=confidence,
            min_tasks=min_tasks,
            resumes=resume == "auto",
        )
        return run(choices, flags, config, interrupts)

    run_command(body, debug=flags.debug)


def _default_model(configured: str, base_url: str | None) -> list[str]:
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help

    if base_url is not None:
        raise ConfigurationError(
            "--base-url names a server, and no model of it is named",
            hint="name it with -m, as the server knows it (GET URL/v1/models often lists them)",
        )
    return [configured]
