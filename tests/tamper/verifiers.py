"""Both verifiers, asked about images in memory: state, and the first bad line's place."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.reader import Segment, note_name, parse_name
from cert.ledger.verify import verify_ledger
from tools.vectors.image import CHECKPOINTS, SEGMENTS, Image

if TYPE_CHECKING:
    from cert.ledger.findings import Report
    from cert.ledger.keys import PublicKey
    from cert.ledger.verify import RecordCheck

SECOND = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
SPEC = importlib.util.spec_from_file_location("cert_verify", SECOND)
assert SPEC is not None
assert SPEC.loader is not None
second = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(second)


class Said(NamedTuple):
    """What a verifier said; `state` is None where it refused (exit 2)."""

    state: str | None
    line: int | None = None
    segment: str | None = None
    offset: int | None = None


REFUSED = Said(None)


class MemoryReader:
    """An image, as `cert` reads ledgers."""

    def __init__(self, image: Image) -> None:
        self.files = image.files
        names = [parse_name(name.rpartition("/")[2]) for name in image.files]
        self.checkpoints = sorted(one[0] for one in names if one and one[1] == "note")
        self.segments = [
            Segment(number, f"{number:012d}.jsonl", len(self._segment(number)))
            for number in sorted(one[0] for one in names if one and one[1] == "jsonl")
        ]

    def _segment(self, number: int) -> bytes:
        return self.files[f"{SEGMENTS}{number:012d}.jsonl"]

    def open_segment(self, segment: Segment) -> BinaryIO:
        return io.BytesIO(self._segment(segment.first))

    def read_checkpoint(self, size: int) -> bytes:
        data = self.files.get(CHECKPOINTS + note_name(size))
        if data is None:
            raise LedgerError(f"no checkpoint {size}")
        return data

    def read_side_file(self, name: str) -> bytes | None:
        return self.files.get(name)


class MemoryFolder(second.Folder):  # type: ignore[name-defined, misc]
    """An image, as the second verifier reads ledgers."""

    def __init__(self, image: Image) -> None:
        super().__init__(Path())
        self.files = image.files

    def names(self, folder: str) -> list[str]:
        start = f"{folder}/"
        return [name.removeprefix(start) for name in self.files if name.startswith(start)]

    def has(self, name: str) -> bool:
        return name in self.files

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.files[name])


def said_by(report: Report) -> Said:
    """The first finding of a report of `cert`; a line in no file has no offset."""
    first = report.first
    if first is None:
        return Said(report.state.value)
    offset = None if first.segment is None else first.offset
    return Said(report.state.value, first.line, first.segment, offset)


def ask_cert(
    image: Image, key: PublicKey, head: bytes | None = None, deep: RecordCheck | None = None
) -> Said:
    """What `cert` says."""
    try:
        return said_by(verify_ledger(MemoryReader(image), key, head=head, deep=deep))
    except ProofError:
        return REFUSED


def ask_second(
    image: Image, key: PublicKey, head: bytes | None = None, *, deep: bool = False
) -> Said:
    """What the second verifier says."""
    looks = second.Deep() if deep else None
    files = MemoryFolder(image)
    try:
        if looks is not None:
            looks.open(files)
        note = None if head is None else read_head(head)
        report = second.verify_ledger(files, key.raw, note, looks)
    except second.UseError:
        return REFUSED
    finally:
        if looks is not None:
            looks.close()
    first = report.first.get(report.state())
    if first is None:
        return Said(report.state())
    offset = None if first.segment is None else first.offset
    return Said(report.state(), first.line, first.segment, offset)


def read_head(head: bytes) -> object:
    """The head as the second verifier's command line reads it."""
    try:
        note = second.parse_note(head)
    except second.BadError as error:
        raise second.UseError(str(error)) from error
    if note.size == 0:
        raise second.UseError("a head of size 0")
    return note
