"""The end of a ledger, read quickly and without writing: for health checks, not for proof.

What is looked at: the newest checkpoint with its signature, the notes that the writer left with it,
and the records after it. `cert verify` looks at everything.
"""

from __future__ import annotations

import fcntl
import os
from binascii import hexlify
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import LedgerError, ProofError, SigningKeyError
from cert.ledger.files import wait_for_lock
from cert.ledger.keys import public_key_from_base64
from cert.ledger.line import leaf_hash, parse_links
from cert.ledger.lineage import Genesis, Lineage, parse_genesis
from cert.ledger.pruned import parse_pruned
from cert.ledger.reader import CHECKPOINTS, PRUNED, TAIL, FolderReader, note_name, read_blocks
from cert.ledger.scan import scan_lines
from cert.ledger.tail import parse_tail

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.checkpoint import SignedCheckpoint
    from cert.ledger.reader import Segment
    from cert.ledger.tail import Tail

_KEY: Final = b'"kind":"key"'
_WINDOW_BYTES: Final = 1 << 20


@dataclass(slots=True)
class LedgerEnd:
    """The end of a ledger.

    Attributes:
        lineage: Its name and the key in force; None where there are no records.
        records: Complete records, removed ones included.
        sealed: Records that the newest checkpoint is of; 0 without one.
        torn_bytes: After the last complete line.
        newest_time: `time` of the last record; None where there is none, or it says none.
        sealed_at: When the newest checkpoint was written, in seconds since 1970; None without one.
        is_proven: Whether the newest checkpoint was found to be of these records.
    """

    lineage: Lineage | None = None
    records: int = 0
    sealed: int = 0
    torn_bytes: int = 0
    newest_time: str | None = None
    sealed_at: float | None = None
    is_proven: bool = False


def load_end(folder: Path, *, lock_timeout_s: float) -> LedgerEnd:
    """Read the end of a ledger; an empty one where there is none.

    Args:
        folder: The ledger's.
        lock_timeout_s: How long a writer in the middle of a record is waited for.

    Raises:
        ProofError: Records do not follow from each other, or are not those of the checkpoint.
        LedgerError: It cannot be read.
    """
    if not os.path.lexists(folder):
        return LedgerEnd()
    reader, signed, tail = _read_all_at_once(folder, lock_timeout_s)
    if not reader.segments:
        if signed is not None:
            raise ProofError(f"{folder} has a checkpoint, and no records")
        return LedgerEnd()
    lineage = _read_lineage(reader, tail)
    end = LedgerEnd(lineage)
    if signed is not None:
        end.sealed = signed.checkpoint.size
        with suppress(OSError):
            note = folder / CHECKPOINTS / note_name(end.sealed)
            end.sealed_at = note.lstat().st_mtime
        if tail is not None and tail.size == end.sealed:
            lineage.verify(signed, end.sealed)
            tail.verify(signed.checkpoint.root)
            end.is_proven = True
    _walk(reader, reader.segments[-1], end, tail if end.is_proven else None)
    if end.sealed > end.records:
        raise ProofError(
            f"{folder} has a checkpoint of {end.sealed} records, and {end.records} are there"
        )
    return end


def _read_all_at_once(
    folder: Path, lock_timeout_s: float
) -> tuple[FolderReader, SignedCheckpoint | None, Tail | None]:
    """What belongs together is read under one lock: a writer may be sealing at this moment."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LedgerError(f"ledger {folder} cannot be read: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system without locks
            wait_for_lock(fd, fcntl.LOCK_SH, folder, lock_timeout_s)
        reader = FolderReader(folder, is_locked=True)
        note = reader.read_checkpoint(reader.checkpoints[-1]) if reader.checkpoints else None
        tail = parse_tail(reader.read_side_file(TAIL))
    finally:
        os.close(fd)
    return reader, None if note is None else parse_checkpoint(note), tail


def _read_lineage(reader: FolderReader, tail: Tail | None) -> Lineage:
    """Who signs now: as the notes say, which the checkpoint has to bear out, or as records say."""
    data = reader.read_side_file(PRUNED)
    if data is None:
        first = next(scan_lines(reader), None)
        kept = [] if first is None else [first.line]
    else:
        kept = [one.line for one in parse_pruned(data).kept]
    genesis = parse_genesis(kept[0] if kept else b"")
    if tail is not None and tail.key:
        with suppress(SigningKeyError):
            return Lineage(Genesis(genesis.origin, public_key_from_base64(tail.key)))
    lineage = Lineage(genesis)
    for line in [*kept[1:], *(one.line for one in scan_lines(reader) if _KEY in one.line)]:
        with suppress(ProofError):  # a record that mentions a key, or a rotation told already
            lineage.rotate(line)
    return lineage


def _walk(reader: FolderReader, segment: Segment, end: LedgerEnd, tail: Tail | None) -> None:
    """See that the last records follow from each other, and count them.

    Args:
        reader: The ledger.
        segment: The open one.
        end: Takes what is found.
        tail: Where to begin, if it is proven; None for the segment's beginning.
    """
    seq, prev, last, offset = segment.first, b"", None, 0
    with reader.open_segment(segment) as file:
        if tail is not None and tail.segment == segment.first:
            if segment.size_bytes < tail.offset:
                raise ProofError(f"{segment.name} is shorter than when it was sealed")
            last = _line_before(file, tail.offset)
            if last is not None and leaf_hash(last) != tail.last_leaf:
                raise ProofError(f"{segment.name} does not hold what was sealed")
            seq, prev, offset = tail.size, hexlify(tail.last_leaf), tail.offset
        for block in read_blocks(file, segment.size_bytes - offset):
            if not block.is_complete:
                end.torn_bytes = block.size_bytes
                break
            for line in block.lines:
                links = parse_links(line)
                if links is None or links.seq != seq or (prev and links.prev != prev):
                    raise ProofError(
                        f"record {seq} in {segment.name} does not follow from the one before it"
                    )
                seq, prev, last = seq + 1, hexlify(leaf_hash(line)), line
    end.records, end.newest_time = seq, None if last is None else _time_of(last)


def _line_before(file: BinaryIO, offset: int) -> bytes | None:
    """The line that ends at an offset, where the file is left; None for a very long one, or none.

    Raises:
        ProofError: No line ends there.
    """
    start = max(0, offset - _WINDOW_BYTES)
    file.seek(start)
    data, left = b"", offset - start
    while left and (part := file.read(left)):
        data += part
        left -= len(part)
    if offset and not data.endswith(b"\n"):
        raise ProofError(f"no record ends at byte {offset}, where the last sealed one did")
    before, _, line = data[:-1].rpartition(b"\n")
    return line if line and (before or not start) else None


def _time_of(line: bytes) -> str | None:
    with suppress(orjson.JSONDecodeError):
        record: Any = orjson.loads(line)
        if isinstance(record, dict) and isinstance(record.get("time"), str):
            return str(record["time"])
    return None
