"""Roots of parts of a ledger's tree, by one pass over its lines and in bounded memory.

Of a removed part only the roots of its full subtrees are left. They are all that a proof about
later records can need of it: a subtree that lies in the removed part, and whose sibling does not,
is one of them.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import ProofError
from cert.ledger.line import leaf_hash
from cert.ledger.merkle import Frontier, Range, inclusion_ranges, node_hash
from cert.ledger.scan import scan_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cert.ledger.pruned import PrunedPart
    from cert.ledger.reader import Reader

_MANY: Final = 1 << 12


def read_leaves(
    reader: Reader,
    part: PrunedPart | None,
    size: int,
    *,
    watch: Callable[[int, bytes], None] = lambda _seq, _line: None,
) -> Iterator[bytes]:
    """Yield the leaf hashes of the records that are there, up to a tree size.

    Args:
        reader: The ledger.
        part: What stands for the removed records, if any.
        size: Where to stop.
        watch: Told number and line of each.
    """
    start = 0 if part is None else part.size
    lines = (one.line for one in scan_lines(reader, segment=start))
    for seq, line in zip(range(start, size), lines, strict=False):
        watch(seq, line)
        yield leaf_hash(line)


def subtree_roots(
    leaves: Iterator[bytes], ranges: Iterable[Range], part: PrunedPart | None
) -> dict[Range, bytes]:
    """Roots of disjoint ranges, as `inclusion_ranges` and `consistency_ranges` name them.

    Args:
        leaves: Leaf hashes from the first record that is there.
        ranges: In any order.
        part: What stands for the removed records, if any.

    Raises:
        ProofError: Leaves end too early, or a range lies in the removed part and is no subtree
            of which the root was kept.
    """
    roots: dict[Range, bytes] = {}
    at = 0 if part is None else part.size
    for low, high in sorted(ranges):
        frontier = Frontier() if part is None else _kept_of(part, low, high)
        start = low + frontier.size
        for _ in islice(leaves, max(0, start - at)):
            pass
        while frontier.size < high - low:
            some = list(islice(leaves, min(_MANY, high - low - frontier.size)))
            if not some:
                raise ProofError(
                    f"the records end before {high}, of which a checkpoint speaks",
                    hint="`cert verify` says what is wrong",
                )
            frontier.extend(some)
        roots[low, high] = frontier.root()
        at = max(at, high)
    return roots


def audit_paths(
    leaves: Iterator[bytes], seqs: Sequence[int], size: int, part: PrunedPart | None
) -> list[tuple[bytes, ...]]:
    """Audit paths of many leaves in the tree of one size.

    Memory grows with the number of paths, not of leaves.

    Args:
        leaves: Leaf hashes from the first record that is there.
        seqs: Indexes of the leaves, in order; none of them in the removed part.
        size: Of the tree.
        part: What stands for the removed records, if any.

    Raises:
        ProofError: Leaves end too early.
    """
    paths = [inclusion_ranges(seq, size) for seq in seqs]
    # Ranges that hold a leaf that is asked for are joined from the two below them.
    joined = {one for seq in seqs for one in _around(seq, size)}
    apart = {one for path in paths for one in path} - joined
    roots = subtree_roots(leaves, apart | {(seq, seq + 1) for seq in seqs}, part)

    def root_of(low: int, high: int) -> bytes:
        if (low, high) not in roots:
            middle = _middle(low, high)
            roots[low, high] = node_hash(root_of(low, middle), root_of(middle, high))
        return roots[low, high]

    return [tuple(root_of(*one) for one in path) for path in paths]


def _around(seq: int, size: int) -> Iterator[Range]:
    """The ranges of the tree that hold a leaf, the leaf alone left out."""
    low, high = 0, size
    while high - low > 1:
        yield low, high
        middle = _middle(low, high)
        low, high = (low, middle) if seq < middle else (middle, high)


def _middle(low: int, high: int) -> int:
    """Where a range of two or more leaves parts into its two subtrees."""
    return low + (1 << (high - low - 1).bit_length() - 1)


def _kept_of(part: PrunedPart, low: int, high: int) -> Frontier:
    """The tree of what a range has in common with the removed part."""
    if low >= part.size:
        return Frontier()
    end, inside = min(high, part.size), []
    for root, start, stop in _kept_subtrees(part):
        if low <= start and stop <= end:
            inside.append((root, stop - start))
    if sum(size for _, size in inside) != end - low:
        raise ProofError(f"records {low} to {end - 1} were removed, and no hash of them was kept")
    return Frontier.from_roots(end - low, [root for root, _ in inside])


def _kept_subtrees(part: PrunedPart) -> Iterator[tuple[bytes, int, int]]:
    """Root, first leaf and end of each full subtree of the removed part."""
    at = 0
    for root in part.frontier:
        size = 1 << (part.size - at).bit_length() - 1
        yield root, at, at + size
        at += size
