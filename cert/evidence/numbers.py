"""Numbers as records hold them: JSON has no infinity, so the infinite ones are strings."""

from __future__ import annotations

import math

INFINITE = {"inf": math.inf, "-inf": -math.inf}


def encode_number(number: float) -> float | str:
    """A number, or `"inf"` or `"-inf"`.

    Raises:
        ValueError: NaN, which no measurement yields.

    >>> encode_number(-math.inf)
    '-inf'
    """
    if math.isfinite(number):
        return number
    if math.isnan(number):
        raise ValueError("NaN is no measurement")
    return "inf" if number > 0 else "-inf"


def decode_number(value: object) -> float:
    """The number that `encode_number` wrote.

    Raises:
        ValueError: Neither a number nor one of the two strings.
    """
    if isinstance(value, str) and value in INFINITE:
        return INFINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, 'inf' or '-inf', found {value!r}")
    return value
