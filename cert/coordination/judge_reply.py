"""A judge's reply, held to what it was asked for. Nothing is repaired, rounded or guessed."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.coordination.answers import find_object
from cert.core.errors import CertError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.coordination.evaluator_parameters import Criterion

MAX_SCORE: Final = 4
MAX_REPLY_CHARS: Final = 100_000
_SPACE: Final = re.compile(r"\s+")
_QUOTES: Final = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2013": "-", "\u2014": "-"}
)
_BETTER: Final = ("first", "second", "neither")


class InvalidVerdictError(CertError):
    """A judge's reply is none; the message says why, without the reply's own text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a judge says to one criterion.

    Attributes:
        criterion: Its id.
        quote: Words of the candidate; empty only with a score of 0.
        score: 0 to 4.
    """

    criterion: str
    quote: str
    score: int


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge says to a pair: `first`, `second` or `neither`, with words of both."""

    better: str
    first_quote: str
    second_quote: str


def marks_schema(rubric: Sequence[Criterion]) -> dict[str, object]:
    """The JSON schema of a verdict: the quote stands before the score."""
    mark = {
        "type": "object",
        "properties": {
            "quote": {"type": "string"},
            "score": {"type": "integer", "enum": list(range(MAX_SCORE + 1))},
        },
        "required": ["quote", "score"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {criterion.id: mark for criterion in rubric},
        "required": [criterion.id for criterion in rubric],
        "additionalProperties": False,
    }


def preference_schema() -> dict[str, object]:
    """The JSON schema of a comparison."""
    names = ("first_quote", "second_quote", "better")
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "first_quote": text,
            "second_quote": text,
            "better": {"type": "string", "enum": list(_BETTER)},
        },
        "required": list(names),
        "additionalProperties": False,
    }


def parse_marks(reply: str, rubric: Sequence[Criterion], candidate: str) -> tuple[Mark, ...]:
    """Read a verdict.

    Args:
        reply: Untrusted.
        rubric: Every criterion must be there, and nothing else.
        candidate: What the quotes must be words of.

    Raises:
        InvalidVerdictError: Anything else than integers 0 to 4 with words of the candidate.
    """
    given = _object(reply)
    if set(given) != {criterion.id for criterion in rubric}:
        raise InvalidVerdictError("its members are not the criteria")
    marks = []
    for criterion in rubric:
        mark = given[criterion.id]
        if not isinstance(mark, dict) or set(mark) != {"quote", "score"}:
            raise InvalidVerdictError(f"{criterion.id}: not an object of quote and score")
        quote, score = mark["quote"], mark["score"]
        if type(score) is not int or not 0 <= score <= MAX_SCORE:
            raise InvalidVerdictError(f"{criterion.id}: the score is no integer from 0 to 4")
        if not isinstance(quote, str):
            raise InvalidVerdictError(f"{criterion.id}: the quote is no text")
        if score and not quote.strip():
            raise InvalidVerdictError(f"{criterion.id}: a score above 0 without a quote")
        if not is_quoted(quote, candidate):
            raise InvalidVerdictError(f"{criterion.id}: the quote is not in the answer")
        marks.append(Mark(criterion.id, quote, score))
    return tuple(marks)


def parse_preference(reply: str, first: str, second: str) -> Preference:
    """Read a comparison of two texts.

    Raises:
        InvalidVerdictError: Another object, or quotes that are not words of the texts.
    """
    given = _object(reply)
    if set(given) != {"first_quote", "second_quote", "better"}:
        raise InvalidVerdictError("its members are not first_quote, second_quote and better")
    better, first_quote, second_quote = (
        given["better"],
        given["first_quote"],
        given["second_quote"],
    )
    if not isinstance(first_quote, str) or not isinstance(second_quote, str):
        raise InvalidVerdictError("a quote is no text")
    if not isinstance(better, str) or better not in _BETTER:
        raise InvalidVerdictError("better is neither first nor second nor neither")
    if not (is_quoted(first_quote, first) and is_quoted(second_quote, second)):
        raise InvalidVerdictError("a quote is not in its answer")
    if better != "neither" and not (first_quote.strip() or second_quote.strip()):
        raise InvalidVerdictError("a decision without a quote")
    return Preference(better, first_quote, second_quote)


def is_quoted(quote: str, text: str) -> bool:
    """Whether a text holds a quote, however spaces, case and quotation marks are written."""
    return _plain(quote) in _plain(text)


def _object(reply: str) -> dict[str, object]:
    if len(reply) > MAX_REPLY_CHARS:
        raise InvalidVerdictError(f"longer than {MAX_REPLY_CHARS:,} characters")
    try:
        return find_object(reply)
    except InvalidInput as error:
        raise InvalidVerdictError(error.message) from None


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return _SPACE.sub(" ", plain).strip()
