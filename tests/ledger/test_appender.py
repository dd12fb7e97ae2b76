"""Appending: what stands in the files afterwards, against the page; threads, processes, forks."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.ledger import writer as writer_module
from cert.ledger.appender import Ledger, open_ledger
from cert.ledger.canonical import CanonicalError, canonical_bytes
from cert.ledger.errors import (
    LedgerBrokenError,
    LedgerError,
    LedgerFullError,
    LedgerRefusedError,
    SigningKeyError,
)
from cert.ledger.findings import State
from cert.ledger.keys import Signer
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
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
    open_files,
    path_of,
    private,
    raw,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cert.ledger.keys import PublicKey

FIRST, SECOND = Signer(private("first")), Signer(private("second"))
NEVER = Limits(seal_records=10**9, seal_s=1e9)


class Ring:
    """Keys of a test: the first is the one of new ledgers."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = signers or (FIRST, SECOND)

    def default(self) -> Signer:
        return self.signers[0]

    def find(self, public: PublicKey) -> Signer:
        for one in self.signers:
            if one.public == public:
                return one
        raise SigningKeyError(f"{public.text} is not on this ring")


def body(number: int, **members: object) -> bytes:
    time_ = "2026-11-01T00:00:00.000Z"
    return canonical_bytes({"assessment": {"n": number}, "kind": "note", "time": time_, **members})


def begin(folder: Path, limits: Limits = NEVER, *signers: Signer) -> Ledger:
    return open_ledger(folder, Ring(*signers), origin=ORIGIN, limits=limits)


def lines_of(folder: Path) -> list[bytes]:
    segments = sorted((folder / "segments").glob("*.jsonl"))
    return b"".join(path.read_bytes() for path in segments).splitlines()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sizes(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.note"))


def check_chain(folder: Path) -> list[bytes]:
    """See that the lines follow from each other, as the page has it."""
    lines = lines_of(folder)
    for number, line in enumerate(lines[1:], 1):
        start = {"_prev": leaf_of(lines[number - 1]).hex(), "_seq": number}
        assert line.startswith(json.dumps(start, separators=(",", ":")).encode()[:-1] + b",")
    return lines


def state_of(folder: Path, key: Signer = FIRST) -> State:
    return verify_ledger(FolderReader(folder), key.public).state


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


# Segments.


def segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "segments").glob("*.jsonl"))


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


def test_a_ledger_that_was_moved_is_not_found_after_a_fork(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "ledger")
    (tmp_path / "ledger").rename(tmp_path / "moved")

    def child() -> None:
        for _ in range(2):
            with pytest.raises(LedgerError, match="cannot be opened after a fork: No such file"):
                ledger.append([body(1)])

    assert in_child(child) == 0
    (tmp_path / "moved").rename(tmp_path / "ledger")
    ledger.close()


# Many at once.


def run_all(tasks: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_threads_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ledger"
    syncs: list[int] = []
    real = os.fdatasync

    def slow(fd: int) -> None:
        syncs.append(fd)
        time.sleep(0.002)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    acknowledged: list[list[int]] = []
    with begin(folder) as ledger:

        def append(worker: int) -> None:
            got = []
            for number in range(20):
                entries = ledger.append([body(100 * worker + number), body(-1)])
                assert b'"n":%d}' % (100 * worker + number) in entries[0].line
                assert entries[1].seq == entries[0].seq + 1
                got += [one.seq for one in entries]
            acknowledged.append(got)

        run_all([lambda worker=worker: append(worker) for worker in range(8)])  # type: ignore[misc]
    lines = check_chain(folder)
    assert len(lines) == 321
    assert sorted(seq for got in acknowledged for seq in got) == list(range(1, 321))
    assert all(got == sorted(got) for got in acknowledged)
    assert len(syncs) < 120
    assert state_of(folder) is State.UNANCHORED


def test_one_process_has_many_ledgers_even_of_one_folder(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    ledgers = [begin(folder) for folder in folders for _ in range(2)]

    def append(ledger: Ledger) -> None:
        for number in range(15):
            ledger.append([body(number)], is_durable=False)

    run_all([lambda ledger=ledger: append(ledger) for ledger in ledgers])  # type: ignore[misc]
    for ledger in ledgers:
        ledger.close()
    for folder in folders:
        assert len(check_chain(folder)) == 31
        assert state_of(folder) is State.UNANCHORED


def append_in_process(folder: Path, worker: int, limits: Limits) -> None:
    with begin(folder, limits) as ledger:
        for number in range(40):
            ledger.append([body(100 * worker + number)], is_durable=number % 2 == 0)


def test_processes_write_to_one_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    limits = Limits(segment_bytes=4000, seal_records=7)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=append_in_process, args=(folder, worker, limits))
        for worker in range(3)
    ]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    assert [one.exitcode for one in workers] == [0] * 3
    lines = check_chain(folder)
    found = sorted(json.loads(line)["assessment"]["n"] for line in lines[1:])
    assert found == sorted(100 * worker + number for worker in range(3) for number in range(40))
    assert len(segments(folder)) > 2
    assert state_of(folder) is State.UNANCHORED


