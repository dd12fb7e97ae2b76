"""What a stream can show: colour, width, and characters beyond ASCII."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_WIDTH = 100
_MIN_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Style:
    """How to draw; the defaults are those of a file.

    Attributes:
        color: Whether escape sequences may be used.
        width: Columns.
        unicode: Whether the encoding has more than ASCII.
    """

    color: bool = False
    width: int = _WIDTH
    unicode: bool = True


def style_of(stream: TextIO | None, *, color: bool | None) -> Style:
    """Look at a stream and the environment.

    Args:
        stream: stdout or stderr; None where it is closed.
        color: `--color` or `--no-color`; None leaves it to `wants_color`.
    """
    is_terminal = is_live(stream)
    width = _WIDTH
    if is_terminal:
        width = max(_MIN_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    encoding = (getattr(stream, "encoding", None) or "ascii").lower()
    return Style(
        color=wants_color(is_terminal=is_terminal) if color is None else color,
        width=width,
        unicode=encoding.startswith("utf"),
    )


def is_live(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal."""
    return stream is not None and stream.isatty()


def wants_color(*, is_terminal: bool) -> bool:
    """Decide about colour: NO_COLOR forbids, FORCE_COLOR asks for it, TERM=dumb has none.

    A variable that is set and empty counts as not set (https://no-color.org). NO_COLOR wins.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") not in {"dumb", "unknown"}
