"""What the flags of `cert coordinate` choose, and the plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.coordination.arms import Arrangement, build_arms
from cert.coordination.canaries import load_canaries
from cert.coordination.plan import AgentSpec, Decide, JudgePanel, Kind, Plan, can_select
from cert.coordination.prompts import load_prompts
from cert.coordination.task_files import load_tasks
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cert.coordination.tasks import Task

REMOTE_PREFIX: Final = "anthropic:"
DEFAULT_AGENTS: Final = 3
MAX_TOKENS: Final = 1024
REFERENCE: Final = "reference"
REFERENCE_MAX_TOKENS: Final = 24
"""It never comes to an end of its own, so that more would only take longer."""
_SHOWN_REFUSALS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What was chosen, defaults filled in as far as they need no further knowledge.

    Attributes:
        sources: Files of tasks, and `-`.
        input_format: `auto`, `jsonl` or `csv`.
        limit: Take the first so many tasks; None for all.
        models: SPEC of each agent, in order; one stands for all agents.
        agents: How many; None for as many as models, or `DEFAULT_AGENTS` of one.
        strategies: Coordinated kinds.
        rounds: Of a debate.
        decide: None lets the tasks decide: by vote where they have labels.
        replicates: Of each task in each arm.
        matched: `auto`, `self_consistency`, `best_of_n` or `none`.
        has_refine: Whether arm D is run.
        has_placebo: Whether arm E is run.
        judges: SPEC of each judge.
        judge_repeats: How often each is asked.
        max_tokens: Of a reply; None for `MAX_TOKENS`, and fewer for the reference model.
        timeout_s: Of a call.
        temperature: Of local models.
        seed: Of order, placebos and local sampling.
        prompts: Folder of templates that replace built-in ones.
        base_url: Of a server that speaks the Messages API; all models are its, then.
        api_version: Sent to it.
        api_key_file: File that holds its key.
        prices: File of prices.
        max_usd: Budget.
        max_total_tokens: Budget.
        concurrency: Calls in flight; None for the default of where the models are.
        baselines: File that keeps the single agent's replies; None for none.
        margin: By how much the strategy may fall short of the same tokens spent alone.
        confidence: Of the intervals.
        min_tasks: Fewer are never beneficial.
        resumes: Whether an unfinished run is gone on with.
    """

    sources: Sequence[str]
    input_format: str
    limit: int | None
    models: Sequence[str]
    agents: int | None
    strategies: Sequence[Kind]
    rounds: int
    decide: Decide | None
    replicates: int
    matched: str
    has_refine: bool
    has_placebo: bool
    judges: Sequence[str]
    judge_repeats: int
    max_tokens: int | None
    timeout_s: float
    temperature: float
    seed: int
    prompts: Path | None
    base_url: str | None
    api_version: str | None
    api_key_file: Path | None
    prices: Path | None
    max_usd: float | None
    max_total_tokens: int | None
    concurrency: int | None
    baselines: Path | None
    margin: float
    confidence: float
    min_tasks: int
    resumes: bool

    def is_remote(self, spec: str) -> bool:
        """Whether a model is asked over the Messages API."""
        return self.base_url is not None or spec.startswith(REMOTE_PREFIX)


def name_of(spec: str) -> str:
    """The name under which a model is asked."""
    return spec.removeprefix(REMOTE_PREFIX)


def build_plan(choices: Choices, tasks: tuple[Task, ...]) -> Plan:
    """Lay out what is done with the tasks.

    Raises:
        ConfigurationError: A choice is wrong, or does not go with a task.
    """
    prompts = load_prompts(choices.prompts)
    has_free_text = any(task.is_free_text for task in tasks)
    panel = None
    if choices.judges:
        panel = JudgePanel(
            models=tuple(map(name_of, choices.judges)),
            repeats=choices.judge_repeats,
            timeout_s=choices.timeout_s,
        )
    elif has_free_text:
        free = next(task for task in tasks if task.is_free_text)
        raise ConfigurationError(
            f"task {free.id!r} is judged by models, and no judge is named",
            hint="name one with --judge MODEL, or take tasks with another evaluator",
        )
    decide = choices.decide or (Decide.AGGREGATE if has_free_text else Decide.VOTE)
    arrangement = Arrangement(
        strategies=choices.strategies,
        agents=_agents(choices),
        rounds=choices.rounds,
        decide=decide,
        replicates=choices.replicates,
        matched=_matched(choices, tasks, has_free_text=has_free_text),
        has_refine=choices.has_refine,
        has_placebo=choices.has_placebo,
    )
    return Plan(
        tasks=tasks,
        arms=build_arms(arrangement),
        prompts=prompts,
        seed=choices.seed,
        panel=panel,
        canaries=load_canaries() if panel is not None else (),
    )


def read_tasks(choices: Choices) -> tuple[Task, ...]:
    """Read the tasks; none where there is none.

    Raises:
        ConfigurationError: A source is wrong, or a line of it is no task.
    """
    found = load_tasks(choices.sources, input_format=choices.input_format)
    if found.refused:
        shown = [f"{one.source}:{one.line}: {one.message}" for one in found.refused]
        more = len(shown) - _SHOWN_REFUSALS
        rest = [f"and {more} more"] if more > 0 else []
        raise ConfigurationError(
            f"{len(shown)} lines are no task, and a comparison over the others would not be the "
            "one that was asked for: " + "; ".join([*shown[:_SHOWN_REFUSALS], *rest]),
            hint='a task is {"id": ..., "prompt": ..., "label": ..., "evaluator": "exact"}; '
            "sample_prompts/tasks.jsonl has 48",
        )
    return found.tasks[: choices.limit]


def _agents(choices: Choices) -> tuple[AgentSpec, ...]:
    models = list(choices.models)
    count = choices.agents
    if count is None:
        count = len(models) if len(models) > 1 else DEFAULT_AGENTS
    if len(models) == 1:
        models *= count
    if len(models) != count:
        raise ConfigurationError(
            f"{len(models)} models for {count} agents",
            hint="give one model for all agents, or one -m for each agent",
        )
    return tuple(
        AgentSpec(name_of(spec), max_tokens=_max_tokens(choices, spec), timeout_s=choices.timeout_s)
        for spec in models
    )


def _max_tokens(choices: Choices, spec: str) -> int:
    if choices.max_tokens is not None:
        return choices.max_tokens
    is_reference = spec == REFERENCE and not choices.is_remote(spec)
    return REFERENCE_MAX_TOKENS if is_reference else MAX_TOKENS


def _matched(choices: Choices, tasks: Sequence[Task], *, has_free_text: bool) -> Kind | None:
    if choices.matched == "none":
        return None
    if choices.matched != "auto":
        return Kind(choices.matched)
    if not has_free_text:
        return Kind.SELF_CONSISTENCY
    return Kind.BEST_OF_N if all(map(can_select, tasks)) else None
