"""JSON Lines: an object a line."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from cert.core.errors import InvalidInput, PromptTooLong
from cert.inputs.lines import split_pieces
from cert.inputs.rows import Row, build_row, decode_utf8, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cert.inputs.case import RefusedInput
    from cert.inputs.options import ReadOptions

MAX_DEPTH = 64
MAX_DIGITS = 400

# Strings are matched whole, so that brackets inside them don't count; the closing quote is
# optional and the quantifiers are possessive, so that nothing is ever scanned twice.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def read_jsonl(
    read: Callable[[], bytes], source: str, options: ReadOptions
) -> Iterator[Row | RefusedInput]:
    """Read prompts from JSON Lines.

    A line ends with LF or CRLF and holds one object; lines of nothing but white space are
    skipped and count in the line numbers. Refused are, beyond what is no JSON (RFC 8259): a key
    that occurs twice in one object however it is spelt, NaN and Infinity, numbers that no float
    can hold, integers of more than 400 digits, nesting deeper than 64. What the fields may
    hold is said in `build_row`; null is the same as absent.

    Args:
        read: Returns the next bytes, none at the end; a byte order mark is gone already.
        source: For the refusals.
        options: Field names and limits.
    """
    for line, data in split_pieces(read, limit_bytes=options.max_record_bytes):
        if data is not None and not data.strip(b" \t\r"):
            continue
        try:
            row = _parse(data, line, options)
        except InvalidInput as error:
            yield refuse(source, line, error)
        else:
            yield row


def _parse(data: bytes | None, line: int, options: ReadOptions) -> Row:
    if data is None:
        raise PromptTooLong(
            f"longer than {options.max_record_bytes:,} bytes; no accepted prompt needs that"
        )
    values = parse_object(decode_utf8(data))
    for name in options.required_fields:
        if name not in values:
            raise InvalidInput(f"there is no field {name!r}")
    return build_row(values, line, options)


def parse_object(text: str) -> dict[str, object]:
    r"""Parse one JSON object strictly.

    >>> parse_object('{"a": 1}')
    {'a': 1}
    >>> parse_object(r'{"a": 1, "\u0061": 2}')
    Traceback (most recent call last):
    cert.core.errors.InvalidInput: not acceptable JSON: a key occurs twice in one object

    Raises:
        InvalidInput: With a reason that does not repeat the text.
    """
    _refuse_deep(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.rstrip(": ").removesuffix(" at")
        raise InvalidInput(f"not JSON: {what} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise InvalidInput("not a JSON object")
    return value


def _refuse_deep(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidInput(f"not acceptable JSON: nested deeper than {MAX_DEPTH}")
        elif first in "]}":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise InvalidInput("not acceptable JSON: a key occurs twice in one object")
    return values


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise InvalidInput("not acceptable JSON: a number that no float can hold")
    return value


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidInput(f"not acceptable JSON: an integer of {len(digits):,} digits")
    return int(digits)


def _no_constant(_name: str) -> object:
    raise InvalidInput("not JSON: NaN and Infinity are no JSON numbers")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_finite,
    parse_int=_short_int,
    parse_constant=_no_constant,
)
