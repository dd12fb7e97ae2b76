"""What is not ours or not as it was: users, modes, mounts, links, FIFOs, files that are gone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.findings import State
from cert.ledger.key_store import KeyStore
from cert.ledger.reader import TAIL
from cert.ledger.writer import Limits
from tests.faults.helpers import ROOT, Place, needs, needs_root, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65534
VERIFY = """
import os, sys
from cryptography.hazmat.primitives.asymmetric import ed25519
from pathlib import Path
from cert.ledger.keys import parse_public_key
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
if sys.argv[3:]:
    os.setuid(int(sys.argv[3]))
key = parse_public_key(sys.argv[2].encode(), source="argument")
print(verify_ledger(FolderReader(Path(sys.argv[1])), key).state)
"""


@pytest.fixture
def written(place: Place) -> Place:
    with place.open(Limits(segment_bytes=700)) as ledger:
        for _ in range(6):
            ledger.append([note("x" * 200)])
    assert len(place.segments()) >= 3
    return place


def verify_as_process(
    place: Place, *, before: tuple[str, ...] = (), user: int | None = None
) -> subprocess.CompletedProcess[str]:
    key = KeyStore(place.keys).current()
    assert key is not None
    users = [] if user is None else [str(user)]
    return subprocess.run(
        [*before, sys.executable, "-c", VERIFY, str(place.ledger), key.text, *users],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        timeout=60,
    )


@pytest.fixture
def read_only(written: Place) -> Iterator[Place]:
    mounted = written.root / "mounted"
    mounted.mkdir()
    for command in (
        ["mount", "--bind", written.ledger, mounted],
        ["mount", "-o", "remount,bind,ro", mounted],
    ):
        subprocess.run(command, check=True)
    original, written.ledger = written.ledger, mounted
    yield written
    written.ledger = original
    subprocess.run(["umount", mounted], check=True)


@needs_root
def test_a_read_only_mount_is_verified_and_not_written(read_only: Place) -> None:
    before = read_only.tree()
    assert verify_as_process(read_only).stdout == "unanchored\n"
    assert read_only.write("--records", 1) == 3
    (error,) = read_only.said().errors
    assert "Read-only file system" in error
    assert read_only.tree() == before


@needs("strace")
def test_verifying_opens_nothing_for_writing(written: Place) -> None:
    log = written.root / "log"
    calls = "trace=openat,open,creat,rename,unlink,mkdir,ftruncate,fsync,fdatasync,utimensat"
    tracing = ("strace", "-f", "-qq", "-s", "999", "-o", str(log), "-e", calls)
    done = verify_as_process(written, before=tracing)
    assert done.stdout == "unanchored\n", done.stderr
    lines = [line for line in log.read_text().splitlines() if str(written.ledger) in line]
    assert len(lines) >= 5
    for line in lines:
        assert re.search(r'open(at)?\(.*", O_RDONLY', line), line
        assert not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", line)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user(written: Place, mode: int) -> None:
    written.root.chmod(0o755)
    written.acks.touch()
    written.acks.chmod(0o666)
    for path in (written.ledger, *written.ledger.rglob("*"), *written.keys.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o644)
    written.keys.chmod(0o755)
    for path in written.keys.iterdir():
        path.chmod(0o644)
    before = written.tree()
    assert written.write("--records", 1, "--user", NOBODY) == 3
    (error,) = written.said().errors
    assert re.fullmatch(r"LedgerError: ledger .* cannot be used: Permission denied", error)
    done = verify_as_process(written, user=NOBODY)
    if mode == 0o700:
        assert "Permission denied" in done.stderr
    else:
        assert done.stdout == "unanchored\n", done.stderr
    assert written.tree() == before


def replace_by_symlink(path: Path) -> None:
    elsewhere = path.with_name(f"elsewhere-{path.name}")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


REPLACEMENTS = [replace_by_symlink, replace_by_fifo, replace_by_folder, replace_by_device]
FILES = ["first segment", "last segment", "checkpoint", TAIL]


def file_of(place: Place, what: str) -> Path:
    segments = sorted(place.ledger.glob("segments/*.jsonl"))
    return {
        "first segment": segments[0],
        "last segment": segments[-1],
        "checkpoint": max(place.ledger.glob("checkpoints/*.note")),
        TAIL: place.ledger / TAIL,
    }[what]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_something_else_in_place_of_a_file(
    written: Place, what: str, replace: Callable[[Path], None]
) -> None:
    replace(file_of(written, what))
    with pytest.raises(LedgerError):
        written.open()
    with pytest.raises(LedgerError):
        written.verify()


@pytest.mark.parametrize("what", ["last segment"])
def test_a_file_with_two_names(written: Place, what: str) -> None:
    path = file_of(written, what)
    os.link(path, written.root / "other")
    with pytest.raises(LedgerRefusedError, match="has 2 names"):
        written.open()


def test_a_link_to_the_ledger(written: Place) -> None:
    link = written.root / "link"
    link.symlink_to(written.ledger)
    written.ledger = link
    with pytest.raises(LedgerError):
        written.open()


def remove_folder(place: Place) -> None:
    shutil.rmtree(place.ledger)


def remove_segment(place: Place) -> None:
    max(place.ledger.glob("segments/*.jsonl")).unlink()


def empty_segment(place: Place) -> None:
    max(place.ledger.glob("segments/*.jsonl")).write_bytes(b"")


def link_segment(place: Place) -> None:
    os.link(max(place.ledger.glob("segments/*.jsonl")), place.root / "other")


def copy_over_segment(place: Place) -> None:
    path = max(place.ledger.glob("segments/*.jsonl"))
    path.with_suffix(".copy").write_bytes(path.read_bytes())
    path.with_suffix(".copy").replace(path)


CHANGES = [remove_folder, remove_segment, empty_segment, link_segment, copy_over_segment]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_behind_an_open_writers_back(place: Place, change: Callable[[Place], None]) -> None:
    ledger = place.open()
    ledger.append([note()])
    change(place)
    before = place.tree()
    for _ in range(2):
        with pytest.raises(LedgerRefusedError):
            ledger.append([note("never")])
    with pytest.raises(LedgerError):
        ledger.close()
    assert place.tree() == before


def test_a_ledger_that_was_moved_away_from_an_open_writer(place: Place) -> None:
    """What is at the path now is another ledger: not a byte of the first goes there."""
    ledger = place.open()
    ledger.append([note()])
    place.ledger.rename(place.root / "moved")
    place.open().close()
    before = place.tree()
    with pytest.raises(LedgerRefusedError):
        ledger.append([note("never")])
    with pytest.raises(LedgerError):
        ledger.close()
    assert place.tree() == before
    place.check_acknowledged()
    shutil.rmtree(place.keys / "heads")  # of the other one
    place.ledger = place.root / "moved"
    place.check_nothing_lost()


@pytest.mark.parametrize("with_notes", [True, False])
def test_a_segment_that_is_missing_between_two(written: Place, with_notes: bool) -> None:
    if not with_notes:
        (written.ledger / TAIL).unlink()
        for path in written.ledger.glob("checkpoints/*"):
            path.unlink()
    names = sorted(written.segments())
    (written.ledger / "segments" / names[1]).unlink()
    before = written.tree()
    assert written.verify().state is State.INVALID
    if not with_notes:
        with pytest.raises(LedgerRefusedError):
            written.open()
        assert written.tree() == before
