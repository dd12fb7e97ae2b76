"""Merkle trees of RFC 6962, section 2.1, over leaf hashes; proofs and their verification.

Nothing here holds a tree: growing takes the roots of the full subtrees (`Frontier`), and proofs
take the roots of a few disjoint ranges, which one pass over the leaves yields.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import ProofError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

_NODE: Final = hashlib.sha256(b"\x01")
"""Copied for each node, which costs half of beginning anew."""

Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows: the roots of its full subtrees, one for each 1-bit of its size."""

    __slots__ = ("_inner", "_pending", "size")

    def __init__(self) -> None:
        self.size = 0
        self._pending: list[bytes | None] = []
        """By level: a full subtree of 2^level leaves that has no right neighbour yet."""
        self._inner: list[bytes] | None = []
        """Siblings of the last leaf inside its full subtree, nearest first; None if not known."""

    @classmethod
    def from_roots(cls, size: int, roots: Sequence[bytes]) -> Frontier:
        """Go on from the roots of a tree, the largest first.

        Raises:
            ValueError: Another number of roots than the size has 1-bits.
        """
        if size.bit_count() != len(roots):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} full subtrees")
        frontier = cls()
        frontier.size = size
        rest = list(roots)
        for level in range(size.bit_length()):
            frontier._pending.append(rest.pop() if size >> level & 1 else None)
        frontier._inner = [] if size & 1 else None
        return frontier

    def roots(self) -> list[bytes]:
        """Roots of the full subtrees, the largest first."""
        return [root for root in reversed(self._pending) if root is not None]

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes; many at once cost one hash each, few at once the same."""
        nodes = list(leaves)
        if not nodes:
            return
        self.size += len(nodes)
        copy, level = _NODE.copy, 0
        inner: list[bytes] = []
        is_inside = True
        while nodes:
            if level == len(self._pending):
                self._pending.append(None)
            waiting = self._pending[level]
            if waiting is not None:
                nodes.insert(0, waiting)
            if len(nodes) & 1:
                self._pending[level] = nodes.pop()
                is_inside = False
            else:
                self._pending[level] = None
                if is_inside:
                    inner.append(nodes[-2])
            parents: list[bytes] = []
            for left, right in zip(nodes[::2], nodes[1::2], strict=True):
                digest = copy()
                digest.update(left + right)
                parents.append(digest.digest())
            nodes = parents
            level += 1
        self._inner = inner

    def last_path(self) -> list[bytes] | None:
        """Audit path of the last leaf; None where the leaf itself was never here, or is none."""
        if self._inner is None or not self.size:
            return None
        lowest = (self.size & -self.size).bit_length()
        return [*self._inner, *(one for one in self._pending[lowest:] if one is not None)]

    def root(self) -> bytes:
        """The tree's root; of an empty one, SHA-256 of nothing."""
        root: bytes | None = None
        for waiting in self._pending:
            if waiting is not None:
                root = waiting if root is None else node_hash(waiting, root)
        return EMPTY_ROOT if root is None else root


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Ranges whose roots are the audit path of a leaf, nearest sibling first.

    >>> inclusion_ranges(2, 5)
    [(3, 4), (0, 2), (4, 5)]

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of {size}")
    ranges: list[Range] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Ranges whose roots prove that a tree of `old` leaves is the beginning of one of `new`.

    Raises:
        ValueError: Not 1 <= old <= new.
    """
    if not 1 <= old <= new:
        raise ValueError(f"from {old} to {new} leaves")
    ranges: list[Range] = []
    low, high, is_whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low, is_whole = middle, False
    if not is_whole:
        ranges.append((low, high))
    return ranges[::-1]


def range_roots(leaves: Iterator[bytes], ranges: Sequence[Range]) -> list[bytes]:
    """Roots of disjoint ranges, in the order in which they are given, by one pass over the leaves.

    Raises:
        ValueError: There are fewer leaves than the ranges need.
    """
    roots: dict[Range, bytes] = {}
    at = 0
    for low, high in sorted(ranges):
        for _ in range(low - at):
            next(leaves, None)
        frontier = Frontier()
        frontier.extend(leaf for _, leaf in zip(range(high - low), leaves, strict=False))
        if frontier.size < high - low:
            raise ValueError(f"leaves end before {high}")
        roots[low, high] = frontier.root()
        at = high
    return [roots[one] for one in ranges]


def verify_inclusion(
    *, index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes
) -> None:
    """Check an audit path (RFC 9162, 2.1.3.2).

    Raises:
        ProofError: It does not lead from this leaf at this index to this root.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    number, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError(f"an audit path of {len(path)} hashes is too long for {size} leaves")
        if number & 1 or number == last:
            result = node_hash(sibling, result)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofError(f"an audit path of {len(path)} hashes is too short for {size} leaves")
    if result != root:
        raise ProofError(f"leaf {index} is not in the tree of this root")


def verify_consistency(  # noqa: C901 - the steps of the RFC, kept together
    *, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that one tree is the beginning of another (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: It is not shown.
    """
    if not 1 <= old <= new:
        raise ProofError(f"no proof leads from {old} to {new} leaves")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("trees of one size have the same root and need no proof")
        return
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        raise ProofError("an empty proof")
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old_result = new_result = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if number & 1 or number == last:
            old_result = node_hash(sibling, old_result)
            new_result = node_hash(sibling, new_result)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new_result = node_hash(new_result, sibling)
        number, last = number >> 1, last >> 1
    if last or old_result != old_root or new_result != new_root:
        raise ProofError(f"the tree of {old} is not the beginning of the tree of {new}")


def _split(size: int) -> int:
    """The largest power of two below a size of 2 or more."""
    return 1 << (size - 1).bit_length() - 1
