"""Evaluators that compute: the same answer, the same score, without a call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cert.coordination.answers import (
    extract_answer,
    find_object,
    normalise_label,
    normalise_text,
)
from cert.coordination.evaluator import Score, Unscored
from cert.coordination.evaluator_parameters import (
    Exact,
    Numeric,
    Object,
    Pattern,
    TokenF1,
    compile_pattern,
    compile_schema,
)
from cert.coordination.quantities import canonical_unit, find_quantity
from cert.core.errors import InvalidInput

if TYPE_CHECKING:
    from cert.coordination.evaluator import Candidate
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Ask

_SHOWN_CHARS: Final = 300
MAX_ANSWER_CHARS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Computed:
    """The evaluator of every task that no model has to judge."""

    is_free: bool = True

    async def evaluate(self, task: Task, candidate: Candidate, ask: Ask) -> Score | Unscored:  # noqa: ARG002 - the interface
        """Judge one candidate."""
        return score_text(task, candidate.text)


def score_text(task: Task, reply: str) -> Score:
    """Judge a reply by computing.

    Args:
        task: With an evaluator that is not a judge.
        reply: Untrusted; of it the final answer is judged. A reply of more than
            `MAX_ANSWER_CHARS` is wrong.

    Raises:
        TypeError: The task's evaluator is a judge.
    """
    if len(reply) > MAX_ANSWER_CHARS:
        return Score(0.0, {"why": f"longer than {MAX_ANSWER_CHARS:,} characters"})
    found = extract_answer(reply)
    if found is None:
        return Score(0.0, {"why": "no answer"})
    evidence: dict[str, object] = {"answer": found.text[:_SHOWN_CHARS], "found": found.found.value}
    match task.evaluator:
        case Exact() as kind:
            value, why = _exact(kind, task.expected, found.text)
        case Numeric() as kind:
            value, why = _numeric(kind, task.expected, found.text)
        case TokenF1():
            value, why = max(token_f1(text, found.text) for text in task.expected), "shared words"
        case Pattern() as kind:
            is_match = compile_pattern(kind.anchored).is_valid(found.text)
            value, why = float(is_match), "matches" if is_match else "no match"
        case Object() as kind:
            value, why = _object(kind, task.expected, found.tail)
        case _:
            raise TypeError(f"{type(task.evaluator).__name__} is judged by models")
    return Score(value, {**evidence, "why": why})


def token_f1(expected: str, answer: str) -> float:
    """F1 of two bags of words, in [0, 1]; word order does not count.

    >>> token_f1("the red house", "a red house")
    0.6666666666666666
    """
    wanted, given = (Counter(_words(text)) for text in (expected, answer))
    shared = (wanted & given).total()
    if not shared:
        return 0.0
    return 2 * shared / (wanted.total() + given.total())


def _words(text: str) -> list[str]:
    plain = normalise_text(text)
    return "".join(char if char.isalnum() else " " for char in plain).split()


def _exact(kind: Exact, expected: tuple[str, ...], answer: str) -> tuple[float, str]:
    fold = kind.case == "fold"
    given = normalise_label(answer, kind.labels, fold_case=fold)
    wanted = {normalise_label(text, kind.labels, fold_case=fold) for text in expected}
    return (1.0, "as expected") if given in wanted else (0.0, "not as expected")


def _numeric(kind: Numeric, expected: tuple[str, ...], answer: str) -> tuple[float, str]:
    quantity = find_quantity(answer)
    if quantity is None:
        return 0.0, "there is not one number"
    unit = canonical_unit(kind.unit) if kind.unit else None
    number = quantity.in_unit(unit)
    if number is None:
        return 0.0, f"{quantity.unit} where {unit} is asked for"
    for text in expected:
        known = find_quantity(text)
        wanted = known.in_unit(unit) if known else None
        if wanted is None:  # pragma: no cover - a task with such an answer is refused
            continue
        room = max(Fraction(kind.absolute), Fraction(kind.relative) * abs(wanted))
        if abs(number - wanted) <= room:
            return 1.0, "within the tolerance"
    return 0.0, "outside of the tolerance"


def _object(kind: Object, expected: tuple[str, ...], answer: str) -> tuple[float, str]:
    try:
        given = find_object(answer)
        is_valid = compile_schema(kind.schema).is_valid(given)
    except (InvalidInput, ValueError) as error:
        # ValueError: a lone surrogate, which the validator cannot take.
        return 0.0, error.message if isinstance(error, InvalidInput) else "not valid Unicode"
    if not is_valid:
        return 0.0, "does not follow the schema"
    if not expected:
        return 1.0, "follows the schema"
    is_equal = any(_same(given, find_object(text)) for text in expected)
    return float(is_equal), "equal" if is_equal else "follows the schema, and is another"


def _same(one: object, other: object) -> bool:
    """Equality of JSON, where true is not 1 and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
