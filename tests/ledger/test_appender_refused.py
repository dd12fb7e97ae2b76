"""What a ledger repairs when it opens, what it refuses, and what it says then."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cert.ledger import writer as writer_module
from cert.ledger.appender import open_ledger
from cert.ledger.errors import (
    LedgerBrokenError,
    LedgerError,
    LedgerFullError,
    LedgerRefusedError,
    SigningKeyError,
)
from cert.ledger.findings import State
from tests.ledger.ledgers import (
    make,
    open_files,
)
from tests.ledger.opened import (
    Ring,
    begin,
    body,
    check_chain,
    names,
    sizes,
    state_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.keys import Signer


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
