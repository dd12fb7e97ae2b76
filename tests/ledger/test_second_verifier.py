"""The auditor's verifier of one file, held against ledgers that are built here from the page.

Nothing of `cert` takes part: lines are written by `rfc8785`, trees follow the recursive definitions
of RFC 6962, and signatures are made with `cryptography`.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
SPEC = importlib.util.spec_from_file_location("cert_verify", PROGRAM)
assert SPEC is not None
assert SPEC.loader is not None
verifier = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(verifier)

ORIGIN = "example.com/ledger"
STDLIB = "argparse array base64 binascii bisect collections contextlib dataclasses hashlib io json"
STDLIB += " os pathlib re shutil sqlite3 sys tempfile typing zipfile zlib __future__"


# The builder: section by section of the page.


def private(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pin(key: Ed25519PrivateKey) -> str:
    return "ed25519:" + b64(raw(key))


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf(line: bytes) -> bytes:
    return sha(b"\x00" + line)


def half(size: int) -> int:
    """The largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1: MTH."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = half(len(leaves))
    return sha(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1: PATH."""
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), root(leaves[k:])]
    return [*path(m - k, leaves[k:]), root(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962, 2.1.2: SUBPROOF."""
    if m == len(leaves):
        return [] if whole else [root(leaves)]
    k = half(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), root(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), root(leaves[:k])]


def frontier(leaves: Sequence[bytes]) -> list[bytes]:
    if not leaves:
        return []
    k = 1 << len(leaves).bit_length() - 1
    return [root(leaves[:k]), *frontier(leaves[k:])]


def signature_line(name: str, key: Ed25519PrivateKey, text: str) -> str:
    key_id = sha(name.encode() + b"\n\x01" + raw(key))[:4]
    return f"— {name} {b64(key_id + key.sign(text.encode()))}\n"


def note(
    size: int, tree_root: bytes, *keys: Ed25519PrivateKey, origin: str = ORIGIN, more: str = ""
) -> str:
    text = f"{origin}\n{size}\n{b64(tree_root)}\n{more}"
    return text + "\n" + "".join(signature_line(origin, key, text) for key in keys)


