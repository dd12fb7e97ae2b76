"""The end of a ledger, where a writer goes on: found without reading the whole, read on, repaired.

    tail.json that leads to a signed root -> lines after it -> the end
    otherwise                             -> all lines      -> the end

An incomplete last line is set aside; damage before a record is a reason to stop.
"""

from __future__ import annotations

import hashlib
import os
from binascii import hexlify
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cert.ledger.checkpoint import SignedCheckpoint, parse_checkpoint
from cert.ledger.control import build_recovered
from cert.ledger.errors import LedgerError, LedgerRefusedError, ProofError, SigningKeyError
from cert.ledger.files import check_is_ours, open_for_append, write_file
from cert.ledger.index import Index
from cert.ledger.keys import public_key_from_base64
from cert.ledger.line import (
    MAX_LINE_BYTES,
    genesis_prev,
    is_control,
    is_measured,
    leaf_hash,
    parse_links,
)
from cert.ledger.lineage import Genesis, Lineage, parse_genesis
from cert.ledger.merkle import Frontier
from cert.ledger.pruned import parse_pruned, verify_pruned
from cert.ledger.quarantine import copy_name
from cert.ledger.reader import (
    CHECKPOINTS,
    CHUNK_BYTES,
    PRUNED,
    SEGMENTS,
    TAIL,
    FolderReader,
    list_segments,
    note_name,
    read_blocks,
    segment_name,
)
from cert.ledger.tail import parse_tail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cert.ledger.head_memory import HeadMemory
    from cert.ledger.reader import Segment
    from cert.ledger.tail import Tail

_MAX_TORN_BYTES: Final = 1 << 26
_SEE: Final = "`cert verify` says what is wrong; nothing was changed"


