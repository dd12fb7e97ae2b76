"""Canonical JSON, RFC 8785 (JCS): one value, one sequence of bytes.

orjson with sorted keys writes the same bytes as JCS except for

- floats that are integers (`1.0` for `1`), -0, those under 1e-5 (`1e-6` for `0.000001`), and
  those of 1e15 and more (`1e+16` for `10000000000000000`);
- NaN and infinities (`null`, where JCS has no form at all);
- objects with keys beyond U+FFFF beside keys of U+E000..U+FFFF (JCS sorts UTF-16 code units).

So orjson writes. The first kind is then set right in the bytes, which keeps a record of a confident
model (many logprobs near 0) as fast as any other; for large numbers and such keys `rfc8785` writes
those parts, and orjson takes them over as fragments; NaN and infinities are refused.
Accepted are None, bool, int, float, str, list, tuple and dict with str keys, nested 64 deep at
most. Nothing of another type is converted on the way.
"""

from __future__ import annotations

import math
import re
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
_LARGE = 1e15
# Each begins with a literal: the search is then several times faster than one for a class.
_DIFFERS = re.compile(rb"\.0[,\]}]"), re.compile(rb"e-[56]")
_MINUS_ZERO = re.compile(rb"-0\.0(?=[,\]}])")
_INTEGRAL = re.compile(rb"\.0(?=[,\]}])")
_SMALL = re.compile(rb"e-([56])(?![0-9])")
_BEFORE_NUMBER = re.compile(rb"[,:\[]")
_MANTISSA_BYTES = 20  # a sign, 17 digits and a point at most
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
        if _is_moderate(value, MAX_DEPTH):
            written = orjson.dumps(value, option=_OPTIONS)
            # No text, and so no key, has a character beyond U+FFFF, whose UTF-8 begins with F0..F4.
            if len(written.translate(None, b"\xf0\xf1\xf2\xf3\xf4")) == len(written):
                return with_jcs_numbers(written)
        return with_jcs_numbers(orjson.dumps(_with_fragments(value, MAX_DEPTH), option=_OPTIONS))
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


def _is_moderate(value: Any, room: int) -> bool:  # noqa: ANN401 - any value, by its exact type
    """Whether it holds the accepted types only, numbers below 1e15, and is not too deep."""
    kind = type(value)
    if kind is float:
        return bool(abs(value) < _LARGE)
    if kind is dict:
        items = value.values()
    elif kind is list or kind is tuple:
        items = () if _are_moderate_numbers(value) else value
    else:
        return kind in _PLAIN
    if not room:
        return False
    # A loop: `all` over a generator takes twice the time, and this is most of a record's cost.
    for item in items:
        if type(item) not in _PLAIN and not _is_moderate(item, room - 1):
            return False
    return True


def _are_moderate_numbers(values: Sequence[Any]) -> bool:
    """Whether all are finite numbers below 1e15, by one call that costs far less than a loop."""
    try:
        return math.hypot(*values) < _LARGE
    except (TypeError, OverflowError):
        return False


def with_jcs_numbers(written: bytes) -> bytes:
    """Give integral and small floats of orjson's output their JCS form; texts stay as they are."""
    written += b","
    if not any(form.search(written) for form in _DIFFERS):
        return written[:-1]
    # Without escaped quotes, every second part between quotes is outside of all texts. 0xFE and
    # 0xFF occur nowhere in UTF-8. A run of backslashes begins with an escape, so pairs are found
    # as they were meant.
    escaped = b"\\" in written
    if escaped:
        written = written.replace(b"\\\\", b"\xff").replace(b'\\"', b"\xfe")
    parts = written.split(b'"')
    outside = b'"'.join(parts[::2])
    outside = _INTEGRAL.sub(b"", _MINUS_ZERO.sub(b"0", outside))
    parts[::2] = _without_exponents(outside).split(b'"')
    written = b'"'.join(parts)
    if escaped:
        written = written.replace(b"\xfe", b'\\"').replace(b"\xff", b"\\\\")
    return written[:-1]


def _without_exponents(numbers: bytes) -> bytes:
    """Turn `1.5e-6` into `0.0000015`; JCS has exponents from e-7 on."""
    parts = _SMALL.split(numbers)  # numbers, exponent, numbers, ..., numbers
    for place in range(1, len(parts), 2):
        before = parts[place - 1]
        mantissa = _BEFORE_NUMBER.split(before[-_MANTISSA_BYTES:])[-1]
        parts[place - 1] = before[: len(before) - len(mantissa)]
        sign = b"-" if mantissa.startswith(b"-") else b""
        zeros = b"0" * (int(parts[place]) - 1)
        parts[place] = sign + b"0." + zeros + mantissa.lstrip(b"-").replace(b".", b"")
    return b"".join(parts)


def _with_fragments(value: object, room: int) -> object:
    """The value with large numbers and objects of odd keys replaced by their JCS bytes."""
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return value if abs(value) < _LARGE else orjson.Fragment(rfc8785.dumps(value))
    if type(value) not in {dict, list, tuple}:
        raise TypeError(f"{type(value).__name__} is no JSON type")
    if not room:
        raise TypeError(f"nested deeper than {MAX_DEPTH}")
    if type(value) is not dict:
        return [_with_fragments(item, room - 1) for item in value]  # type: ignore[attr-defined]
    if any(type(key) is not str for key in value):
        raise TypeError("a key is no str")
    items = {key: _with_fragments(item, room - 1) for key, item in value.items()}
    if all(key.isascii() or max(key) <= "\uffff" for key in items):
        return items
    return orjson.Fragment(rfc8785.dumps(value))


def _large_integers_as_doubles(value: Any, room: int) -> Any:  # noqa: ANN401 - what orjson read
    """Integer literals that only a double holds, as that double."""
    if type(value) is int and abs(value) > MAX_SAFE_INTEGER:
        return float(value)
    if room and type(value) is dict:
        return {k: _large_integers_as_doubles(item, room - 1) for k, item in value.items()}
    if room and type(value) is list:
        return [_large_integers_as_doubles(item, room - 1) for item in value]
    return value
