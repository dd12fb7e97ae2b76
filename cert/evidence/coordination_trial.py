"""From the replicates of a comparison to what the statistics take.

The order of the replicates never matters: everything is laid out as the plan has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cert.statistics.consensus import TaskAnswers
from cert.statistics.trial import Arm, Replicate, Strategy, Trial

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    Members = Mapping[str, Any]
    Places = Mapping[tuple[str, str, int], Members]

CANARY_ARM: Final = "canary"
"""Stands as the arm of what tests the judges."""
NOT_RUN: Final = "not_run"
NO_OWN_SCORE: Final = "no_own_score"
"""Of an agent that answered nothing by itself, or nothing that could be scored without a model."""

CHAIN: Final = "sequential"
"""Of its agents only the first one answers before it has seen another's answer."""
_COORDINATED: Final = (CHAIN, "parallel", "debate")
_MATCHED: Final = ("self_consistency", "best_of_n")


def place_replicates(plan: Members, replicates: Iterable[Members]) -> Places:
    """Find each replicate by task, arm and number.

    Args:
        plan: The plan of the policy.
        replicates: Members `replicate` of their records, in any order.

    Raises:
        ValueError: One that the plan doesn't ask for, or that stands there twice.
    """
    tasks = {task["id"] for task in plan["tasks"]}
    canaries = {canary["id"] for canary in plan["canaries"]}
    numbers = {arm["name"]: range(arm["replicates"]) for arm in plan["arms"]}
    places: dict[tuple[str, str, int], Members] = {}
    for one in replicates:
        place = task, arm, number = one["task"], one["arm"], one["replicate"]
        is_canary = arm == CANARY_ARM and task in canaries and number == 0
        if not is_canary and (task not in tasks or number not in numbers.get(arm, ())):
            raise ValueError(f"the plan has no replicate {task}/{arm}/{number}")
        if place in places:
            raise ValueError(f"the replicate {task}/{arm}/{number} stands there twice")
        places[place] = one
    return places


def build_trial(plan: Members, places: Places) -> Trial:
    """Arrange the replicates by arm, task and number, in the order of the plan.

    Args:
        plan: The plan of the policy.
        places: Of `place_replicates`; what is missing is unscored.

    Raises:
        ValueError: The plan has not one single arm, or `Trial` refuses it.
    """
    arms = {arm["name"]: _build_arm(plan, places, arm) for arm in plan["arms"]}
    [single] = [arm["name"] for arm in plan["arms"] if arm["kind"] == "single"]

    def arm_of(reference: str, kinds: Collection[str]) -> Arm | None:
        names = [
            arm["name"]
            for arm in plan["arms"]
            if arm["reference"] == reference and arm["kind"] in kinds
        ]
        return arms[names[0]] if names else None

    return Trial(
        tasks=tuple(task["id"] for task in plan["tasks"]),
        groups=tuple(task["group"] for task in plan["tasks"]),
        single=arms[single],
        strategies=tuple(
            Strategy(
                name=arm["name"],
                coordinated=arms[arm["name"]],
                matched=arm_of(arm["name"], _MATCHED),
                refine=arm_of(arm["name"], ("self_refine",)),
                placebo=arm_of(arm["name"], ("placebo",)),
            )
            for arm in plan["arms"]
            if arm["kind"] in _COORDINATED
        ),
    )


def build_individuals(plan: Members, places: Places, arm: Members) -> Arm:
    """The agents of one arm as if each had answered alone, for omega.

    Args:
        plan: The plan of the policy.
        places: Of `place_replicates`.
        arm: One of the plan's.

    Returns:
        An arm whose n-th replicate is the n-th agent's answer before it saw another's: the mean
        over the arm's replicates in which it has a score.
    """
    rows = []
    for task in plan["tasks"]:
        answered = [one["members"] for one in _rows_of(places, task, arm) if one["members"]]
        rows.append(
            tuple(
                _individual([members[at]["first"]["score"] for members in answered])
                for at in range(len(arm["agents"]))
            )
        )
    return Arm(f"{arm['name']} individuals", tuple(rows))


def build_answers(
    plan: Members, places: Places, arm: Members, when: str
) -> tuple[TaskAnswers, ...]:
    """The agents' own answers in one arm.

    Args:
        plan: The plan of the policy.
        places: Of `place_replicates`.
        arm: One of the plan's.
        when: `first` for those before they saw each other's, `last` for those at the end.

    Returns:
        One entry a task and replicate whose calls did not fail, with labels as numbers: the same
        one stands for the same answer within an entry only. An answer is right where it has the
        full score.
    """
    return tuple(
        TaskAnswers(
            tuple(_label(member[when]) for member in one["members"]),
            tuple(_is_right(member[when]["score"]) for member in one["members"]),
        )
        for task in plan["tasks"]
        for one in _rows_of(places, task, arm)
        if one["members"]
    )


def _build_arm(plan: Members, places: Places, arm: Members) -> Arm:
    rows = tuple(
        tuple(
            _convert(places.get((task["id"], arm["name"], number)))
            for number in range(arm["replicates"])
        )
        for task in plan["tasks"]
    )
    return Arm(arm["name"], rows)


def _convert(one: Members | None) -> Replicate:
    if one is None:
        return Replicate(unscored=NOT_RUN)
    cost_usd = None if one["cost_usd"] is None else float(one["cost_usd"])
    if one["score"] is None:
        return Replicate(
            unscored=one["unscored"]["reason"], tokens=one["tokens"], cost_usd=cost_usd
        )
    return Replicate(score=float(one["score"]), tokens=one["tokens"], cost_usd=cost_usd)


def _rows_of(places: Places, task: Members, arm: Members) -> list[Members]:
    found = (places.get((task["id"], arm["name"], number)) for number in range(arm["replicates"]))
    return [one for one in found if one is not None]


def _individual(scores: Iterable[float | None]) -> Replicate:
    known = [score for score in scores if score is not None]
    if not known:
        return Replicate(unscored=NO_OWN_SCORE)
    return Replicate(score=sum(known) / len(known))


def _label(answer: Members) -> str | None:
    return None if answer["label"] is None else str(answer["label"])


def _is_right(score: float | None) -> bool | None:
    return None if score is None else score >= 1.0
