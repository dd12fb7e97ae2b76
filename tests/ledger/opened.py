"""Ledgers that are open for appending, and what stands in their files, for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cert.ledger.appender import Ledger, open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import SigningKeyError
from cert.ledger.keys import Signer
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from cert.ledger.writer import Limits
from tests.ledger.ledgers import ORIGIN, leaf_of, private

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.findings import State
    from cert.ledger.keys import PublicKey

FIRST, SECOND = Signer(private("first")), Signer(private("second"))
NEVER = Limits(seal_records=10**9, seal_s=1e9)


class Ring:
    """Keys of a test: the first is the one of new ledgers."""

    heads = None

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


def segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "segments").glob("*.jsonl"))
