"""Ledgers for the program's tests, made by the library with keys of the tests' own user."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cert.core.places import keys_folder
from cert.evidence.note_record import build_note_record
from cert.ledger.appender import Ledger, open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.key_store import GivenKey, KeyStore
from cert.ledger.keys import Signer
from cert.ledger.writer import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cert.ledger.writer import Keys

UNSEALING = Limits(seal_records=10_000, seal_s=10_000)


def note(text: str) -> bytes:
    return canonical_bytes(build_note_record(text))


def own_keys() -> KeyStore:
    return KeyStore(keys_folder(None))


def make_ledger(
    folder: Path, texts: Iterable[str] = ("one", "two", "three"), *, keys: Keys | None = None
) -> Path:
    """A ledger of notes; the genesis comes first, a checkpoint of all is last."""
    with open_ledger(folder, keys or own_keys(), origin="example.com/tests") as ledger:
        append(ledger, texts)
    return folder


def append(ledger: Ledger, texts: Iterable[str]) -> None:
    for text in texts:
        ledger.append([note(text)], is_durable=False)


def leave_unsealed(folder: Path, texts: Iterable[str] = ("late",)) -> None:
    """Append as a process does that is killed before it seals."""
    ledger = open_ledger(folder, own_keys(), limits=UNSEALING)
    append(ledger, texts)


def foreign_keys(path: Path) -> GivenKey:
    """A key that is nobody's own; its file is a PEM."""
    signer = Signer.generate()
    path.write_bytes(signer.to_pem())
    path.with_suffix(".pub").write_bytes(signer.public.pem)
    return GivenKey(signer)


def segment_of(folder: Path) -> Path:
    (path,) = (folder / "segments").glob("*.jsonl")
    return path


def newest_note(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("*.note"))


def digest_of_tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time of change and content of everything in a folder."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found
