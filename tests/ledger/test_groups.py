"""Lines that are taken in groups come to the same as one by one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.appender import open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.end import find_end
from cert.ledger.key_store import GivenKey
from cert.ledger.keys import Signer
from cert.ledger.line import chain_lines, is_measured, join_links, leaf_hash
from cert.ledger.merkle import Frontier
from tests.ledger.ledgers import leaf_of, mth, path_of, private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEYS = GivenKey(Signer(private("groups")))
MEASURED = canonical_bytes({"assessment": {}, "kind": "analysis"})
POLICY = canonical_bytes({"clock": "system", "kind": "policy", "policy": {"digest": "sha256:1"}})
BEGIN = canonical_bytes(
    {"clock": "system", "kind": "run", "run": {"job": "j", "phase": "begin"}, "run_id": "r"}
)
OTHER = canonical_bytes({"clock": "system", "kind": "note", "note": {"text": "x"}})


@given(
    st.lists(st.sampled_from([MEASURED, POLICY, OTHER]), max_size=20),
    st.integers(0, 2**53),
    st.binary(min_size=32, max_size=32),
)
def test_lines_in_a_row_are_those_one_after_the_other(
    bodies: list[bytes], seq: int, prev: bytes
) -> None:
    expected, leaves, link = [], [], prev
    for number, body in enumerate(bodies, seq):
        expected.append(join_links(link, number, body))
        link = leaf_of(expected[-1])
        leaves.append(link)
    assert chain_lines(prev, seq, bodies) == (expected, leaves)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (MEASURED, True),
        (b'{"assessment":1}', True),
        (b'{"assessments":1}', False),
        (b'{"a":{"assessment":1}}', False),
        (b'{"a":1,"assessment":1}', False),
        (POLICY, False),
        (BEGIN, False),
    ],
)
@pytest.mark.parametrize("seq", [0, 9, 10, 2**53 - 1])
def test_what_begins_like_a_measured_text(body: bytes, seq: int, *, expected: bool) -> None:
    assert is_measured(join_links(bytes(32), seq, body)) is expected


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_a_tree_that_grows_in_groups_knows_the_path_of_its_last_leaf(sizes: list[int]) -> None:
    tree, leaves = Frontier(), []
    for size in sizes:
        some = [leaf_hash(bytes([len(leaves) + number])) for number in range(size)]
        leaves += some
        tree.extend(some)
        assert tree.root() == mth(leaves)
        path = tree.last_path()
        assert path is None or path == path_of(len(leaves) - 1, leaves)
    tree.extend(leaves[:1])
    assert tree.last_path() == path_of(len(leaves), [*leaves, leaves[0]])


@pytest.mark.parametrize("groups", [(1,) * 8, (8,), (3, 5), (2, 1, 5)])
def test_one_group_or_many_make_one_ledger_and_one_memory(
    tmp_path: Path, groups: Sequence[int]
) -> None:
    bodies = [MEASURED, POLICY, MEASURED, MEASURED, BEGIN, OTHER, MEASURED, MEASURED]
    folder, at = tmp_path / "ledger", 0
    seqs = []
    with open_ledger(folder, KEYS, origin="example.com/groups") as ledger:
        for size in groups:
            seqs += [one.seq for one in ledger.append(bodies[at : at + size])]
            at += size
        known = ledger.index
    data = (folder / "segments" / "000000000000.jsonl").read_bytes()
    lines = data.splitlines(keepends=True)
    assert seqs == list(range(1, 9))
    offset = sum(map(len, lines[:5]))
    assert known.policies == {"sha256:1": 2}
    assert known.runs == {"r": {"seq": 5, "segment": 0, "offset": offset, "job": "j"}}
    (folder / "tail.json").unlink()  # so that all lines are read, in one group
    end, recovered = find_end(folder)
    os.close(end.fd)
    assert recovered is None
    assert end.index == known
    assert (end.tree.size, end.offset) == (9, len(data))
    assert end.last_leaf == leaf_of(lines[-1].rstrip(b"\n"))
    assert end.tree.root() == mth([leaf_of(line.rstrip(b"\n")) for line in lines])
