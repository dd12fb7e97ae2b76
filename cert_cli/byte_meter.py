"""How much of some files was read: a bar on a terminal's stderr, once it takes long."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cert_cli.terminal import is_live, style_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

_INTERVAL_S = 0.2
_PATIENCE_S = 1.0


class ByteMeter:
    """Shows how much was read of a known number of bytes, at which rate, and what is left."""

    def __init__(self, total_bytes: int, *, is_wanted: bool, color: bool | None) -> None:
        """Prepare.

        Args:
            total_bytes: How much there is to read.
            is_wanted: Whether progress was not switched off; it also takes a terminal.
            color: As in `style_of`.
        """
        self._is_shown = is_wanted and is_live(sys.stderr)
        self._total = total_bytes
        self._color = color
        self._read = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._drawn_at = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Allow the bar inside, and remove it at the end."""
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def advance(self, size_bytes: int) -> None:
        """Take note of bytes that were read; draw, a few times a second at most."""
        self._read += size_bytes
        if not self._is_shown:
            return
        now = time.monotonic()
        if now - self._drawn_at < _INTERVAL_S or now - self._started < _PATIENCE_S:
            return
        self._drawn_at = now
        if self._bar is None:
            self._bar = _bar(color=style_of(sys.stderr, color=self._color).color)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, completed=self._read, refresh=True)


def _bar(*, color: bool) -> Progress:
    from rich.console import Console  # noqa: PLC0415 - only where a bar is shown
    from rich.progress import (  # noqa: PLC0415 - the same
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        BarColumn(bar_width=20),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(
            file=sys.stderr, no_color=not color, color_system="auto" if color else None
        ),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
