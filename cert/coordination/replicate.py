"""One replicate, finished: its outcome, its agents' own answers, and all its calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.coordination.answers import extract_answer
from cert.coordination.evaluators import score_text
from cert.coordination.protocol import Reply
from cert.coordination.transcript import Purpose, total_tokens
from cert.coordination.usable import find_cut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.coordination.evaluator import Score, Unscored
    from cert.coordination.plan import Unit
    from cert.coordination.strategies import Member
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import FinishedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberResult:
    """What one agent answered by itself.

    Attributes:
        agent: Its number.
        model: Who was asked.
        first_label: Normalised answer before it saw any other; None where it gave none then, was
            cut off or refused, or the task is free text.
        last_label: Its last one; the same.
        first_score: In [0, 1]; None where it did not answer then, was cut off or refused, or only
            a model could judge it.
        last_score: The same.
    """

    agent: str
    model: str
    first_label: str | None
    last_label: str | None
    first_score: float | None
    last_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedReplicate:
    """A replicate.

    Attributes:
        unit: Which one.
        outcome: Its score, or why it has none.
        text: The reply that was judged; None where there was none.
        members: The agents' own answers, in their order; none where a call failed.
        calls: In the order in which they were asked, the judges' too.
    """

    unit: Unit
    outcome: Score | Unscored
    text: str | None
    members: tuple[MemberResult, ...]
    calls: tuple[FinishedCall, ...]

    @property
    def tokens(self) -> int | None:
        """Tokens of the arm's calls, without the judges'; None where those of one are unknown."""
        return arm_tokens(self.calls)


@dataclass(frozen=True, slots=True)
class Referred:
    """What another replicate may use of an arranged one: its tokens (C), its texts (E)."""

    tokens: int
    texts: tuple[str, ...]


def arm_tokens(calls: Iterable[FinishedCall]) -> int | None:
    """Sum over the arm's calls; None where a failed one may have been charged for unsaid."""
    total = 0
    for call in calls:
        if call.purpose is not Purpose.ARM:
            continue
        if call.usage is not None:
            total += total_tokens(call.usage)
        elif not isinstance(call.outcome, Reply) and call.outcome.is_unknown_billed:
            return None
    return total


def judge_members(task: Task, members: Iterable[Member]) -> tuple[MemberResult, ...]:
    """Normalise and, where that takes no model, score the agents' own answers."""
    return tuple(
        MemberResult(
            agent=member.agent,
            model=member.model,
            first_label=_label(task, member.first),
            last_label=_label(task, member.last),
            first_score=_score(task, member.first),
            last_score=_score(task, member.last),
        )
        for member in members
    )


def _label(task: Task, reply: Reply | None) -> str | None:
    if reply is None or find_cut(task, reply) is not None:
        return None
    return task.normalise(extract_answer(reply.text))


def _score(task: Task, reply: Reply | None) -> float | None:
    if reply is None or task.is_free_text or find_cut(task, reply) is not None:
        return None
    return score_text(task, reply.text).value
