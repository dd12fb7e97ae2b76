"""Merkle trees against Certificate Transparency's vectors and RFC 6962's recursive definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.ledger.errors import ProofError
from cert.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_ranges,
    inclusion_ranges,
    node_hash,
    range_roots,
    verify_consistency,
    verify_inclusion,
)
from tests.ledger.ledgers import frontier_of, leaf_of, mth, path_of, proof_of, sha

if TYPE_CHECKING:
    from collections.abc import Sequence

# The vectors of the reference implementation of RFC 6962 (google/certificate-transparency,
# cpp/merkletree/merkle_tree_test.cc), which its successors carry on.
ENTRIES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
PROOFS = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
VECTOR_LEAVES = [leaf_of(bytes.fromhex(entry)) for entry in ENTRIES]
LEAVES = [sha(str(number).encode()) for number in range(300)]


def unhex(hashes: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(one) for one in hashes]


def grown(leaves: Sequence[bytes], *steps: int) -> Frontier:
    """A tree that got its leaves in steps of these sizes, the rest at once."""
    frontier, at = Frontier(), 0
    for step in (*steps, len(leaves)):
        frontier.extend(leaves[at : at + step])
        at += step
    return frontier


@pytest.mark.parametrize("size", range(9))
def test_roots_of_the_vectors(size: int) -> None:
    assert mth(VECTOR_LEAVES[:size]).hex() == ROOTS[size]
    assert grown(VECTOR_LEAVES[:size]).root().hex() == ROOTS[size]
    assert grown(VECTOR_LEAVES[:size], *[1] * size).root().hex() == ROOTS[size]


def test_the_empty_root_and_a_node() -> None:
    assert EMPTY_ROOT.hex() == ROOTS[0]
    assert node_hash(*VECTOR_LEAVES[:2]).hex() == ROOTS[2]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_audit_paths_of_the_vectors(index: int, size: int) -> None:
    path = unhex(PATHS[index, size])
    leaves = VECTOR_LEAVES[:size]
    assert path_of(index, leaves) == path
    assert range_roots(iter(leaves), inclusion_ranges(index, size)) == path
    root = bytes.fromhex(ROOTS[size])
    verify_inclusion(index=index, size=size, leaf=leaves[index], path=path, root=root)


@pytest.mark.parametrize(("old", "new"), PROOFS)
def test_consistency_proofs_of_the_vectors(old: int, new: int) -> None:
    proof = unhex(PROOFS[old, new])
    assert proof_of(old, VECTOR_LEAVES[:new]) == proof
    assert range_roots(iter(VECTOR_LEAVES[:new]), consistency_ranges(old, new)) == proof
    verify_consistency(
        old=old,
        new=new,
        old_root=bytes.fromhex(ROOTS[old]),
        new_root=bytes.fromhex(ROOTS[new]),
        proof=proof,
    )


def test_all_audit_paths_and_proofs_up_to_34_leaves() -> None:
    for size in range(1, 35):
        leaves = LEAVES[:size]
        root = mth(leaves)
        for index in range(size):
            path = range_roots(iter(leaves), inclusion_ranges(index, size))
            assert path == path_of(index, leaves)
            verify_inclusion(index=index, size=size, leaf=leaves[index], path=path, root=root)
            old = index + 1
            proof = range_roots(iter(leaves), consistency_ranges(old, size))
            assert proof == proof_of(old, leaves)
            old_root = mth(leaves[:old])
            verify_consistency(old=old, new=size, old_root=old_root, new_root=root, proof=proof)


@given(st.lists(st.integers(0, 40), max_size=7))
def test_a_tree_is_the_same_however_it_grew(steps: list[int]) -> None:
    leaves = LEAVES[: sum(steps)]
    frontier, at = Frontier(), 0
    assert frontier.last_path() is None
    for step in steps:
        frontier.extend(iter(leaves[at : at + step]))
        at += step
        assert frontier.size == at
        assert frontier.root() == mth(leaves[:at])
        assert frontier.roots() == frontier_of(leaves[:at])
        if at:
            assert frontier.last_path() == path_of(at - 1, leaves[:at])


@given(size=st.integers(0, 150), steps=st.lists(st.integers(1, 30), max_size=4))
def test_a_tree_goes_on_from_its_roots(size: int, steps: list[int]) -> None:
    leaves = LEAVES[: size + sum(steps)]
    frontier = Frontier.from_roots(size, frontier_of(leaves[:size]))
    assert frontier.root() == mth(leaves[:size])
    assert frontier.roots() == frontier_of(leaves[:size])
    # The last leaf itself is among the roots in a tree of odd size only.
    want = path_of(size - 1, leaves[:size]) if size % 2 else None
    assert frontier.last_path() == want
    frontier.extend([])
    assert frontier.last_path() == want
    at = size
    for step in steps:
        frontier.extend(leaves[at : at + step])
        at += step
        assert frontier.root() == mth(leaves[:at])
        assert frontier.last_path() == path_of(at - 1, leaves[:at])


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 0), (5, 1), (5, 3), (8, 3)])
def test_another_number_of_roots_is_refused(size: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"a tree of {size} leaves has {size.bit_count()}"):
        Frontier.from_roots(size, LEAVES[:count])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_path_of_a_leaf_outside(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"leaf {index} of {size}"):
        inclusion_ranges(index, size)
    with pytest.raises(ProofError, match=f"leaf {index} is not in a tree of {size}"):
        verify_inclusion(index=index, size=size, leaf=LEAVES[0], path=[], root=LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3), (0, 0)])
def test_there_is_no_proof_of_an_empty_or_longer_beginning(old: int, new: int) -> None:
    with pytest.raises(ValueError, match=f"from {old} to {new} leaves"):
        consistency_ranges(old, new)
    with pytest.raises(ProofError, match=f"from {old} to {new} leaves"):
        verify_consistency(old=old, new=new, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=[])


def test_roots_of_ranges_come_in_the_order_asked_for() -> None:
    ranges = [(5, 6), (0, 4), (8, 11)]
    want = [mth(LEAVES[low:high]) for low, high in ranges]
    assert range_roots(iter(LEAVES), ranges) == want
    assert range_roots(iter(LEAVES), []) == []
    with pytest.raises(ValueError, match="leaves end before 11"):
        range_roots(iter(LEAVES[:10]), ranges)
    with pytest.raises(ValueError, match="leaves end before 4"):
        range_roots(iter([]), ranges)


PLACES = st.integers(1, 60).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))


def refused(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    try:
        verify_inclusion(index=index, size=size, leaf=leaf, path=path, root=root)
    except ProofError:
        return True
    return False


@given(place=PLACES, data=st.data())
def test_every_change_of_an_audit_path_is_refused(
    place: tuple[int, int], data: st.DataObject
) -> None:
    index, size = place
    leaves = LEAVES[:size]
    path, root = path_of(index, leaves), mth(leaves)
    assert not refused(index, size, leaves[index], path, root)
    assert refused(index, size, sha(b"another"), path, root)
    assert refused(index, size, leaves[index], path, sha(b"another"))
    assert refused(index, size, leaves[index], [*path, root], root)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert refused(index, size, leaves[index], path[:at] + path[at + 1 :], root)
        assert refused(index, size, leaves[index], [*path[:at], sha(b"x"), *path[at + 1 :]], root)
    other = data.draw(st.integers(0, size - 1))
    # Another index may share the path only if it is the same leaf.
    assert refused(other, size, leaves[index], path, root) == (other != index)


@settings(max_examples=200)
@given(place=PLACES, data=st.data())
def test_every_change_of_a_consistency_proof_is_refused(
    place: tuple[int, int], data: st.DataObject
) -> None:
    old, new = place[0] + 1, place[1]
    old_root, new_root = mth(LEAVES[:old]), mth(LEAVES[:new])
    proof = proof_of(old, LEAVES[:new])

    def check(proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
        verify_consistency(old=old, new=new, old_root=old_root, new_root=new_root, proof=proof)

    check(proof, old_root, new_root)
    wrong = [
        (proof, sha(b"x"), new_root),
        (proof, old_root, sha(b"x")),
        ([*proof, sha(b"x")], old_root, new_root),
        ([sha(b"x"), *proof], old_root, new_root),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong += [
            (proof[:at] + proof[at + 1 :], old_root, new_root),
            ([*proof[:at], sha(b"x"), *proof[at + 1 :]], old_root, new_root),
        ]
    for one in wrong:
        with pytest.raises(ProofError):
            check(*one)


def test_errors_of_proofs_say_what_is_wrong() -> None:
    root = mth(LEAVES[:6])
    with pytest.raises(ProofError, match="1 hashes is too short for 6 leaves"):
        verify_inclusion(index=0, size=6, leaf=LEAVES[0], path=LEAVES[:1], root=root)
    with pytest.raises(ProofError, match="4 hashes is too long for 6 leaves"):
        verify_inclusion(index=0, size=6, leaf=LEAVES[0], path=LEAVES[:4], root=root)
    with pytest.raises(ProofError, match="an empty proof"):
        verify_consistency(old=3, new=6, old_root=root, new_root=root, proof=[])
    with pytest.raises(ProofError, match="the proof is too long"):
        verify_consistency(old=3, new=6, old_root=root, new_root=root, proof=LEAVES[:9])
    with pytest.raises(ProofError, match="tree of 3 is not the beginning of the tree of 6"):
        verify_consistency(old=3, new=6, old_root=root, new_root=root, proof=LEAVES[:4])
    with pytest.raises(ProofError, match="one size have the same root"):
        verify_consistency(old=6, new=6, old_root=root, new_root=EMPTY_ROOT, proof=[])
    with pytest.raises(ProofError, match="need no proof"):
        verify_consistency(old=6, new=6, old_root=root, new_root=root, proof=[root])
