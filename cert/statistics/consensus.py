"""How far agents agree on a task, always beside whether they are right.

Answers are labels, equal when they mean the same; whoever calls has normalised them. Agreement is
no quality: agents of one model agree on their common mistakes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers of the agents to one task.

    Attributes:
        labels: Each agent's normalised answer; None where it gave none.
        is_right: Whether each answer is right; None where nobody judged it.

    Raises:
        ValueError: Lengths that differ.
    """

    labels: tuple[str | None, ...]
    is_right: tuple[bool | None, ...]

    def __post_init__(self) -> None:
        """Refuse judgements without answers."""
        if len(self.labels) != len(self.is_right):
            raise ValueError(f"{len(self.is_right)} judgements for {len(self.labels)} answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConsensus:
    """Agreement on one task, over the agents that answered.

    Attributes:
        answered: Answers, k.
        unanswered: Agents without one.
        distinct: Different answers.
        agreement: Share of pairs of agents that say the same, sum n_c (n_c - 1) / (k (k - 1)), in
            [0, 1]; None for fewer than two answers.
        plurality_share: Share of the most frequent answer, in [1/k, 1]; None without an answer.
        plurality: The most frequent answer; None where several are, or there is none.
        entropy_nats: -sum p ln p over the answers, in [0, ln k]; None without an answer.
    """

    answered: int
    unanswered: int
    distinct: int
    agreement: float | None
    plurality_share: float | None
    plurality: str | None
    entropy_nats: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusSummary:
    """Agreement over tasks, crossed with correctness.

    Every task is in exactly one of the seven counts. A plurality is right (wrong) if all its
    judged answers are; it is unjudged if none is, or if they were judged differently.

    Attributes:
        tasks: How many tasks there were.
        agreement: Mean over the tasks that have it, in [0, 1]; None where none has.
        plurality_share: Mean likewise, in (0, 1].
        entropy_nats: Mean likewise, >= 0.
        unanimous_right: Tasks where two agents or more answered, all the same, and rightly.
        unanimous_wrong: The same, wrongly.
        split_right: Tasks with different answers, the most frequent one right.
        split_wrong: The same, wrong.
        tied: Tasks with several most frequent answers.
        unjudged: Tasks with a most frequent answer that is not judged, or judged differently.
        too_few: Tasks with fewer than two answers.
        agreement_where_right: Mean agreement over unanimous_right and split_right.
        agreement_where_wrong: Mean agreement over unanimous_wrong and split_wrong.
    """

    tasks: int
    agreement: float | None
    plurality_share: float | None
    entropy_nats: float | None
    unanimous_right: int
    unanimous_wrong: int
    split_right: int
    split_wrong: int
    tied: int
    unjudged: int
    too_few: int
    agreement_where_right: float | None
    agreement_where_wrong: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DebateFlips:
    """What a debate did to the agents' answers; counts of (task, agent) pairs.

    Attributes:
        right_to_wrong: Right before, wrong after.
        wrong_to_right: Wrong before, right after.
        stayed_right: Right before and after.
        stayed_wrong: Wrong before and after.
        unjudged: One of the two not judged, or not given.
        changed: Answers that differ, whatever they are worth; both given.
        compared: Pairs where both are given.
    """

    right_to_wrong: int
    wrong_to_right: int
    stayed_right: int
    stayed_wrong: int
    unjudged: int
    changed: int
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DebateConsensus:
    """Consensus before a debate and after it, and the answers that flipped."""

    before: ConsensusSummary
    after: ConsensusSummary
    flips: DebateFlips


def measure_task(labels: Sequence[str | None]) -> TaskConsensus:
    """Measure the agreement on one task.

    >>> measure_task(["a", "a", "b"]).agreement
    0.3333333333333333
    """
    counts = Counter(label for label in labels if label is not None)
    k = counts.total()
    largest = max(counts.values(), default=0)
    winners = [label for label, count in counts.items() if count == largest]
    pairs = sum(n * (n - 1) for n in counts.values())
    return TaskConsensus(
        answered=k,
        unanswered=len(labels) - k,
        distinct=len(counts),
        agreement=pairs / (k * (k - 1)) if k > 1 else None,
        plurality_share=largest / k if k else None,
        plurality=winners[0] if len(winners) == 1 else None,
        entropy_nats=math.fsum(n / k * math.log(k / n) for n in counts.values()) if k else None,
    )


def summarize_consensus(tasks: Sequence[TaskAnswers]) -> ConsensusSummary:
    """Pool the agreement on tasks, crossed with correctness."""
    measured = [measure_task(task.labels) for task in tasks]
    kinds = [_kind(task, found) for task, found in zip(tasks, measured, strict=True)]
    counts = Counter(kinds)

    def agreement_of(outcome: str) -> float | None:
        pairs = zip(kinds, measured, strict=True)
        return _mean(found.agreement for kind, found in pairs if kind.endswith(outcome))

    return ConsensusSummary(
        tasks=len(tasks),
        agreement=_mean(found.agreement for found in measured),
        plurality_share=_mean(found.plurality_share for found in measured),
        entropy_nats=_mean(found.entropy_nats for found in measured),
        unanimous_right=counts["unanimous_right"],
        unanimous_wrong=counts["unanimous_wrong"],
        split_right=counts["split_right"],
        split_wrong=counts["split_wrong"],
        tied=counts["tied"],
        unjudged=counts["unjudged"],
        too_few=counts["too_few"],
        agreement_where_right=agreement_of("_right"),
        agreement_where_wrong=agreement_of("_wrong"),
    )


def compare_debate(before: Sequence[TaskAnswers], after: Sequence[TaskAnswers]) -> DebateConsensus:
    """Compare the same agents' answers to the same tasks before and after a debate.

    Raises:
        ValueError: Numbers of tasks, or of agents in a task, that differ.
    """
    if [len(task.labels) for task in before] != [len(task.labels) for task in after]:
        raise ValueError("before and after a debate there are other tasks or other agents")
    flips: Counter[tuple[bool | None, bool | None]] = Counter()
    changed = compared = 0
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.labels, new.labels, strict=True):
            compared += was is not None and now is not None
            changed += was is not None and now is not None and was != now
        flips.update(zip(_known(old), _known(new), strict=True))
    judged = [flips[was, now] for was in (True, False) for now in (True, False)]
    return DebateConsensus(
        before=summarize_consensus(before),
        after=summarize_consensus(after),
        flips=DebateFlips(
            right_to_wrong=flips[True, False],
            wrong_to_right=flips[False, True],
            stayed_right=flips[True, True],
            stayed_wrong=flips[False, False],
            unjudged=flips.total() - sum(judged),
            changed=changed,
            compared=compared,
        ),
    )


def _known(task: TaskAnswers) -> list[bool | None]:
    """Judgements of answers that were given."""
    pairs = zip(task.labels, task.is_right, strict=True)
    return [None if label is None else right for label, right in pairs]


def _kind(task: TaskAnswers, found: TaskConsensus) -> str:
    if found.agreement is None:
        return "too_few"
    if found.plurality is None:
        return "tied"
    pairs = zip(task.labels, task.is_right, strict=True)
    judged = {right for label, right in pairs if label == found.plurality} - {None}
    if len(judged) != 1:
        return "unjudged"
    shape = "unanimous" if found.distinct == 1 else "split"
    return f"{shape}_{'right' if judged.pop() else 'wrong'}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
