"""How far a run is: a bar on a terminal's stderr, and a line at the end."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cert_cli.terminal import is_live, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

    from cert.runner.tally import Tally

_INTERVAL_S = 0.2


class Meter:
    """Shows a tally while it grows; does nothing where nobody watches."""

    def __init__(self, *, is_wanted: bool, color: bool | None) -> None:
        """Prepare.

        Args:
            is_wanted: Whether progress was not switched off; it also takes a terminal.
            color: As in `style_of`.
        """
        self.is_shown = is_wanted and is_live(sys.stderr)
        self.total: int | None = None
        self._color = color
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._drawn_at = 0.0
        self._is_drawn = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Allow the bar inside, and remove it at the end."""
        if not self.is_shown:
            yield
            return
        self._progress = _bar(color=style_of(sys.stderr, color=self._color).color)
        self._task = self._progress.add_task("", total=None, counts="")
        try:
            yield
        finally:
            self.make_room()
            self._progress = None

    def make_room(self) -> None:
        """Take the bar away, so that something can be written to the same terminal."""
        if self._progress is not None and self._is_drawn:
            self._progress.stop()
            self._is_drawn = False

    def show(self, tally: Tally) -> None:
        """Draw the tally, a few times a second at most."""
        self.show_count(tally.total, partial(describe, tally))

    def show_count(self, done: int, words: Callable[[], str]) -> None:
        """Draw how much is done and what there is to say of it, likewise."""
        now = time.monotonic()
        if self._progress is None or self._task is None or now - self._drawn_at < _INTERVAL_S:
            return
        self._drawn_at = now
        if not self._is_drawn:
            self._progress.start()
            self._is_drawn = True
        self._progress.update(
            self._task,
            completed=done,
            total=self.total,
            counts=words(),
            refresh=True,
        )


def describe(tally: Tally) -> str:
    """Put the counts into words.

    >>> from cert.runner.tally import Tally
    >>> describe(Tally(passed=2, refused=1))
    '2 passed, 0 failed, 0 inconclusive, 0 errors, 1 refused'
    """
    return (
        f"{tally.passed} passed, {tally.failed} failed, {tally.inconclusive} inconclusive, "
        f"{tally.errors} errors, {tally.refused} refused"
    )


def _bar(*, color: bool) -> Progress:
    from rich.console import Console  # noqa: PLC0415 - only where a bar is shown
    from rich.progress import (  # noqa: PLC0415 - the same
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415 - the same

    class _Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("-/s" if task.speed is None else f"{task.speed:.1f}/s")

    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        console=Console(
            file=sys.stderr, no_color=not color, color_system="auto" if color else None
        ),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
