"""Evaluators: an answer goes in, a score with its evidence comes out, or why there is none.

    deterministic       evaluators.py      exact, numeric, token_f1, regex, json
    by models           judge.py           judge, criterion by criterion
                        judge_pair.py      judge_pair, against the expected answer

A model that answers badly is worth 0. That no answer could be judged is never a score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Ask


class Reason(StrEnum):
    """Why there is no score."""

    CALL_FAILED = "call_failed"
    MAX_TOKENS = "max_tokens"
    """The reply was cut off before its end."""
    REFUSAL = "refusal"
    JUDGE_FAILED = "judge_failed"
    """A call to a judge failed."""
    JUDGE_INVALID = "judge_invalid"
    """A judge gave no valid answer, twice."""
    REFERENCE_UNSCORED = "reference_unscored"
    """The replicate whose tokens or texts this one was to be given is missing."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth.

    Attributes:
        value: In [0, 1].
        evidence: What the score rests on, as JSON.
        flags: What a reader should know, for example `self_preference_risk`.

    Raises:
        ValueError: The value is outside [0, 1].
    """

    value: float
    evidence: Mapping[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no score."""
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score of {self.value!r}; expected 0 to 1")


@dataclass(frozen=True, slots=True)
class Unscored:
    """That there is no score.

    Attributes:
        reason: Why.
        detail: The same in words, without a reply's own text.
        evidence: What there is all the same, as JSON.
    """

    reason: Reason
    detail: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        """For the statistics: the reason, and the detail where there is one."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is judged.

    Attributes:
        text: The reply that holds the final answer.
        models: Who wrote it, as asked and as answered; for `self_preference_risk`.
    """

    text: str
    models: frozenset[str] = frozenset()


class Evaluator(Protocol):
    """Judges candidates for tasks of its kind."""

    @property
    def is_free(self) -> bool:
        """Whether it makes no calls."""

    async def evaluate(self, task: Task, candidate: Candidate, ask: Ask) -> Score | Unscored:
        """Judge one candidate.

        Args:
            task: Its evaluator is one of this kind.
            candidate: Untrusted text.
            ask: Makes calls that are recorded with the replicate.
        """