class Ledger:
    """A ledger in memory: lines, segments by their first record, checkpoints by their size."""

    def __init__(self, name: str = "one", origin: str = ORIGIN) -> None:
        self.origin, self.key = origin, private(name)
        self.lines: list[bytes] = []
        self.segments = [0]
        self.notes: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        start = sha(b"\x02" + origin.encode() + b"\n" + raw(self.key)).hex()
        member = {"format": "1", "origin": origin, "public_key": b64(raw(self.key))}
        self.add("genesis", start, ledger=member)

    def add(self, kind: str, prev: str | None = None, **members: object) -> bytes:
        seq = len(self.lines)
        record: dict[str, Any] = {
            "_prev": prev if prev is not None else leaf(self.lines[-1]).hex(),
            "_seq": seq,
            "clock": "system",
            "id": f"00000000-0000-4000-8000-{seq:012d}",
            "kind": kind,
            "schema": "1.0",
            "time": f"2026-11-23T10:30:{seq % 60:02d}.123Z",
            **members,
        }
        self.lines.append(rfc8785.dumps({k: v for k, v in record.items() if v is not None}))
        return self.lines[-1]

    def some(self, count: int) -> Ledger:
        for number in range(count):
            self.add("note", text=f"läuft {number}", value=number + 0.5)
        return self

    def rotate(self, name: str, old: str | None = None, **changes: str) -> Ledger:
        """Pass on to a key, from the one in force or from another one; changes are not signed."""
        new = private(name)
        self.key = self.key if old is None else private(old)
        prev = leaf(self.lines[-1]).hex()
        member = {"previous": b64(raw(self.key)), "public_key": b64(raw(new))}
        said = f"cert-ledger/key-rotation/v1\n{self.origin}\n{len(self.lines)}\n{prev}\n"
        said += f"{member['previous']}\n{member['public_key']}\n"
        member["signature"] = b64(self.key.sign(said.encode()))
        member["proof"] = b64(new.sign(said.encode()))
        self.add("key", key=member | changes)
        self.key = new
        return self

    def leaves(self, size: int | None = None) -> list[bytes]:
        return [leaf(line) for line in self.lines[:size]]

    def seal(self) -> Ledger:
        size = len(self.lines)
        self.notes[f"{size:012d}"] = self.head()
        return self

    def head(self, size: int | None = None) -> str:
        leaves = self.leaves(size)
        return note(len(leaves), root(leaves), self.key, origin=self.origin)

    def cut(self) -> Ledger:
        self.segments.append(len(self.lines))
        return self

    def tail(self, **changes: object) -> Ledger:
        leaves = self.leaves()
        value = {
            "last_leaf": leaves[-1].hex(),
            "proof": [one.hex() for one in path(len(leaves) - 1, leaves)],
            "size": len(leaves),
        }
        self.files["tail.json"] = json.dumps(value | changes).encode()
        return self

    def say_pruned(self, size: int, /, **changed: object) -> Ledger:
        said = {"size": size, "root": b64(root(self.leaves(size)))}
        self.add("pruned", pruned=said | changed)
        return self

    def prune(self, upto: int, keep: Sequence[int], **changes: object) -> Ledger:
        leaves = self.leaves(upto)
        kept = [
            {
                "line": self.lines[seq].decode(),
                "proof": [one.hex() for one in path(seq, leaves)],
                "seq": seq,
                "size": upto,
            }
            for seq in keep
        ]
        value: dict[str, Any] = {
            "frontier": [one.hex() for one in frontier(leaves)],
            "kept": kept,
            "last_leaf": leaves[-1].hex(),
            "size": upto,
        }
        self.files["pruned.json"] = rfc8785.dumps(value | changes)
        self.segments = [one for one in self.segments if one >= upto]
        return self

    def bodies(self) -> dict[str, bytes]:
        """The bytes of each segment by its name."""
        ends = [*self.segments[1:], len(self.lines)]
        return {
            f"{start:012d}.jsonl": b"".join(line + b"\n" for line in self.lines[start:end])
            for start, end in zip(self.segments, ends, strict=True)
        }

    def write(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("segments", "checkpoints"):
            (folder / name).mkdir(parents=True)
        for name, data in self.bodies().items():
            (folder / "segments" / name).write_bytes(data)
        for name, text in self.notes.items():
            (folder / "checkpoints" / f"{name}.note").write_text(text, "utf-8")
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder


def genuine() -> Ledger:
    """Twelve records in three segments, with a rotation, sealed at 4, 8 and 12."""
    ledger = Ledger().some(3).seal().cut().some(2).rotate("two").some(1).seal().cut()
    return ledger.some(4).seal().tail()


def accounted() -> Ledger:
    """The same, but that its last record says that the first eight were to be removed."""
    ledger = genuine()
    del ledger.lines[11:], ledger.notes["000000000012"]
    return ledger.say_pruned(8).seal().tail()


def other_ledger() -> Ledger:
    return Ledger("one", "example.com/other").some(3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return genuine().write(tmp_path / "ledger")


TWO = pin(private("two"))
ONE = pin(private("one"))

Result = tuple[int, dict[str, Any]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(ledger: Path, *options: str, key: str = TWO) -> Result:
        code = verifier.main([str(ledger), "--key", key, "--json", *options])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else {}

    return run


def brief(result: Result) -> tuple[int, str, int | None, str | None, int | None]:
    code, said = result
    return code, said["state"], said["line"], said["segment"], said["offset"]


def codes(result: Result) -> set[str]:
    """Of the findings; that lines after a fault are unsealed as well says nothing new."""
    found = {one["code"] for one in result[1]["findings"] if one["state"] is not None}
    return found if result[1]["state"] == "unsealed" else found - {"unsealed"}


def kept(tmp_path: Path, text: str, name: str = "head.note") -> str:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return str(file)


# Genuine ledgers, heads and exit codes.


def test_a_genuine_ledger_is_unanchored_and_with_its_head_valid(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    code, said = check(folder)
    assert (code, said["state"], said["line"], said["findings"]) == (0, "unanchored", None, [])
    assert (said["records"], said["sealed"], said["pruned"]) == (12, 12, 0)
    assert said["root"] == b64(root(genuine().leaves()))
    assert said["key"] == TWO
    head = kept(tmp_path, genuine().head())
    assert brief(check(folder, "--head", head)) == (0, "valid", None, None, None)
    assert brief(check(folder, "--head", head, key=ONE)) == (0, "valid", None, None, None)
    older = kept(tmp_path, genuine().notes["000000000008"])
    assert brief(check(folder, "--head", older, "--require-head"))[:2] == (0, "valid")
    assert brief(check(folder, "--require-head"))[:2] == (5, "unanchored")


def test_records_after_the_last_checkpoint_are_unsealed(
    tmp_path: Path, check: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = genuine().some(2)
    folder = ledger.write(tmp_path / "ledger")
    offset = sum(len(line) + 1 for line in ledger.lines[8:12])
    expected = ("unsealed", 13, "000000000008.jsonl", offset)
    assert brief(check(folder)) == (0, *expected)
    assert brief(check(folder, "--strict")) == (5, *expected)
    assert verifier.main([str(folder), "--key", TWO]) == 0
    out, err = capsys.readouterr()
    assert "older copy of it would look the same" in out
    assert "not signed" in err
    ledger.notes.clear()
    assert brief(check(ledger.write(folder)))[:3] == (0, "unsealed", 1)


def test_an_empty_open_segment_and_other_files_change_nothing(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    folder = genuine().cut().write(tmp_path / "ledger")
    (folder / "segments" / "000000000012.jsonl.torn-5-abc").write_bytes(b"{")
    (folder / "checkpoints" / "000000000012.tsr").write_bytes(b"token")
    (folder / "checkpoints" / "x.note").write_bytes(b"none")
    assert brief(check(folder)) == (0, "unanchored", None, None, None)


def test_plain_sentences_name_the_place(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "segments" / "000000000004.jsonl"
    file.write_bytes(file.read_bytes().replace("läuft 1".encode(), "läuft 9".encode()))
    assert verifier.main([str(folder), "--key", TWO]) == 5
    out = capsys.readouterr().out
    assert out.startswith("invalid: ")
    assert "line 6, byte" in out
    assert "000000000004.jsonl" in out
    head = kept(tmp_path, genuine().head())
    assert verifier.main([str(genuine().write(folder)), "--key", TWO, "--head", head]) == 0
    assert "would look the same" not in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["missing", "empty", "no segments", "torn genesis"])
def test_a_ledger_without_a_record_is_invalid_at_its_first_line(
    tmp_path: Path, check: Callable[..., Result], broken: str
) -> None:
    folder = tmp_path / "ledger"
    if broken == "missing":
        assert check(folder) == (2, {})
        return
    (folder / "segments").mkdir(parents=True)
    if broken != "no segments":
        data = b"" if broken == "empty" else genuine().lines[0][:50]
        (folder / "segments" / "000000000000.jsonl").write_bytes(data)
    code, state, line, _, offset = brief(check(folder))
    assert (code, state, line, offset) == (5, "invalid", 1, 0)


# Attacks on bytes.


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_a_flipped_bit_is_found_in_its_line(tmp_path: Path, check: Callable[..., Result]) -> None:
    """One bit of every byte. The genesis key is pinned, so that a lost rotation hides nothing."""
    ledger = genuine()
    folder = ledger.write(tmp_path / "ledger")
    number = 0
    for name, data in ledger.bodies().items():
        for at in range(len(data)):
            (folder / "segments" / name).write_bytes(flipped(data, at, at * 5 % 8))
            number_here = number + 1 + data[:at].count(b"\n")
            if number_here == 11 and data[at : at + 1] == b"\n":
                continue  # line 12 becomes a part of line 11: tested below
            code, state, line, segment, offset = brief(check(folder, key=ONE))
            begin = data.rfind(b"\n", 0, at) + 1
            assert code == 5
            assert (state, line, segment, offset) == ("invalid", number_here, name, begin), at
        (folder / "segments" / name).write_bytes(data)
        number += data.count(b"\n")


def test_a_last_line_that_was_joined_to_the_one_before_is_named(
    folder: Path, check: Callable[..., Result]
) -> None:
    file = folder / "segments" / "000000000008.jsonl"
    *first, before, last = file.read_bytes().splitlines(keepends=True)
    offset = sum(map(len, first))
    file.write_bytes(b"".join(first) + before.rstrip(b"\n") + last)
    assert brief(check(folder)) == (5, "invalid", 11, file.name, offset)


def test_without_a_tail_the_first_line_after_the_last_good_checkpoint_is_named(
    folder: Path, check: Callable[..., Result]
) -> None:
    file = folder / "segments" / "000000000008.jsonl"
    file.write_bytes(file.read_bytes().replace("läuft 3".encode(), "läuft 8".encode()))
    assert brief(check(folder))[1:3] == ("invalid", 12)
    for tail in (None, b"{", b"[]", genuine().tail(size=11).files["tail.json"]):
        (folder / "tail.json").unlink(missing_ok=True)
        if tail is not None:
            (folder / "tail.json").write_bytes(tail)
        result = check(folder)
        assert brief(result) == (5, "invalid", 9, file.name, 0)
        assert codes(result) == {"root"}


def test_a_tail_that_lies_is_not_believed(tmp_path: Path, check: Callable[..., Result]) -> None:
    ledger = genuine()
    changes: list[dict[str, object]] = [
        {"last_leaf": "0" * 64},
        {"proof": []},
        {"size": -1},
        {"size": 1.5},
        {"proof": None},
        {"size": "12"},
        {"last_leaf": 7},
    ]
    for change in changes:
        folder = ledger.tail(**change).write(tmp_path / "ledger")
        assert check(folder)[1]["findings"] == []
        file = folder / "segments" / "000000000008.jsonl"
        file.write_bytes(file.read_bytes().replace("läuft 3".encode(), "läuft 8".encode()))
        assert brief(check(folder))[1:3] == ("invalid", 9)


def test_every_truncation_is_found(tmp_path: Path, check: Callable[..., Result]) -> None:
    ledger = genuine()
    folder = ledger.write(tmp_path / "ledger")
    bodies = ledger.bodies()
    last = "000000000008.jsonl"
    for size in range(0, len(bodies[last]), 7):
        (folder / "segments" / last).write_bytes(bodies[last][:size])
        whole = bodies[last][:size].count(b"\n")
        begin = bodies[last].rfind(b"\n", 0, size) + 1
        assert brief(check(folder)) == (5, "invalid", 9 + whole, last, begin)
    (folder / "segments" / last).write_bytes(b"")
    for name in ("tail.json", "checkpoints/000000000012.note"):
        (folder / name).unlink()
    assert brief(check(folder))[:2] == (0, "unanchored")
    (folder / "segments" / last).write_bytes(bodies[last][:20])
    assert brief(check(folder)) == (5, "torn", 9, last, 0)
    closed = "000000000004.jsonl"
    for size in (0, 5, len(bodies[closed]) - 1):
        (folder / "segments" / closed).write_bytes(bodies[closed][:size])
        line = 5 + bodies[closed][:size].count(b"\n")
        result = check(folder, key=ONE)
        assert brief(result)[1:3] == ("invalid", line)
    (folder / "segments" / closed).write_bytes(bodies[closed][:-1])
    found = [(one["code"], one["line"]) for one in check(folder)[1]["findings"]]
    assert found == [("form", 8), ("torn", 9)]


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        pytest.param(lambda a: a[1:], 1, id="delete first"),
        pytest.param(lambda a: a[:2] + a[3:], 3, id="delete middle"),
        pytest.param(lambda a: a[:-1], 4, id="delete last"),
        pytest.param(lambda a: [a[0], a[2], a[1], a[3]], 2, id="swap"),
        pytest.param(lambda a: a[:2] + a[1:], 3, id="duplicate"),
        pytest.param(lambda a: [*a[:2], b"", *a[2:]], 3, id="blank line"),
        pytest.param(lambda a: [*a[:2], a[2] + b"\r", a[3]], 3, id="CRLF"),
        pytest.param(lambda a: [*a[:2], a[2].replace(b":", b": ", 9), a[3]], 3, id="spaces"),
        pytest.param(lambda a: [*a[:2], a[2].replace(b',"id', b', "id'), a[3]], 3, id="space"),
        pytest.param(lambda a: [*a[:2], other_ledger().lines[2], a[3]], 3, id="splice"),
        pytest.param(lambda a: [a[0], a[1] + a[2], a[3]], 2, id="join"),
        pytest.param(lambda a: [a[0], a[1][:60] + a[2][60:], a[3]], 2, id="cut out"),
        pytest.param(lambda a: [a[0], a[1][:150] + a[2][150:], a[3]], 3, id="half of the next"),
    ],
)
def test_an_edited_segment_is_invalid_at_the_line(
    folder: Path, check: Callable[..., Result], edit: Callable[..., list[bytes]], line: int
) -> None:
    lines = edit(genuine().lines[:4])
    file = folder / "segments" / "000000000000.jsonl"
    file.write_bytes(b"".join(one + b"\n" for one in lines))
    assert brief(check(folder))[:3] == (5, "invalid", line)


def test_a_chain_that_was_written_anew_does_not_match_its_checkpoints(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    other = Ledger().some(3).cut().some(1)
    other.add("note", text="another")
    other.rotate("two").some(1).cut().some(4)
    for name, data in other.bodies().items():
        (folder / "segments" / name).write_bytes(data)
    result = check(folder)
    assert brief(result) == (5, "invalid", 5, "000000000004.jsonl", 0)
    assert codes(result) == {"root"}
    sealed = other.seal().write(tmp_path / "sealed")
    head = kept(tmp_path, genuine().head())
    assert brief(check(sealed)) == (0, "unanchored", None, None, None)
    assert brief(check(sealed, "--head", head)) == (
        5,
        "rolled-back",
        1,
        "000000000000.jsonl",
        0,
    )


def test_another_key_seals_nothing(tmp_path: Path, check: Callable[..., Result]) -> None:
    forged = Ledger("mallory").some(11).seal().write(tmp_path / "ledger")
    result = check(forged)
    assert brief(result)[:3] == (5, "invalid", 1)
    assert codes(result) == {"key"}
    other = kept(tmp_path, genuine().head())
    assert brief(check(forged, "--head", other))[:3] == (5, "invalid", 1)
    ledger = genuine()
    ledger.key = private("mallory")
    result = check(ledger.seal().write(tmp_path / "ledger"))
    assert brief(result)[:3] == (5, "invalid", 12)
    assert codes(result) == {"checkpoint"}


@pytest.mark.parametrize(
    "changes",
    [
        {"ledger": {"format": "2", "origin": ORIGIN, "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": "a b", "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": "a+b", "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": "", "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": "a" * 256, "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": 5, "public_key": b64(raw(private("one")))}},
        {"ledger": {"format": "1", "origin": ORIGIN, "public_key": b64(b"short")}},
        {"ledger": {"format": "1", "origin": ORIGIN, "public_key": 5}},
        {"ledger": {"format": "1", "origin": ORIGIN}},
        {"ledger": []},
        {"kind": "note"},
    ],
)
def test_a_bad_genesis_is_invalid_at_line_1(
    tmp_path: Path, check: Callable[..., Result], changes: dict[str, Any]
) -> None:
    ledger = Ledger()
    record = json.loads(ledger.lines[0]) | changes
    told = record["ledger"]
    if isinstance(told, dict) and isinstance(told.get("public_key"), str):
        start = b"\x02" + str(told["origin"]).encode() + b"\n"
        record["_prev"] = sha(start + base64.b64decode(told["public_key"])).hex()
    ledger.lines = [rfc8785.dumps(record)]
    result = check(ledger.some(2).write(tmp_path / "ledger"), key=ONE)
    assert brief(result)[:3] == (5, "invalid", 1)
    assert "genesis" in codes(result)


def test_origins_may_be_as_long_and_odd_as_the_page_allows(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    odd = "".join(chr(one) for one in range(0x21, 0x7F) if chr(one) != "+")
    for origin in ("a", "a" * 255, odd):
        ledger = Ledger("one", origin).some(2).seal()
        assert brief(check(ledger.write(tmp_path / "ledger"), key=ONE))[:2] == (0, "unanchored")


def test_a_second_genesis_and_a_wrong_prev_of_the_first_are_invalid(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    ledger = Ledger().some(1)
    ledger.add("genesis", ledger=json.loads(ledger.lines[0])["ledger"])
    result = check(ledger.seal().write(tmp_path / "ledger"), key=ONE)
    assert (brief(result)[1:3], codes(result)) == (("invalid", 3), {"genesis"})
    ledger = Ledger()
    ledger.lines = [rfc8785.dumps(json.loads(ledger.lines[0]) | {"_prev": "0" * 64})]
    assert brief(check(ledger.seal().write(tmp_path / "ledger"), key=ONE))[1:3] == ("invalid", 1)


def test_long_lines(tmp_path: Path, check: Callable[..., Result]) -> None:
    ledger = Ledger().some(1)
    empty = len(ledger.add("note", text=""))
    ledger.lines.pop()
    ledger.add("note", text="a" * (16_777_216 - empty))
    assert len(ledger.lines[-1]) == 16_777_216
    folder = ledger.some(1).seal().write(tmp_path / "ledger")
    assert brief(check(folder, key=ONE))[:2] == (0, "unanchored")
    ledger.lines.pop()
    ledger.lines.pop()
    ledger.add("note", text="a" * (16_777_216 - empty + 1))
    folder = ledger.some(1).seal().write(tmp_path / "ledger")
    result = check(folder, key=ONE)
    assert brief(result)[:3] == (5, "invalid", 3)
    assert codes(result) == {"form"}
    assert len(result[1]["findings"]) == 1


# Segments' names.


def test_a_renamed_missing_or_added_segment_is_invalid(
    folder: Path, check: Callable[..., Result]
) -> None:
    segments = folder / "segments"
    (segments / "000000000004.jsonl").rename(segments / "000000000005.jsonl")
    result = check(folder)
    assert brief(result) == (5, "invalid", 5, "000000000005.jsonl", 0)
    assert codes(result) == {"segment"}
    (segments / "000000000005.jsonl").unlink()
    assert brief(check(folder, key=ONE)) == (5, "invalid", 5, "000000000008.jsonl", 0)
    (segments / "000000000000.jsonl").unlink()
    assert brief(check(folder)) == (5, "invalid", 1, "000000000008.jsonl", 0)


# Keys.


def test_a_bad_rotation_is_invalid_at_its_record(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    one = b64(raw(private("one")))
    for changes in (
        {"signature": b64(bytes(64))},
        {"proof": b64(bytes(64))},
        {"proof": b64(bytes(63))},
        {"signature": "?"},
        {"signature": 7},
        {"previous": b64(raw(private("three")))},
        {"public_key": one},
        {"public_key": b64(raw(private("three")))},
    ):
        ledger = Ledger().some(1).rotate("two", **changes).some(1)
        ledger.key = private("one")
        result = check(ledger.seal().write(tmp_path / "ledger"), key=ONE)
        assert brief(result)[:3] == (5, "invalid", 3), changes
        assert codes(result) == {"key-record"}
    member = Ledger()
    member.add("key", key=[])
    for ledger in (Ledger().rotate("two", old="mallory"), Ledger().rotate("one"), member):
        result = check(ledger.write(tmp_path / "ledger"), key=ONE)
        assert (brief(result)[1:3], codes(result)) == (("invalid", 2), {"key-record"})


def test_a_rotation_of_another_place_is_not_taken(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    """An attacker without the new key moves its consent to a chain of his own."""
    member = json.loads(Ledger().some(1).rotate("two").lines[-1])["key"]
    ledger = Ledger().some(2)
    ledger.add("key", key=member)
    result = check(ledger.write(tmp_path / "ledger"))
    assert brief(result)[1:3] == ("invalid", 4)
    assert "key" not in codes(result)


def test_any_key_of_the_lineage_may_be_pinned(tmp_path: Path, check: Callable[..., Result]) -> None:
    ledger = Ledger().some(1).seal().rotate("two").rotate("three").seal().some(2).rotate("one")
    folder = ledger.some(1).seal().write(tmp_path / "ledger")
    for name in ("one", "two", "three"):
        assert brief(check(folder, key=pin(private(name))))[:2] == (0, "unanchored")
    assert brief(check(folder, key=pin(private("four"))))[:3] == (5, "invalid", 1)


def test_an_old_key_signs_no_checkpoint_after_its_rotation(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    ledger = Ledger().some(1).rotate("two")
    ledger.key = private("one")
    result = check(ledger.seal().write(tmp_path / "ledger"))
    assert brief(result)[:3] == (5, "invalid", 3)
    assert "checkpoint" in codes(result)


# Checkpoints.


def key_id(name: str) -> bytes:
    return sha(ORIGIN.encode() + b"\n\x01" + raw(private(name)))[:4]


def named_otherwise() -> str:
    """A checkpoint of another origin, with a signature line of the right name and key."""
    text = (
        note(12, root(genuine().leaves()), private("two"), origin="other").split("\n\n")[0] + "\n"
    )
    return text + "\n" + signature_line(ORIGIN, private("two"), text)


def good_note(size: int = 12) -> str:
    return genuine().notes[f"{size:012d}"]


def other_signature(text: str) -> str:
    """A signature line of the right name and key id that does not verify."""
    return signature_line(ORIGIN, private("two"), text + "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text.split("\n\n")[0] + "\n",
        lambda text: text.split("\n\n")[0] + "\n\n",
        lambda text: "",
        lambda text: text.replace("\n12\n", "\n012\n"),
        lambda text: text.replace("\n12\n", "\n+12\n"),
        lambda text: text.replace("—", "-"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("— ", "—  "),
        lambda text: text + "x\n",
        lambda text: text + "— example.com/witness AAAA\n",
        lambda text: text + "— example.com/witness AAAAAAB=\n",
        lambda text: text + "— example.com/wit+ness AAAAAAAA\n",
        lambda text: text + "— example.com/wit\u2003ness AAAAAAAA\n",
        lambda text: named_otherwise(),
        lambda text: text + other_signature(text),
        lambda text: text[: text.rindex(" ")] + f" {b64(key_id('two') + b'short')}\n",
        lambda text: text.replace("\n12", "\n12\t"),
        lambda text: note(12, root(genuine().leaves()), private("two"), more="extension\n"),
        lambda text: note(12, root(genuine().leaves()), private("two"), origin="other"),
        lambda text: note(11, root(genuine().leaves(11)), private("two")),
        lambda text: note(12, root(genuine().leaves())[:31], private("two")),
        lambda text: note(12, root(genuine().leaves()), private("one")),
        lambda text: text + "— w AAAAAAAA\n" * 5000,
    ],
)
def test_a_bad_checkpoint_is_invalid_at_the_last_line_that_it_covers(
    folder: Path, check: Callable[..., Result], change: Callable[[str], str]
) -> None:
    ledger = genuine()
    (folder / "checkpoints" / "000000000012.note").write_bytes(change(good_note()).encode())
    result = check(folder)
    offset = sum(len(line) + 1 for line in ledger.lines[8:11])
    assert brief(result) == (5, "invalid", 12, "000000000008.jsonl", offset)
    assert codes(result) == {"checkpoint"}


def test_a_note_may_have_65536_bytes_and_no_more(
    folder: Path, check: Callable[..., Result]
) -> None:
    file = folder / "checkpoints" / "000000000012.note"
    line = len("— w \n".encode())
    room = 65_536 - len(good_note().encode())
    for more, code in ((0, 0), (1, 5)):
        length = 400 * 4
        text = good_note() + f"— w {'A' * length}\n" * (room // (length + line) - 1)
        rest = 65_536 + more - len(text.encode())
        name = "w" * ((rest - line + 1) % 4 + 4)
        text += f"— {name} {'A' * (rest - line + 1 - len(name))}\n"
        assert len(text.encode()) == 65_536 + more
        file.write_text(text, "utf-8")
        assert check(folder)[0] == code


def test_witnesses_are_ignored(folder: Path, check: Callable[..., Result]) -> None:
    text = good_note().split("\n\n")[0] + "\n"
    witness = signature_line("example.com/witness", private("w"), text)
    forged = "— " + ORIGIN + " " + b64(bytes(68)) + "\n"
    more = (
        good_note() + witness + forged + "— wé AAAAAAAA\n" + signature_line("x", private("w"), "")
    )
    (folder / "checkpoints" / "000000000012.note").write_text(more, "utf-8")
    assert brief(check(folder)) == (0, "unanchored", None, None, None)


@pytest.mark.parametrize(
    ("how", "state", "line"),
    [("newest gone", "unsealed", 9), ("older gone", "unanchored", None), ("zero", "invalid", 1)],
)
def test_checkpoints_that_come_and_go(
    folder: Path, check: Callable[..., Result], how: str, state: str, line: int | None
) -> None:
    place = folder / "checkpoints"
    if how == "newest gone":
        (place / "000000000012.note").unlink()
    elif how == "older gone":
        (place / "000000000008.note").unlink()
    else:
        (place / "000000000000.note").write_text(note(0, sha(b""), private("one")))
    assert brief(check(folder))[1:3] == (state, line)


def test_a_bad_bit_in_a_checkpoint_is_found(folder: Path, check: Callable[..., Result]) -> None:
    file = folder / "checkpoints" / "000000000008.note"
    data = file.read_bytes()
    for at in range(len(data)):
        file.write_bytes(flipped(data, at, at * 3 % 8))
        code, state, line, _, _ = brief(check(folder))
        assert (code, state, line) == (5, "invalid", 8), at


# Heads.


def test_an_older_copy_is_rolled_back(tmp_path: Path, check: Callable[..., Result]) -> None:
    head = kept(tmp_path, genuine().head())
    ledger = genuine()
    del ledger.lines[8:], ledger.notes["000000000012"]
    folder = ledger.write(tmp_path / "ledger")
    assert brief(check(folder))[:2] == (0, "unanchored")
    assert brief(check(folder, "--head", head)) == (5, "rolled-back", 9, "000000000008.jsonl", 0)


def test_the_head_names_the_first_line_that_may_differ(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    """The signer himself wrote two histories that part after record 8."""
    other = genuine()
    del other.lines[8:], other.notes["000000000012"]
    other.add("note", text="another history")
    folder = other.some(3).seal().tail().write(tmp_path / "ledger")
    head = kept(tmp_path, genuine().head())
    result = check(folder, "--head", head)
    assert brief(result) == (5, "rolled-back", 9, "000000000008.jsonl", 0)
    assert codes(result) == {"head"}


def test_an_unusable_head_is_an_error_of_use(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    leaves = genuine().leaves()
    for text in (
        "",
        "x",
        note(12, root(leaves), private("mallory")),
        note(12, root(leaves), private("mallory"), origin="other"),
        note(12, root(leaves), private("two"), origin="an other"),
        note(12, root(leaves), private("two"), more="more\n"),
        note(0, sha(b""), private("two")),
        good_note() + other_signature(good_note()),
    ):
        assert check(folder, "--head", kept(tmp_path, text)) == (2, {})
    assert check(folder, "--head", str(tmp_path / "none")) == (2, {})


def test_an_unusable_head_does_not_hide_that_the_ledger_is_invalid(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = folder / "segments" / "000000000004.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"kind":"key"', b'"kind":"kex"'))
    head = kept(tmp_path, genuine().head())
    code, said = check(folder, "--head", head, key=ONE)
    assert (code, said["state"], said["line"]) == (5, "invalid", 7)
    assert [one["code"] for one in said["findings"] if one["state"] is None] == ["head"]
    code, said = check(folder, "--head", head, key=TWO)
    assert (code, said["state"], said["line"]) == (5, "invalid", 7)
    assert [one["code"] for one in said["findings"] if one["state"] is None] == []
    (folder / "pruned.json").write_bytes(b"{}")
    assert brief(check(folder, "--head", head, key=ONE))[:3] == (5, "invalid", 1)


def test_the_head_of_another_ledger_of_the_same_key_tells_them_apart(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    other = note(12, root(genuine().leaves()), private("two"), origin="other")
    result = check(folder, "--head", kept(tmp_path, other))
    assert brief(result) == (5, "invalid", 1, "000000000000.jsonl", 0)
    assert "head" in codes(result)


def test_a_head_with_one_good_signature_of_the_lineage_is_good(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    text = note(12, root(genuine().leaves()), private("one"))
    head = kept(tmp_path, text + other_signature(text))
    assert check(folder, "--head", head)[1]["state"] == "valid"
    assert check(folder, "--head", head, key=ONE)[1]["state"] == "valid"


# Pruned parts.


def pruned() -> Ledger:
    return accounted().prune(8, [0, 6])


def test_a_pruned_ledger_is_as_good_as_a_whole_one(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    folder = pruned().write(tmp_path / "ledger")
    for key in (ONE, TWO):
        code, said = check(folder, key=key)
        assert (code, said["state"], said["records"], said["pruned"]) == (0, "unanchored", 12, 8)
        assert [(one["state"], one["code"]) for one in said["findings"]] == 2 * [(None, "pruned")]
        assert said["root"] == b64(root(accounted().leaves()))
    for size in ("000000000004", "000000000008", "000000000012"):
        head = kept(tmp_path, accounted().notes[size])
        assert brief(check(folder, "--head", head))[:2] == (0, "valid")
    first = Ledger().some(2).head()
    assert check(folder, "--head", kept(tmp_path, first), key=ONE) == (2, {})
    fork = kept(tmp_path, Ledger().some(1).rotate("two").some(1).head())
    assert brief(check(folder, "--head", fork))[:4] == (5, "rolled-back", 1, None)


def without_end(ledger: Ledger) -> Ledger:
    del ledger.notes["000000000012"], ledger.files["tail.json"]
    return ledger


def emptied(ledger: Ledger) -> Ledger:
    del ledger.lines[8:]
    return without_end(ledger)


def said_by(kind: str, said: dict[str, object]) -> Ledger:
    """A ledger whose last record, which is sealed, holds what a `pruned` record should."""
    ledger = genuine()
    del ledger.lines[11:]
    ledger.add(kind, pruned=said, text='"kind":"pruned"')
    return ledger.seal().tail()


ROOT_8 = b64(root(genuine().leaves(8)))


@pytest.mark.parametrize(
    "ledger",
    [
        genuine(),
        emptied(genuine()),
        without_end(accounted()),
        said_by("pruned", {"size": 7, "root": ROOT_8}),
        said_by("pruned", {"size": "8", "root": ROOT_8}),
        said_by("pruned", {"size": 8, "root": b64(bytes(32))}),
        said_by("pruned", {"size": 8}),
        said_by("erased", {"size": 8, "root": ROOT_8}),
        said_by("note", {"size": 8, "root": ROOT_8}),
    ],
)
def test_records_that_nobody_signed_away_are_missed(
    tmp_path: Path, check: Callable[..., Result], ledger: Ledger
) -> None:
    folder = deepcopy(ledger).prune(8, [0, 6]).write(tmp_path / "ledger")
    result = check(folder)
    assert brief(result) == (5, "invalid", 1, None, 0)
    assert codes(result) == {"pruned"}


def test_what_a_pruning_left_behind_is_not_read(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    folder = pruned().write(tmp_path / "ledger")
    for name in ("000000000000", "000000000004"):
        (folder / "segments" / f"{name}.jsonl").write_bytes(b"anything at all")
    code, said = check(folder)
    assert (code, said["state"], said["records"]) == (0, "unanchored", 12)
    assert [one["code"] for one in said["findings"]] == 3 * ["pruned"]


def test_a_fault_after_the_pruned_part_is_named(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    for at, line in ((8, 9), (9, 10), (10, 11), (11, 12)):
        ledger = pruned()
        ledger.lines[at] = ledger.lines[at].replace(b"system", b"System")
        assert brief(check(ledger.write(tmp_path / "ledger")))[1:3] == ("invalid", line)
    ledger = accounted().prune(8, [0, 6], last_leaf="0" * 64)
    assert brief(check(ledger.write(tmp_path / "ledger")))[1:3] == ("invalid", 9)


def kept_lines(*keep: int, upto: int = 8) -> list[dict[str, Any]]:
    data = genuine().prune(upto, keep).files["pruned.json"]
    kept: list[dict[str, Any]] = json.loads(data)["kept"]
    return kept


@pytest.mark.parametrize(
    "changes",
    [
        {"frontier": []},
        {"frontier": ["0" * 64]},
        {"frontier": 5},
        {"frontier": ["x"]},
        {"last_leaf": "0"},
        {"size": 9},
        {"size": 0},
        {"size": "8"},
        {"size": True},
        {"more": 1},
        {"kept": []},
        {"kept": 7},
        {"kept": [5]},
        {"kept": kept_lines(6)},
        {"kept": kept_lines(0)},
        {"kept": kept_lines(6, 0)},
        {"kept": kept_lines(0, 0, 6)},
        {"kept": kept_lines(0, 6, 4)},
        {"kept": kept_lines(0, 6, 6)},
        {"kept": kept_lines(0, 6)[:1] + kept_lines(0, 6, upto=12)[1:]},
        {"kept": [one | {"proof": []} for one in kept_lines(0, 6)]},
        {"kept": [one | {"more": []} for one in kept_lines(0, 6)]},
        {"kept": [one | {"size": 12} for one in kept_lines(0, 6)]},
        {"kept": [one | {"size": 7} for one in kept_lines(0, 6)]},
        {"kept": [one | {"line": one["line"] + " "} for one in kept_lines(0, 6)]},
        {"kept": [one | {"seq": 1} for one in kept_lines(0)] + kept_lines(6)},
    ],
)
def test_a_fault_of_the_pruned_part_is_invalid_at_line_1(
    tmp_path: Path, check: Callable[..., Result], changes: dict[str, Any]
) -> None:
    ledger = genuine().prune(8, [0, 6], **changes)
    result = check(ledger.write(tmp_path / "ledger"))
    assert brief(result) == (5, "invalid", 1, None, 0)
    assert codes(result) == {"pruned"}


def test_the_checkpoint_of_a_pruned_part_must_be_there_and_good(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    ledger = pruned()
    ledger.files["pruned.json"] += b"\n"
    assert brief(check(ledger.write(tmp_path / "ledger")))[1:3] == ("invalid", 1)
    ledger = pruned()
    del ledger.notes["000000000008"]
    assert brief(check(ledger.write(tmp_path / "ledger")))[1:3] == ("invalid", 1)
    ledger = pruned()
    ledger.notes["000000000004"] = ledger.notes["000000000012"]
    result = check(ledger.write(tmp_path / "ledger"))
    assert (brief(result)[1:3], codes(result)) == (("invalid", 4), {"checkpoint"})


# Remarks.


def test_what_happened_to_a_ledger_is_remarked(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    ledger = Ledger()
    for kind in ("recovered", "erased", "pruned"):
        ledger.add(kind)
    ledger.add("note", nested={"kind": "key"}, text='"kind":"genesis"')
    code, said = check(ledger.seal().write(tmp_path / "ledger"), key=ONE)
    assert (code, said["state"]) == (0, "unanchored")
    found = [(one["state"], one["code"], one["line"]) for one in said["findings"]]
    assert found == [(None, "recovered", 2), (None, "erased", 3), (None, "pruned", 4)]


# Deep: canonical form, commitments.


@pytest.mark.parametrize(
    "members",
    [
        b'"value":1.0',
        b'"value":-0',
        b'"value":1e2',
        b'"value":9007199254740993',
        b'"value":NaN',
        b'"value":-Infinity',
        b'"value":1e999',
        b'"value":01',
        b'"value":"\\u0041"',
        b'"value":"\\ud800"',
        b'"value":"\xed\xa0\x80"',
        b'"value":"\xff"',
        b'"value":"\\/"',
        b'"value": 1',
        b'"b":1,"a":1',
        b'"a":1,"a":1',
        b'"a":1,"B":1',
        b'"a":1,"{":1',
        b'"a":1,"\xc3\xa9":1',
        b'"a":{"\xef\xbf\xbf":1,"\xf0\x90\x80\x80":1}',
        b'"a":' + b"[" * 64 + b"]" * 64,
        b'"a":' + b"[" * 100_000 + b"]" * 100_000,
        b'"value":' + b"9" * 5000,
        b'"value":1}',
        b'"value":1,',
    ],
)
def test_a_signed_line_that_is_not_canonical_is_found_by_deep(
    tmp_path: Path, check: Callable[..., Result], members: bytes
) -> None:
    ledger = Ledger().some(1)
    start = f'{{"_prev":"{leaf(ledger.lines[-1]).hex()}","_seq":2,'
    ledger.lines.append(start.encode() + members + b"}")
    folder = ledger.some(1).seal().write(tmp_path / "ledger")
    result = check(folder, key=ONE)
    assert (brief(result)[:2], result[1]["findings"]) == ((0, "unanchored"), [])
    result = check(folder, "--deep", key=ONE)
    assert brief(result)[:3] == (5, "invalid", 3)
    assert codes(result) == {"canonical"}


def test_canonical_lines_with_odd_numbers_and_keys_are_good(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    ledger = Ledger()
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    ledger.add("note", deep=deep, big=[1e16, 1e21, 2.0**53, -(2.0**63), 5e-324], a={"Z": 1, "": 2})
    ledger.add("note", a={"\U00010000": 1, "\uffff": 1, "\x7f": "\x1f\u2028\x00"})
    folder = ledger.seal().write(tmp_path / "ledger")
    assert brief(check(folder, "--deep", key=ONE))[:2] == (0, "unanchored")


def test_deep_only_adds_to_what_is_found(folder: Path, check: Callable[..., Result]) -> None:
    file = folder / "segments" / "000000000004.jsonl"
    data = file.read_bytes()
    for at in range(0, len(data), 11):
        file.write_bytes(flipped(data, at, at % 8))
        plain, deep = check(folder), check(folder, "--deep")
        assert brief(deep) == brief(plain)
        assert all(one in deep[1]["findings"] for one in plain[1]["findings"])


SALT = bytes(range(32))
CONTENT = rfc8785.dumps({"generation": {"text": "b"}, "prompt": {"text": "a"}})
COMMITMENT = "sha256:" + sha(SALT + CONTENT).hex()


def committed(folder: Path, rows: list[tuple[Any, ...]] | None, erase: dict[str, Any]) -> Path:
    ledger = Ledger()
    ledger.add("analysis", commitment=COMMITMENT)
    if erase:
        ledger.add("erased", erased=erase)
    ledger.seal().write(folder)
    if rows is not None:
        with sqlite3.connect(folder / "content.sqlite") as rows_file:
            rows_file.execute(
                "CREATE TABLE content(record_id TEXT PRIMARY KEY, salt BLOB NOT NULL,"
                " content BLOB NOT NULL)"
            )
            rows_file.executemany("INSERT INTO content VALUES (?, ?, ?)", rows)
        rows_file.close()
    return folder


ID = "00000000-0000-4000-8000-000000000001"
ERASED = {"record_id": ID, "seq": 1, "commitment": COMMITMENT, "reason": "asked for"}


@pytest.mark.parametrize(
    ("rows", "erase", "line"),
    [
        ([(ID, SALT, CONTENT)], {}, None),
        (None, {}, None),
        ([], ERASED, None),
        ([], {}, 2),
        ([], ERASED | {"commitment": "sha256:" + "0" * 64}, 2),
        ([], ERASED | {"record_id": "another"}, 2),
        ([(ID, SALT, CONTENT + b" ")], {}, 2),
        ([(ID, SALT[1:], CONTENT)], {}, 2),
        ([(ID, SALT + CONTENT[:1], CONTENT[1:])], {}, 2),
        ([(ID, SALT, CONTENT.decode())], {}, 2),
    ],
)
def test_commitments(
    tmp_path: Path,
    check: Callable[..., Result],
    rows: list[tuple[Any, ...]] | None,
    erase: dict[str, Any],
    line: int | None,
) -> None:
    folder = committed(tmp_path / "ledger", rows, erase)
    before = sorted(one.name for one in folder.rglob("*"))
    assert brief(check(folder, key=ONE))[:2] == (0, "unanchored")
    code, said = check(folder, "--deep", key=ONE)
    state = "invalid" if line else "unanchored"
    assert (code, said["state"], said["line"]) == (5 if line else 0, state, line)
    remarks = {one["code"] for one in said["findings"] if one["state"] is None}
    assert ("content" in remarks) == (rows is None)
    assert sorted(one.name for one in folder.rglob("*")) == before


def test_a_content_file_that_is_none_or_a_view_shows_nothing(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    folder = committed(tmp_path / "ledger", None, {})
    (folder / "content.sqlite").write_bytes(b"no database, but of some length" * 50)
    assert brief(check(folder, "--deep", key=ONE))[1:3] == ("invalid", 2)
    (folder / "content.sqlite").unlink()
    with sqlite3.connect(folder / "content.sqlite") as rows:
        rows.execute("CREATE TABLE other(record_id, salt, content)")
        rows.execute("INSERT INTO other VALUES (?, ?, ?)", (ID, SALT, CONTENT))
        rows.execute("CREATE VIEW content AS SELECT * FROM other")
    rows.close()
    assert brief(check(folder, "--deep", key=ONE))[1:3] == ("invalid", 2)


def test_a_malformed_commitment_is_invalid(tmp_path: Path, check: Callable[..., Result]) -> None:
    for value in ("sha256:0", 7):
        ledger = Ledger()
        ledger.add("analysis", commitment=value)
        folder = ledger.seal().write(tmp_path / "ledger")
        assert brief(check(folder, "--deep", key=ONE))[1:3] == ("invalid", 2)


# Bundles.


def bundle(folder: Path, file: Path, extra: Sequence[tuple[str, bytes]] = ()) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for one in sorted(folder.rglob("*")):
            out.write(one, "ledger/" + one.relative_to(folder).as_posix())
        for name, data in extra:
            out.writestr(name, data)
    return file


def test_a_bundle_is_checked_like_its_folder(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = bundle(folder, tmp_path / "bundle.zip", [("README", b"x"), ("ledger/runs/x.lock", b"")])
    for options in ([], ["--deep"], ["--head", kept(tmp_path, genuine().head())]):
        assert check(file, *options) == check(folder, *options)
    segment = folder / "segments" / "000000000004.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"system", b"System", 1))
    assert brief(check(bundle(folder, file))) == brief(check(folder))
    assert brief(check(file))[1:3] == ("invalid", 5)
    content = committed(tmp_path / "committed", [(ID, SALT, CONTENT + b"x")], {})
    assert brief(check(bundle(content, file), "--deep", key=ONE))[1:3] == ("invalid", 2)
    shutil.rmtree(folder)
    folder.mkdir()
    assert check(bundle(folder, file)) == (2, {})
    assert brief(check(bundle(folder, file, [("ledger/segments/", b"")])))[1:3] == ("invalid", 1)


@pytest.mark.parametrize(
    "extra",
    [
        ("ledger/../x", b""),
        ("/etc/x", b""),
        ("..", b""),
        ("ledger\\x", b""),
        ("C:/x", b""),
        ("bomb", bytes(3_000_000)),
    ],
)
def test_a_dangerous_bundle_is_refused(
    folder: Path, tmp_path: Path, check: Callable[..., Result], extra: tuple[str, bytes]
) -> None:
    assert check(bundle(folder, tmp_path / "bundle.zip", [extra])) == (2, {})


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_damaged_or_ambiguous_bundle_is_refused(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    twice = [("ledger/tail.json", b"")]
    assert check(bundle(folder, tmp_path / "bundle.zip", twice)) == (2, {})
    file = bundle(folder, tmp_path / "bundle.zip")
    data = file.read_bytes()
    segment = data.index(b"ledger/segments/000000000000.jsonl") + 100
    encrypted = bytearray(data)
    at = -1
    while (at := encrypted.find(b"PK\x01\x02", at + 1)) >= 0:
        encrypted[at + 8] |= 1
    for damaged in (data[:-30], data[:2], flipped(data, segment, 1), bytes(encrypted)):
        file.write_bytes(damaged)
        assert check(file) == (2, {})


# Plain files.


def test_a_plain_file_is_unsealed_without_a_head_and_valid_with_it(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = tmp_path / "plain.jsonl"
    lines = genuine().lines
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    assert brief(check(file)) == (0, "unsealed", 1, None, 0)
    assert brief(check(file, "--strict"))[:2] == (5, "unsealed")
    assert brief(check(file, key=pin(private("x"))))[:2] == (0, "unsealed")
    head = kept(tmp_path, genuine().head())
    assert brief(check(file, "--head", head)) == (0, "valid", None, None, None)
    assert brief(check(file, "--head", head, key=pin(private("x"))))[1:3] == ("invalid", 1)
    older = kept(tmp_path, good_note(8), "older.note")
    offset = sum(len(line) + 1 for line in lines[:8])
    assert brief(check(file, "--head", older)) == (0, "unsealed", 9, None, offset)
    file.write_bytes(b"".join(line + b"\n" for line in lines[:10]))
    offset = sum(len(line) + 1 for line in lines[:10])
    assert brief(check(file, "--head", head)) == (5, "rolled-back", 11, None, offset)
    file.write_bytes(b"".join(line + b"\n" for line in lines)[:-1])
    assert brief(check(file))[1:3] == ("torn", 12)


def test_a_plain_file_may_begin_anywhere_and_have_gaps(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = tmp_path / "plain.jsonl"
    lines = genuine().lines
    head = kept(tmp_path, genuine().head())
    for some, gaps in ((lines[3:], 0), (lines[2:5] + lines[7:8] + lines[10:], 2)):
        file.write_bytes(b"".join(line + b"\n" for line in some))
        result = check(file)
        assert (brief(result)[:3], codes(result)) == ((0, "unsealed", 1), {"unsealed"})
        remarks = [one["message"] for one in result[1]["findings"] if one["code"] == "gaps"]
        assert len(remarks) == bool(gaps)
        assert str(gaps) in "".join([*remarks, "0"])
        assert check(file, "--head", head) == (2, {})
    for wrong, line in (
        ([lines[3], lines[2]], 2),
        ([lines[3], lines[3]], 2),
        ([lines[3], lines[4].replace(b"system", b"System"), lines[5], lines[6]], 2),
        ([lines[3], lines[4], b"{}", lines[5]], 3),
        ([lines[0].replace(b"genesis", b"Genesis"), lines[1]], 1),
    ):
        file.write_bytes(b"".join(one + b"\n" for one in wrong))
        assert brief(check(file, "--head", head))[:3] == (5, "invalid", line)


def test_rotations_and_canonical_form_in_plain_files(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = tmp_path / "plain.jsonl"
    lines = genuine().rotate("three").lines
    file.write_bytes(b"".join(line + b"\n" for line in lines[:4] + lines[8:]))
    assert brief(check(file))[:2] == (0, "unsealed")  # the rotation before it was left out
    bad = Ledger().some(1).rotate("two", proof=b64(bytes(64))).lines
    file.write_bytes(b"".join(line + b"\n" for line in bad))
    result = check(file)
    assert (brief(result)[:3], codes(result)) == ((5, "invalid", 3), {"key-record"})
    loose = lines[3][:-1] + b" }"
    file.write_bytes(loose + b"\n")
    assert brief(check(file))[:2] == (0, "unsealed")
    assert brief(check(file, "--deep"))[:3] == (5, "invalid", 1)


def test_a_plain_file_without_chain_is_checked_for_canonical_form(
    tmp_path: Path, check: Callable[..., Result]
) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_bytes(b'{"a":1}\n{"B":2}\n')
    code, said = check(file)
    assert (code, said["state"], said["line"], said["root"]) == (0, "unsealed", 1, None)
    for wrong, line in (
        (b'{"a":1}\n{"a":1.0}\n', 2),
        (b'{"a":1}\n\n', 2),
        (b"[1]\n", 1),
        (b'{"a":1}\n' + genuine().lines[3] + b"\n", 1),
        (b"", 1),
    ):
        file.write_bytes(wrong)
        assert brief(check(file))[:3] == (5, "invalid", line)


# Proofs.


def proof_text(ledger: Ledger, seq: int, size: int, line: bytes | None = None) -> str:
    hashes = [b64(one) + "\n" for one in path(seq, ledger.leaves(size))]
    extra = b64(ledger.lines[seq] if line is None else line)
    head = ledger.head(size)
    return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {seq}\n{''.join(hashes)}\n{head}"


def prove(tmp_path: Path, text: str, key: str = ONE) -> int:
    result: int = verifier.main(["--proof", kept(tmp_path, text, "a.tlog-proof"), "--key", key])
    return result


def test_inclusion_proofs_of_every_record_and_size(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ledger = Ledger().some(9)
    for size in range(1, 11):
        for seq in range(size):
            assert prove(tmp_path, proof_text(ledger, seq, size)) == 0
            sys.stdout.flush()
            assert capfdbinary.readouterr().out == ledger.lines[seq] + b"\n"


def test_false_inclusion_proofs_are_invalid(tmp_path: Path) -> None:
    ledger = Ledger().some(9)
    good = proof_text(ledger, 4, 10)
    assert prove(tmp_path, good, TWO) == 5
    hashes = [b64(one) for one in path(4, ledger.leaves(10))]
    for text in (
        "",
        good.replace("index 4", "index 5"),
        good.replace("index 4", "index 04"),
        good.replace("@v1", "@v2"),
        good.replace(hashes[1] + "\n", ""),
        good.replace(hashes[-1], hashes[-1] + "\n" + hashes[-1]),
        good.replace(hashes[1], hashes[0]),
        good.replace(hashes[1], hashes[1][:-4] + "AAA="),
        good.replace(hashes[1], hashes[1][:-1]),
        good.replace(hashes[1], "é"),
        good.replace("\nindex", "=\nindex"),
        good.replace("\n10\n", "\n11\n"),
        proof_text(ledger, 4, 10, ledger.lines[5]),
        proof_text(ledger, 4, 10, b"x"),
        good.replace("\n\n", "\n" + "\n".join(hashes[:1] * 70) + "\n\n", 1),
    ):
        assert text != good
        assert prove(tmp_path, text) == 5


def test_a_proof_of_a_record_that_states_another_number_is_invalid(tmp_path: Path) -> None:
    ledger = Ledger().some(2)
    ledger.lines[2] = ledger.lines[2].replace(b'"_seq":2', b'"_seq":1')
    assert prove(tmp_path, proof_text(ledger, 1, 3)) == 0
    assert prove(tmp_path, proof_text(ledger, 2, 3)) == 5


def test_consistency_proofs_of_all_sizes(tmp_path: Path) -> None:
    ledger, other = Ledger().some(16), Ledger().some(3)
    other.add("note", text="another")
    other.some(13)
    for new in range(1, 18):
        for old in range(1, new + 1):
            hashes = [b64(one) for one in subproof(old, ledger.leaves(new))]
            text = f"old {old}\n" + "".join(one + "\n" for one in hashes) + "\n" + ledger.head(new)
            arguments = ["--consistency", kept(tmp_path, text, "c"), "--key", ONE, "--old"]
            assert verifier.main([*arguments, kept(tmp_path, ledger.head(old))]) == 0
            if old > 4:
                assert verifier.main([*arguments, kept(tmp_path, other.head(old))]) == 5
            wrong = ledger.head(old - 1) if old > 1 else ledger.head(2)
            assert verifier.main([*arguments, kept(tmp_path, wrong)]) == 5
            for changed in (hashes[:-1], [*hashes, b64(bytes(32))], [b64(bytes(32)), *hashes[1:]]):
                if changed != hashes:
                    text = f"old {old}\n" + "".join(one + "\n" for one in changed)
                    kept(tmp_path, text + "\n" + ledger.head(new), "c")
                    assert verifier.main([*arguments, kept(tmp_path, ledger.head(old))]) == 5


def test_proofs_that_fit_a_smaller_tree_than_was_stated_are_refused() -> None:
    """A dishonest signer could state a size that its root does not have."""
    four = Ledger().some(7).leaves()[:4]
    for index, size, hashes in ((0, 8, path(0, four)), (0, 2, []), (3, 9, path(3, four))):
        with pytest.raises(verifier.BadError):
            verifier.check_inclusion(
                four[index], index, size, hashes, root(four if hashes else four[:1])
            )
    old, longer = (verifier.Note(b"", ORIGIN, size, root(four[:2]), []) for size in (2, 4))
    with pytest.raises(verifier.BadError):
        verifier.check_consistency(longer, old, [])
    for size in (5, 8, 9):
        new = verifier.Note(b"", ORIGIN, size, root(four), [])
        with pytest.raises(verifier.BadError):
            verifier.check_consistency(old, new, subproof(2, four))


def test_consistency_across_a_rotation_and_with_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = genuine()
    hashes = "".join(b64(one) + "\n" for one in subproof(4, ledger.leaves()))
    file = kept(tmp_path, f"old 4\n{hashes}\n{ledger.head()}", "c")
    old = kept(tmp_path, good_note(4))
    assert verifier.main(["--consistency", file, "--key", TWO, "--old", old]) == 0
    assert "did not sign the old" in capsys.readouterr().err
    assert verifier.main(["--consistency", file, "--key", ONE, "--old", old]) == 5
    assert verifier.main(["--consistency", file, "--key", TWO, "--old", file]) == 2
    other = kept(tmp_path, note(4, root(ledger.leaves(4)), private("one"), origin="other"), "o")
    assert verifier.main(["--consistency", file, "--key", TWO, "--old", other]) == 5
    file = kept(tmp_path, f"old 0\n\n{ledger.head()}", "c")
    for start, code in ((sha(b""), 0), (bytes(32), 5)):
        old = kept(tmp_path, note(0, start, private("one")))
        assert verifier.main(["--consistency", file, "--key", TWO, "--old", old]) == code


# Keys and arguments.


def test_keys_are_read_from_pem_and_base64(
    folder: Path, tmp_path: Path, check: Callable[..., Result]
) -> None:
    key = private("two")
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "key"
    for good in (pem, TWO.encode(), TWO.encode() + b"\n"):
        file.write_bytes(good)
        assert check(folder, key=str(file))[0] == 0
    for bad in (
        secret,
        b"",
        b"ed25519:",
        b"ed25519:AAAA",
        b"\xff",
        TWO.encode()[:-1],
        bytes(70_000),
    ):
        file.write_bytes(bad)
        assert check(folder, key=str(file)) == (2, {})
    assert check(folder, key="ed25519:x") == (2, {})
    assert check(folder, key=str(tmp_path / "none")) == (2, {})


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x"],
        ["--key", ONE],
        ["x", "--proof", "y", "--key", ONE],
        ["--consistency", "x", "--key", ONE],
        ["x", "--old", "y", "--key", ONE],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        verifier.main(arguments)
    assert error.value.code == 2


def test_it_runs_alone_and_imports_nothing_but_cryptography(folder: Path) -> None:
    tree = ast.parse(PROGRAM.read_text("utf-8"))
    imported = {
        (one.module or "") if isinstance(one, ast.ImportFrom) else name.name
        for one in ast.walk(tree)
        if isinstance(one, ast.Import | ast.ImportFrom)
        for name in one.names
    }
    assert {name.split(".")[0] for name in imported} <= {*STDLIB.split(), "cryptography"}
    ran = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), str(folder), "--key", TWO, "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(ran.stdout)["state"] == "unanchored"


# Canonical form, held against `rfc8785` and orjson.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1, 1, width=32)
    | st.integers(-(2**70), 2**70).map(float)
    | st.sampled_from([-0.0, 1e-6, 1e-7, 9.999999999999999e-7, 1e15, 1e16, 1e20, 1e21, 1e22, 0.1])
)
leaves = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | numbers | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12
)


@settings(max_examples=400, deadline=None)
@given(values)
@example([5e-324, 1.7976931348623157e308, 333333333.33333329, 1e23, 123456789012345680000.0])
@example({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7})
def test_the_writer_agrees_with_rfc8785(value: object) -> None:
    assert verifier.canonical_text(value).encode() == rfc8785.dumps(value)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(texts, values, max_size=4))
@example({"p": [1e16, 2.0**53, -(2.0**63), 1e20]})
def test_the_reader_takes_what_rfc8785_writes(value: dict[str, Any]) -> None:
    line = rfc8785.dumps(value)
    assert rfc8785.dumps(verifier.parse_canonical(line)) == line


def accepted(line: bytes) -> bool:
    try:
        verifier.parse_canonical(line)
    except verifier.BadError:
        return False
    return True


def reference(line: bytes) -> bool:
    """Whether bytes are canonical: read by orjson, written by rfc8785."""
    try:
        value = orjson.loads(line)
        return isinstance(value, dict) and rfc8785.dumps(value) == line
    except (orjson.JSONDecodeError, rfc8785.CanonicalizationError):
        return False


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(texts, values, max_size=4),
    st.integers(0, 10_000),
    st.binary(max_size=2) | st.sampled_from([b" ", b"0", b"e", b".0", b"\\", b'"', b"-", b","]),
    st.integers(0, 2),
)
def test_the_reader_agrees_with_orjson_and_rfc8785_on_changed_lines(
    value: dict[str, Any], at: int, new: bytes, removed: int
) -> None:
    line = rfc8785.dumps(value)
    at %= len(line) + 1
    changed = line[:at] + new + line[at + removed :]
    if b"0" * 15 not in changed and not big(changed):
        assert accepted(changed) == reference(changed)


def big(line: bytes) -> bool:
    """Whether a number is written as an integer of 2^53 and more; orjson reads those otherwise."""
    try:
        return any(abs(one) >= 2**53 for one in walk(json.loads(line)))
    except (ValueError, RecursionError):
        return False


def walk(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in walk(one)]
    if isinstance(value, list):
        return [number for one in value for number in walk(one)]
    return [value] if isinstance(value, int | float) and not math.isinf(value) else []


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_readers_of_bytes_raise_nothing_unforeseen(data: bytes) -> None:
    for parse in (
        verifier.parse_canonical,
        verifier.parse_note,
        functools.partial(verifier.verify_proof, key=raw(private("one"))),
    ):
        with contextlib.suppress(verifier.BadError):
            parse(data)
    report = verifier.verify_plain(io.BytesIO(data), raw(private("one")), None, None)
    assert report.state() in ("invalid", "torn", "unsealed")
