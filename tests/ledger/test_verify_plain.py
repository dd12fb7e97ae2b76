"""Plain files, held against lines built here by hand and against the auditor's own verifier."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.ledger.errors import ProofError
from cert.ledger.findings import Problem, State
from cert.ledger.keys import PublicKey
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.verify_plain import verify_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.findings import Report

PROGRAM = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
ORIGIN = "example.com/plain"


def private(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public(name: str) -> PublicKey:
    return PublicKey(private(name).public_key().public_bytes_raw())


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def line_of(prev: bytes, seq: int, kind: str, **members: object) -> bytes:
    record = {
        "kind": kind,
        "schema": "1.0",
        "id": str(uuid.UUID(int=seq)),
        "time": "2026-11-23T10:30:45.123Z",
        "clock": "system",
        **members,
    }
    return rfc8785.dumps({"_prev": prev.hex(), "_seq": seq, **record})


def genesis(origin: str = ORIGIN, key: str = "one", *, format_: str = "1") -> bytes:
    raw = public(key).raw
    ledger = {"format": format_, "origin": origin, "public_key": b64(raw)}
    return line_of(sha(b"\x02", origin.encode(), b"\n", raw), 0, "genesis", ledger=ledger)


def leaf(line: bytes) -> bytes:
    return sha(b"\x00", line)


def chained(count: int, *, seed: bytes | None = None) -> list[bytes]:
    """A genesis and notes after it."""
    lines = [seed or genesis()]
    for seq in range(1, count):
        lines.append(line_of(leaf(lines[-1]), seq, "note", note={"text": f"number {seq}"}))
    return lines


def rotation(lines: Sequence[bytes], old: str, new: str, *, proof: str | None = None) -> bytes:
    seq, prev = len(lines), leaf(lines[-1])
    words = ["cert-ledger/key-rotation/v1", ORIGIN, str(seq), prev.hex()]
    words += [public(old).base64, public(new).base64]
    message = "".join(f"{one}\n" for one in words).encode()
    key = {
        "previous": public(old).base64,
        "public_key": public(new).base64,
        "signature": b64(private(old).sign(message)),
        "proof": b64(private(proof or new).sign(message)),
    }
    return line_of(prev, seq, "key", key=key)


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1: MTH."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01", root(leaves[:half]), root(leaves[half:]))


def note(lines: Sequence[bytes], key: str = "one", *, origin: str = ORIGIN) -> bytes:
    text = f"{origin}\n{len(lines)}\n{b64(root([leaf(one) for one in lines]))}\n"
    key_id = sha(origin.encode(), b"\n\x01", public(key).raw)[:4]
    signature = b64(key_id + private(key).sign(text.encode()))
    return f"{text}\n— {origin} {signature}\n".encode()


def check(
    lines: Sequence[bytes], head: bytes | None = None, *, pinned: str = "one", end: bytes = b"\n"
) -> Report:
    data = b"\n".join(lines) + end
    return verify_plain(io.BytesIO(data), len(data), pinned=public(pinned), head=head)


def brief(report: Report) -> tuple[str, str | None, int | None, int | None]:
    first = report.first
    if first is None:
        return str(report.state), None, None, None
    return str(report.state), first.code, first.line, first.offset


def offset_of(lines: Sequence[bytes], count: int) -> int:
    return sum(len(one) + 1 for one in lines[:count])


def test_without_a_head_nothing_is_signed() -> None:
    lines = chained(5)
    report = check(lines)
    assert brief(report) == ("unsealed", "unsealed", 1, 0)
    assert (report.records, report.sealed, report.origin) == (5, 0, ORIGIN)
    assert report.root == b64(root([leaf(one) for one in lines]))
    assert report.key == public("one").text
    # No key is needed where no signature is looked at.
    data = b"\n".join(lines) + b"\n"
    assert verify_plain(io.BytesIO(data), len(data), pinned=None) == report


def test_a_head_of_all_lines_makes_it_valid() -> None:
    lines = chained(5)
    report = check(lines, note(lines))
    assert brief(report) == ("valid", None, None, None)
    assert report.sealed == 5


def test_a_head_of_the_first_lines_leaves_the_others_unsealed() -> None:
    lines = chained(5)
    report = check(lines, note(lines[:3]))
    assert brief(report) == ("unsealed", "unsealed", 4, offset_of(lines, 3))
    assert report.sealed == 3


def test_a_shorter_file_and_another_history_are_rolled_back() -> None:
    lines = chained(5)
    report = check(lines[:3], note(lines))
    assert brief(report) == ("rolled-back", "head", 4, offset_of(lines, 3))
    assert report.first is not None
    assert (report.first.expected, report.first.found) == ("5", "3")
    other = [*lines[:4], line_of(leaf(lines[3]), 4, "note", note={"text": "another"})]
    assert brief(check(other, note(lines)))[:3] == ("rolled-back", "head", 1)


def test_a_head_of_another_ledger() -> None:
    lines = chained(3)
    report = check(lines, note(lines, origin="example.com/other"))
    assert brief(report) == ("invalid", "head", 1, 0)
    assert report.first is not None
    assert report.first.expected == "example.com/other"


def test_the_pinned_key_must_be_of_the_lineage_where_there_is_a_head() -> None:
    lines = chained(3)
    assert check(lines, pinned="two").state is State.UNSEALED
    assert brief(check(lines, note(lines), pinned="two"))[:3] == ("invalid", "key", 1)


def test_a_rotation_passes_the_key_on() -> None:
    lines = chained(3)
    lines.append(rotation(lines, "one", "two"))
    report = check(lines, note(lines, "two"), pinned="two")
    assert (report.state, report.key) == (State.VALID, public("two").text)
    assert check(lines, note(lines, "two"), pinned="one").state is State.VALID
    bad = [*lines[:3], rotation(lines[:3], "one", "two", proof="three")]
    assert brief(check(bad))[:3] == ("invalid", "key-record", 4)
    # What was left out may hold the rotation before this one.
    gap = [*lines[:2], rotation([*lines, *lines], "two", "three")]
    report = check(gap)
    assert (report.state, report.key, report.root) == (State.UNSEALED, None, None)


@pytest.mark.parametrize("count", [1, 3])
def test_a_head_that_nobody_known_signed_is_no_head(count: int) -> None:
    lines = chained(3)
    with pytest.raises(ProofError, match="not signed by the pinned key"):
        check(lines, note(lines[:count], "stranger"))


def test_a_head_that_is_none_or_of_nothing() -> None:
    lines = chained(3)
    with pytest.raises(ProofError, match="no signed note"):
        check(lines, b"x")
    with pytest.raises(ProofError, match="size 0 pins nothing"):
        check(lines, note([]))


def test_a_file_may_begin_anywhere_and_leave_lines_out() -> None:
    lines = chained(9)
    assert brief(check(lines[4:])) == ("unsealed", "unsealed", 1, 0)
    report = check([*lines[2:4], lines[6], lines[8]])
    assert report.state is State.UNSEALED
    (gaps,) = [one for one in report.findings if one.code == "gaps"]
    assert gaps.message.endswith("in 2 places")
    assert gaps.state is None
    assert report.root is None
    for some in (lines[4:], [*lines[:2], *lines[4:]]):
        with pytest.raises(ProofError, match="cannot be compared"):
            check(some, note(lines))


def test_faults_come_before_a_head_that_cannot_be_compared() -> None:
    lines = chained(6)
    report = check([lines[2], b"{}", lines[4]], note(lines))
    assert brief(report)[:3] == ("invalid", "form", 2)
    assert [one.code for one in report.findings if one.state is None] == ["head"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: [one[0], one[2], one[1]], ("invalid", "seq", 3)),
        (lambda one: [one[1], one[1]], ("invalid", "seq", 2)),
        (lambda one: [one[0], one[1].replace(b"number", b"numbes"), *one[2:]], ("invalid",) * 1),
        (lambda one: [one[0], one[1], b'{"a":1}', one[3]], ("invalid", "form", 3)),
        (lambda one: [one[0], b"", one[1]], ("invalid", "form", 2)),
        (lambda one: [one[0], one[1] + b"\r", one[2]], ("invalid", "link", 2)),
        (lambda one: [one[0].replace(b"genesis", b"Genesis"), one[1]], ("invalid", "genesis", 1)),
        (lambda one: [genesis(format_="2")], ("invalid", "genesis", 1)),
        (lambda one: [one[1][:-1] + b'x"', one[2]], ("invalid", "link", 1)),
    ],
)
def test_faults_name_their_line(change: object, expected: tuple[object, ...]) -> None:
    assert callable(change)
    report = check(change(chained(5)))
    assert brief(report)[: len(expected)] == expected


def test_a_changed_line_is_named_by_the_one_that_follows() -> None:
    lines = chained(5)
    changed = [*lines[:2], lines[2].replace(b"number", b"numbes"), *lines[3:]]
    report = check(changed)
    assert brief(report) == ("invalid", "link", 3, offset_of(lines, 2)), report.findings
    assert report.first is not None
    assert report.first.segment is None


def test_a_second_genesis_is_a_fault() -> None:
    lines = chained(2)
    again = line_of(leaf(lines[1]), 2, "genesis", ledger={"format": "1"})
    assert brief(check([*lines, again]))[:3] == ("invalid", "genesis", 3)


def test_what_a_ledger_says_of_itself_is_a_remark() -> None:
    lines = chained(2)
    lines.append(line_of(leaf(lines[-1]), 2, "recovered", recovered={}))
    lines.append(line_of(leaf(lines[-1]), 3, "erased", erased={}))
    lines.append(line_of(leaf(lines[-1]), 4, "pruned", pruned={}))
    report = check(lines, note(lines))
    assert report.state is State.VALID
    assert [(one.code, one.line) for one in report.findings] == [
        ("recovered", 3),
        ("erased", 4),
        ("pruned", 5),
    ]


def test_half_a_line_and_no_line() -> None:
    lines = chained(3)
    report = check(lines, end=b"")
    assert brief(report) == ("torn", "torn", 3, offset_of(lines, 2))
    assert report.records == 2
    empty = verify_plain(io.BytesIO(), 0, pinned=None)
    assert brief(empty) == ("invalid", "form", 1, 0)
    half = check([b'{"a":'], end=b"")
    assert brief(half) == ("invalid", "form", 1, 0)
    assert {one.code for one in half.findings} == {"torn", "form"}


def test_lines_without_links() -> None:
    report = check([b'{"a":1}', b'{"B":2}'])
    assert brief(report) == ("unsealed", "unsealed", 1, 0)
    assert (report.records, report.root, report.origin, report.key) == (2, None, None, None)
    assert brief(check([b'{"a":1}', b'{"a":1.0}'])) == ("invalid", "canonical", 2, 8)
    assert brief(check([b'{"a":1}', b"", b"[]"]))[:3] == ("invalid", "canonical", 2)
    mixed = check([b'{"a":1}', *chained(3)])
    assert brief(mixed) == ("invalid", "form", 1, 0)
    assert len([one for one in mixed.findings if one.code == "form"]) == 1
    with pytest.raises(ProofError, match="cannot be compared"):
        check([b'{"a":1}'], note(chained(1)))


def test_a_line_that_is_too_long() -> None:
    long = b'{"a":"' + b"x" * (MAX_LINE_BYTES - 8) + b'"}'
    assert len(long) == MAX_LINE_BYTES
    assert check([long]).state is State.UNSEALED
    assert brief(check([long[:-2] + b'x"}', b"{}"]))[:3] == ("invalid", "form", 1)
    after = check([b"{}", long + b" " * 1000, b"{ }"])
    assert [(one.code, one.line, one.offset) for one in after.findings if one.line != 1] == [
        ("form", 2, 3),
        ("canonical", 3, 3 + MAX_LINE_BYTES + 1001),
    ]


class Looker:
    """A deep check that notes what it was shown."""

    def __init__(self, *problems: Problem, at_end: Sequence[Problem] = ()) -> None:
        self.kinds = {"note": 3}
        self.seen: list[tuple[int, bytes]] = []
        self._problems, self._at_end = list(problems), at_end

    def preload(self, seq: int, line: bytes) -> None:
        raise AssertionError("a plain file has no removed part")

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        self.seen.append((seq, line))
        return [self._problems.pop(0)] if self._problems else []

    def finish(self) -> Sequence[Problem]:
        return self._at_end


def look(lines: Sequence[bytes], deep: Looker) -> Report:
    data = b"\n".join(lines) + b"\n"
    return verify_plain(io.BytesIO(data), len(data), pinned=None, deep=deep)


def test_a_deep_check_sees_every_line_and_its_findings_have_places() -> None:
    lines = chained(8)
    ends = [Problem("run", "open", seq=6, is_fault=False), Problem("count", "wrong", seq=5)]
    deep = Looker(Problem("verdict", "is not", expected="pass", found="fail"), at_end=ends)
    report = look(lines[4:], deep)
    assert deep.seen == list(enumerate(lines))[4:]
    assert (report.mode, report.kinds) == ("deep", {"note": 3})
    found = [(one.code, one.line, one.offset, one.state) for one in report.findings]
    assert found == [
        ("verdict", 1, 0, State.INVALID),
        ("unsealed", 1, 0, State.UNSEALED),
        ("count", 2, None, State.INVALID),
        ("run", 3, None, None),
    ]
    with_gap = look([lines[1], *lines[4:]], Looker(at_end=ends))
    assert {one.code: one.line for one in with_gap.findings}["count"] is None
    assert with_gap.state is State.INVALID
    bare = Looker(Problem("canonical", "no"))
    assert brief(look([b'{"a":1}', b'{"b":1}'], bare)) == ("invalid", "canonical", 1, 0)
    assert bare.seen == [(0, b'{"a":1}'), (1, b'{"b":1}')]


def test_progress_is_told_of_every_byte() -> None:
    data = b"\n".join(chained(2000)) + b"\n{"
    told: list[int] = []
    report = verify_plain(io.BytesIO(data), len(data), pinned=None, progress=told.append)
    assert report.state is State.TORN
    assert sum(told) == len(data)
    assert len(told) > 2


def _second_verifier() -> object:
    spec = importlib.util.spec_from_file_location("cert_verify_plain", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SECOND = _second_verifier()
GENUINE = chained(6)
GENUINE.append(rotation(GENUINE, "one", "two"))
GENUINE.extend(
    line_of(leaf(GENUINE[-1]), seq, "note", note={"text": f"{seq}"}) for seq in range(7, 8)
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_both_verifiers_say_the_same_of_any_file(data: st.DataObject) -> None:
    lines = list(GENUINE[data.draw(st.integers(0, 3)) :])
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(lines) - 1)) if lines else 0
        match data.draw(st.sampled_from(["flip", "drop", "swap", "double", "cut", "add", "join"])):
            case "flip" if lines and lines[at]:
                place = data.draw(st.integers(0, len(lines[at]) - 1))
                changed = bytearray(lines[at])
                changed[place] ^= 1 << data.draw(st.integers(0, 7))
                lines[at] = bytes(changed)
            case "drop" if lines:
                del lines[at]
            case "swap" if len(lines) > 1:
                lines[at], lines[at - 1] = lines[at - 1], lines[at]
            case "double" if lines:
                lines.insert(at, lines[at])
            case "cut" if lines:
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "add":
                lines.insert(at, data.draw(st.sampled_from([b"", b"{}", b'{"a":1}', b'{"a": 1}'])))
            case "join" if len(lines) > 1:
                lines[at - 1 : at + 1] = [b"".join(lines[at - 1 : at + 1])]
            case _:
                pass
    text = b"\n".join(lines) + data.draw(st.sampled_from([b"\n", b""]))
    size = data.draw(st.sampled_from([None, 1, 4, len(GENUINE)]))
    head = None if size is None else note(GENUINE[:size], "two" if size > 6 else "one")
    try:
        state, _, line, offset = brief(
            verify_plain(io.BytesIO(text), len(text), pinned=public("two"), head=head)
        )
        ours: object = state, line, offset
    except ProofError:
        ours = "use"
    assert ours == _second_opinion(text, head)


def _second_opinion(text: bytes, head: bytes | None) -> object:
    second: object = SECOND
    parsed = None if head is None else second.parse_note(head)  # type: ignore[attr-defined]
    try:
        report = second.verify_plain(  # type: ignore[attr-defined]
            io.BytesIO(text), public("two").raw, parsed, None
        )
    except second.UseError:  # type: ignore[attr-defined]
        return "use"
    state = report.state()
    first = report.first.get(state)
    if first is None:
        return state, None, None
    return state, first.line, first.offset
