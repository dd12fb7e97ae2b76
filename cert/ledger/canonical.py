"""Canonical JSON, RFC 8785 (JCS): one value, one sequence of bytes.

orjson with sorted keys writes the same bytes as JCS except for

- floats that are integers (`1.0` for `1`), -0, those under 1e-5 (`1e-6` for `0.000001`), and
  those of 1e15 and more (`1e+16` for `10000000000000000`);
- NaN and infinities (`null`, where JCS has no form at all);
- objects with keys beyond U+FFFF beside keys of U+E000..U+FFFF (JCS sorts UTF-16 code units).

So orjson writes, and exactly those parts are written by `rfc8785` and handed to it as fragments.
Accepted are None, bool, int, float, str, list, tuple and dict with str keys, nested 64 deep at
most. Nothing of another type is converted on the way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson
import rfc8785

from cert.core.errors import CertError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1

_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_PLAIN = frozenset({str, int, bool, type(None)})
_SMALL = 1e-5
_LARGE = 1e15
_SHOWN = 24


class CanonicalError(CertError):
    """A value has no canonical form, or bytes are not in it."""


def canonical_bytes(value: object) -> bytes:
    r"""Write a value in canonical form (RFC 8785), UTF-8, without a newline.

    Args:
        value: Nested None, bool, int, float, str, list, tuple and dict with str keys.

    Returns:
        The bytes. Equal values give equal bytes whatever the order of their keys.

    Raises:
        CanonicalError: NaN or an infinity; an int beyond 2^53 - 1; a lone surrogate; a key that
            is no str; another type; nesting deeper than 64.

    >>> canonical_bytes({"b": 1.0, "a": [1e-6, 2]}).decode()
    '{"a":[0.000001,2],"b":1}'
    """
    try:
        if _orjson_is_exact(value, MAX_DEPTH):
            written = orjson.dumps(value, option=_OPTIONS)
            # Lists of numbers were only looked at for their size. These four are the other forms
            # that differ; where they stand in a text, the way below writes the same bytes again.
            if not (
                b".0," in written or b".0]" in written or b".0}" in written or b"e-" in written
            ):
                return written
        return orjson.dumps(_with_fragments(value, MAX_DEPTH), option=_OPTIONS)
    except (TypeError, rfc8785.CanonicalizationError) as error:
        raise CanonicalError(f"no canonical form: {error}") from error


def parse_canonical(line: bytes) -> dict[str, object]:
    """Read one object and make sure that its bytes are the canonical ones.

    What is written again must equal what was read, so white space, another order of keys, a
    duplicate key, another spelling of a number or a text, and a byte order mark are all refused.
    An integer literal beyond 2^53 - 1 is read as the double that it is to every JCS writer, and
    refused unless it is that double's own form (2^53 + 1 is not).

    Args:
        line: One line without its newline.

    Raises:
        CanonicalError: It is no JSON, no object, or not in canonical form; says where.
    """
    try:
        value: dict[str, object] = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CanonicalError(f"not JSON: {error}") from error
    if type(value) is not dict:
        raise CanonicalError(f"expected an object, found {type(value).__name__}")
    try:
        written = canonical_bytes(value)
    except CanonicalError:
        value = _large_integers_as_doubles(value, MAX_DEPTH)
        written = canonical_bytes(value)
    if written != line:
        pairs = enumerate(zip(line, written, strict=False))
        shorter = min(len(line), len(written))
        at = next((place for place, (found, wanted) in pairs if found != wanted), shorter)
        raise CanonicalError(
            f"not in canonical form from byte {at}: expected {written[at : at + _SHOWN]!r}, "
            f"found {line[at : at + _SHOWN]!r}"
        )
    return value


def _orjson_is_exact(value: object, room: int) -> bool:
    """Whether orjson writes JCS, but for the number forms that `canonical_bytes` looks for."""
    if type(value) in _PLAIN:
        return True
    if type(value) is float:
        return _has_one_form(value)
    if room and type(value) is dict:
        return all(
            type(key) is str
            and key.isascii()
            and (type(item) in _PLAIN or _orjson_is_exact(item, room - 1))
            for key, item in value.items()
        )
    if room and (type(value) is list or type(value) is tuple):
        return _are_moderate_numbers(value) or all(
            _orjson_is_exact(item, room - 1) for item in value
        )
    return False


def _are_moderate_numbers(values: Sequence[object]) -> bool:
    """Whether all are finite numbers below 1e15, by one call that costs far less than a loop."""
    try:
        return math.hypot(*values) < _LARGE  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False


def _has_one_form(number: float) -> bool:
    """Whether orjson and JCS write this float alike; false for NaN."""
    return _SMALL <= abs(number) < _LARGE and not number.is_integer()


def _with_fragments(value: object, room: int) -> object:
    """The value with every part that orjson would write otherwise replaced by its JCS bytes."""
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return value if _has_one_form(value) else orjson.Fragment(rfc8785.dumps(value))
    if type(value) not in {dict, list, tuple}:
        raise TypeError(f"{type(value).__name__} is no JSON type")
    if not room:
        raise TypeError(f"nested deeper than {MAX_DEPTH}")
    if type(value) is dict:
        if any(type(key) is not str for key in value):
            raise TypeError("a key is no str")
        items = {key: _with_fragments(item, room - 1) for key, item in value.items()}
        if all(key.isascii() or max(key) <= "\uffff" for key in items):
            return items
        return orjson.Fragment(rfc8785.dumps(value))
    return [
        item
        if type(item) in _PLAIN or (type(item) is float and _has_one_form(item))
        else _with_fragments(item, room - 1)
        for item in value  # type: ignore[attr-defined]
    ]


def _large_integers_as_doubles(value: Any, room: int) -> Any:  # noqa: ANN401 - what orjson read
    """Integer literals that only a double holds, as that double."""
    if type(value) is int and abs(value) > MAX_SAFE_INTEGER:
        return float(value)
    if room and type(value) is dict:
        return {k: _large_integers_as_doubles(item, room - 1) for k, item in value.items()}
    if room and type(value) is list:
        return [_large_integers_as_doubles(item, room - 1) for item in value]
    return value
