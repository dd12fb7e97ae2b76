"""Structured logging: JSON or human lines, correlation ids, rotating files.

Only the loggers of this library and its program are configured; the root logger and the handlers
of an embedding program stay as they are. Nothing is logged anywhere until `configure_logging` is
called, except warnings, which the standard library prints by itself.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import sys
import threading
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

from cert.observability.controls import escape_controls
from cert.observability.correlation import correlation_id_context, get_correlation_id
from cert.observability.formatters import HumanFormatter, JSONFormatter, extra_name

if TYPE_CHECKING:
    from io import TextIOWrapper
    from typing import TextIO

__all__ = [
    "configure_logging",
    "correlation_id_context",
    "get_correlation_id",
    "reset_logging",
    "safe_extra",
]

LOGGERS: Final = ("cert", "cert_cli")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS: Final = ("json", "human")
OUTPUTS: Final = ("stdout", "file", "both")

_lock = threading.Lock()
_installed: list[logging.Handler] = []


def configure_logging(  # noqa: PLR0913 - the specification's arguments, then three of our own
    level: str = "INFO",
    format: str = "json",  # noqa: A002 - the specification's name
    output: str = "stdout",
    log_file: str | os.PathLike[str] | None = None,
    *,
    stream: TextIO | None = None,
    max_bytes: int = 10 * 1024 * 1024,
    backup_count: int = 5,
) -> None:
    """Send this library's log records to a stream, to a rotating file, or to both.

    Calling it again replaces what the last call set up. If it raises, nothing has changed.

    Args:
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case.
        format: `json` (one object a line) or `human`.
        output: `stdout`, `file` or `both`.
        log_file: Where `file` and `both` write; `~` is expanded, its folder has to exist. It is
            created with mode 0600, and links are not followed.
        stream: What `stdout` means here; None is `sys.stdout`. A program whose standard output
            carries data passes `sys.stderr`.
        max_bytes: The file is rotated before it grows beyond this; 0 never rotates. Several
            processes may share a file, and another program may rotate it instead.
        backup_count: How many rotated files are kept, as `FILE.1`, `FILE.2` and so on; with 0
            none is, and the file is not rotated.

    Raises:
        ValueError: An argument is none of those above, or a file is asked for and not named.
        OSError: The file cannot be opened, or is no regular file.
    """
    name = str(level).upper()
    if name not in LEVELS:
        raise ValueError(f"level is one of {', '.join(LEVELS)}, got {level!r}")
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, got {format!r}")
    if output not in OUTPUTS:
        raise ValueError(f"output is one of {', '.join(OUTPUTS)}, got {output!r}")
    handlers: list[logging.Handler] = []
    if output in {"file", "both"}:
        if log_file is None or not os.fspath(log_file):
            raise ValueError(f"output {output!r} needs log_file")
        handlers.append(_FileHandler(os.path.expanduser(log_file), max_bytes, backup_count))  # noqa: PTH111 - keeps bytes-free str
    if output in {"stdout", "both"}:
        handlers.append(_StreamHandler(sys.stdout if stream is None else stream))
    formatter = JSONFormatter() if format == "json" else HumanFormatter()
    for handler in handlers:
        handler.setFormatter(formatter)
    with _lock:
        _remove_installed()
        for logger in map(logging.getLogger, LOGGERS):
            for handler in handlers:
                logger.addHandler(handler)
            logger.setLevel(name)
            # Otherwise a handler on the root logger writes each line a second time.
            logger.propagate = False
        _installed.extend(handlers)


def reset_logging() -> None:
    """Undo `configure_logging`: close its files and let records propagate to the root again."""
    with _lock:
        _remove_installed()
        for logger in map(logging.getLogger, LOGGERS):
            logger.setLevel(logging.NOTSET)
            logger.propagate = True


def safe_extra(**fields: object) -> dict[str, object]:
    """Build the `extra` of a log call from any fields at all.

    The standard library raises `KeyError` for `extra={"message": ...}` and a dozen other names;
    here such a field is written as `extra_message`.

    >>> safe_extra(message="m", prompt_length=3)
    {'extra_message': 'm', 'prompt_length': 3}
    """
    return {extra_name(name): value for name, value in fields.items()}


def _remove_installed() -> None:
    for handler in _installed:
        for logger in map(logging.getLogger, LOGGERS):
            logger.removeHandler(handler)
        with suppress(OSError, ValueError):  # a full disk or a closed stream has nothing to add
            handler.close()
    _installed.clear()


class _ReportsOnce(logging.Handler):
    """Log lines that cannot be written are reported once, in one line, and never raise."""

    _reported = False
    target = "the log stream"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - the library's signature
        """Say on stderr what failed; called by the library inside its `except` block."""
        self._say_once("write to", "log lines are lost")

    def _say_once(self, what: str, consequence: str) -> None:
        if self._reported or sys.stderr is None:
            return
        self._reported = True
        error = sys.exc_info()[1]
        reason = error.strerror if isinstance(error, OSError) else None
        with suppress(OSError, ValueError):
            print(  # noqa: T201 - where logging fails there is nothing but stderr
                f"cert: cannot {what} {escape_controls(self.target)}: "
                f"{reason or type(error).__name__}; {consequence}",
                file=sys.stderr,
            )


class _StreamHandler(_ReportsOnce, logging.StreamHandler["TextIO"]):
    """Writes to a stream that somebody else owns and closes."""


class _FileHandler(_ReportsOnce, RotatingFileHandler):
    """A rotating file that only its owner can read.

    Several processes may write to one file, and another program may rotate it: a line is one
    write at the file's end, and before each the handler looks whether its file is still the one
    at the path. Who rotates holds a lock; who finds it held goes on writing meanwhile.
    """

    def __init__(self, path: str, max_bytes: int, backup_count: int) -> None:
        super().__init__(
            path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", errors="replace"
        )
        self.target = path

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the library's name
        """Take up the file at the path, and look whether the line still fits in it."""
        if self.stream is None:
            self.stream = self._open()
        elif not self._is_at_path(self.stream.fileno()):
            opened = self._open()
            self.stream.close()
            self.stream = opened
        size = os.fstat(self.stream.fileno()).st_size
        if not (size and self.maxBytes > 0 and self.backupCount > 0):
            return False
        line = f"{self.format(record)}{self.terminator}"
        return size + len(line.encode("utf-8", "replace")) > self.maxBytes

    def doRollover(self) -> None:  # noqa: N802 - the library's name
        """Rotate, unless another process is about it; a file that cannot be rotated grows on."""
        if self.stream is None:
            return
        # The same open file under another number: closing the stream does not give up the lock.
        held = os.dup(self.stream.fileno())
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_at_path(held):
                super().doRollover()
        except BlockingIOError:
            return
        except OSError:
            self._say_once("rotate", "it grows on")
        finally:
            os.close(held)

    def _is_at_path(self, descriptor: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.baseFilename))
        return False

    def _open(self) -> TextIOWrapper:
        # O_NONBLOCK: opening a FIFO without a reader would wait for ever. It has no effect on
        # the regular file that has to be there.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.baseFilename} is no regular file")
        return open(descriptor, "a", encoding=self.encoding, errors=self.errors)  # noqa: PTH123 - owned by the handler