def in_child(function: Callable[[], object]) -> int:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(30)
    assert process.exitcode is not None
    return process.exitcode


def test_a_forked_child_writes_with_descriptors_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger.append([body(1)], is_durable=False)

    def child() -> None:
        # The parent's mutex is held at the moment of the fork.
        assert ledger.append([body(2)])[0].seq == 2
        ledger.sync()
        ledger.close()

    with ledger._queue.mutex:
        assert in_child(child) == 0
    assert ledger.append([body(3)])[0].seq == 3
    ledger.close()
    assert len(check_chain(folder)) == 4
    assert sizes(folder) == [3, 4]


def test_threads_of_a_forked_child_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)

    def child() -> None:
        seqs: list[int] = []
        run_all([lambda: seqs.extend(one.seq for one in ledger.append([body(1)]))] * 8)
        assert sorted(seqs) == list(range(1, 9))
        ledger.close()

    with ledger._queue.mutex:
        assert in_child(child) == 0
    ledger.close()
    assert len(check_chain(folder)) == 9
    assert state_of(folder) is State.UNANCHORED


def test_a_child_does_not_trust_what_a_thread_of_the_parent_was_at(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger.append([body(1)])
    # As a fork finds it while another thread extends the tree.
    ledger._writer.end.tree.size += 1
    ledger._writer.end.last_leaf = bytes(32)
    ledger._pid = -1
    files = len(open_files())
    assert ledger.append([body(2)])[0].seq == 2
    assert len(open_files()) == files
    ledger.close()
    assert state_of(folder) is State.UNANCHORED


def test_a_child_that_cannot_go_on_says_so_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger._pid = -1
    files = open_files()
    segment = folder / "segments" / "000000000000.jsonl"
    data = segment.read_bytes()
    segment.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="there is no record at all"):
            ledger.append([body(1)])
    folder.rename(tmp_path / "moved")
    with pytest.raises(LedgerError, match="cannot be opened after a fork: No such file"):
        ledger.seal()
    assert open_files() == files
    (tmp_path / "moved").rename(folder)
    segment.write_bytes(data)
    assert ledger.append([body(1)])[0].seq == 1
    ledger.close()


def test_a_forked_child_that_wrote_nothing_seals_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger.append([body(1)])
    with ledger._queue.mutex, ledger._lock.held(1):
        assert in_child(ledger.close) == 0
        # The parent's lock is the parent's still.
        fd = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
    assert sizes(folder) == []
    ledger.close()
    assert state_of(folder) is State.UNANCHORED


def test_a_closed_ledger_takes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    ledger.close()
    # The numbers of its descriptors now belong to others.
    others = [(tmp_path / f"other{number}").open("wb") for number in range(8)]
    for use in (lambda: ledger.append([body(1)]), ledger.seal, lambda: ledger.rotate(SECOND)):
        with pytest.raises(LedgerError, match="is closed"):
            use()
    ledger.sync()
    for other in others:
        other.close()
        assert Path(other.name).stat().st_size == 0


