"""A task: a prompt whose answers can be judged, and which belongs to a group of alike ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from cert.coordination.answers import (
    find_object,
    normalise_label,
    normalise_number,
    normalise_object,
    normalise_text,
)
from cert.coordination.digests import digest_of
from cert.coordination.evaluator_parameters import (
    Compared,
    Exact,
    Judged,
    Numeric,
    Object,
    Parameters,
    TokenF1,
    compile_schema,
)
from cert.coordination.quantities import find_quantity
from cert.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.coordination.answers import FinalAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        id: Given by the input.
        group_id: Tasks of one group may be alike, tasks of different ones are independent; its own
            id where the input gives none.
        prompt: What is asked.
        evaluator: How answers are judged.
        expected: Answers that are right, the task's own first; none where the evaluator needs none.
        source: File of the task, not part of its digest.
        line: 1-based line in it; the same.

    Raises:
        InvalidInput: The evaluator needs an expected answer and there is none, or it cannot be
            one (no number, no object that follows the schema).
    """

    id: str
    group_id: str
    prompt: str
    evaluator: Parameters
    expected: tuple[str, ...] = ()
    source: str = field(default="argument", compare=False)
    line: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        """Refuse tasks that no answer could be right for."""
        kind = self.evaluator
        if isinstance(kind, Exact | Numeric | TokenF1 | Compared) and not self.expected:
            raise InvalidInput("there is no label, and the evaluator needs one")
        if isinstance(kind, Numeric):
            for text in self.expected:
                _check_number(text, kind)
        if isinstance(kind, Object):
            for text in self.expected:
                _check_object(text, kind)

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical bytes (RFC 8785) of everything but the place."""
        return digest_of(
            {
                "id": self.id,
                "group_id": self.group_id,
                "prompt": self.prompt,
                "evaluator": msgspec.to_builtins(self.evaluator),
                "expected": list(self.expected),
            }
        )

    @property
    def is_free_text(self) -> bool:
        """Whether answers are texts that nobody would word the same: no vote, no consensus."""
        return isinstance(self.evaluator, Judged | Compared)

    def normalise(self, answer: FinalAnswer | None) -> str | None:
        """One spelling for answers that mean the same in this task.

        Returns:
            None where there is no answer of the kind that the task asks for, or it is free text.
        """
        if answer is None or self.is_free_text:
            return None
        match self.evaluator:
            case Exact(case=case, labels=labels):
                return normalise_label(answer.text, labels, fold_case=case == "fold") or None
            case Numeric(unit=unit):
                return normalise_number(answer.text, unit)
            case Object():
                return normalise_object(answer.tail)
        return normalise_text(answer.text) or None


def find_shared_labels(tasks: Sequence[Task]) -> tuple[str, ...] | None:
    """The closed set of labels of all tasks, normalised and sorted; None where they share none.

    Args:
        tasks: At least one.
    """
    first = tasks[0].evaluator
    if not isinstance(first, Exact) or not first.labels:
        return None
    for task in tasks:
        kind = task.evaluator
        if not isinstance(kind, Exact) or kind.case != first.case:
            return None
        if kind.labels.keys() != first.labels.keys():
            return None
    fold_case = first.case == "fold"
    return tuple(sorted({normalise_text(label, fold_case=fold_case) for label in first.labels}))


def _check_number(text: str, kind: Numeric) -> None:
    quantity = find_quantity(text)
    if quantity is None or quantity.in_unit(kind.unit) is None:
        raise InvalidInput("an expected answer is no number in the evaluator's unit")


def _check_object(text: str, kind: Object) -> None:
    if not compile_schema(kind.schema).is_valid(find_object(text)):
        raise InvalidInput("the expected answer does not follow the schema")
