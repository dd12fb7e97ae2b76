"""The final answer in a reply, and one spelling for answers that mean the same.

Agreement between agents, votes and exact comparison all go through here, so that they can't differ.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cert.coordination.quantities import canonical_unit, find_quantity, round_number
from cert.core.errors import InvalidInput
from cert.inputs.jsonl_rows import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER: Final = "ANSWER:"
"""What the prompts ask a final answer to be introduced with."""

_MARKER_LINE: Final = re.compile(
    r"^[ \t>*_#`-]{0,8}(?:final[ \t]+)?answer[ \t*_]{0,4}[:\uff1a][ \t]*(?P<rest>[^\r\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED: Final = re.compile(r"\\boxed\{([^{}\r\n]{0,400})\}")
_SPACE: Final = re.compile(r"\s+")
_MARKS: Final = " \t\r\n*_`\"'\u201c\u201d\u2018\u2019"
_END: Final = ".!;,"
_FENCE: Final = re.compile(r"```[a-z]{0,8}[ \t]*\n(?P<body>.*?)```", re.DOTALL | re.IGNORECASE)


class Found(StrEnum):
    """Where a final answer stood."""

    MARKER = "marker"
    BOXED = "boxed"
    WHOLE = "whole"
    """Nothing marks one: the reply as a whole is the answer."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """A final answer as it was written, and where it stood.

    Attributes:
        text: Of one line, where a marker precedes it.
        found: Where it stood.
        tail: All from there on, for answers that take several lines.
    """

    text: str
    found: Found
    tail: str


def extract_answer(reply: str) -> FinalAnswer | None:
    r"""Find the final answer: after the last marker, else in the last `\boxed{}`, else all of it.

    Where the last marker's line is empty, the answer is the text that follows it. Lone surrogates
    become question marks: nothing can be written that holds one.

    Returns:
        None where the reply, or what follows its marker, is blank.

    >>> extract_answer("It takes 3 hours.\n**ANSWER:** 180 min").text
    '180 min'
    """
    reply = reply if reply.isascii() else reply.encode(errors="replace").decode()
    marker = None
    for marker in _MARKER_LINE.finditer(reply):  # noqa: B007 - the last one is wanted
        pass
    if marker is not None:
        tail = reply[marker.start("rest") :].strip()
        rest = marker["rest"].strip(_MARKS) or tail
        boxed = _BOXED.search(rest)
        text = boxed[1].strip() if boxed else rest
        return FinalAnswer(text, Found.MARKER, tail) if text else None
    boxes = [text for text in _BOXED.findall(reply) if text.strip()]
    if boxes:
        return FinalAnswer(boxes[-1].strip(), Found.BOXED, boxes[-1])
    whole = reply.strip()
    return FinalAnswer(whole, Found.WHOLE, whole) if whole else None


def is_answer_closed(reply: str) -> bool:
    r"""Whether the last marked answer's line has an end, so that nothing of it is missing.

    >>> is_answer_closed("ANSWER: 12\nThat is"), is_answer_closed("ANSWER: 1")
    (True, False)
    """
    marker = None
    for marker in _MARKER_LINE.finditer(reply):  # noqa: B007 - the last one is wanted
        pass
    return marker is not None and marker.end() < len(reply)


def normalise_text(text: str, *, fold_case: bool = True) -> str:
    """One spelling: NFKC, no outer quotes, emphasis or final punctuation, single spaces.

    >>> normalise_text('  "The\u00a0\uff21nswer".  ')
    'the answer'
    """
    plain = unicodedata.normalize("NFKC", text)
    if fold_case:
        plain = unicodedata.normalize("NFKC", plain.casefold())
    return _SPACE.sub(" ", plain).rstrip(_MARKS + _END).lstrip(_MARKS)


def normalise_label(text: str, labels: Mapping[str, tuple[str, ...]], *, fold_case: bool) -> str:
    """The label that a text spells; the text, normalised, where it spells none.

    Args:
        text: An answer.
        labels: Spellings by label; a label is always a spelling of itself.
        fold_case: Whether upper and lower case are the same.
    """
    plain = normalise_text(text, fold_case=fold_case)
    for label, spellings in labels.items():
        if any(normalise_text(one, fold_case=fold_case) == plain for one in (label, *spellings)):
            return normalise_text(label, fold_case=fold_case)
    return plain


def normalise_number(text: str, unit: str | None) -> str | None:
    """The one number in a text, in a unit; None where there is none of that kind.

    >>> normalise_number("1.5 km", "m"), normalise_number("1 500", "m")
    ('1500', '1500')
    """
    quantity = find_quantity(text)
    if quantity is None:
        return None
    number = quantity.in_unit(canonical_unit(unit) if unit else None)
    return None if number is None else round_number(number)


def find_object(text: str) -> dict[str, object]:
    """The JSON object that a text is, or holds in a code fence or between its outer braces.

    Raises:
        InvalidInput: There is none that `parse_object` accepts.
    """
    fences = [match["body"] for match in _FENCE.finditer(text)]
    begin, end = text.find("{"), text.rfind("}")
    if fences:
        candidate = fences[-1].strip()
    elif 0 <= begin < end:
        candidate = text[begin : end + 1]
    else:
        raise InvalidInput("there is no JSON object")
    return parse_object(candidate)


def normalise_object(text: str) -> str | None:
    """The JSON object in a text with sorted keys and no spaces; None where there is none."""
    try:
        value = find_object(text)
    except InvalidInput:
        return None
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
