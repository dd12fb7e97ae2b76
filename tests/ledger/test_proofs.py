"""Proofs against ledgers made from the page alone, and against the second verifier."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import ProofError
from cert.ledger.keys import PublicKey
from cert.ledger.proofs import (
    parse_consistency,
    parse_inclusion,
    prove_consistency,
    prove_inclusion,
)
from cert.ledger.reader import FolderReader
from tests.ledger.ledgers import (
    b64,
    begin,
    leaf_of,
    make,
    mth,
    note_of,
    path_of,
    private,
    proof_of,
    raw,
)

if TYPE_CHECKING:
    from tests.ledger.ledgers import Made

PROGRAM = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
SPEC = importlib.util.spec_from_file_location("cert_verify_for_proofs", PROGRAM)
assert SPEC is not None
assert SPEC.loader is not None
second = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(second)

KEY = PublicKey(raw(private("first")))


def head_of(made: Made, size: int) -> bytes:
    return made.note(size)


def prune_by_hand(made: Made, folder: Path, size: int, kept: tuple[int, ...]) -> FolderReader:
    """Lay a ledger out as if its first records had been removed."""
    made.write(folder)
    for path in (folder / "segments").iterdir():
        if int(path.stem) < size:
            path.unlink()
    (folder / "pruned.json").write_bytes(rfc8785.dumps(made.pruned(size, kept)))
    return FolderReader(folder)


@pytest.mark.parametrize("size", [*range(1, 18), 31, 32, 33])
def test_every_record_is_proven_as_rfc_6962_defines(tmp_path: Path, size: int) -> None:
    made = make(size + 2, seals=[size], cuts=[size // 2] if size > 2 else [])
    reader = FolderReader(made.write(tmp_path / "ledger"))
    for seq in range(size):
        proof = prove_inclusion(reader, seq)
        hashes = "".join(f"{b64(one)}\n" for one in path_of(seq, made.leaves[:size]))
        expected = (
            f"c2sp.org/tlog-proof@v1\nextra {b64(made.lines[seq])}\nindex {seq}\n{hashes}\n"
        ).encode() + made.note(size)
        assert proof.encode() == expected
        proof.verify(KEY)
        assert parse_inclusion(expected) == proof
        assert second.verify_proof(expected, KEY.raw) == made.lines[seq]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 21])
def test_every_older_head_is_continued_as_rfc_6962_defines(tmp_path: Path, size: int) -> None:
    made = make(size + 1, seals=[size])
    reader = FolderReader(made.write(tmp_path / "ledger"))
    for old in range(1, size + 1):
        head = parse_checkpoint(head_of(made, old))
        proof = prove_consistency(reader, head)
        hashes = "".join(f"{b64(one)}\n" for one in proof_of(old, made.leaves[:size]))
        expected = f"old {old}\n{hashes}\n".encode() + made.note(size)
        assert proof.encode() == expected
        proof.verify(head, KEY)
        assert parse_consistency(expected) == proof
        new, is_own = second.verify_consistency(
            expected, second.parse_note(head_of(made, old)), KEY.raw
        )
        assert (new.size, is_own) == (size, True)


@given(st.integers(1, 60), st.integers(0, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_after_a_pruning_everything_later_is_proven_the_same(
    tmp_path_factory: pytest.TempPathFactory, pruned: int, more: int, data: st.DataObject
) -> None:
    size = pruned + more + 1
    made = make(size, seals=[pruned, size], cuts=[pruned])
    folder = tmp_path_factory.mktemp("pruned") / "ledger"
    kept = data.draw(st.sets(st.integers(0, pruned - 1))) | {0}
    reader = prune_by_hand(made, folder, pruned, tuple(sorted(kept)))
    seq = data.draw(st.integers(pruned, size - 1))
    proof = prove_inclusion(reader, seq)
    assert list(proof.path) == path_of(seq, made.leaves)
    proof.verify(KEY)
    old = data.draw(st.integers(pruned, size))
    head = parse_checkpoint(head_of(made, old))
    continued = prove_consistency(reader, head)
    assert list(continued.hashes) == proof_of(old, made.leaves)
    continued.verify(head, KEY)
    for one in kept:
        by_older = prove_inclusion(reader, one)
        assert by_older.signed.checkpoint.size == pruned
        by_older.verify(KEY)
        assert second.verify_proof(by_older.encode(), KEY.raw) == made.lines[one]
    if old > pruned > 1:
        with pytest.raises(ConfigurationError, match=r"the first .* were removed"):
            prove_consistency(reader, parse_checkpoint(head_of(made, pruned - 1)))
    gone = set(range(pruned)) - kept
    if gone:
        with pytest.raises(ConfigurationError, match="was removed with all before"):
            prove_inclusion(reader, min(gone))


def test_a_record_that_no_checkpoint_covers_is_not_proven(tmp_path: Path) -> None:
    reader = FolderReader(make(9, seals=[7]).write(tmp_path / "ledger"))
    with pytest.raises(ConfigurationError, match="covers the records 0 to 6, and not 7") as caught:
        prove_inclusion(reader, 7)
    assert caught.value.hint == "`cert ledger head` signs one of all records"
    unsealed = FolderReader(make(3).write(tmp_path / "other"))
    with pytest.raises(ConfigurationError, match="has no checkpoint"):
        prove_inclusion(unsealed, 0)


def test_a_ledger_that_is_not_what_was_signed_proves_nothing(tmp_path: Path) -> None:
    folder = make(9, seals=[9]).write(tmp_path / "ledger")
    path = folder / "segments" / "000000000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":4', b'"n":5', 1))
    with pytest.raises(ProofError, match="not what its checkpoint signs"):
        prove_inclusion(FolderReader(folder), 7)
    *lines, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"".join(one + b"\n" for one in lines[:-1]))
    with pytest.raises(ProofError, match="the records end before 9"):
        prove_inclusion(FolderReader(folder), 3)


def test_a_head_of_another_history_is_not_continued(tmp_path: Path) -> None:
    made = make(9, seals=[9])
    reader = FolderReader(made.write(tmp_path / "ledger"))
    other = begin(origin="example.com/other")
    other.grow(3)
    with pytest.raises(ProofError, match=r"the head is of 'example.com/other'"):
        prove_consistency(reader, parse_checkpoint(other.note(4)))
    forked = begin()
    forked.add({"assessment": {"n": 99}, "kind": "analysis"})
    forked.grow(5)
    for size in (2, 4, 7):
        with pytest.raises(ProofError):
            prove_consistency(reader, parse_checkpoint(forked.note(size)))
    longer = make(12)
    with pytest.raises(ProofError, match="of 12 records, the newest checkpoint of 9"):
        prove_consistency(reader, parse_checkpoint(longer.note(12)))
    empty = note_of(made.origin, 0, mth([]), private("first"))
    with pytest.raises(ConfigurationError, match="a head of no records"):
        prove_consistency(reader, parse_checkpoint(empty))


def inclusion(tmp_path: Path) -> bytes:
    reader = FolderReader(make(9, seals=[9]).write(tmp_path / "ledger"))
    return prove_inclusion(reader, 4).encode()


def consistency(tmp_path: Path) -> bytes:
    made = make(9, seals=[9])
    reader = FolderReader(made.write(tmp_path / "ledger"))
    return prove_consistency(reader, parse_checkpoint(made.note(6))).encode()


def test_another_key_verifies_nothing(tmp_path: Path) -> None:
    other = PublicKey(raw(private("second")))
    with pytest.raises(ProofError, match="is not by"):
        parse_inclusion(inclusion(tmp_path)).verify(other)
    head = parse_checkpoint(make(6).note(6))
    with pytest.raises(ProofError, match="is not by"):
        parse_consistency(consistency(tmp_path / "again")).verify(head, other)


def test_a_consistency_proof_is_of_one_head(tmp_path: Path) -> None:
    proof = parse_consistency(consistency(tmp_path))
    with pytest.raises(ProofError, match="the head is of 5 records, the proof of 6"):
        proof.verify(parse_checkpoint(make(5).note(5)), KEY)
    elsewhere = begin(origin="example.com/other")
    elsewhere.grow(5)
    with pytest.raises(ProofError, match=r"the head is of 'example.com/other'"):
        proof.verify(parse_checkpoint(elsewhere.note(6)), KEY)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Either it is no proof any more, or it does not verify; both verifiers agree."""
    data = inclusion(tmp_path)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(ProofError):
            parse_inclusion(changed).verify(KEY)
        with pytest.raises(second.BadError):
            second.verify_proof(changed, KEY.raw)


