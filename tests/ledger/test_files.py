"""Locks, whole writes, and files that appear at once."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.files import (
    FolderLock,
    check_is_ours,
    open_for_append,
    sync_folder,
    write_all,
    write_file,
)
from tests.ledger.ledgers import open_files

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path) -> None:
    one, two = FolderLock(tmp_path), FolderLock(tmp_path)
    with one.held(1), pytest.raises(LedgerError, match="held by") as caught, two.held(0.02):
        pass
    assert "lsof" in str(caught.value.hint)
    with two.held(0):
        pass
    # Also after an error inside.
    with pytest.raises(KeyError), one.held(0):
        raise KeyError
    with two.held(0):
        pass
    one.close()
    two.close()


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    one, two = FolderLock(tmp_path), FolderLock(tmp_path)
    order: list[str] = []

    def wait() -> None:
        with two.held(10):
            order.append("second")

    thread = threading.Thread(target=wait)
    with one.held(1):
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_timeout_is_kept(tmp_path: Path) -> None:
    one, two = FolderLock(tmp_path), FolderLock(tmp_path)
    with one.held(1):
        began = time.monotonic()
        with pytest.raises(LedgerError), two.held(0.1):
            pass
        assert 0.1 <= time.monotonic() - began < 5


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    lock = FolderLock(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(LedgerError, match="cannot be locked: Op") as caught, lock.held(1):
        pass
    assert "local disk" in str(caught.value.hint)


def test_a_lock_that_cannot_be_let_go_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def fail(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(5, "Input/output error")
        real(fd, operation)

    lock = FolderLock(tmp_path)
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(LedgerError, match="cannot be let go: Input/output"), lock.held(1):
        pass


def test_only_a_folder_itself_is_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("missing", "file", "link"):
        with pytest.raises(OSError, match=r"No such file|Not a directory|symbolic"):
            FolderLock(tmp_path / name)


def test_a_file_to_append_to(tmp_path: Path) -> None:
    fd = open_for_append(tmp_path / "file")
    os.write(fd, b"one")
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two")
    assert os.pread(fd, 9, 0) == b"onetwo"
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_what_is_not_ours_is_not_opened(tmp_path: Path) -> None:
    before = open_files()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        open_for_append(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LedgerRefusedError, match="is not a regular file"):
        open_for_append(tmp_path / "fifo")
    (tmp_path / "one").touch()
    os.link(tmp_path / "one", tmp_path / "two")
    with pytest.raises(LedgerRefusedError, match=r"has 2 names \(hard links\)"):
        open_for_append(tmp_path / "one")
    assert open_files() == before


def test_a_file_that_was_moved_or_removed_is_noticed(tmp_path: Path) -> None:
    fd = open_for_append(tmp_path / "file")
    assert check_is_ours(fd, tmp_path / "file").st_size == 0
    (tmp_path / "file").rename(tmp_path / "moved")
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="was moved away, or something else was"):
            check_is_ours(fd, tmp_path / "file")
        (tmp_path / "file").touch()
    (tmp_path / "moved").unlink()
    with pytest.raises(LedgerRefusedError, match="was removed; nothing is written to it"):
        check_is_ours(fd, tmp_path / "file")
    os.close(fd)


def test_everything_is_written_however_little_each_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = os.write, []

    def short(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        return real(fd, data[:3])

    fd = open_for_append(tmp_path / "file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        write_all(fd, b"0123456789")
        write_all(fd, b"")
    assert os.pread(fd, 99, 0) == b"0123456789"
    assert sizes == [10, 7, 4, 1]
    os.close(fd)


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_file_appears_at_once(tmp_path: Path, is_durable: bool) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"a longer one", b""):
        write_file(path, data, is_durable=is_durable)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
        assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "file").symlink_to(tmp_path / "target")
    write_file(tmp_path / "file", b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"
    assert not (tmp_path / "file").is_symlink()


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = open_files()
    for name in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="No space left"):
                write_file(path, b"new")
        assert path.read_bytes() == b"old"
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert open_files() == before
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "file", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_file(tmp_path / "folder", b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_only_folders_are_synced_as_such(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        sync_folder(tmp_path / "file")
