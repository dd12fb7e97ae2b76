"""Where following a ledger begins, and whether what was read of it is still there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.line import genesis_prev, is_control, leaf_hash, parse_links
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.pruned import verify_pruned
from cert.ledger.reader import read_blocks
from cert.service.exporter.state import Position

if TYPE_CHECKING:
    from cert.ledger.pruned import PrunedPart
    from cert.ledger.reader import Reader, Segment


@dataclass(frozen=True, slots=True)
class Beginning:
    """A place to begin at.

    Attributes:
        position: Before the first line that is there.
        lineage: Keys up to there; None where they are not shown.
        lines: What they come from: the genesis, and the records that pass its key on.
        sealed: Records that a good checkpoint covers.
        fault: What is wrong already; empty where nothing is.
    """

    position: Position
    lineage: Lineage | None = None
    lines: tuple[str, ...] = ()
    sealed: int = 0
    fault: str = ""


def begin(reader: Reader, part: PrunedPart | None) -> Beginning | None:
    """Find the beginning: the genesis, or behind what was removed; None where there is no line.

    Raises:
        LedgerError: A file cannot be read.
    """
    if part is not None:
        return _begin_after(reader, part)
    line = first_line(reader)
    if line is None:
        return None
    segment = reader.segments[0].first
    try:
        genesis = parse_genesis(line)
    except ProofError as error:
        links = parse_links(line)
        prev, seq = ("00" * 32, 0) if links is None else (links.prev.decode(), links.seq)
        fault = f"it has no good genesis: {error.message}"
        return Beginning(Position(0, seq, prev, [], segment, 0, 0), fault=fault)
    prev = genesis_prev(genesis.origin, genesis.key).hex()
    position = Position(0, 0, prev, [], segment, 0, 0)
    return Beginning(position, Lineage(genesis), (line.decode(),))


def _begin_after(reader: Reader, part: PrunedPart) -> Beginning:
    size, leaf = part.size, part.last_leaf.hex()
    roots = [one.hex() for one in part.frontier]
    try:
        lineage = verify_pruned(part, reader.read_checkpoint)
    except LedgerError as error:
        if len(roots) != size.bit_count():
            size, roots = 0, []
        return Beginning(
            Position(size, part.size, leaf, roots, part.size, 0, 0), fault=error.message
        )
    keys = [one.line for one in part.kept if is_control("key", one.line)]
    lines = tuple(one.decode() for one in (part.kept[0].line, *keys))
    return Beginning(Position(size, size, leaf, roots, size, 0, 0), lineage, lines, size)


def first_line(reader: Reader) -> bytes | None:
    """The first line that is there; None where it is not complete.

    Raises:
        LedgerError: A file cannot be read.
    """
    for segment in reader.segments:
        with reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                return block.lines[0] if block.is_complete else None
    return None


def holds_last_line(reader: Reader, segment: Segment, position: Position) -> bool:
    """Whether the last line that was read still stands where it stood.

    Raises:
        LedgerError: The file cannot be read.
    """
    if segment.size_bytes < position.end or position.start == position.end:
        return segment.size_bytes >= position.end
    with reader.open_segment(segment) as file:
        file.seek(position.start)
        data = file.read(position.end - position.start)
    return leaf_hash(data.removesuffix(b"\n")).hex() == position.last_leaf
