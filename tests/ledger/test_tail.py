"""The writer's notes about the end, and the values of side files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.errors import ProofError
from cert.ledger.index import Index
from cert.ledger.side_file import parse_count, parse_hash, parse_hashes
from cert.ledger.tail import Tail, parse_tail
from tests.ledger.ledgers import frontier_of, make, mth, path_of, sha

MADE = make(9)
LEAVES = MADE.leaves
RUN = {"seq": 4, "segment": 0, "offset": 512, "job": {"inputs": 3}}


def encoded(**changed: object) -> bytes:
    return json.dumps(MADE.tail(6, **changed)).encode()


def test_notes_are_read_and_written() -> None:
    tail = parse_tail(encoded(policies={"sha256:a": 3}, runs={"r": RUN}))
    assert tail == Tail(
        size=6,
        last_leaf=LEAVES[5],
        proof=tuple(path_of(5, LEAVES[:6])),
        frontier=tuple(frontier_of(LEAVES[:6])),
        segment=0,
        offset=sum(len(line) + 1 for line in MADE.lines[:6]),
        key=str(MADE.tail(6)["key"]),
        index=Index({"sha256:a": 3}, {"r": RUN}),
    )
    assert json.loads(tail.encode()) == MADE.tail(6, policies={"sha256:a": 3}, runs={"r": RUN})
    assert parse_tail(tail.encode()) == tail


def test_a_verifier_needs_three_members() -> None:
    bare = {name: MADE.tail(6)[name] for name in ("size", "last_leaf", "proof")}
    tail = parse_tail(json.dumps({**bare, "more": 1}).encode())
    assert tail is not None
    assert (tail.size, tail.frontier, tail.key, tail.index) == (6, (), "", Index())


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 2000,
        encoded(size=0),
        encoded(size=-1),
        encoded(size=True),
        encoded(size=6.0),
        encoded(size="6"),
        encoded(last_leaf="00"),
        encoded(last_leaf=LEAVES[5].hex().upper()),
        encoded(last_leaf=None),
        encoded(proof={}),
        encoded(proof="0" * 64),
        encoded(proof=[0]),
        encoded(frontier=None),
        encoded(segment=-1),
        encoded(offset=None),
        encoded(policies=[]),
        encoded(policies={"a": "b"}),
        encoded(runs=[]),
        encoded(runs={"r": {}}),
        encoded(runs={"r": []}),
        encoded(runs={"r": {**RUN, "seq": -1}}),
        encoded(runs={"r": {name: RUN[name] for name in ("seq", "segment", "offset")}}),
    ],
)
def test_notes_that_cannot_be_used_are_none(data: bytes | None) -> None:
    assert parse_tail(data) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_notes_or_none(data: bytes) -> None:
    assert parse_tail(data) is None


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(MADE.tail(6))), JSON, max_size=3))
def test_notes_of_any_members_are_read_or_not(changed: dict[str, object]) -> None:
    tail = parse_tail(json.dumps({**MADE.tail(6), **changed}).encode())
    if tail is not None:
        assert parse_tail(tail.encode()) == tail


def test_notes_lead_to_the_root_or_are_refused() -> None:
    root = mth(LEAVES[:6])
    parsed = parse_tail(encoded())
    assert parsed is not None
    parsed.verify(root)
    with pytest.raises(ProofError, match="leaf 5 is not in the tree of this root"):
        parsed.verify(sha(b"other"))
    for changed, why in (
        ({"last_leaf": LEAVES[4].hex()}, "leaf 5 is not in the tree"),
        ({"proof": []}, "too short"),
        # A path alone does not bind the size; the number of subtrees does.
        ({"size": 7}, "has 3 full subtrees"),
        ({"frontier": []}, "has 2 full subtrees"),
        ({"frontier": ["0" * 64] * 2}, "the frontier leads to another root"),
    ):
        tail = parse_tail(encoded(**changed))
        assert tail is not None
        with pytest.raises(ProofError, match=why):
            tail.verify(root)


def test_values_of_side_files() -> None:
    assert (parse_count(0), parse_count(2**60)) == (0, 2**60)
    assert parse_hash("0a" * 32) == b"\x0a" * 32
    assert parse_hashes([]) == ()
    assert parse_hashes(["00" * 32, "ff" * 32]) == (bytes(32), b"\xff" * 32)
    for count in (-1, True, 1.0, "1", None):
        with pytest.raises(ValueError, match="no count"):
            parse_count(count)
    for text in ("", "0" * 63, "0" * 65, "0A" * 32, "0" * 64 + "\n", 0, None, b"0" * 64):
        with pytest.raises(ValueError, match="no hash"):
            parse_hash(text)
    for hashes in (None, {}, (), "0" * 64, 7):
        with pytest.raises(ValueError, match="no list of hashes"):
            parse_hashes(hashes)
