"""A file of records: one writer at a time, whole lines, nothing acknowledged that isn't there.

    open and lock -> walk what is there -> cut a torn end -> append -> sync -> close

The order matters: the end is cut only after the walk has shown that the file is ours.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cert.core.errors import CertError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_SYNC_INTERVAL_S = 1.0
_CHUNK_BYTES = 1 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputError(CertError):
    """An output cannot be written any further; what was acknowledged is in it."""


class RecordFile:
    """An append-only file of lines, locked for as long as it is open.

    A written line has reached the operating system when `write` returns, so that it survives the
    end of this process; it reaches the disk at intervals, and on `sync` and `close`.
    """

    def __init__(self, path: Path) -> None:
        """Open or create, without following a link, and lock.

        Raises:
            ConfigurationError: The path cannot be opened, is no regular file, has further links,
                or is being written by another process.
        """
        self.path = path
        self._fd = _open(path)
        try:
            self._check_and_lock()
        except BaseException:
            os.close(self._fd)
            raise
        self._size = os.fstat(self._fd).st_size
        self._complete = self._line_start(self._size)
        self._synced_at = time.monotonic()
        self._is_dirty = False

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, a torn end included."""
        return self._size

    @property
    def complete_bytes(self) -> int:
        """Bytes of whole lines."""
        return self._complete

    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for every name of one file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def lines(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the whole lines from an offset on, without their newline, one at a time."""
        pending = b""
        while offset < self._complete:
            chunk = os.pread(self._fd, min(_CHUNK_BYTES, self._complete - offset), offset)
            if not chunk:
                raise OutputError(f"{self.path} was cut by another program while it was read")
            offset += len(chunk)
            *whole, pending = (pending + chunk).split(b"\n")
            yield from whole

    def last_line(self) -> bytes | None:
        """Return the last whole line; None where there is none."""
        if self._complete == 0:
            return None
        start = self._line_start(self._complete - 1)
        return os.pread(self._fd, self._complete - 1 - start, start)

    def tail(self, limit: int) -> bytes:
        """Return up to `limit` bytes of the torn end; empty where there is none."""
        return os.pread(self._fd, min(limit, self._size - self._complete), self._complete)

    def cut_torn_end(self) -> Path | None:
        """Copy an incomplete last line to `FILE.torn-<offset>-<sha256>` and cut it off.

        Returns:
            Where the copy is; None where there was nothing to cut.
        """
        torn = os.pread(self._fd, self._size - self._complete, self._complete)
        if not torn:
            return None
        digest = hashlib.sha256(torn).hexdigest()[:16]
        copy = self.path.with_name(f"{self.path.name}.torn-{self._complete}-{digest}")
        try:
            _write_copy(copy, torn)
            os.ftruncate(self._fd, self._complete)
            os.fdatasync(self._fd)
        except OSError as error:
            raise OutputError(
                f"the torn end of {self.path} cannot be set aside: {error}"
            ) from error
        self._size = self._complete
        return copy

    def write(self, line: bytes) -> None:
        """Append a line and its newline, or nothing.

        Raises:
            OutputError: It could not be written whole; the file is as it was before.
        """
        data = memoryview(line + b"\n")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._back_out(error)
        self._size += len(line) + 1
        self._complete = self._size
        self._is_dirty = True
        if time.monotonic() - self._synced_at >= _SYNC_INTERVAL_S:
            self.sync()

    def sync(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            OutputError: The disk failed; never retried, since the kernel reports it once.
        """
        if not self._is_dirty:
            return
        self._is_dirty = False
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be brought to the disk: {error.strerror}; records of the last "
                "seconds may be missing there",
                hint="check the disk, then run the same command again",
            ) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync, unlock and close; once is enough."""
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_and_lock(self) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(
                f"output {self.path} is not a regular file",
                hint="write to a file; without -o the records go to stdout",
            )
        if status.st_nlink != 1:
            raise ConfigurationError(
                f"output {self.path} has {status.st_nlink} names (hard links); records belong into "
                "a file of their own",
                hint="choose another file with -o",
            )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"output {self.path} is being written by {_holder(status)}",
                hint="wait until it ends, or choose another file with -o",
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"output {self.path} cannot be locked: {error.strerror}",
                hint="choose a file on a local disk with -o",
            ) from error

    def _line_start(self, end: int) -> int:
        """Find the offset after the last newline before `end`; 0 where there is none."""
        while end > 0:
            start = max(0, end - _CHUNK_BYTES)
            at = os.pread(self._fd, end - start, start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def _back_out(self, error: OSError) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, self._size)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise OutputError(
            f"{self.path} cannot be written: {error.strerror}; it ends after the last whole record",
            hint=f"{'make room' if full else 'check the disk'}, then run the same command again",
        ) from error


def _open(path: Path) -> int:
    try:
        is_new = not path.exists()
        fd = os.open(path, _FLAGS, 0o600)
        if is_new:
            _sync_folder(path.parent)
    except ValueError as error:
        raise ConfigurationError("an output's name holds a NUL character") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            message = f"output {path} is a symbolic link, which is not followed"
        else:
            message = f"output {path} cannot be opened: {error.strerror}"
        raise ConfigurationError(message, hint="choose another file with -o") from error
    return fd


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_copy(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    _sync_folder(path.parent)


def _holder(status: os.stat_result) -> str:
    """Name the process that holds the lock, as far as the kernel tells."""
    suffix = f":{status.st_ino}"
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        locks = []
    for fields in (line.split() for line in locks):
        # "1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF"; a waiting one has "->" second.
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(suffix):  # noqa: PLR2004
            return f"another process (pid {fields[4]})"
    return "another process"