def test_any_changed_byte_of_a_continuation_is_noticed(tmp_path: Path) -> None:
    data = consistency(tmp_path)
    head = parse_checkpoint(make(6).note(6))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(ProofError):
            parse_consistency(changed).verify(head, KEY)


def test_a_proof_of_a_line_with_another_number_fails(tmp_path: Path) -> None:
    data = inclusion(tmp_path).replace(b"index 4\n", b"index 5\n")
    with pytest.raises(ProofError, match="of index 5, and not so its record"):
        parse_inclusion(data).verify(KEY)


MALFORMED = {
    "nothing": lambda data: b"",
    "another version": lambda data: data.replace(b"@v1", b"@v2"),
    "no extra": lambda data: data.replace(b"extra ", b"extras "),
    "extra of other base64": lambda data: data.replace(b"\nindex", b"=\nindex"),
    "a leading zero": lambda data: data.replace(b"index 4", b"index 04"),
    "an empty hash": lambda data: data.replace(b"index 4\n", b"index 4\n=\n"),
    "a short hash": lambda data: data.replace(b"index 4\n", b"index 4\nAAAA\n"),
    "64 hashes": lambda data: data.replace(
        b"index 4\n", b"index 4\n" + (b64(bytes(32)).encode() + b"\n") * 64
    ),
    "not ASCII": lambda data: data.replace(b"index 4\n", b"index 4\n\xc3\xa4\n"),
    "not UTF-8": lambda data: data.replace(b"index 4\n", b"index 4\n\xff\n"),
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "no checkpoint": lambda data: data.partition(b"\n\n")[0] + b"\n\n",
    "no blank line": lambda data: data.replace(b"\n\n", b"\n", 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_proof_is_refused(tmp_path: Path, name: str) -> None:
    data = MALFORMED[name](inclusion(tmp_path))
    with pytest.raises(ProofError):
        parse_inclusion(data)
    with pytest.raises(ProofError):
        parse_consistency(data)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_proof_or_a_proof_error(data: bytes) -> None:
    for parse in (parse_inclusion, parse_consistency):
        with pytest.raises(ProofError):
            parse(data)


def test_one_pass_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cert.ledger.reader.MAX_SIDE_FILE_BYTES", 1 << 16)  # read(n) takes n bytes
    made = begin()
    lines, last = [], leaf_of(made.lines[0])
    for seq in range(1, 60_000):
        line = b'{"_prev":"%b","_seq":%d,"assessment":{},"kind":"note"}' % (
            last.hex().encode(),
            seq,
        )
        lines.append(line)
        last = leaf_of(line)
    made.lines += lines
    made.seal()
    reader = FolderReader(made.write(tmp_path / "ledger"))
    tracemalloc.start()
    try:
        proof = prove_inclusion(reader, 20_001)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert orjson.loads(proof.line)["_seq"] == 20_001
    assert peak < 2_500_000  # 60,000 leaf hashes alone would take more than 4 MB
    proof.verify(KEY)
