"""Write one .zip, the same bytes for the same files: a bundle, or the export before a pruning.

It is written beside and renamed into place, so that a file of the final name is a whole one. A file
that would shrink so far that a reader takes it for an attack is stored as it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Final

from cert.ledger.errors import LedgerError, LedgerFullError
from cert.ledger.files import FILE_MODE, sync_folder
from cert.ledger.reader import (
    CHECKPOINTS,
    CHUNK_BYTES,
    PRUNED,
    PRUNING,
    PRUNING_NOTE,
    SEGMENTS,
    TAIL,
    note_name,
)
from cert.ledger.zip_reader import FOLDER, MAX_RATIO, SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cert.ledger.reader import Reader, Segment

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Member:
    """A file to be packed.

    Attributes:
        name: Its path in the archive.
        size_bytes: How much of it is packed.
        open: Opens it at its beginning, whenever asked.
    """

    name: str
    size_bytes: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Packed:
    """A file that was written.

    Attributes:
        sha256: Of all its bytes, in hex; read back from the disk.
        size_bytes: How many there are.
    """

    sha256: str
    size_bytes: int


def member_of(name: str, data: bytes) -> Member:
    """Pack bytes that are at hand."""
    return Member(name, len(data), lambda: BytesIO(data))


def ledger_members(reader: Reader, *, is_whole: bool = True) -> Iterator[Member]:
    """Yield the files of a ledger, as they are at this moment, except its contents.

    Args:
        reader: The ledger.
        is_whole: Whether its end is there, of which `tail.json` speaks.

    Raises:
        LedgerError: A file cannot be read.
    """
    pruned = (PRUNED, PRUNING, PRUNING_NOTE)
    for name in (*pruned, TAIL) if is_whole else pruned:
        data = reader.read_side_file(name)
        if data is not None:
            yield member_of(FOLDER + name, data)
    for size in reader.checkpoints:
        note = f"{CHECKPOINTS}/{note_name(size)}"
        yield member_of(FOLDER + note, reader.read_checkpoint(size))
        name = note.removesuffix(".note") + ".tsr"
        token = reader.read_side_file(name)
        if token is not None:
            yield member_of(FOLDER + name, token)
    for segment in reader.segments:
        yield _segment_member(reader, segment)


def _segment_member(reader: Reader, segment: Segment) -> Member:
    name = f"{FOLDER}{SEGMENTS}/{segment.name}"
    return Member(name, segment.size_bytes, lambda: reader.open_segment(segment))


@contextmanager
def zip_beside(path: Path, members: Callable[[], Iterator[Member]]) -> Iterator[Path]:
    """Write an archive beside its final place; it is there under its name when this ends well.

    Args:
        path: Its final place; a file of that name is replaced.
        members: Yields what goes into it, in order; asked again where a file has to be stored.

    Yields:
        Where it is meanwhile, to be read back.

    Raises:
        LedgerFullError: There is no room.
        LedgerError: It cannot be written, or a member not be read.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with _errors(path):
            _write(draft, members)
        yield draft
        with _errors(path):
            os.replace(draft, path)  # noqa: PTH105 - beside the other calls of os
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            os.unlink(draft)  # noqa: PTH108 - the same


def measure(path: Path) -> Packed:
    """Read a file back.

    Raises:
        LedgerError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with _errors(path), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return Packed(digest.hexdigest(), size)


def _write(draft: Path, members: Callable[[], Iterator[Member]]) -> None:
    stored: set[str] = set()
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, "w+b") as file:
        while (too_small := _write_members(file, members(), stored)) is not None:
            stored.add(too_small)
            file.seek(0)
            file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _write_members(file: BinaryIO, members: Iterator[Member], stored: set[str]) -> str | None:
    """Pack all; or return the name of the first file that would shrink too far."""
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name, _EPOCH)
            info.create_system = _UNIX
            info.external_attr = (stat.S_IFREG | FILE_MODE) << 16
            is_stored = member.name in stored
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            info.file_size = member.size_bytes
            _copy(archive, info, member)
            if info.file_size > max(SMALL_BYTES, MAX_RATIO * info.compress_size):
                return member.name
    return None


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: Member) -> None:
    left = member.size_bytes
    with member.open() as source, archive.open(info, "w") as target:
        while left and (chunk := source.read(min(left, CHUNK_BYTES))):
            target.write(chunk)
            left -= len(chunk)
    if left:
        raise LedgerError(
            f"{member.name} ended {left} bytes too soon",
            hint="something else changes the ledger; `cert verify` says what is wrong",
        )


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise LedgerFullError(
                f"{path} cannot be written: {error.strerror}", hint="make room, or name another"
            ) from error
        raise LedgerError(
            f"{path} cannot be written: {error.strerror}",
            hint="name a file in a folder that you may write to",
        ) from error
