"""Keys of a ledger: the genesis and rotations, made by hand; each rule broken once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import rfc8785

from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import ProofError
from cert.ledger.keys import PublicKey
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.lineage import Genesis, Lineage, parse_genesis
from tests.ledger.ledgers import (
    ORIGIN,
    b64,
    begin,
    control,
    genesis_line,
    leaf_of,
    line_of,
    note_of,
    private,
    raw,
    sha,
)

FIRST, SECOND, THIRD = private("first"), private("second"), private("third")


def public(name: str) -> PublicKey:
    return PublicKey(raw(private(name)))


def changed(line: bytes, **members: Any) -> bytes:  # noqa: ANN401 - JSON
    """The same record with some members of its top level replaced."""
    written: bytes = rfc8785.dumps({**json.loads(line), **members})
    return written


def test_a_genesis_is_read() -> None:
    assert parse_genesis(genesis_line(FIRST)) == Genesis(ORIGIN, public("first"))


GENESIS = genesis_line(FIRST)
MEMBER = json.loads(GENESIS)["ledger"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no genesis record"),
        (b"[]", "no genesis record"),
        (GENESIS + b" ", "not in canonical form"),
        (changed(GENESIS, kind="note"), "no genesis record"),
        (changed(GENESIS, ledger=[]), "no genesis record"),
        (changed(GENESIS, _seq=1), "a genesis is record 0"),
        (changed(GENESIS, _seq="0"), "no genesis record"),
        (changed(GENESIS, _prev="x"), "no genesis record"),
        (changed(GENESIS, A=1), "no genesis record"),
        (changed(GENESIS, z="x" * MAX_LINE_BYTES), "no genesis record"),
        (changed(GENESIS, _prev="0" * 64), "link is not that of its origin and key"),
        (changed(GENESIS, ledger={**MEMBER, "format": "2"}), "format '2'; this version reads '1'"),
        (changed(GENESIS, ledger={**MEMBER, "format": 1}), "format 1;"),
        (changed(GENESIS, ledger={}), "format None"),
        (changed(GENESIS, ledger={**MEMBER, "origin": "a b"}), "its origin is none"),
        (changed(GENESIS, ledger={**MEMBER, "origin": 1}), "its origin is none"),
        (changed(GENESIS, ledger={**MEMBER, "origin": "other"}), "link is not that of its origin"),
        (changed(GENESIS, ledger={**MEMBER, "public_key": "AAAA"}), "its key: .* not 3"),
        (changed(GENESIS, ledger={**MEMBER, "public_key": 1}), "its key: .* no"),
        (
            changed(GENESIS, ledger={**MEMBER, "public_key": b64(raw(SECOND))}),
            "link is not that of its origin and key",
        ),
    ],
)
def test_what_is_no_genesis_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        parse_genesis(line)


def test_a_genesis_is_a_control_record() -> None:
    # docs/record-format.md, 3: a line that has another first key is never one.
    with pytest.raises(ProofError, match="no genesis record"):
        parse_genesis(changed(GENESIS, assessment={}))


def test_keys_take_turns() -> None:
    made = begin()
    made.grow(2)
    made.rotate(SECOND)
    made.grow(1)
    made.rotate(THIRD)
    lineage = Lineage(parse_genesis(made.lines[0]))
    assert (lineage.origin, lineage.current) == (ORIGIN, public("first"))
    lineage.rotate(made.lines[3])
    lineage.rotate(made.lines[5])
    assert lineage.keys == [public("first"), public("second"), public("third")]
    assert lineage.current == public("third")
    # Rotations are records 3 and 5: in force from sizes 4 and 6.
    names = ["first"] * 4 + ["second"] * 2 + ["third"] * 2
    assert [lineage.key_at(size) for size in range(8)] == [public(name) for name in names]


def rotation() -> tuple[Lineage, bytes]:
    made = begin()
    made.grow(1)
    made.rotate(SECOND)
    return Lineage(parse_genesis(made.lines[0])), made.lines[2]


def with_member(**members: object) -> bytes:
    _, line = rotation()
    return changed(line, key={**json.loads(line)["key"], **members})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no key record"),
        (changed(rotation()[1], kind="genesis"), "no key record"),
        (changed(rotation()[1], assessment={}), "no key record"),
        (rotation()[1] + b" ", "not in canonical form"),
        (changed(rotation()[1], key=None), "no key record"),
        (with_member(previous=None), "a public key is no"),
        (with_member(public_key="AAAA"), "32 bytes, not 3"),
        (with_member(signature="="), "the signature is no"),
        (with_member(proof=7), "the proof is no"),
        (with_member(previous=b64(raw(THIRD))), "it passes on .* in force is"),
        (with_member(public_key=b64(raw(FIRST))), "passes a key on to itself"),
        (with_member(public_key=b64(raw(THIRD))), "no signature of"),
        (with_member(signature=b64(bytes(64))), re.escape(public("first").text)),
        (with_member(proof=b64(bytes(64))), re.escape(public("second").text)),
        (with_member(signature="AAAA"), "no signature of"),
        # The same record at another place, or after another line.
        (changed(rotation()[1], _seq=3), "no signature of"),
        (changed(rotation()[1], _prev="0" * 64), "no signature of"),
    ],
)
def test_what_does_not_pass_the_key_on_is_refused_and_the_key_stays(line: bytes, why: str) -> None:
    lineage, good = rotation()
    with pytest.raises(ProofError, match=why):
        lineage.rotate(line)
    assert lineage.keys == [public("first")]
    lineage.rotate(good)
    with pytest.raises(ProofError, match="it passes on"):
        lineage.rotate(good)


def test_swapped_signatures_are_refused() -> None:
    lineage, line = rotation()
    member = json.loads(line)["key"]
    swapped = with_member(signature=member["proof"], proof=member["signature"])
    with pytest.raises(ProofError, match="no signature of"):
        lineage.rotate(swapped)


def test_a_rotation_of_another_ledger_is_refused() -> None:
    made = begin(origin="example.com/other")
    made.rotate(SECOND)
    lineage, _ = rotation()
    line = line_of(leaf_of(GENESIS), 1, control("key", key=json.loads(made.lines[1])["key"]))
    with pytest.raises(ProofError, match="no signature of"):
        lineage.rotate(line)


def test_checkpoints_are_by_the_key_in_force_at_their_size() -> None:
    lineage, line = rotation()
    lineage.rotate(line)
    root = sha(b"root")
    for size, key in ((2, FIRST), (3, SECOND), (9, SECOND)):
        lineage.verify(parse_checkpoint(note_of(ORIGIN, size, root, key)), size)
    for size, key in ((2, SECOND), (3, FIRST), (9, THIRD)):
        with pytest.raises(ProofError, match=f"the checkpoint of size {size} is not by"):
            lineage.verify(parse_checkpoint(note_of(ORIGIN, size, root, key)), size)
    with pytest.raises(ProofError, match="a checkpoint of 3 records, not of 4"):
        lineage.verify(parse_checkpoint(note_of(ORIGIN, 3, root, SECOND)), 4)
    with pytest.raises(ProofError, match="a checkpoint of 'x', not of 'example"):
        lineage.verify(parse_checkpoint(note_of("x", 3, root, SECOND)), 3)
