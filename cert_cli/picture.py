"""A text with each token's surprise shown: by background colour, or by marks without colour."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

from rich.text import Text

from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert_cli.terminal import Style

# A token is of level n where its probability lies below the n-th of these.
_PROBABILITIES = (0.5, 0.1, 0.01, 0.001)
_SURPRISALS = tuple(-math.log(one) for one in _PROBABILITIES)
_MARKED_FROM = 2
_COLORS = ("", "on color(229)", "on color(222)", "on color(215)", "bold on color(203)")
_INK = "color(16)"


def level_of(logprob: float) -> int:
    """Grade a token's surprise from 0 (p >= 0.5) to 4 (p < 0.001).

    >>> [level_of(math.log(p)) for p in (0.9, 0.2, 0.05, 0.002, 0.0001)]
    [0, 1, 2, 3, 4]
    """
    return bisect.bisect_left(_SURPRISALS, -logprob)


def draw(pieces: Sequence[str], logprobs: Sequence[float], style: Style) -> Text:
    """Draw a text; every piece is untrusted and escaped, line breaks stay visible breaks."""
    text = Text(overflow="fold")
    for piece, logprob in zip(pieces, logprobs, strict=True):
        level = level_of(logprob)
        lines = [escape_controls(line) for line in piece.split("\n")]
        shown = ("\u21b5\n" if style.unicode else "\\n\n").join(lines)
        if style.color:
            text.append(shown, f"{_INK} {_COLORS[level]}" if level else "")
        elif level >= _MARKED_FROM:
            text.append(f"[{level}:{shown}]")
        else:
            text.append(shown)
    return text


def legend(style: Style) -> Text:
    """Explain the levels."""
    names = [f"p<{one:g}" for one in _PROBABILITIES]
    if style.color:
        text = Text("surprise: ")
        for level, name in enumerate(names, start=1):
            text.append(f" {name} ", f"{_INK} {_COLORS[level]}")
        return text
    marked = names[_MARKED_FROM - 1 :]
    marks = [f"[{level}:...] {name}" for level, name in enumerate(marked, start=_MARKED_FROM)]
    return Text("surprise: " + "  ".join(marks))
