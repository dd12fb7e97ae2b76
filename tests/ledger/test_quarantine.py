"""Copies of what recoveries cut off are named by a record, whenever the recovery was ended."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from cert.ledger.appender import open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import LedgerRefusedError
from cert.ledger.files import make_folder
from cert.ledger.key_store import GivenKey
from cert.ledger.keys import Signer
from cert.ledger.quarantine import build_missing, copy_name
from cert.ledger.reader import segment_name
from cert.ledger.writer import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.appender import Ledger

TORN = b'{"_prev":"01'
DIGEST = hashlib.sha256(TORN).hexdigest()
FIRST = segment_name(0)


def note(text: str) -> bytes:
    return canonical_bytes({"about": text, "kind": "note", "schema": "1.0"})


@pytest.fixture
def keys(tmp_path: Path) -> GivenKey:
    path = tmp_path / "key.pem"
    path.write_bytes(Signer.generate().to_pem())
    return GivenKey.load(str(path))


@pytest.fixture
def folder(tmp_path: Path, keys: GivenKey) -> Path:
    made = tmp_path / "ledger"
    with open_ledger(made, keys) as ledger:
        ledger.append([note("one")])
    return made


def opened(folder: Path, keys: GivenKey, segment_bytes: int = 1 << 20) -> Ledger:
    return open_ledger(folder, keys, limits=Limits(segment_bytes=segment_bytes))


def records(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "segments").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def put_copy(folder: Path, data: bytes = TORN, segment: str = FIRST, digest: str = DIGEST) -> Path:
    offset = (folder / "segments" / FIRST).stat().st_size
    path = folder / "segments" / copy_name(segment, offset, digest)
    path.write_bytes(data)
    return path


def test_a_copy_without_a_record_gets_one_and_only_one(folder: Path, keys: GivenKey) -> None:
    path = put_copy(folder)
    offset = (folder / "segments" / FIRST).stat().st_size
    for _ in range(3):
        opened(folder, keys).close()
    assert [one["kind"] for one in records(folder)] == ["genesis", "note", "recovered"]
    assert records(folder)[-1]["recovered"] == {
        "segment": FIRST,
        "offset": offset,
        "bytes": len(TORN),
        "sha256": DIGEST,
        "copy": path.name,
    }


def test_it_is_found_behind_records_that_others_appended(folder: Path, keys: GivenKey) -> None:
    ledger = opened(folder, keys, segment_bytes=1)
    put_copy(folder)
    ledger.append([note("two")])
    ledger.append([note("three")])
    ledger.close()
    for _ in range(2):
        opened(folder, keys, segment_bytes=1).close()
    kinds = [one["kind"] for one in records(folder)]
    assert kinds == ["genesis", "note", "note", "note", "recovered"]
    assert len(list((folder / "segments").glob("*.jsonl"))) == 3


def test_a_note_that_speaks_of_the_copy_is_no_record_of_it(folder: Path, keys: GivenKey) -> None:
    with opened(folder, keys) as ledger:
        path = put_copy(folder)
        ledger.append([note(path.name)])
    opened(folder, keys).close()
    assert [one["kind"] for one in records(folder)] == ["genesis", "note", "note", "recovered"]


def test_what_only_looks_like_a_copy_is_left_alone(folder: Path, keys: GivenKey) -> None:
    put_copy(folder, b"another content")
    put_copy(folder, segment=segment_name(7))
    put_copy(folder, digest="0" * 63)
    put_copy(folder, segment="0000000000001.jsonl")
    assert list(build_missing(folder)) == []
    link = put_copy(folder)
    link.rename(folder / "elsewhere")
    link.symlink_to(folder / "elsewhere")
    assert list(build_missing(folder)) == []
    with opened(folder, keys) as ledger:
        assert ledger.size == 2


def test_a_segment_that_was_moved_is_not_written_to(folder: Path, keys: GivenKey) -> None:
    ledger = opened(folder, keys)
    path = folder / "segments" / FIRST
    data = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    with pytest.raises(LedgerRefusedError, match="was moved away"):
        ledger.append([note("never")])
    path.write_bytes(data)
    with pytest.raises(LedgerRefusedError, match="something else was moved there"):
        ledger.append([note("never")])
    path.with_suffix(".old").replace(path)
    ledger.append([note("two")])
    ledger.close()


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    make_folder(made)
    make_folder(made)
    assert made.is_dir()
    assert made.stat().st_mode & 0o777 == 0o700
