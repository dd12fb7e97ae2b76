"""Whether a run is still going on: its process holds a lock for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import LedgerError
from cert.ledger.files import FILE_MODE, FOLDER_MODE
from cert.ledger.reader import RUNS

if TYPE_CHECKING:
    from pathlib import Path

_RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RunLock:
    """The lock of one run, held until it is released or the process ends, however it ends."""

    def __init__(self, ledger: Path, run_id: str) -> None:
        """Take a run; nothing is locked yet.

        Raises:
            LedgerError: The id is no UUID, and would name another file.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise LedgerError(f"run id {run_id[:40]!r} is no UUID")
        self._path = ledger / RUNS / f"{run_id}.lock"
        self._fd = -1

    def acquire(self) -> bool:
        """Lock, unless another process has it.

        Raises:
            LedgerError: The lock's file cannot be made.
        """
        try:
            self._path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
            while True:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                fd = os.open(self._path, flags, FILE_MODE)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    return False
                if os.fstat(fd).st_nlink:
                    self._fd = fd
                    return True
                os.close(fd)  # whoever had it before removed this file in between
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be locked: {error.strerror}") from error

    def release(self) -> None:
        """Remove the file and let go; nothing happens if it is not held."""
        if self._fd < 0:
            return
        with suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1