@dataclass(slots=True)
class End:
    """Where the next record goes, and what the writer has to know there.

    Attributes:
        folder: The ledger's.
        tree: Of all records.
        last_leaf: The next record's link.
        lineage: Whose turn it is to sign.
        index: Policies and runs.
        segment: First number of the open segment.
        fd: Of the open segment; -1 before it is opened.
        offset: Bytes of the open segment.
        newest: The newest checkpoint when the ledger was opened, in it or in the writer's memory.
        newest_path: Where it was read.
        path: Of the open segment.
    """

    folder: Path
    tree: Frontier
    last_leaf: bytes
    lineage: Lineage
    index: Index
    segment: int
    fd: int
    offset: int
    newest: SignedCheckpoint | None = None
    newest_path: Path | None = None
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        """Name the open segment once: paths cost more than all else of a small append."""
        self.path = self.folder / SEGMENTS / segment_name(self.segment)

    def advance(self, lines: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Take over lines that stand at the end.

        Args:
            lines: Without newlines; each has the form and the link of its place.
            leaves: Their leaf hashes.

        Raises:
            LedgerRefusedError: There is a rotation that does not hold, or the checkpoint that was
                the newest does not cover these lines.
        """
        done = 0
        try:
            for number, line in enumerate(lines):
                if is_measured(line):
                    continue
                self._grow(lines[done:number], leaves[done:number])
                done = number
                self.index.add(line, self.tree.size, self.segment, self.offset)
                if is_control("key", line):
                    self.lineage.rotate(line)
            self._grow(lines[done:], leaves[done:])
        except ProofError as error:
            raise LedgerRefusedError(
                f"record {self.tree.size} of {self.folder}: {error.message}", hint=_SEE
            ) from error

    def _grow(self, lines: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Take over lines of which tree and place are all that has to be known."""
        newest = 0 if self.newest is None else self.newest.checkpoint.size
        room = newest - self.tree.size
        if 0 < room < len(lines):
            self._grow(lines[:room], leaves[:room])
            self._grow(lines[room:], leaves[room:])
            return
        if not lines:
            return
        self.tree.extend(leaves)
        self.last_leaf = leaves[-1]
        self.offset += sum(map(len, lines)) + len(lines)
        if self.newest is not None and newest == self.tree.size:
            self.verify(self.newest)

    def expect(self, signed: SignedCheckpoint, path: Path) -> None:
        """Take a checkpoint that lies ahead as the one to be reached, if none of more records is.

        Args:
            signed: It.
            path: Where it was read.

        Raises:
            LedgerRefusedError: It is of as many records as there are, and of other ones.
        """
        size, root = signed.checkpoint.size, signed.checkpoint.root
        if size > (self.tree.size if self.newest is None else self.newest.checkpoint.size):
            self.newest, self.newest_path = signed, path
        elif size == self.tree.size and root != self.tree.root():
            raise LedgerRefusedError(
                f"the records of {self.folder} are not those of the checkpoint {path}", hint=_SEE
            )

    def check_length(self) -> None:
        """See that the newest checkpoint was reached.

        Raises:
            LedgerRefusedError: It is of more records than there are.
        """
        size = 0 if self.newest is None else self.newest.checkpoint.size
        if self.tree.size < size:
            raise LedgerRefusedError(
                f"ledger {self.folder} has {self.tree.size} records that follow from each other, "
                f"and a signed checkpoint of {size}, {self.newest_path}",
                hint=_SEE,
            )

    def verify(self, signed: SignedCheckpoint) -> None:
        """Check that a checkpoint is of exactly these records, by the key in force.

        Raises:
            ProofError: It is not.
        """
        self.lineage.verify(signed, self.tree.size)
        if signed.checkpoint.root != self.tree.root():
            raise ProofError("the records are not those of the checkpoint")

    def move_on(self) -> None:
        """Open the segment of the next record.

        Raises:
            OSError: It cannot be created.
        """
        path = self.path.with_name(segment_name(self.tree.size))
        fd = open_for_append(path)
        os.close(self.fd)
        self.segment, self.path, self.fd, self.offset = self.tree.size, path, fd, 0

    def read_on(self) -> bytes | None:
        """Take over what others appended; the ledger's lock is held.

        Returns:
            A `recovered` record to be appended, if an incomplete end was set aside.

        Raises:
            LedgerRefusedError: Something else than records follows, before other records.
            LedgerError: A file cannot be read or repaired.
        """
        while True:
            size = check_is_ours(self.fd, self.path).st_size
            if size < self.offset:
                raise LedgerRefusedError(
                    f"{self.path} is shorter than it was: {size} bytes instead of {self.offset}",
                    hint=_SEE,
                )
            if size > self.offset:
                damaged_at = self._read_lines(size)
                if damaged_at is not None:
                    return self._set_aside(damaged_at, size)
            following = f"{self.folder}/{SEGMENTS}/{segment_name(self.tree.size)}"
            if self.tree.size == self.segment or not os.path.lexists(following):
                return None
            self.move_on()

    def _read_lines(self, size: int) -> int | None:
        """Read complete lines; returns where something else begins."""
        with open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(self.offset)
            start = self.offset
            for block in read_blocks(file, size - start):
                if not block.is_complete:
                    return self.offset
                seq, prev = self.tree.size, self.last_leaf
                leaves: list[bytes] = []
                for line in block.lines:
                    links = parse_links(line)
                    if links is None or links.seq != seq or links.prev != hexlify(prev):
                        break
                    prev = leaf_hash(line)
                    leaves.append(prev)
                    seq += 1
                self.advance(block.lines[: len(leaves)], leaves)
                if len(leaves) < len(block.lines):
                    return self.offset
        return None

    def _set_aside(self, at: int, size: int) -> bytes:
        """Copy what is no record, cut it off, and say so; refuse if records follow it."""
        self.check_length()
        where = f"{self.path} at byte {at}"
        if size - at > _MAX_TORN_BYTES:
            raise LedgerRefusedError(f"{where}: {size - at} bytes are no records", hint=_SEE)
        torn = os.pread(self.fd, size - at, at)
        *complete, _ = torn.split(b"\n")
        if any(parse_links(line) is not None for line in complete):
            raise LedgerRefusedError(
                f"{where}: the record does not follow from the one before it", hint=_SEE
            )
        if max(list_segments(self.folder)) > self.segment:
            raise LedgerRefusedError(f"{where}: damage in a closed segment", hint=_SEE)
        digest = hashlib.sha256(torn).hexdigest()
        copy = copy_name(segment_name(self.segment), at, digest)
        try:
            write_file(self.folder / SEGMENTS / copy, torn)
            os.ftruncate(self.fd, at)
            os.fsync(self.fd)
        except OSError as error:
            raise LedgerError(
                f"{where}: the incomplete end cannot be set aside: {error.strerror}",
                hint="make room, or check the disk; nothing was cut off before it was copied",
            ) from error
        return build_recovered(
            segment=segment_name(self.segment),
            offset=at,
            size_bytes=len(torn),
            sha256=digest,
            copy=copy,
        )


def find_end(folder: Path, heads: HeadMemory | None = None) -> tuple[End, bytes | None]:
    """Find the end of a ledger that has a genesis; the ledger's lock is held.

    Args:
        folder: The ledger's.
        heads: Remembers what was signed last; None remembers nothing.

    Returns:
        The end, and a `recovered` record to be appended if there was something to repair.

    Raises:
        LedgerRefusedError: It is damaged, or shorter than a checkpoint of it.
        SigningKeyError: What is remembered cannot be read.
        LedgerError: It cannot be read or repaired.
    """
    reader = FolderReader(folder, is_locked=True)
    try:
        newest = _read_newest(reader)
        end = _from_tail(reader) or _from_start(reader)
    except ProofError as error:
        raise LedgerRefusedError(f"ledger {folder}: {error}", hint=_SEE) from error
    try:
        if newest is not None:
            end.expect(newest, folder / CHECKPOINTS / note_name(newest.checkpoint.size))
        if heads is not None and (known := heads.find(end.lineage.origin)) is not None:
            end.expect(known, heads.path_of(end.lineage.origin))
        recovered = end.read_on()
        end.check_length()
        if any(one.first > end.segment for one in reader.segments):
            raise LedgerRefusedError(  # noqa: TRY301 - the descriptor is closed below
                f"ledger {folder} has later segments, and none that begins with record "
                f"{end.tree.size}",
                hint=_SEE,
            )
    except BaseException:
        os.close(end.fd)
        raise
    return end, recovered


def _read_newest(reader: FolderReader) -> SignedCheckpoint | None:
    for size in reader.checkpoints[-1:]:
        return parse_checkpoint(reader.read_checkpoint(size))
    return None


def _from_tail(reader: FolderReader) -> End | None:
    """Begin at the notes, if a signed checkpoint vouches for them; None otherwise."""
    tail = parse_tail(reader.read_side_file(TAIL))
    if tail is None or tail.size not in reader.checkpoints:
        return None
    segment = next((one for one in reader.segments if one.first == tail.segment), None)
    if segment is None or not _ends_with(reader, segment, tail):
        return None
    try:
        lineage = Lineage(Genesis(_read_genesis(reader).origin, public_key_from_base64(tail.key)))
        signed = parse_checkpoint(reader.read_checkpoint(tail.size))
        lineage.verify(signed, tail.size)
        tail.verify(signed.checkpoint.root)
    except (ProofError, SigningKeyError):
        return None
    return End(
        folder=reader.root,
        tree=Frontier.from_roots(tail.size, tail.frontier),
        last_leaf=tail.last_leaf,
        lineage=lineage,
        index=tail.index,
        segment=tail.segment,
        fd=open_for_append(reader.root / SEGMENTS / segment_name(tail.segment)),
        offset=tail.offset,
    )


def _from_start(reader: FolderReader) -> End:
    """Begin before the first record that is there."""
    data = reader.read_side_file(PRUNED)
    if data is None:
        genesis = _read_genesis(reader)
        lineage, tree, index = Lineage(genesis), Frontier(), Index()
        last_leaf = genesis_prev(genesis.origin, genesis.key)
    else:
        part = parse_pruned(data)
        lineage, tree = verify_pruned(part, reader.read_checkpoint), part.tree()
        last_leaf, index = part.last_leaf, Index()
        for one in part.kept:
            index.add(one.line, one.seq, part.size, 0)
    # A pruning that was cut off has left segments of removed records.
    first = next((one.first for one in reader.segments if one.first >= tree.size), 0)
    if first != tree.size:
        raise ProofError(f"the first segment begins with record {first}, not {tree.size}")
    fd = open_for_append(reader.root / SEGMENTS / segment_name(first))
    return End(reader.root, tree, last_leaf, lineage, index, first, fd, 0)


def _read_genesis(reader: FolderReader) -> Genesis:
    data = reader.read_side_file(PRUNED)
    if data is not None:
        kept = parse_pruned(data).kept
        return parse_genesis(kept[0].line if kept else b"")
    for segment in reader.segments[:1]:
        with reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                return parse_genesis(block.lines[0])
    raise ProofError("there is no record at all")


def _ends_with(reader: FolderReader, segment: Segment, tail: Tail) -> bool:
    """Whether the line that the notes call the last one ends at their offset."""
    if segment.size_bytes < tail.offset:
        return False
    with reader.open_segment(segment) as file:
        for size in (CHUNK_BYTES, MAX_LINE_BYTES + 2):
            start = max(0, tail.offset - size)
            file.seek(start)
            *before, line, rest = (b"\n" + file.read(tail.offset - start)).split(b"\n")
            if len(before) > 1 or not start:
                break  # The line is here whole.
    return not rest and leaf_hash(line) == tail.last_leaf