def test_closing_waits_for_those_who_append(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    done: list[int] = []
    errors: list[str] = []

    def append() -> None:
        try:
            while True:
                done.append(ledger.append([body(1)])[0].seq)
        except LedgerError as error:
            errors.append(error.message)

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(done) < 20:
        time.sleep(0.001)
    ledger.close()
    for thread in threads:
        thread.join(30)
    assert errors == [f"ledger {folder} is closed"] * 4
    assert sorted(done) == list(range(1, len(check_chain(folder))))
    assert state_of(folder) is State.UNANCHORED


def test_a_ledger_that_somebody_holds_is_waited_for_so_long(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    begin(folder).close()
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(LedgerError, match="held by another process"):
        begin(folder, Limits(lock_timeout_s=0.01))
    os.close(fd)
    begin(folder).close()


# Repairs and refusals.


def test_a_repair_is_recorded_and_synced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ledger"
    with begin(folder) as ledger:
        ledger.append([body(1)])
    with (folder / "segments" / "000000000000.jsonl").open("ab") as file:
        file.write(b"torn")
    with begin(folder) as ledger:
        assert ledger.size == 3
        assert "an incomplete end was set aside" in caplog.text
        # Also where another process leaves something while this one is at it.
        with (folder / "segments" / "000000000000.jsonl").open("ab") as file:
            file.write(b'{"_prev":"')
        assert ledger.append([body(4)])[0].seq == 4
    kinds = [json.loads(line)["kind"] for line in check_chain(folder)]
    assert kinds == ["genesis", "note", "recovered", "recovered", "note"]
    assert state_of(folder) is State.UNANCHORED


def test_a_repair_that_cannot_be_recorded_keeps_the_ledger_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger"
    begin(folder).close()
    with (folder / "segments" / "000000000000.jsonl").open("ab") as file:
        file.write(b"torn")

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    files = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_all", full)
        with pytest.raises(LedgerFullError, match="No space left"):
            begin(folder)
    assert open_files() == files
    with begin(folder) as ledger:
        assert ledger.size == 2
    assert state_of(folder) is State.UNANCHORED


def test_a_ledger_on_a_failed_disk_closes_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    files = open_files()
    ledger = begin(tmp_path / "ledger")
    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(2):
        with pytest.raises(LedgerBrokenError, match="may or may not be there"):
            ledger.append([body(1)])
    ledger.close()
    assert open_files() == files
    assert sizes(tmp_path / "ledger") == []


def test_a_folder_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "letter.txt").touch()
    with pytest.raises(LedgerRefusedError, match=r"is not empty and no ledger: .* 'letter\.txt'"):
        begin(folder)
    assert names(folder) == ["letter.txt"]
    # Files beside a ledger that is there are nobody's business.
    other = tmp_path / "ledger"
    begin(other).close()
    (other / "letter.txt").touch()
    begin(other).close()


def test_a_ledger_without_its_records_is_not_begun_anew(tmp_path: Path) -> None:
    folder = make(9, seals=[9]).write(tmp_path / "ledger")
    (folder / "segments" / "000000000000.jsonl").unlink()
    with pytest.raises(LedgerRefusedError, match="there is no record at all"):
        begin(folder)
    assert list((folder / "segments").iterdir()) == []


def test_what_was_begun_and_not_finished_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    (folder / "segments").mkdir(parents=True)
    (folder / "tail.json").write_bytes(json.dumps(make(4).tail(4)).encode())
    with begin(folder) as ledger:
        assert ledger.size == 1
    assert state_of(folder) is State.UNANCHORED


def test_a_place_that_cannot_hold_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "link"):
        with pytest.raises(LedgerError, match="cannot be used") as caught:
            begin(folder)
        assert "--ledger" in str(caught.value.hint)
    assert names(tmp_path / "real") == []


def test_no_key_no_new_ledger(tmp_path: Path) -> None:
    class Empty(Ring):
        def default(self) -> Signer:
            raise SigningKeyError("there is none")

    with pytest.raises(SigningKeyError, match="there is none"):
        open_ledger(tmp_path / "ledger", Empty())
    with begin(tmp_path / "ledger") as ledger:
        assert ledger.size == 1


def test_damage_is_told_to_every_caller_and_nothing_is_appended(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)
    segment = folder / "segments" / "000000000000.jsonl"
    data = segment.read_bytes()
    os.truncate(segment, 10)
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="is shorter than it was"):
            ledger.append([body(1)])
    segment.write_bytes(data)
    assert ledger.append([body(1)])[0].seq == 1
    ledger.close()


def test_an_interrupt_leaves_a_ledger_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger"
    ledger = begin(folder)

    def interrupted(fd: int, data: bytes) -> None:
        os.write(fd, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.append([body(1)])
    # It was written whole, and is taken over.
    assert ledger.append([body(2)])[0].seq == 2
    ledger.close()
    assert state_of(folder) is State.UNANCHORED


def test_whoever_waited_with_an_interrupted_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begin(tmp_path / "ledger")
    told: list[BaseException] = []

    def append(number: int) -> None:
        try:
            ledger.append([body(number)])
        except (LedgerError, KeyboardInterrupt) as error:
            told.append(error)

    def interrupted(fd: int, data: bytes) -> None:
        raise KeyboardInterrupt

    threads = [threading.Thread(target=append, args=(number,)) for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_all", interrupted)
        with ledger._queue.mutex:
            for thread in threads:
                thread.start()
            while len(ledger._queue.tickets) < len(threads):
                time.sleep(0.001)
        for thread in threads:
            thread.join(10)
    kinds = sorted(type(error).__name__ for error in told)
    assert kinds == ["KeyboardInterrupt", "LedgerBrokenError", "LedgerBrokenError"]
    # Nothing was written, and the ledger goes on.
    assert ledger.append([body(9)])[0].seq == 1
    ledger.close()
    assert state_of(tmp_path / "ledger") is State.UNANCHORED
