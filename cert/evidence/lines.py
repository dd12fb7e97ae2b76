"""Canonical lines, read at the cost of reading and writing them once.

`parse_canonical` is right for every line. For nearly every line of a ledger, orjson alone gives the
same answer: what it read and writes again with sorted keys, its numbers put right, is the line
itself, and nothing in it is of the other forms where orjson and RFC 8785 differ
(`cert.ledger.canonical` lists them).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from cert.ledger.canonical import MAX_DEPTH, parse_canonical, with_jcs_numbers

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_LARGE = orjson.dumps(1e16)[1:-2]
"""How a large float begins its exponent, `e+`; with an orjson that writes `e` alone no line is
plain, which is slower and as right."""
_INTEGRAL = re.compile(rb"\.0[,\]}]")
_SMALL = re.compile(rb"e-[56][,\]}]")
_BEYOND_BMP = b"\xf0\xf1\xf2\xf3\xf4"


def parse_line(line: bytes) -> dict[str, Any]:
    """Read one object and make sure that its bytes are the canonical ones.

    Args:
        line: One line without its newline.

    Raises:
        CanonicalError: It is no JSON, no object, or not in canonical form; says where.
    """
    if _is_plain(line):
        try:
            value = orjson.loads(line)
            if type(value) is dict and is_rewritten(line, orjson.dumps(value, option=_OPTIONS)):
                return value
        except (orjson.JSONDecodeError, TypeError):
            pass  # said better below
    return parse_canonical(line)


def is_rewritten(line: bytes, written: bytes) -> bool:
    """Whether a line is what a fast writer wrote, but for numbers that RFC 8785 writes otherwise.

    Args:
        line: What was read.
        written: What was written of it by orjson or msgspec, in the order of RFC 8785; no large
            floats.
    """
    if line == written and not _INTEGRAL.search(line) and not _SMALL.search(line):
        return True
    return with_jcs_numbers(written) == line


def _is_plain(line: bytes) -> bool:
    """Whether nothing looks like a large float, an odd key or deep nesting."""
    return not (
        # One byte is found several times faster than two, and a plus is rare.
        (_LARGE[-1:] in line and _LARGE in line)
        # Taking bytes out is the fastest way to count them.
        or 2 * len(line) - len(line.replace(b"[", b"")) - len(line.replace(b"{", b"")) > MAX_DEPTH
        or not (line.isascii() or len(line.translate(None, _BEYOND_BMP)) == len(line))
    )
