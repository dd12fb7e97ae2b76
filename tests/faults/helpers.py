"""What the tests of faults share: real writers, and the one invariant, nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cert.ledger.appender import open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.control import utc_now
from cert.ledger.findings import State
from cert.ledger.key_store import KeyStore
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.ledger.appender import Ledger
    from cert.ledger.findings import Report
    from cert.ledger.writer import Limits

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("writer.py")
ORIGIN = "example.com/faults"


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [one for one in programs if shutil.which(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)}")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def note(text: str = "x") -> bytes:
    return canonical_bytes(
        {"about": text, "clock": "system", "kind": "note", "schema": "1.0", "time": utc_now()}
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What writers said."""

    acks: tuple[tuple[int, str], ...]
    errors: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(slots=True)
class Place:
    """A ledger with its keys, and what its writers said.

    Attributes:
        root: Holds everything that is not said to be elsewhere.
        ledger: The ledger's folder.
    """

    root: Path
    ledger: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def acks(self) -> Path:
        return self.root / "acks"

    def make_keys(self) -> None:
        """Two keys; the first is the one that new ledgers begin with."""
        store = KeyStore(self.keys)
        first = store.create(None)
        store.create(None)
        (self.keys / "current").write_text(f"{first.public.fingerprint}\n")

    def command(self, *options: object) -> list[str]:
        """The writer's; options as in writer.py."""
        paths = (self.ledger, self.keys, self.acks)
        return [sys.executable, str(WRITER), *map(str, paths), *map(str, options)]

    def start(
        self,
        *options: object,
        before: Sequence[object] = (),
        environment: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 - what Popen takes
    ) -> subprocess.Popen[bytes]:
        """Start a writer, perhaps under another program."""
        process = subprocess.Popen(
            [*map(str, before), *self.command(*options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                **(environment or {}),
            },
            **more,
        )
        self.processes.append(process)
        return process

    def write(self, *options: object, before: Sequence[object] = (), **more: Any) -> int:  # noqa: ANN401 - the same
        """Run a writer to its end; its exit status."""
        process = self.start(*options, before=before, **more)
        _, err = process.communicate(timeout=120)
        assert b"Traceback" not in err, err.decode()
        return process.returncode

    def end_all(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None and not pipe.closed:
                    pipe.close()

    def said(self) -> Said:
        lines = self.acks.read_text().split("\n") if self.acks.exists() else [""]
        assert lines.pop() == ""
        acks = [line.split()[1:] for line in lines if line.startswith("ack ")]
        return Said(
            tuple((int(seq), digest) for seq, digest in acks),
            tuple(line[6:] for line in lines if line.startswith("error ")),
            tuple(line for line in lines if not line.startswith(("ack ", "error "))),
        )

    def begin_anew(self) -> None:
        """Forget the ledger, and what the keys remember of it."""
        shutil.rmtree(self.ledger, ignore_errors=True)
        shutil.rmtree(self.keys / "heads", ignore_errors=True)

    def open(self, limits: Limits | None = None) -> Ledger:
        return open_ledger(self.ledger, KeyStore(self.keys), origin=ORIGIN, limits=limits)

    def verify(self) -> Report:
        key = KeyStore(self.keys).current()
        assert key is not None
        return verify_ledger(FolderReader(self.ledger), key)

    def segments(self) -> dict[str, bytes]:
        return {one.name: one.read_bytes() for one in sorted(self.ledger.glob("segments/*.jsonl"))}

    def copies(self) -> dict[str, bytes]:
        return {
            one.name: one.read_bytes() for one in sorted(self.ledger.glob("segments/[0-9]*.torn-*"))
        }

    def tree(self) -> dict[str, bytes]:
        """Every file of the ledger."""
        return {
            str(one.relative_to(self.ledger)): one.read_bytes()
            for one in sorted(self.ledger.rglob("*"))
            if one.is_file()
        }

    def lines(self) -> list[bytes]:
        data = b"".join(self.segments().values())
        *lines, rest = data.split(b"\n")
        assert rest == b""
        return lines

    def recovered(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)["recovered"]
            for line in self.lines()
            if b'"kind":"recovered"' in line and b'"recovered":{' in line
        ]

    def check_nothing_lost(self) -> int:
        """Go on as another process would, and hold the ledger against the invariant.

        Returns:
            How many repairs this took.
        """
        before, copied = self.segments(), self.copies()
        with self.open() as ledger:
            (entry,) = ledger.append([note("after the fault")])
        assert entry.line in self.lines()[-1:]
        self.check_acknowledged()
        after, copies = self.segments(), self.copies()
        added = {name: data for name, data in copies.items() if name not in copied}
        for name, data in before.items():
            mine = [one for one in added if one.startswith(f"{name}.torn-")]
            if mine:
                (copy,) = mine
                at = int(copy.split("-")[1])
                assert after[name][:at] + added[copy] == data
            else:
                assert after[name].startswith(data)
        return len(added)

    def check_acknowledged(self) -> None:
        """Hold a closed ledger against the invariant."""
        lines = self.lines()
        acks = self.said().acks
        assert len({seq for seq, _ in acks}) == len(acks)
        for seq, digest in acks:
            assert hashlib.sha256(lines[seq]).hexdigest() == digest
        report = self.verify()
        assert report.state is State.UNANCHORED, report.first
        assert report.records == report.sealed == len(lines)
        copies = self.copies()
        recovered = self.recovered()
        assert sorted(one["copy"] for one in recovered) == sorted(copies)
        for one in recovered:
            data = copies[one["copy"]]
            assert hashlib.sha256(data).hexdigest() == one["sha256"]
            assert len(data) == one["bytes"]
            assert one["copy"] == f"{one['segment']}.torn-{one['offset']}-{one['sha256']}"
