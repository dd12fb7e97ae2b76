"""A ledger inside of a bundle, `ledger/` in a .zip: read as a stream, and unpacked nowhere.

What cannot be meant well is refused before anything is read: names that lead elsewhere, two files
of one name, links, encrypted files, and sizes that no evidence shrinks to (docs/record-format.md
sets the line's limits; a file here never yields more than it states).
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Self, cast

from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.reader import (
    CHECKPOINTS,
    CONTENT,
    MAX_SIDE_FILE_BYTES,
    SEGMENTS,
    Segment,
    note_name,
    parse_name,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

FOLDER: Final = "ledger/"
"""Where a bundle has the ledger."""

MAX_RATIO: Final = 200
"""How often larger than packed a file may be; small ones are let pass."""
SMALL_BYTES: Final = 1 << 20

_ENCRYPTED: Final = 0x1
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What `zipfile` raises on files that are damaged, or packed in a way that it does not know."""


class ZipReader:
    """A ledger in a bundle; a `Reader`. For one thread."""

    def __init__(self, path: Path) -> None:
        """Look what is there.

        Raises:
            LedgerRefusedError: It holds what is refused, or is damaged.
            LedgerError: It cannot be read.
        """
        self.path = path
        try:
            self._file = path.open("rb")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise LedgerError(f"{path} cannot be read: {reason}") from error
        try:
            with _errors(path):
                self._zip = zipfile.ZipFile(self._file)
            self._members = _members(self._zip, path)
            numbers = sorted(self._numbers())
        except BaseException:
            self._file.close()
            raise
        self.segments = [
            Segment(first, segment_name(first), self._members[name].file_size)
            for first, suffix, name in numbers
            if suffix == "jsonl"
        ]
        self.checkpoints = [size for size, suffix, _ in numbers if suffix == "note"]

    @property
    def names(self) -> list[str]:
        """Of all files, with `ledger/` in front of the ledger's."""
        return list(self._members)

    def open(self, name: str) -> BinaryIO:
        """Open any file of the bundle at its beginning.

        Raises:
            LedgerError: There is no such file, or it is damaged.
        """
        member = self._members.get(name)
        if member is None:
            raise LedgerError(f"{self.path} has no {name}")
        with _errors(self.path):
            return cast("BinaryIO", _Member(self._zip.open(member), self.path))

    def open_segment(self, segment: Segment) -> BinaryIO:
        """Open a segment at its beginning.

        Raises:
            LedgerError: It is damaged.
        """
        return self.open(f"{FOLDER}{SEGMENTS}/{segment.name}")

    def read_checkpoint(self, size: int) -> bytes:
        """Read a signed note.

        Raises:
            LedgerError: There is none of this size, or it is damaged.
        """
        return self._read(f"{FOLDER}{CHECKPOINTS}/{note_name(size)}")

    def read_side_file(self, name: str) -> bytes | None:
        """Read `tail.json` or `pruned.json`; None where there is none.

        Raises:
            LedgerError: It is damaged.
        """
        return self._read(FOLDER + name) if FOLDER + name in self._members else None

    def open_content(self) -> BinaryIO | None:
        """Open `content.sqlite` as bytes; None where it was kept back.

        SQLite reads no stream: write it to a temporary file, mode 0600, first.

        Raises:
            LedgerError: It is damaged.
        """
        return self.open(FOLDER + CONTENT) if FOLDER + CONTENT in self._members else None

    def close(self) -> None:
        """Close it."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read(MAX_SIDE_FILE_BYTES)

    def _numbers(self) -> Iterator[tuple[int, str, str]]:
        for name in self._members:
            folder, _, file = name.rpartition("/")
            parsed = parse_name(file)
            if parsed is not None and (folder, parsed[1]) in {
                (FOLDER + SEGMENTS, "jsonl"),
                (FOLDER + CHECKPOINTS, "note"),
            }:
                yield (*parsed, name)


class _Member(io.RawIOBase):
    """A file of a bundle, whose damage is an error of the ledger."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__()
        self._inner = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _errors(self._path):
            return self._inner.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _errors(self._path):
            return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def close(self) -> None:
        self._inner.close()
        super().close()


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files by name.

    Raises:
        LedgerRefusedError: There is something that cannot be meant well.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    room = path.stat().st_size
    for info in archive.infolist():
        name = info.orig_filename.removesuffix("/")
        room -= info.compress_size
        why = _why_refused(info)
        if name in members:
            why = "there are two of this name"
        elif room < 0:
            why = "it shares its bytes with another"
        if why is not None:
            raise LedgerRefusedError(
                f"{path} holds {name!r}: {why}",
                hint="a bundle as `cert bundle` writes it holds nothing of the kind",
            )
        members[name] = info
    is_ledger = any(name.startswith(FOLDER) for name in members)
    if not is_ledger:
        raise LedgerRefusedError(
            f"{path} holds no {FOLDER}",
            hint="give a bundle as `cert bundle` writes it, or the ledger's folder",
        )
    return {name: info for name, info in members.items() if not info.is_dir()}


def _why_refused(info: zipfile.ZipInfo) -> str | None:
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or not set("\\:\0").isdisjoint(name):
        return "a name that may lead elsewhere"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "neither a file nor a folder"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.file_size > max(SMALL_BYTES, MAX_RATIO * info.compress_size):
        return f"{info.compress_size} bytes that claim to be {info.file_size}"
    return None


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise LedgerRefusedError(
            f"{path} is damaged, or no plain zip: {error}",
            hint="fetch the bundle again, and compare its digest with its sender",
        ) from error
