"""What stands for removed records: read, written, and each proof in it broken once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.keys import PublicKey
from cert.ledger.pruned import KeptLine, parse_pruned, verify_pruned
from tests.ledger.ledgers import (
    ORIGIN,
    Made,
    frontier_of,
    leaf_of,
    line_of,
    make,
    mth,
    note_of,
    path_of,
    private,
    raw,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = private("second")


def rotated() -> Made:
    made = make(4)
    made.rotate(SECOND)
    made.grow(6)
    return made


MADE = rotated()
SIZE = 9
KEPT = [0, 2, 4]


def encoded(value: dict[str, Any] | None = None, **changed: object) -> bytes:
    written: bytes = rfc8785.dumps({**(value or MADE.pruned(SIZE, KEPT)), **changed})
    return written


def notes(made: Made = MADE) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        if size not in {4, 6, SIZE}:
            raise LedgerError(f"there is no checkpoint {size}")
        return made.note(size)

    return read


def test_a_removed_part_is_read_and_written() -> None:
    data = encoded()
    part = parse_pruned(data)
    leaves = MADE.leaves[:SIZE]
    assert (part.size, part.last_leaf) == (SIZE, leaves[-1])
    assert part.frontier == tuple(frontier_of(leaves))
    assert part.kept == tuple(
        KeptLine(seq, MADE.lines[seq], SIZE, tuple(path_of(seq, leaves))) for seq in KEPT
    )
    assert part.encode() == data
    assert part.tree().root() == mth(leaves)


def test_its_keys_are_the_ledgers() -> None:
    lineage = verify_pruned(parse_pruned(encoded()), notes())
    assert lineage.origin == ORIGIN
    assert lineage.keys == [PublicKey(raw(private("first"))), PublicKey(raw(SECOND))]
    assert lineage.key_at(4) != lineage.key_at(5)


def test_lines_may_be_proven_by_earlier_checkpoints() -> None:
    early = {**MADE.pruned(4, [0, 2])["kept"][1]}
    kept = [MADE.pruned(SIZE, [0])["kept"][0], early, MADE.pruned(6, [4])["kept"][0]]
    assert len(verify_pruned(parse_pruned(encoded(kept=kept)), notes()).keys) == 2


def kept_line(seq: int, /, **changed: object) -> dict[str, Any]:
    return {**MADE.pruned(SIZE, [seq])["kept"][0], **changed}


FORGED = line_of(leaf_of(MADE.lines[1]), 2, record(2, text="forged")).decode()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"size": 0, "kept": []}, "keeps the genesis"),
        ({"size": 0}, "keeps the genesis"),
        ({"kept": []}, "keeps the genesis"),
        ({"kept": [kept_line(2)]}, "no genesis record"),
        ({"kept": [kept_line(0), kept_line(4), kept_line(2)]}, "not in order"),
        ({"kept": [kept_line(0), kept_line(0)]}, "not in order"),
        ({"kept": [kept_line(0), kept_line(2, seq=9)]}, "not in order"),
        ({"kept": [kept_line(0), kept_line(2, seq=3)]}, "the kept line 3 is not that line"),
        ({"kept": [kept_line(0, seq=1)]}, "the kept line 1 is not that line"),
        ({"kept": [kept_line(0), kept_line(2, line="{}")]}, "the kept line 2 is not that line"),
        (
            {"kept": [kept_line(0), kept_line(2, line=FORGED), kept_line(4)]},
            "leaf 2 is not in the tree",
        ),
        ({"kept": [kept_line(0), kept_line(2, proof=[]), kept_line(4)]}, "too short"),
        ({"kept": [kept_line(0), kept_line(2, size=6), kept_line(4)]}, "leaf 2 is not in|too long"),
        (
            {"kept": [kept_line(0), kept_line(2, size=10), kept_line(4)]},
            "10 records are not in",
        ),
        ({"kept": [kept_line(0), kept_line(4, line=MADE.lines[4].decode()[:-9])]}, "not JSON"),
        # A rotation is missing: the checkpoint is by a key that is not known.
        ({"kept": [kept_line(0)]}, "the checkpoint of size 9 is not by"),
        ({"frontier": []}, "a tree of 9 leaves has 2 full subtrees"),
        ({"frontier": ["0" * 64, "0" * 64]}, "the frontier is not that of the checkpoint of 9"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused(changed: dict[str, object], why: str) -> None:
    part = parse_pruned(encoded(**changed))
    with pytest.raises(ProofError, match=why):
        verify_pruned(part, notes())


def test_checkpoints_that_are_needed_must_be_there_and_good() -> None:
    part = parse_pruned(encoded())
    with pytest.raises(LedgerError, match="there is no checkpoint 5"):
        verify_pruned(parse_pruned(encoded(kept=[kept_line(0, size=5), kept_line(4)])), notes())
    for note, why in (
        (b"", "no signed note"),
        (MADE.note(6), "of 6 records, not of 9"),
        (note_of(ORIGIN, SIZE, mth(MADE.leaves[:SIZE]), private("first")), "is not by"),
        (note_of(ORIGIN, SIZE, bytes(32), SECOND), "is not in the tree"),
        (note_of("other", SIZE, bytes(32), SECOND), "a checkpoint of 'other'"),
    ):
        with pytest.raises(ProofError, match=why):
            verify_pruned(part, lambda _, note=note: note)  # type: ignore[misc]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps(MADE.pruned(SIZE, KEPT)).encode(),
        encoded() + b"\n",
        encoded(size=-1),
        encoded(size="9"),
        encoded(frontier={}),
        encoded(last_leaf="00"),
        encoded(kept=None),
        encoded(kept={"a": 1}),
        encoded(kept="a"),
        encoded(kept=[1]),
        encoded(kept=[{}]),
        encoded(kept=[kept_line(0, line=None)]),
        encoded(kept=[kept_line(0, line=["a"])]),
        encoded(kept=[kept_line(0, seq=-1)]),
        encoded(kept=[kept_line(0, size=1.5)]),
        encoded(kept=[kept_line(0, proof="")]),
    ],
)
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError, match=r"pruned\.json is not what it should be"):
        parse_pruned(data)


JSON = st.recursive(
    st.none() | st.integers(-2, 20) | st.text(max_size=3) | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["size", "frontier", "kept", "last_leaf"]), JSON))
def test_any_members_are_verified_or_refused(changed: dict[str, object]) -> None:
    try:
        part = parse_pruned(encoded(**changed))
        verify_pruned(part, notes())
    except LedgerError:
        return
    assert (part.size, part.frontier) == (SIZE, tuple(frontier_of(MADE.leaves[:SIZE])))
    assert all(one.line == MADE.lines[one.seq] for one in part.kept)
