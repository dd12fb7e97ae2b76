"""`pruned.json`: what stands for records that were removed (docs/record-format.md, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cert.ledger.canonical import CanonicalError, canonical_bytes, parse_canonical
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import ProofError
from cert.ledger.line import is_control, leaf_hash, parse_links
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.merkle import Frontier, verify_inclusion
from cert.ledger.side_file import parse_count, parse_hash, parse_hashes

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class KeptLine:
    """A line of the removed part that is still needed.

    Attributes:
        seq: Its number.
        line: Its bytes.
        size: Of the checkpoint whose root it is proven by.
        proof: Audit path in the tree of that size.
    """

    seq: int
    line: bytes
    size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PrunedPart:
    """Records 0 .. size - 1, which are gone.

    Attributes:
        size: How many.
        frontier: Roots of the full subtrees of the tree of this size, the largest first.
        last_leaf: The link of the next record.
        kept: Lines that are still there, in order; the genesis first.
    """

    size: int
    frontier: tuple[bytes, ...]
    last_leaf: bytes
    kept: tuple[KeptLine, ...]

    def encode(self) -> bytes:
        """Write it in canonical form."""
        return canonical_bytes(
            {
                "size": self.size,
                "frontier": [one.hex() for one in self.frontier],
                "last_leaf": self.last_leaf.hex(),
                "kept": [
                    {
                        "seq": one.seq,
                        "line": one.line.decode(),
                        "size": one.size,
                        "proof": [hash_.hex() for hash_ in one.proof],
                    }
                    for one in self.kept
                ],
            }
        )

    def tree(self) -> Frontier:
        """The tree, to go on from."""
        return Frontier.from_roots(self.size, self.frontier)


def parse_pruned(data: bytes) -> PrunedPart:
    """Read what stands for the removed part; nothing is verified but its form.

    Raises:
        ProofError: It has another form.
    """
    try:
        value: dict[str, Any] = parse_canonical(data)
        return PrunedPart(
            size=parse_count(value["size"]),
            frontier=parse_hashes(value["frontier"]),
            last_leaf=parse_hash(value["last_leaf"]),
            kept=tuple(
                KeptLine(
                    parse_count(one["seq"]),
                    one["line"].encode(),
                    parse_count(one["size"]),
                    parse_hashes(one["proof"]),
                )
                for one in value["kept"]
            ),
        )
    except (CanonicalError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProofError(f"pruned.json is not what it should be: {error}") from error


def verify_pruned(part: PrunedPart, read_checkpoint: Callable[[int], bytes]) -> Lineage:
    """Check the removed part against the checkpoints that were signed while it was there.

    Args:
        part: As read.
        read_checkpoint: Returns the note of a tree size.

    Returns:
        The ledger's keys up to here.

    Raises:
        ProofError: A proof does not hold.
        LedgerError: A checkpoint that is needed cannot be read.
    """
    lineage = _lineage_of(part)
    roots: dict[int, bytes] = {}
    for size in {part.size, *(one.size for one in part.kept)}:
        if size > part.size:
            raise ProofError(f"pruned.json: {size} records are not in the removed part")
        signed = parse_checkpoint(read_checkpoint(size))
        lineage.verify(signed, size)
        roots[size] = signed.checkpoint.root
    for one in part.kept:
        verify_inclusion(
            index=one.seq,
            size=one.size,
            leaf=leaf_hash(one.line),
            path=one.proof,
            root=roots[one.size],
        )
    try:
        root = part.tree().root()
    except ValueError as error:
        raise ProofError(f"pruned.json: {error}") from error
    if root != roots[part.size]:
        raise ProofError(f"pruned.json: the frontier is not that of the checkpoint of {part.size}")
    return lineage


def _lineage_of(part: PrunedPart) -> Lineage:
    """Follow the keys through the kept lines."""
    if not part.size or not part.kept:
        raise ProofError("pruned.json: a removed part has records, and keeps the genesis")
    lineage = Lineage(parse_genesis(part.kept[0].line))
    seqs = [one.seq for one in part.kept]
    if seqs != sorted(set(seqs)) or seqs[-1] >= part.size:
        raise ProofError("pruned.json: the kept lines are not in order")
    for one in part.kept:
        links = parse_links(one.line)
        if links is None or links.seq != one.seq:
            raise ProofError(f"pruned.json: the kept line {one.seq} is not that line")
        if is_control("key", one.line):
            lineage.rotate(one.line)
    return lineage
