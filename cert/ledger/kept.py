"""What is kept of records that are removed, made while they are there."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

import orjson

from cert.ledger.errors import LedgerFullError, ProofError
from cert.ledger.merkle import Frontier
from cert.ledger.pruned import KeptLine, PrunedPart, verify_pruned
from cert.ledger.reader import MAX_SIDE_FILE_BYTES, PRUNING, PRUNING_NOTE
from cert.ledger.subtrees import audit_paths, read_leaves

if TYPE_CHECKING:
    from cert.ledger.reader import Reader

_ALWAYS: Final = frozenset({"genesis", "key", "policy", "pruned", "erased"})
_CANDIDATES: Final = tuple(b'"kind":"%b"' % one.encode() for one in (*sorted(_ALWAYS), "run"))
_MANY: Final = 1 << 12


def build_pruned_part(reader: Reader, earlier: PrunedPart | None, size: int) -> PrunedPart:
    """Make what stands for the first records, from them and from what stands for earlier ones.

    Two passes; memory grows with the lines that are kept.

    Args:
        reader: The ledger, with the records that are to be removed.
        earlier: What stands for those that were removed before.
        size: Records 0 .. size - 1 are to be removed; a checkpoint of this size is there.

    Raises:
        ProofError: The records are not those of the checkpoint.
        LedgerFullError: More would have to be kept than a ledger can hold.
        LedgerError: A file cannot be read.
    """
    keeper = _Keeper(earlier)
    tree = Frontier() if earlier is None else earlier.tree()
    leaves = read_leaves(reader, earlier, size, watch=keeper.take)
    last_leaf = b""
    while some := list(islice(leaves, _MANY)):
        tree.extend(some)
        last_leaf = some[-1]
    if tree.size != size:
        raise ProofError(f"the records end before {size}, of which a checkpoint speaks")
    new = keeper.new()
    seqs = [seq for seq, _ in new]
    paths = audit_paths(read_leaves(reader, earlier, size), seqs, size, earlier)
    proven = [KeptLine(seq, line, size, path) for (seq, line), path in zip(new, paths, strict=True)]
    kept = tuple(sorted([*keeper.old(), *proven], key=lambda one: one.seq))
    part = PrunedPart(size, tuple(tree.roots()), last_leaf, kept)
    verify_pruned(part, reader.read_checkpoint)
    if len(part.encode()) > MAX_SIDE_FILE_BYTES:
        raise LedgerFullError(
            f"{len(kept)} records would have to be kept, more than pruned.json can hold",
            hint="go on with this ledger as it is, and begin a new one",
        )
    return part


def build_account(reader: Reader, earlier: PrunedPart, seq: int) -> dict[str, bytes]:
    """Take along a `pruned` record into a part of a ledger that ends before it.

    Args:
        reader: The ledger.
        earlier: What stands for the records that it is about.
        seq: Its number; it is there.

    Returns:
        Side files of that part, by names; the same ones for as long as the ledger has this record.

    Raises:
        LedgerError: As `build_pruned_part`, or no checkpoint covers it.
    """
    size = next((one for one in reader.checkpoints if one > seq), None)
    if size is None:
        raise ProofError(f"no checkpoint covers the `pruned` record {seq}")
    later = build_pruned_part(reader, earlier, size)
    return {PRUNING: later.encode(), PRUNING_NOTE: reader.read_checkpoint(size)}


class _Keeper:
    """Chooses the lines; of runs only those that do not end in the removed part."""

    def __init__(self, earlier: PrunedPart | None) -> None:
        self._old: list[KeptLine] = []
        self._old_runs: dict[str, list[KeptLine]] = {}
        self._new: list[tuple[int, bytes]] = []
        self._new_runs: dict[str, list[tuple[int, bytes]]] = {}
        for one in () if earlier is None else earlier.kept:
            match orjson.loads(one.line):
                case {"kind": "run", "run_id": str(run_id)}:
                    self._old_runs.setdefault(run_id, []).append(one)
                case _:
                    self._old.append(one)

    def take(self, seq: int, line: bytes) -> None:
        """Look at a line that is to be removed."""
        if not any(one in line for one in _CANDIDATES):
            return
        # Quotes within a text are escaped, but a member below the top may be called `kind`, too.
        match orjson.loads(line):
            case {"kind": "run", "run_id": str(run_id), "run": {"phase": "end"}}:
                self._old_runs.pop(run_id, None)
                self._new_runs.pop(run_id, None)
            case {"kind": "run", "run_id": str(run_id)}:
                self._new_runs.setdefault(run_id, []).append((seq, line))
            case {"kind": str(kind)} if kind in _ALWAYS:
                self._new.append((seq, line))
            case _:
                pass

    def old(self) -> list[KeptLine]:
        """Lines that were kept before and still are."""
        return [*self._old, *chain.from_iterable(self._old_runs.values())]

    def new(self) -> list[tuple[int, bytes]]:
        """Number and line of those that are kept from now on, in order."""
        return sorted([*self._new, *chain.from_iterable(self._new_runs.values())])
