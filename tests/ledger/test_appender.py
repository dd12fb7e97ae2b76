"""Appending: what stands in the files afterwards, held against the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cert.ledger import writer as writer_module
from cert.ledger.appender import open_ledger
from cert.ledger.canonical import CanonicalError, canonical_bytes
from cert.ledger.errors import (
    LedgerError,
    LedgerRefusedError,
    SigningKeyError,
)
from cert.ledger.findings import State
from cert.ledger.writer import Limits
from tests.ledger.ledgers import (
    ORIGIN,
    b64,
    frontier_of,
    genesis_line,
    leaf_of,
    make,
    mth,
    note_of,
    path_of,
    private,
    raw,
)
from tests.ledger.opened import (
    FIRST,
    SECOND,
    Ring,
    begin,
    body,
    check_chain,
    lines_of,
    names,
    segments,
    sizes,
    state_of,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_ledger_is_its_genesis(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "ledger"
    with begin(folder) as ledger:
        assert (ledger.size, ledger.origin, ledger.key) == (1, ORIGIN, FIRST.public)
        assert sizes(folder) == []
    (line,) = lines_of(folder)
    written = json.loads(line)
    assert written["ledger"] == json.loads(genesis_line(private("first")))["ledger"]
    assert written["_prev"] == json.loads(genesis_line(private("first")))["_prev"]
    assert written["clock"] == "system"
    # Closing seals.
    assert names(folder) == ["checkpoints", "segments", "tail.json"]
    note = (folder / "checkpoints" / "000000000001.note").read_bytes()
    assert note == note_of(ORIGIN, 1, leaf_of(line), private("first"))
    assert state_of(folder) is State.UNANCHORED
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert {mode for name, mode in modes.items() if "." in name} == {0o600}
    assert {mode for name, mode in modes.items() if "." not in name} == {0o700}


def test_origins_are_drawn_where_none_is_given(tmp_path: Path) -> None:
    found = set()
    for name in "ab":
        with open_ledger(tmp_path / name, Ring()) as ledger:
            found.add(ledger.origin)
    assert len(found) == 2
    assert all(one.startswith("cert-ledger/") and len(one) == 12 + 36 for one in found)


def test_what_is_appended_is_there_when_append_returns(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        seq = 1
        for count in (1, 3, 0, 2):
            bodies = [body(number) for number in range(count)]
            entries = ledger.append(bodies, is_durable=count != 3)
            lines = check_chain(folder)
            assert [one.seq for one in entries] == list(range(seq, seq + count))
            assert [one.line for one in entries] == lines[seq:]
            assert [b"{" + one.line.split(b",", 2)[2] for one in entries] == bodies
            seq += count
        assert ledger.size == seq == len(lines_of(folder))
        ledger.sync()
    assert sizes(folder) == [7]
    assert state_of(folder) is State.UNANCHORED


def test_notes_about_the_end_are_those_of_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(number) for number in range(10)])
        ledger.append([canonical_bytes({"kind": "policy", "policy": {"digest": "sha256:a"}})])
    leaves = [leaf_of(line) for line in lines_of(folder)]
    assert json.loads((folder / "tail.json").read_bytes()) == {
        "size": 12,
        "last_leaf": leaves[-1].hex(),
        "proof": [one.hex() for one in path_of(11, leaves)],
        "frontier": [one.hex() for one in frontier_of(leaves)],
        "segment": 0,
        "offset": (folder / "segments" / "000000000000.jsonl").stat().st_size,
        "key": b64(raw(private("first"))),
        "policies": {"sha256:a": 11},
        "runs": {},
    }


def test_a_ledger_goes_on_after_it_was_closed(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    for number in range(5):
        with begin(folder) as ledger:
            assert ledger.size == number + 1
            ledger.append([body(number)])
    assert len(check_chain(folder)) == 6
    assert sizes(folder) == [2, 3, 4, 5, 6]
    leaves = [leaf_of(line) for line in lines_of(folder)]
    for size in sizes(folder):
        note = (folder / "checkpoints" / f"{size:012d}.note").read_bytes()
        assert note == note_of(ORIGIN, size, mth(leaves[:size]), private("first"))


def test_opening_and_closing_alone_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    begin(folder).close()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.*")}
    ledger = begin(folder)
    ledger.close()
    ledger.close()
    assert before == {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.*")
    }


def test_without_its_notes_a_ledger_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(1)])
    (folder / "tail.json").unlink()
    with begin(folder) as ledger:
        ledger.append([body(2)])
    assert state_of(folder) is State.UNANCHORED
    assert (folder / "tail.json").exists()


def test_a_record_that_can_be_none_is_refused_and_others_go_on(tmp_path: Path) -> None:
    with begin(tmp_path / "ledger") as ledger:
        for bad in (b"", b"[1]", b'{"_seq":1}', b'{"a":1}\n{"b":1}'):
            with pytest.raises(CanonicalError):
                ledger.append([body(1), bad])
        assert ledger.append([body(2)])[0].seq == 1
    assert len(check_chain(tmp_path / "ledger")) == 2


def test_index_follows_the_lines(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([canonical_bytes({"kind": "policy", "policy": {"digest": "sha256:a"}})])
        run = {"kind": "run", "run": {"job": 1, "phase": "begin"}, "run_id": "r"}
        ledger.append([canonical_bytes(run)])
        assert ledger.index.policies == {"sha256:a": 1}
    with begin(folder) as ledger:
        place = sum(len(line) + 1 for line in lines_of(folder)[:2])
        assert ledger.index.runs == {"r": {"seq": 2, "segment": 0, "offset": place, "job": 1}}


def test_checkpoints_are_signed_after_so_many_records(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder, Limits(seal_records=3, seal_s=1e9)) as ledger:
        for number in range(7):
            ledger.append([body(number)])
        assert sizes(folder) == [4, 7]
        ledger.append([body(number) for number in range(9)])
        assert sizes(folder) == [4, 7, 17]
    assert state_of(folder) is State.UNANCHORED


def test_checkpoints_are_signed_after_so_much_time(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder, Limits(seal_records=10**9, seal_s=0.0)) as ledger:
        ledger.append([body(1)])
        ledger.append([body(2)])
        assert sizes(folder) == [2, 3]


def test_whoever_waits_between_records_seals_in_passing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(1)])
        ledger.seal_if_due()
        assert sizes(folder) == []
        ledger._writer._sealed_at -= 2e9
        ledger.seal_if_due()
        assert sizes(folder) == [2]
        (folder / "checkpoints" / "000000000002.note").unlink()
        ledger._writer._sealed_at -= 2e9
        ledger.seal_if_due()  # nothing came since
        assert sizes(folder) == []


def test_seal_hands_out_what_it_signed(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(1)])
        signed = ledger.seal()
        assert signed.note == (folder / "checkpoints" / "000000000002.note").read_bytes()
        assert signed.checkpoint.root == mth([leaf_of(line) for line in lines_of(folder)])
        # Once more without another record is the same one.
        assert ledger.seal() == signed


@pytest.mark.parametrize("content", [b"", note_of(ORIGIN, 2, bytes(32), private("first"))])
def test_a_checkpoint_that_somebody_laid_there_is_not_handed_out(
    tmp_path: Path, content: bytes
) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger.append([body(1)])
    note = folder / "checkpoints" / "000000000002.note"
    note.write_bytes(content)
    with pytest.raises(LedgerRefusedError, match=r"the checkpoint 2 of .* does not hold"):
        ledger.seal()
    with pytest.raises(LedgerRefusedError, match="does not hold"):
        ledger.close()
    assert note.read_bytes() == content


def test_keys_are_rotated(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(1)])
        entry = ledger.rotate(SECOND)
        assert (entry.seq, ledger.key) == (2, SECOND.public)
        assert sizes(folder) == [3]
        with pytest.raises(SigningKeyError, match="signed by this key already"):
            ledger.rotate(SECOND)
        ledger.append([body(3)])
    assert [state_of(folder, key) for key in (FIRST, SECOND)] == [State.UNANCHORED] * 2
    with begin(folder) as ledger:
        assert ledger.key == SECOND.public
        ledger.rotate(FIRST)
    assert state_of(folder) is State.UNANCHORED


def test_a_ledger_can_be_written_without_its_key_and_not_sealed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "ledger"
    begin(folder).close()
    ledger = begin(folder, Limits(seal_records=1), SECOND)
    assert ledger.append([body(1)])[0].seq == 1
    assert "no checkpoint could be signed" in caplog.text
    with pytest.raises(SigningKeyError, match="not on this ring"):
        ledger.rotate(SECOND)
    with pytest.raises(SigningKeyError, match="not on this ring"):
        ledger.close()
    assert state_of(folder) is State.UNSEALED
    with begin(folder) as ledger:
        assert ledger.size == 2


def test_a_large_segment_is_sealed_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    limits = Limits(segment_bytes=1000, seal_records=10**9, seal_s=1e9)
    with begin(folder, limits) as ledger:
        for number in range(20):
            ledger.append([body(number, text="x" * 200)])
    lines = check_chain(folder)
    starts = segments(folder)
    assert len(starts) > 3
    # A checkpoint for the end of each.
    assert set(starts[1:]) <= set(sizes(folder))
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        held = sum(len(line) + 1 for line in lines[start:end])
        assert held - len(lines[end - 1]) - 1 < 1000
    assert state_of(folder) is State.UNANCHORED
    with begin(folder, limits) as ledger:
        assert ledger.size == 21


def test_a_new_month_is_a_new_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = ["2026-11-30T23:59:59.999Z"]
    monkeypatch.setattr(writer_module, "utc_now", lambda: now[0])
    folder = tmp_path / "ledger"
    first = folder / "segments" / "000000000000.jsonl"

    def dated() -> bytes:
        return body(1, time=now[0])

    with begin(folder) as ledger:
        # The genesis bears the day of this test.
        started = json.loads(first.read_bytes())["time"][:7]
        ledger.append([dated()])
        starts = [0] if started == "2026-11" else [0, 1]
        ledger.append([dated()])
        assert segments(folder) == starts
        now[0] = "2026-12-01T00:00:00.000Z"
        ledger.append([dated()])
        ledger.append([dated()])
        assert segments(folder) == [*starts, 3]
    # An opened one knows its month from its first record.
    with begin(folder) as ledger:
        ledger.append([dated()])
        assert segments(folder) == [*starts, 3]
    with begin(folder) as ledger:
        now[0] = "2027-01-01T00:00:00.000Z"
        ledger.append([dated()])
        assert segments(folder) == [*starts, 3, 6]
    assert state_of(folder) is State.UNANCHORED


def test_an_empty_open_segment_takes_the_month_of_its_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(4, seals=[4], cuts=[4]).write(tmp_path / "ledger")
    monkeypatch.setattr(writer_module, "utc_now", lambda: "2031-01-01T00:00:00.000Z")
    with begin(folder) as ledger:
        monkeypatch.setattr(writer_module, "utc_now", lambda: "2031-02-01T00:00:00.000Z")
        ledger.append([body(4)])
        ledger.append([body(5)])
    assert segments(folder) == [0, 4]


def test_a_segment_that_another_one_began_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger"
    monkeypatch.setattr(writer_module, "utc_now", lambda: "2026-11-01T00:00:00.000Z")
    with begin(folder, Limits(segment_bytes=1)) as one, begin(folder) as two:
        one.append([body(1)])
        one.append([body(2)])
        # Its first record is of the month that it is: the second one stays in it.
        assert two.append([body(3)])[0].seq == 3
    assert segments(folder) == [0, 1, 2]
    assert state_of(folder) is State.UNANCHORED


def test_a_next_segment_that_cannot_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder, Limits(segment_bytes=1))
    following = folder / "segments" / "000000000001.jsonl"
    # Left there, or made at the very moment: the first is met when reading on.
    following.mkdir()
    with pytest.raises(LedgerError, match="cannot be read to its end: Is a directory"):
        ledger.append([body(1)])
    following.rmdir()
    assert ledger.append([body(1)])[0].seq == 1
    ledger.close()
    assert state_of(folder) is State.UNANCHORED


def test_a_next_segment_that_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder, Limits(segment_bytes=1))

    def lay(*_: object, **__: object) -> None:
        (folder / "segments" / "000000000001.jsonl").mkdir()

    with monkeypatch.context() as patch:
        # The checkpoint before it is the last that is written.
        patch.setattr(ledger._writer, "_write_tail", lay)
        with pytest.raises(LedgerError, match="the next segment cannot be created: Is a dir"):
            ledger.append([body(1)])
    (folder / "segments" / "000000000001.jsonl").rmdir()
    assert ledger.append([body(1)])[0].seq == 1
    ledger.close()
    assert state_of(folder) is State.UNANCHORED
