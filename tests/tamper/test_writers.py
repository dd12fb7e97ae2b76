"""Two processes that append ten thousand records each to one ledger at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from cert.ledger.appender import open_ledger
from cert.ledger.findings import Report, State
from cert.ledger.key_store import KeyStore
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from tests.tamper.verifiers import Said, ask_second, said_by
from tools.vectors.image import Image

PROGRAM = Path(__file__).with_name("append_many.py")
RECORDS = 10_000


def append_at_once(folder: Path, batch: int, *options: str) -> list[int]:
    """Let two processes append; returns their exit codes."""
    keys = KeyStore(folder.with_name("keys"))
    with open_ledger(folder, keys, origin="example.org/two"):
        pass
    writers = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder, name, str(RECORDS), str(batch), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    codes = [writer.wait(timeout=200) for writer in writers]
    for writer in writers:
        writer.communicate()
    return codes


def look(folder: Path) -> Report:
    key = KeyStore(folder.with_name("keys")).current()
    assert key is not None
    report = verify_ledger(FolderReader(folder), key)
    assert said_by(report) == ask_second(Image.load(folder), key)
    return report


def test_both_are_heard(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    assert append_at_once(folder, 10) == [0, 0]
    report = look(folder)
    assert said_by(report) == Said("unanchored")
    assert (report.records, report.sealed) == (2 * RECORDS + 1, 2 * RECORDS + 1)
    records = [json.loads(line) for line in Image.load(folder).lines[1:]]
    for name in ("one", "two"):
        written = [one["n"] for one in records if one["writer"] == name]
        assert written == list(range(RECORDS))
    turns = sum(one["writer"] != two["writer"] for one, two in pairwise(records))
    assert turns > 1, "they did not write at the same time, so this showed nothing"


def test_without_the_lock_it_is_seen(tmp_path: Path) -> None:
    """The control: what the lock prevents does happen, and a verification finds it."""
    folder = tmp_path / "ledger"
    append_at_once(folder, 1, "--without-lock")
    assert look(folder).state is State.INVALID
