"""Which columns of a table to read."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.inputs.options import ReadOptions

_SHOWN_COLUMNS = 20
_SHOWN_CHARS = 60


def choose_columns(found: Sequence[str], source: str, options: ReadOptions) -> dict[str, int]:
    """Find the columns that the options name.

    Args:
        found: The table's column names, in order.
        source: For the message.
        options: The field names; see `ReadOptions.required_fields`.

    Returns:
        Position by name, of those that are there.

    Raises:
        ConfigurationError: A required column is missing, or one of those named is there twice.
    """
    for name in options.required_fields:
        if name not in found:
            close = get_close_matches(name, found[:1000], n=1)
            hint = f"did you mean {_show(close[0])}? Choose a column" if close else "choose one"
            raise ConfigurationError(
                f"{source}: there is no column {name!r}; found: {_list(found)}",
                hint=f"{hint} with --prompt-field, --id-field, --response-field or --label-field",
            )
    chosen: dict[str, int] = {}
    for name in options.all_fields:
        positions = [position for position, column in enumerate(found) if column == name]
        if len(positions) > 1:
            raise ConfigurationError(f"{source}: there are {len(positions)} columns {name!r}")
        if positions:
            chosen[name] = positions[0]
    return chosen


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(_show(name) for name in names[:_SHOWN_COLUMNS])
    more = len(names) - _SHOWN_COLUMNS
    return f"{shown} and {more} more" if more > 0 else shown


def _show(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "...")
