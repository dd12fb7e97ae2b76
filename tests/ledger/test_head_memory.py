from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from cert.ledger.appender import open_ledger
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import LedgerRefusedError, SigningKeyError
from cert.ledger.key_store import GivenKey, KeyStore
from cert.ledger.reader import FolderReader

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.head_memory import HeadMemory

ORIGIN = "example.com/remembered"


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


@pytest.fixture
def heads(keys: KeyStore) -> HeadMemory:
    assert keys.heads is not None
    return keys.heads


@pytest.fixture
def folder(tmp_path: Path, keys: KeyStore) -> Path:
    write(tmp_path / "ledger", keys, 5)
    return tmp_path / "ledger"


def write(folder: Path, keys: KeyStore | GivenKey, count: int) -> None:
    with open_ledger(folder, keys, origin=ORIGIN) as ledger:
        ledger.append([b'{"kind":"note","n":%d}' % n for n in range(count)])


def cut(folder: Path, lines: int, *, checkpoints: int = 0) -> None:
    """Leave the first lines and the checkpoints of no more than so many records."""
    (segment,) = (folder / "segments").iterdir()
    kept = segment.read_bytes().splitlines(keepends=True)[:lines]
    segment.write_bytes(b"".join(kept))
    for note in (folder / "checkpoints").iterdir():
        if int(note.stem) > checkpoints:
            note.unlink()
    (folder / "tail.json").unlink(missing_ok=True)


def test_what_was_signed_last_is_remembered(
    folder: Path, keys: KeyStore, heads: HeadMemory
) -> None:
    reader = FolderReader(folder)
    assert reader.checkpoints == [6]
    signed = heads.find(ORIGIN)
    assert signed is not None
    assert signed.note == reader.read_checkpoint(6)
    assert heads.path_of(ORIGIN).stat().st_mode & 0o777 == 0o600
    write(folder, keys, 1)
    signed = heads.find(ORIGIN)
    assert signed is not None
    assert signed.checkpoint.size == 7
    assert heads.find("example.com/other") is None


@pytest.mark.parametrize("lines", [1, 3, 5])
def test_a_cut_ledger_is_not_written_to(folder: Path, keys: KeyStore, lines: int) -> None:
    cut(folder, lines)
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    with pytest.raises(
        LedgerRefusedError, match=rf"has {lines} records .* checkpoint of 6, .*/heads/"
    ):
        open_ledger(folder, keys)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.jsonl")}


@pytest.mark.parametrize("count", [2, 3, 9])
def test_other_records_in_place_of_those_that_were_signed(
    folder: Path, keys: KeyStore, count: int
) -> None:
    cut(folder, 4)
    write(folder, GivenKey(keys.default()), count)  # by a writer that remembers nothing
    cut(folder, 4 + count)  # and whoever did that cannot sign
    with pytest.raises(LedgerRefusedError, match="the records are not those of the checkpoint"):
        open_ledger(folder, keys)


def test_as_many_other_records_that_are_signed(folder: Path, keys: KeyStore) -> None:
    cut(folder, 4)
    write(folder, GivenKey(keys.default()), 2)
    with pytest.raises(LedgerRefusedError, match=r"are not those of the checkpoint .*/heads/"):
        open_ledger(folder, keys)


def test_control_without_the_memory_nothing_is_noticed(folder: Path, keys: KeyStore) -> None:
    cut(folder, 4)
    write(folder, GivenKey(keys.default()), 9)
    cut(folder, 13)
    shutil.rmtree(keys.folder / "heads")
    write(folder, keys, 1)


def test_an_older_copy_of_everything(tmp_path: Path, folder: Path, keys: KeyStore) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    write(folder, keys, 3)
    with pytest.raises(LedgerRefusedError, match=r"has 6 records .* checkpoint of 9"):
        open_ledger(tmp_path / "copy", keys)


def test_what_others_signed_meanwhile_is_no_contradiction(folder: Path, keys: KeyStore) -> None:
    write(folder, GivenKey(keys.default()), 3)
    write(folder, keys, 2)
    assert FolderReader(folder).checkpoints == [6, 9, 11]


def test_records_after_the_last_checkpoint_go_on(folder: Path, keys: KeyStore) -> None:
    write(folder, GivenKey(keys.default()), 3)
    (folder / "checkpoints" / "000000000009.note").unlink()
    write(folder, keys, 2)
    assert FolderReader(folder).checkpoints == [6, 11]


def test_a_smaller_head_does_not_replace_a_larger_one(
    tmp_path: Path, folder: Path, keys: KeyStore, heads: HeadMemory
) -> None:
    small = parse_checkpoint(FolderReader(folder).read_checkpoint(6))
    write(folder, keys, 3)
    heads.remember(small)
    signed = heads.find(ORIGIN)
    assert signed is not None
    assert signed.checkpoint.size == 9


def test_a_rotated_ledger_goes_on(folder: Path, keys: KeyStore) -> None:
    with open_ledger(folder, keys) as ledger:
        ledger.rotate(keys.create(None))
    (folder / "tail.json").unlink()
    write(folder, keys, 2)


def test_a_memory_that_cannot_be_read_is_a_reason_to_stop(
    folder: Path, keys: KeyStore, heads: HeadMemory
) -> None:
    path = heads.path_of(ORIGIN)
    path.write_bytes(b"x")
    with pytest.raises(SigningKeyError, match="cannot be read: no signed note"):
        open_ledger(folder, keys)
    path.unlink()
    path.mkdir()
    with pytest.raises(SigningKeyError, match="cannot be read: Is a directory"):
        open_ledger(folder, keys)


def test_the_head_of_another_ledger_is_a_reason_to_stop(
    tmp_path: Path, folder: Path, keys: KeyStore, heads: HeadMemory
) -> None:
    with open_ledger(tmp_path / "other", keys, origin="example.com/other"):
        pass
    heads.path_of(ORIGIN).write_bytes(heads.path_of("example.com/other").read_bytes())
    with pytest.raises(SigningKeyError, match=r"is the head of another ledger, example\.com/other"):
        open_ledger(folder, keys)


def test_what_cannot_be_remembered_is_said_once(
    folder: Path, keys: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_ledger(folder, keys) as ledger:
        shutil.rmtree(keys.folder / "heads")
        (keys.folder / "heads").write_bytes(b"")
        for _ in range(2):
            ledger.append([b'{"kind":"note"}'])
            ledger.seal()
    assert caplog.text.count("could not be remembered") == 1


def test_nothing_is_made_where_the_keys_are_gone(folder: Path, keys: KeyStore) -> None:
    with open_ledger(folder, keys) as ledger:
        ledger.append([b'{"kind":"note"}'])
        shutil.move(keys.folder, keys.folder.with_name("away"))
        with pytest.raises(SigningKeyError):
            ledger.seal()
        keys.folder.with_name("away").rename(keys.folder)
