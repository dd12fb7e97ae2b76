"""Many writers of a ledger: threads, processes, forks, and closing meanwhile."""

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

from cert.ledger.errors import (
    LedgerError,
    LedgerRefusedError,
)
from cert.ledger.findings import State
from cert.ledger.writer import Limits
from tests.ledger.ledgers import (
    open_files,
)
from tests.ledger.opened import (
    SECOND,
    begin,
    body,
    check_chain,
    segments,
    sizes,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cert.ledger.appender import Ledger


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
