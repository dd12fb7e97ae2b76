"""Where a ledger is read from: a folder. Nothing here writes, and links are not followed."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from cert.ledger.errors import LedgerError
from cert.ledger.files import wait_for_lock
from cert.ledger.line import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENTS: Final = "segments"
CHECKPOINTS: Final = "checkpoints"
RUNS: Final = "runs"
TAIL: Final = "tail.json"
PRUNED: Final = "pruned.json"
PRUNING: Final = "pruning.json"
PRUNING_NOTE: Final = "pruning.note"
CONTENT: Final = "content.sqlite"

CHUNK_BYTES: Final = 1 << 18
"""Small enough for a cache, large enough to make its calls cheap."""

MAX_SIDE_FILE_BYTES: Final = 1 << 26

_WITHOUT_NEWLINE: Final = itemgetter(slice(-1))
_NUMBERED: Final = re.compile(r"([0-9]{12,16})\.(jsonl|note)")


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of records.

    Attributes:
        first: `_seq` of its first record, from its name.
        name: File name below `segments/`.
        size_bytes: How much of it is read; what is appended meanwhile is not.
    """

    first: int
    name: str
    size_bytes: int


class Reader(Protocol):
    """A ledger as a verifier sees it, all of one moment."""

    segments: list[Segment]
    checkpoints: list[int]
    """Tree sizes, in order."""

    def open_segment(self, segment: Segment) -> BinaryIO:
        """Open a segment at its beginning."""

    def read_checkpoint(self, size: int) -> bytes:
        """Read a signed note."""

    def read_side_file(self, name: str) -> bytes | None:
        """Read `tail.json`, `pruned.json` and the like; None where there is none."""


def segment_name(first: int) -> str:
    """Name a segment by its first record."""
    return f"{first:012d}.jsonl"


def note_name(size: int) -> str:
    """Name a checkpoint by its tree size."""
    return f"{size:012d}.note"


def parse_name(name: str) -> tuple[int, str] | None:
    """Number and suffix of a segment's or a checkpoint's name; None for other files.

    >>> parse_name("000000000041.note")
    (41, 'note')
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or f"{int(match[1]):012d}" != match[1]:
        return None
    return int(match[1]), match[2]


def list_segments(root: Path) -> list[int]:
    """First numbers of a ledger's segments, in order; none where there is no such folder.

    Raises:
        OSError: It cannot be read.
    """
    return _numbers(root / SEGMENTS, "jsonl")


def list_checkpoints(root: Path) -> list[int]:
    """Tree sizes of a ledger's checkpoints, in order.

    Raises:
        OSError: They cannot be read.
    """
    return _numbers(root / CHECKPOINTS, "note")


def _numbers(folder: Path, suffix: str) -> list[int]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        parsed = (parse_name(entry.name) for entry in entries)
        return sorted(one[0] for one in parsed if one is not None and one[1] == suffix)
    return []


class FolderReader:
    """A ledger in a folder.

    What a writer is appending at this moment is left out: the sizes of all files are taken under
    a shared lock.
    """

    def __init__(
        self, root: Path, *, is_locked: bool = False, lock_timeout_s: float = 60.0
    ) -> None:
        """Look what is there.

        Args:
            root: The ledger's folder.
            is_locked: Whether the caller holds the ledger's lock already.
            lock_timeout_s: How long a writer in the middle of a record is waited for.

        Raises:
            LedgerError: There is no such folder, it cannot be read, or a writer does not let go.
        """
        self.root = root
        try:
            with closing(_Folder(root)) as folder:
                if not is_locked:
                    folder.lock_shared(lock_timeout_s)
                self.segments = list(self._segments())
                self.checkpoints = list_checkpoints(root)
        except OSError as error:
            raise LedgerError(
                f"ledger {root} cannot be read: {error.strerror}",
                hint="give the folder that holds segments/ and checkpoints/",
            ) from error

    def open_segment(self, segment: Segment) -> BinaryIO:
        """Open a segment at its beginning.

        Raises:
            LedgerError: It cannot be opened, or is no regular file.
        """
        return self._open(self.root / SEGMENTS / segment.name)

    def read_checkpoint(self, size: int) -> bytes:
        """Read a signed note.

        Raises:
            LedgerError: It cannot be opened, or is no regular file.
        """
        with self._open(self.root / CHECKPOINTS / note_name(size)) as file:
            return file.read(MAX_SIDE_FILE_BYTES)

    def read_side_file(self, name: str) -> bytes | None:
        """Read `tail.json` or `pruned.json`; None where there is none.

        Raises:
            LedgerError: It cannot be opened, or is no regular file.
        """
        path = self.root / name
        if not os.path.lexists(path):
            return None
        with self._open(path) as file:
            return file.read(MAX_SIDE_FILE_BYTES)

    def _segments(self) -> Iterator[Segment]:
        for first in list_segments(self.root):
            name = segment_name(first)
            yield Segment(first, name, (self.root / SEGMENTS / name).lstat().st_size)

    @staticmethod
    def _open(path: Path) -> BinaryIO:
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for its writer.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise LedgerError(f"{path} is not a regular file")
        return os.fdopen(fd, "rb", buffering=0)


class _Folder:
    """The ledger's folder, open for its lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def lock_shared(self, timeout_s: float) -> None:
        """Wait for a writer in the middle of a record; where there are no locks, go without."""
        with suppress(OSError):
            wait_for_lock(self._fd, fcntl.LOCK_SH, self._root, timeout_s)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines in a row.

    Attributes:
        lines: Without newlines.
        offset: Of the first of them in its file.
        is_complete: False for bytes after the last newline, which then are the only line.
        dropped_bytes: How much of its only line is not here, because that is too long.
    """

    lines: list[bytes]
    offset: int
    is_complete: bool = True
    dropped_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes in the file, newlines included."""
        newlines = len(self.lines) if self.is_complete else 0
        return sum(map(len, self.lines)) + newlines + self.dropped_bytes


def read_blocks(file: BinaryIO, size_bytes: int) -> Iterator[Block]:
    """Read lines, a chunk's at a time, in bounded memory.

    A line longer than `MAX_LINE_BYTES` is handed on without its end, which makes it too long still.

    Args:
        file: At its beginning.
        size_bytes: How much to read.
    """
    pending, offset, left, dropped = b"", 0, size_bytes, 0
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        # Twice as fast as `split`, which looks at one byte after the other.
        raw = BytesIO(chunk).readlines()
        rest = b"" if raw[-1].endswith(b"\n") else raw.pop()
        if not raw:
            kept = chunk[: MAX_LINE_BYTES + 1 - len(pending)]
            pending += kept
            dropped += len(chunk) - len(kept)
            continue
        lines = list(map(_WITHOUT_NEWLINE, raw))
        end = offset + len(pending) + dropped + len(chunk) - len(rest)
        lines[0] = pending + lines[0]
        if dropped:
            block = Block([lines.pop(0)], offset, dropped_bytes=dropped)
            yield block
            offset += block.size_bytes
        if lines:
            yield Block(lines, offset)
        pending, offset, dropped = rest, end, 0
    if pending:
        yield Block([pending], offset, is_complete=False, dropped_bytes=dropped)
