"""What makes the program start and end sooner, and changes nothing else."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 50_000
"""How many new objects start a collection; imports make some 500,000 that stay to the end."""


def collect_rarely() -> None:
    """Let the garbage collector look at new objects by tens of thousands, not by 700."""
    gc.set_threshold(YOUNG_OBJECTS)


def leave_memory() -> None:
    """Let the interpreter end without looking for garbage: the system takes all memory back.

    stdout and stderr are still flushed, threads joined, and exit functions called; a file that
    nobody closed, and that is part of a cycle, is not flushed.
    """
    gc.freeze()
