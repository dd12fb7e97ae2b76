"""File operations that a ledger stands on: locks, whole writes, files that appear at once."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import LedgerError, LedgerRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_FIRST_WAIT_S: Final = 0.0002
_LONGEST_WAIT_S: Final = 0.005


class FolderLock:
    """An exclusive lock on a folder, for processes; threads need one of their own.

    `flock` on the folder's own descriptor: `lockf` locks are dropped when any descriptor of the
    file is closed, and of the files inside none is there for good.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold it inside.

        Raises:
            LedgerError: Somebody else held it all the time, or this file system has no locks.
        """
        try:
            wait_for_lock(self._fd, fcntl.LOCK_EX, self._folder, timeout_s)
        except OSError as error:
            raise LedgerError(
                f"ledger {self._folder} cannot be locked: {error.strerror}",
                hint="choose a folder on a local disk with --ledger",
            ) from error
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            raise LedgerError(
                f"the lock of ledger {self._folder} cannot be let go: {error.strerror}",
                hint="end this process: that lets it go, too",
            ) from error

    def close(self) -> None:
        """Give up the descriptor; a lock that a forked parent holds stays the parent's."""
        os.close(self._fd)


def wait_for_lock(fd: int, how: int, folder: Path, timeout_s: float) -> None:
    """Lock a folder.

    Args:
        fd: The folder's.
        how: `LOCK_EX` or `LOCK_SH`.
        folder: Named in errors.
        timeout_s: How long others are waited for.

    Raises:
        LedgerError: Somebody else held it all the time.
        OSError: This file system has no locks.
    """
    deadline, wait_s = time.monotonic() + timeout_s, _FIRST_WAIT_S
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise LedgerError(
                    f"ledger {folder} is held by another process, which does not let go",
                    hint="find it with `lsof` or `fuser`; a stopped process holds its lock",
                ) from error
        else:
            return
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def open_for_append(path: Path) -> int:
    """Open or create a file to append to, without following a link; the folder is synced.

    Raises:
        OSError: It cannot be opened.
        LedgerRefusedError: It is no regular file, or has further names.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(path, flags, FILE_MODE)
    try:
        check_is_ours(fd, path)
        sync_folder(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_is_ours(fd: int, path: Path) -> os.stat_result:
    """Look at an open file.

    Raises:
        LedgerRefusedError: It is no regular file, has further names, or is not at its path.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise LedgerRefusedError(f"{path} is not a regular file")
    if status.st_nlink != 1:
        what = "was removed" if not status.st_nlink else f"has {status.st_nlink} names (hard links)"
        raise LedgerRefusedError(f"{path} {what}; nothing is written to it")
    with suppress(FileNotFoundError):
        if os.path.samestat(status, path.lstat()):
            return status
    raise LedgerRefusedError(
        f"{path} was moved away, or something else was moved there; nothing is written to it"
    )


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however many calls it takes.

    Raises:
        OSError: It broke off somewhere.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_file(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Make a file appear at once with all its bytes, in the place of an older one if there is one.

    Raises:
        OSError: It cannot be written; nothing changed.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            write_all(fd, data)
            if is_durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(draft, path)  # noqa: PTH105 - beside the other calls of os
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)  # noqa: PTH108 - the same
        raise
    if is_durable:
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder with those above it, and bring their names to the disk.

    Raises:
        OSError: It cannot be created, or the disk failed.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for one in missing:
        with suppress(PermissionError):  # A folder may be writable and not readable.
            sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk.

    Raises:
        OSError: The disk failed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
