"""The writer by itself: what it does when a disk is full, fails, or takes only a part.

The errors come from the system's calls, replaced one at a time; tests of real full disks and of
processes that are killed stand elsewhere.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from cert.ledger import writer as writer_module
from cert.ledger.canonical import canonical_bytes
from cert.ledger.end import find_end
from cert.ledger.errors import LedgerBrokenError, LedgerError, LedgerFullError, SigningKeyError
from cert.ledger.keys import PublicKey, Signer
from cert.ledger.writer import Limits, Writer
from tests.ledger.ledgers import frontier_of, leaf_of, make, private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST = Signer(private("first"))
NEVER = Limits(seal_records=10**9, seal_s=1e9)


class Ring:
    """One key."""

    heads = None

    def default(self) -> Signer:
        return FIRST

    def find(self, public: PublicKey) -> Signer:
        if public != FIRST.public:
            raise SigningKeyError(f"no {public.text}")
        return FIRST


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(5, seals=[5]).write(tmp_path / "ledger")


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    end, _ = find_end(folder)
    writer = Writer(end, Ring(), NEVER)
    yield writer
    os.close(writer.end.fd)


def body(number: int) -> bytes:
    return canonical_bytes({"assessment": {"n": number}, "kind": "note"})


def content(folder: Path) -> bytes:
    return (folder / "segments" / "000000000000.jsonl").read_bytes()


def failing(code: int, after_bytes: int = 0) -> Callable[..., None]:
    """What writes a part, if it is to write, and then fails."""

    def fail(fd: object, data: object = None, *_: object) -> None:
        if isinstance(fd, int) and isinstance(data, bytes):
            os.write(fd, data[:after_bytes])
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("written", [0, 1, 200])
def test_a_full_disk_takes_no_part_of_a_record(
    folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, code: int, written: int
) -> None:
    before = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_all", failing(code, written))
        with pytest.raises(LedgerFullError, match="it was not recorded") as caught:
            writer.append([body(1), body(2)])
    assert "make room" in str(caught.value.hint)
    assert content(folder) == before
    assert not writer.is_broken
    # It goes on as if nothing had been.
    (entry,) = writer.append([body(3)])
    assert (entry.seq, content(folder)) == (5, before + entry.line + b"\n")


def test_another_error_is_no_full_disk(
    folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(folder)
    monkeypatch.setattr(writer_module, "write_all", failing(errno.EIO, 7))
    with pytest.raises(LedgerError, match="the record was not recorded") as caught:
        writer.append([body(1)])
    assert not isinstance(caught.value, LedgerFullError)
    assert content(folder) == before


def test_what_cannot_be_taken_back_breaks_the_writer(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_all", failing(errno.ENOSPC, 7))
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        with pytest.raises(LedgerBrokenError):
            writer.append([body(1)])
    assert writer.is_broken
    with pytest.raises(LedgerBrokenError, match="could not be cut back after a failed write"):
        writer.check()
    with pytest.raises(LedgerBrokenError):
        writer.sync()


def test_a_failed_sync_is_never_tried_again(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append([body(1)])
    calls: list[int] = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(3):
        with pytest.raises(LedgerBrokenError, match="brought to the disk: Input/output") as caught:
            writer.sync()
    assert calls == [writer.end.fd]
    assert "cert verify" in str(caught.value.hint)
    with pytest.raises(LedgerBrokenError):
        writer.seal()


def test_what_is_synced_is_not_synced_again(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    writer.sync()
    assert writer.append([]) == []
    writer.sync()
    assert calls == []
    writer.append([body(1)])
    writer.sync()
    writer.sync()
    assert len(calls) == 1
    # A checkpoint is of what others wrote, too.
    writer.seal()
    assert len(calls) == 2


def test_a_checkpoint_that_cannot_be_written(
    folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append([body(1)])
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_file", failing(errno.ENOSPC))
        with pytest.raises(LedgerError, match=r"cannot be written: No .*; the records are"):
            writer.seal()
    assert len(content(folder).splitlines()) == 6
    assert writer.seal().checkpoint.size == 6


def test_sealing_in_passing_fails_loud_only_where_the_disk_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end, _ = find_end(folder)
    writer = Writer(end, Ring(), Limits(seal_records=1))
    writer.seal_if_due()
    assert caplog.text == ""
    writer.append([body(1)])
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "sign_checkpoint", failing(errno.EIO))
        writer.seal_if_due()
    assert "no checkpoint could be signed" in caplog.text
    writer.append([body(2)])
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(LedgerBrokenError):
        writer.seal_if_due()
    os.close(end.fd)


@pytest.mark.parametrize("name", ["read_on", "move_on"])
def test_a_disk_that_fails_meanwhile_is_not_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    end, _ = find_end(folder)
    writer = Writer(end, Ring(), Limits(segment_bytes=1))
    monkeypatch.setattr(type(end), name, failing(errno.EIO))
    call = writer.read_on if name == "read_on" else writer.close_segment_if_due
    with pytest.raises(LedgerBrokenError, match="Input/output error"):
        call()
    assert writer.is_broken
    os.close(end.fd)


def test_a_writer_that_never_saw_the_last_leaf_leaves_the_notes_as_they_are(folder: Path) -> None:
    made = make(6, seals=[6])
    other = made.write(folder.parent / "even")
    (other / "tail.json").write_text(json.dumps(made.tail(6)))
    (other / "checkpoints" / "000000000006.note").rename(other / "kept")
    end, _ = find_end(other)
    (other / "kept").rename(other / "checkpoints" / "000000000006.note")
    os.close(end.fd)
    end, _ = find_end(other)
    # Opened by its notes: of an even tree, the path of the last leaf is not known.
    assert end.tree.last_path() is None
    (other / "checkpoints" / "000000000006.note").unlink()
    writer = Writer(end, Ring(), NEVER)
    (other / "tail.json").unlink()
    assert writer.seal().checkpoint.size == 6
    assert not (other / "tail.json").exists()
    os.close(end.fd)


def test_notes_are_written_with_each_checkpoint(folder: Path, writer: Writer) -> None:
    for number in range(4):
        writer.append([body(number)])
        writer.seal()
        tail = json.loads((folder / "tail.json").read_bytes())
        leaves = [leaf_of(line) for line in content(folder).splitlines()]
        assert tail["size"] == 6 + number
        assert tail["frontier"] == [one.hex() for one in frontier_of(leaves)]
        assert tail["offset"] == len(content(folder))
