"""Values of a config.json for a reader that takes only what it knows for sure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotHandledError(Exception):
    """A configuration asks for something that our decoder does not do; the text names it."""


def only(values: Mapping[str, object], known: frozenset[str]) -> None:
    """Check that there is no other field.

    Raises:
        NotHandledError: There is one.
    """
    for name in values:
        if name not in known:
            raise NotHandledError(name)


def size(values: Mapping[str, object], name: str) -> int:
    """A whole number of at least 1; every one of these functions raises NotHandledError."""
    value = values.get(name)
    if type(value) is not int or value < 1:
        raise NotHandledError(name)
    return value


def flag(values: Mapping[str, object], name: str, *, default: bool) -> bool:
    """True or false, or the default where the field is missing."""
    value = values.get(name, default)
    if type(value) is not bool:
        raise NotHandledError(name)
    return value


def number(
    values: Mapping[str, object], name: str, *, above: float = -math.inf, least: float = -math.inf
) -> float:
    """A finite number, larger than `above` and no smaller than `least`."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotHandledError(name)
    if not math.isfinite(value) or value <= above or value < least:
        raise NotHandledError(name)
    return value


def optional_number(
    values: Mapping[str, object], name: str, *, above: float = -math.inf, least: float = -math.inf
) -> float | None:
    """As `number`, or None where the field is missing or null."""
    return None if values.get(name) is None else number(values, name, above=above, least=least)


def same(values: Mapping[str, object], name: str, wanted: object) -> None:
    """Check that a field is missing or has the one value that is handled."""
    if values.get(name, wanted) != wanted:
        raise NotHandledError(name)
