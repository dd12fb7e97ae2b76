"""Appending, reopening, tearing, a second writer, sealing, rotating: any order keeps the rules.

The model is the list of acknowledged lines, and of the bytes that were damaged on purpose.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cert.ledger.appender import open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.control import utc_now
from cert.ledger.errors import SigningKeyError
from cert.ledger.findings import State
from cert.ledger.keys import Signer
from cert.ledger.reader import TAIL, FolderReader
from cert.ledger.verify import verify_ledger
from cert.ledger.writer import Limits

if TYPE_CHECKING:
    from cert.ledger.appender import Ledger
    from cert.ledger.keys import PublicKey

GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.integers(1, 5000).map(bytes),
    st.sampled_from([b"\n", b"{", b'{"_prev":"', b'{"about":1}\n', b"\0\n\0"]),
)


class KeyRing:
    """Keys in memory; new ones on demand."""

    heads = None

    def __init__(self) -> None:
        self.signers = [Signer.generate()]

    def default(self) -> Signer:
        return self.signers[0]

    def find(self, public: PublicKey) -> Signer:
        for one in self.signers:
            if one.public == public:
                return one
        raise SigningKeyError("not here")


class Machine(RuleBasedStateMachine):
    """Two processes' worth of writers at one ledger, and somebody who damages its end."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made there
        root = tempfile.mkdtemp(prefix="stateful-", dir=memory if memory.is_dir() else None)
        self.root = Path(root)
        self.folder = self.root / "ledger"
        self.keys = KeyRing()
        self.limits = Limits(segment_bytes=1500, seal_records=4)
        self.acknowledged: dict[int, str] = {}
        self.damage: list[bytes] = []
        self.pending = b""
        self.sealed = 0
        self.writers: list[Ledger] = []

    def teardown(self) -> None:
        try:
            for one in self.writers:
                one.close()
                self.repaired()
            self.check_all()
        finally:
            shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        self.writers.append(self.open())

    def open(self) -> Ledger:
        ledger = open_ledger(self.folder, self.keys, origin="example.com/s", limits=self.limits)
        self.repaired()
        return ledger

    def repaired(self) -> None:
        """Whoever wrote last has set aside what was damaged."""
        if self.pending:
            self.damage.append(self.pending)
            self.pending = b""

    @rule(index=st.integers(0, 1), count=st.integers(1, 3), size=st.integers(0, 400))
    def append(self, index: int, count: int, size: int) -> None:
        ledger = self.writers[index % len(self.writers)]
        body = {"about": "ü" * size, "kind": "note", "schema": "1.0", "time": utc_now()}
        for entry in ledger.append([canonical_bytes(body)] * count):
            assert entry.seq not in self.acknowledged
            self.acknowledged[entry.seq] = hashlib.sha256(entry.line).hexdigest()
        self.repaired()

    @rule(index=st.integers(0, 1))
    def seal(self, index: int) -> None:
        ledger = self.writers[index % len(self.writers)]
        checkpoint = ledger.seal().checkpoint
        self.repaired()
        assert checkpoint.size == ledger.size >= self.sealed
        self.sealed = checkpoint.size

    @rule(index=st.integers(0, 1))
    def rotate(self, index: int) -> None:
        self.keys.signers.append(Signer.generate())
        ledger = self.writers[index % len(self.writers)]
        ledger.rotate(self.keys.signers[-1])
        self.repaired()
        assert ledger.key == self.keys.signers[-1].public

    @precondition(lambda self: len(self.writers) == 1)
    @rule()
    def second_writer(self) -> None:
        self.writers.append(self.open())

    @precondition(lambda self: len(self.writers) == 2)
    @rule()
    def close_one(self) -> None:
        self.writers.pop(0).close()
        self.repaired()

    @rule()
    def reopen(self) -> None:
        self.writers.pop().close()
        self.repaired()
        self.writers.append(self.open())

    @precondition(lambda self: not self.pending)
    @rule(garbage=GARBAGE)
    def damage_the_end(self, garbage: bytes) -> None:
        with max((self.folder / "segments").glob("*.jsonl")).open("ab") as file:
            file.write(garbage)
        self.pending = garbage

    @rule()
    def lose_the_notes(self) -> None:
        (self.folder / TAIL).unlink(missing_ok=True)

    @rule(cut=st.integers(1, 300))
    def spoil_the_notes(self, cut: int) -> None:
        path = self.folder / TAIL
        if path.exists():
            path.write_bytes(path.read_bytes()[:-cut])

    @invariant()
    def nothing_is_lost(self) -> None:
        self.check_all()

    def lines(self) -> list[bytes]:
        paths = sorted((self.folder / "segments").glob("*.jsonl"))
        data = b"".join(path.read_bytes() for path in paths)
        assert data.endswith(self.pending)
        *lines, rest = data[: len(data) - len(self.pending)].split(b"\n")
        assert rest == b""
        return lines

    def check_all(self) -> None:
        lines = self.lines()
        for seq, digest in self.acknowledged.items():
            assert hashlib.sha256(lines[seq]).hexdigest() == digest
        copies = {
            path.name: path.read_bytes()
            for path in (self.folder / "segments").glob("[0-9]*.torn-*")
        }
        records = [json.loads(line) for line in lines]
        recovered = [one["recovered"] for one in records if one["kind"] == "recovered"]
        assert sorted(one["copy"] for one in recovered) == sorted(copies)
        assert sorted(copies.values()) == sorted(self.damage)
        report = verify_ledger(FolderReader(self.folder), self.keys.signers[0].public)
        if not self.pending:
            assert report.state in {State.UNANCHORED, State.UNSEALED}, report.first
            assert report.records == len(lines)
        elif b"\n" in self.pending:
            assert report.state is State.INVALID
        else:
            assert report.state is State.TORN


TestLedger = Machine.TestCase
TestLedger.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
