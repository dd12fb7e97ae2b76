"""What a task says about how its answers are judged, checked when it is read.

The parameters come from the user's file, the answers from a model: patterns and schemas are
compiled by an engine of linear time, and a schema's references are never fetched.
"""

from __future__ import annotations

import math
from typing import Final, NoReturn

import jsonschema_rs
import msgspec

from cert.coordination.quantities import canonical_unit

MAX_PATTERN_CHARS: Final = 2000
MAX_CRITERIA: Final = 12
MAX_TEXTS: Final = 100
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)


class Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="exact", tag_field="name"):
    """Right if it is an expected answer, after `normalise_text`.

    Attributes:
        case: `fold` for upper case like lower case, `keep` otherwise.
        accept: Answers that are expected beside the task's.
        labels: Spellings by label, for answers from a small set.
    """

    case: str = "fold"
    accept: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if self.case not in {"fold", "keep"}:
            raise ValueError(f"case is {self.case!r}; expected fold or keep")
        _check_texts("accept", self.accept)
        for label, spellings in self.labels.items():
            _check_texts("labels", (label, *spellings))


class Numeric(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="numeric", tag_field="name"
):
    """Right if it holds one number, within `absolute` or `relative` of an expected one.

    Attributes:
        absolute: Largest difference, in the unit, >= 0.
        relative: Largest difference over the expected number, >= 0.
        unit: Unit of the expected number, and of answers that name none.
        accept: Numbers that are expected beside the task's.
    """

    absolute: float = 0.0
    relative: float = 1e-9
    unit: str | None = None
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        for name, number in (("absolute", self.absolute), ("relative", self.relative)):
            if not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name} is {number}; expected a finite number, 0 or more")
        if self.unit is not None and canonical_unit(self.unit) is None:
            raise ValueError(f"there is no unit {self.unit!r}")
        _check_texts("accept", self.accept)


class TokenF1(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="token_f1", tag_field="name"
):
    """F1 of the words that answer and expectation share, the best over the expected answers.

    Attributes:
        accept: Answers that are expected beside the task's.
    """

    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        _check_texts("accept", self.accept)


class Pattern(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="regex", tag_field="name"
):
    """Right if a regular expression (no look-around, no back references) matches.

    Attributes:
        pattern: At most `MAX_PATTERN_CHARS`.
        whole: Whether it must match all of the answer, or somewhere.
    """

    pattern: str
    whole: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be compiled."""
        if not 1 <= len(self.pattern) <= MAX_PATTERN_CHARS:
            raise ValueError(f"pattern has {len(self.pattern)} characters; expected 1 to 2,000")
        # The pattern alone first: `)|(` would compile between the brackets of `whole`.
        for pattern in (self.pattern, self.anchored):
            compile_pattern(pattern)

    @property
    def anchored(self) -> str:
        """The pattern, as it is searched for."""
        return f"^(?:{self.pattern})$" if self.whole else self.pattern


class Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="json", tag_field="name"):
    """Right if it is a JSON object that follows a schema and, where one is expected, equals it.

    Attributes:
        schema: JSON Schema, draft 2020-12, without references to other documents.
    """

    schema: dict[str, object]

    def __post_init__(self) -> None:
        """Refuse what cannot be compiled."""
        compile_schema(self.schema)


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question to a judge, answered from 0 (not at all) to 4 (entirely).

    Attributes:
        id: Names it in the judge's answer.
        text: What is asked of the candidate.
    """

    id: str
    text: str

    def __post_init__(self) -> None:
        """Refuse what a judge's answer cannot name."""
        if not (self.id.isascii() and self.id.isidentifier() and len(self.id) <= 64):  # noqa: PLR2004 - a name's length
            raise ValueError(f"criterion {self.id!r}: expected letters, digits, _, at most 64")
        if not self.text.strip():
            raise ValueError(f"criterion {self.id!r} asks nothing")


class Judged(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="judge", tag_field="name"
):
    """Scored by models, criterion by criterion; the task's answer, if any, is shown to them.

    Attributes:
        rubric: 1 to 12 criteria.
    """

    rubric: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        ids = [criterion.id for criterion in self.rubric]
        if not 1 <= len(ids) <= MAX_CRITERIA:
            raise ValueError(f"{len(ids)} criteria; expected 1 to {MAX_CRITERIA}")
        if len(set(ids)) < len(ids):
            raise ValueError("a criterion stands there twice")


class Compared(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="judge_pair", tag_field="name"
):
    """Compared by models with the task's answer: 1 if better, 0.5 if neither, 0 if worse.

    Attributes:
        question: What better means.
    """

    question: str

    def __post_init__(self) -> None:
        """Refuse what asks nothing."""
        if not self.question.strip():
            raise ValueError("question is empty")


Parameters = Exact | Numeric | TokenF1 | Pattern | Object | Judged | Compared


def compile_pattern(pattern: str) -> jsonschema_rs.Draft202012Validator:
    """Compile a regular expression, to search texts with in linear time.

    Raises:
        ValueError: It is none, or uses what has no linear time.
    """
    try:
        return jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=_PATTERNS)
    except ValueError:
        raise ValueError(
            "pattern is no regular expression that this engine takes (no look-around, no "
            "back references, 1 MiB compiled)"
        ) from None


def compile_schema(schema: dict[str, object]) -> jsonschema_rs.Draft202012Validator:
    """Compile a schema.

    Raises:
        ValueError: It is none, or refers to another document.
    """
    try:
        return jsonschema_rs.Draft202012Validator(
            schema, pattern_options=_PATTERNS, retriever=_retrieve_nothing
        )
    except ValueError as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"schema is no JSON Schema that can be used: {reason}") from None


def _retrieve_nothing(_uri: str) -> NoReturn:
    raise ValueError("references to other documents are not followed")


def _check_texts(name: str, texts: tuple[str, ...]) -> None:
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"{name} holds {len(texts)} texts; at most {MAX_TEXTS} are accepted")
    if not all(text.strip() for text in texts):
        raise ValueError(f"{name} holds an empty text")
