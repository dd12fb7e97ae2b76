"""From finished replicates to what the statistics take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.coordination.evaluator import Score
from cert.coordination.plan import COORDINATED, MATCHED, Kind
from cert.coordination.transcript import Purpose
from cert.statistics.consensus import TaskAnswers
from cert.statistics.trial import Arm, Replicate, Strategy, Trial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cert.coordination.plan import ArmPlan, Plan
    from cert.coordination.prices import Prices
    from cert.coordination.replicate import FinishedReplicate
    from cert.coordination.tasks import Task

NOT_RUN: Final = "not_run"
NO_OWN_ANSWER: Final = "no_own_answer"
"""Of an individual in a chain, who has seen another's answer, or of one that was cut off."""
NOT_SCORED: Final = "needs_a_judge"


def build_trial(
    plan: Plan, replicates: Iterable[FinishedReplicate], *, prices: Prices | None = None
) -> Trial:
    """Arrange the replicates of a run by arm, task and replicate, in the order of the plan.

    Args:
        plan: Of the run.
        replicates: In any order; what is missing is unscored.
        prices: For the costs; None for none.

    Raises:
        ConfigurationError: There is no price for a model.
    """
    found = _by_place(replicates)

    def build(arm: ArmPlan) -> Arm:
        rows = tuple(
            tuple(
                _convert(found.get((task.id, arm.name, number)), prices)
                for number in range(arm.replicates)
            )
            for task in plan.tasks
        )
        return Arm(arm.name, rows)

    def build_of(reference: ArmPlan, kinds: Iterable[Kind]) -> Arm | None:
        held = next(
            (arm for arm in plan.arms if arm.reference == reference.name and arm.kind in kinds),
            None,
        )
        return None if held is None else build(held)

    return Trial(
        tasks=tuple(task.id for task in plan.tasks),
        groups=tuple(task.group_id for task in plan.tasks),
        single=next(build(arm) for arm in plan.arms if arm.kind is Kind.SINGLE),
        strategies=tuple(
            Strategy(
                name=arm.name,
                coordinated=build(arm),
                matched=build_of(arm, MATCHED),
                refine=build_of(arm, (Kind.SELF_REFINE,)),
                placebo=build_of(arm, (Kind.PLACEBO,)),
            )
            for arm in plan.arms
            if arm.kind in COORDINATED
        ),
    )


def build_individuals(plan: Plan, replicates: Iterable[FinishedReplicate], name: str) -> Arm:
    """The agents of one arm as if each had answered alone, for omega.

    Args:
        plan: Of the run.
        replicates: Of any arms.
        name: The arm's.

    Returns:
        An arm whose n-th replicate is the n-th agent's answer before it saw another's: the mean
        over the arm's replicates in which there is one.
    """
    found = _by_place(replicates)
    arm = plan.arm(name)
    rows = []
    for task in plan.tasks:
        done = [found.get((task.id, name, number)) for number in range(arm.replicates)]
        rows.append(tuple(_individual(task, done, at) for at in range(len(arm.agents))))
    return Arm(f"{name} individuals", tuple(rows))


def build_answers(
    plan: Plan, replicates: Iterable[FinishedReplicate], name: str
) -> tuple[tuple[TaskAnswers, ...], tuple[TaskAnswers, ...]]:
    """The agents' own answers in one arm, before they saw each other's and at the end.

    Args:
        plan: Of the run.
        replicates: Of any arms.
        name: The arm's.

    Returns:
        Two of the same length: one entry a task and replicate whose calls did not fail. An answer
        is right where it has the full score.
    """
    found = _by_place(replicates)
    arm = plan.arm(name)
    before, after = [], []
    for task in plan.tasks:
        for number in range(arm.replicates):
            replicate = found.get((task.id, name, number))
            if replicate is None or not replicate.members:
                continue
            members = replicate.members
            before.append(
                TaskAnswers(
                    tuple(member.first_label for member in members),
                    tuple(_is_right(member.first_score) for member in members),
                )
            )
            after.append(
                TaskAnswers(
                    tuple(member.last_label for member in members),
                    tuple(_is_right(member.last_score) for member in members),
                )
            )
    return tuple(before), tuple(after)


def arm_cost_usd(replicate: FinishedReplicate, prices: Prices | None) -> float | None:
    """Cost of the arm's calls, without the judges'; None without prices or unknown tokens.

    Raises:
        ConfigurationError: There is no price for a model.
    """
    if prices is None or replicate.tokens is None:
        return None
    return float(
        sum(
            prices.price(call.call.model).cost_usd(call.usage)
            for call in replicate.calls
            if call.purpose is Purpose.ARM and call.usage is not None
        )
    )


def _by_place(
    replicates: Iterable[FinishedReplicate],
) -> Mapping[tuple[str, str, int], FinishedReplicate]:
    return {(one.unit.task_id, one.unit.arm, one.unit.replicate): one for one in replicates}


def _convert(finished: FinishedReplicate | None, prices: Prices | None) -> Replicate:
    if finished is None:
        return Replicate(unscored=NOT_RUN)
    tokens, cost_usd = finished.tokens, arm_cost_usd(finished, prices)
    if isinstance(finished.outcome, Score):
        return Replicate(score=finished.outcome.value, tokens=tokens, cost_usd=cost_usd)
    return Replicate(unscored=str(finished.outcome), tokens=tokens, cost_usd=cost_usd)


def _individual(task: Task, done: Iterable[FinishedReplicate | None], at: int) -> Replicate:
    members = [one.members[at] for one in done if one is not None and one.members]
    if not members:
        return Replicate(unscored=NOT_RUN)
    scores = [member.first_score for member in members if member.first_score is not None]
    if scores:
        return Replicate(score=sum(scores) / len(scores))
    return Replicate(unscored=NOT_SCORED if task.is_free_text else NO_OWN_ANSWER)


def _is_right(score: float | None) -> bool | None:
    return None if score is None else score >= 1.0
