"""Ctrl-C and SIGTERM: the first asks to end well, the second ends at once.

- Outside of `deferred()`, the first signal raises `Interrupted` where the program stands.
- Inside of it, the first signal is noted, and the loop that asks `seen()` ends.
- The second signal ends the process without another instruction.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cert_cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}

_STDERR = 2
_SHOW_CURSOR = b"\x1b[?25h\n"


class Interrupted(BaseException):
    """The process was asked to end; no error, and not to be caught as one."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code.meaning)
        self.code = code


class Interrupts:
    """The signals of one command."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None
        self._is_deferred = False

    def seen(self) -> bool:
        """Whether the process was asked to end."""
        return self.code is not None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals, and put the former handlers back."""
        former = {number: signal.signal(number, self._handle) for number in _CODES}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first signal instead of raising; the loop inside asks `seen()`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        code = _CODES[signal.Signals(number)]
        if self.code is not None:
            if os.isatty(_STDERR):
                os.write(_STDERR, _SHOW_CURSOR)
            os._exit(code)
        # Nothing but an assignment: a lock taken here may be held by what was interrupted.
        self.code = code
        if not self._is_deferred:
            raise Interrupted(code)
