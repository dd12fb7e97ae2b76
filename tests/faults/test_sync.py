"""The disk says no: EIO while syncing, no locks, no room, calls that fail at the Nth time."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import pytest

from cert.ledger.reader import segment_name
from tests.faults.helpers import Place, needs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("strace")
SESSION = (
    *("--records", 6, "--batch", 2, "--seal-records", 5),
    *("--segment-bytes", 2500, "--rotate-at", 4),
)


def failing(call: str, error: str, number: object, log: Path) -> list[str]:
    inject = f"inject={call}:error={error}:when={number}"
    trace = "trace=write,fdatasync,fsync,ftruncate,rename,openat,flock"
    return ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", trace, "-e", inject]


def fail_at_each(place: Place, call: str, error: str, step: int = 1) -> list[tuple[str, ...]]:
    """Let every so manieth call fail once, check the invariant; what the writers said of it."""
    said = []
    log = place.root / "log"
    for number in count(1, step):
        place.begin_anew()
        place.acks.unlink(missing_ok=True)
        code = place.write(*SESSION, before=failing(call, error, number, log))
        happened = "(INJECTED)" in log.read_text()
        place.check_nothing_lost()
        if not happened:
            assert code == 0
            return said
        said.append(place.said().errors)
        check_no_segment_is_touched_after_a_failed_sync(log.read_text())
    raise AssertionError


def check_no_segment_is_touched_after_a_failed_sync(log: str) -> None:
    """A failed sync of records is not asked again, and nothing follows what is indeterminate."""
    before, _, after = log.partition("= -1 EIO (Input/output error) (INJECTED)")
    *_, call = before.split("\n")
    if re.search(r"fdatasync\(\d+<.*\.jsonl>\)|fsync\(\d+<.*/segments>\)", call):
        assert not re.findall(r"(?:write|ftruncate|fdatasync)\(\d+<[^>]*\.jsonl>", after)


def test_eio_of_fdatasync_breaks_the_writer_for_good(place: Place) -> None:
    said = fail_at_each(place, "fdatasync", "EIO")
    assert len(said) >= 8
    for errors in said:
        assert errors
        assert all(one.startswith("LedgerBrokenError: ") for one in errors)
    assert len(said[0]) == 7, "all six appends and the rotation"


@pytest.mark.parametrize(
    ("call", "error", "step"),
    [
        ("fsync", "EIO", 3),
        ("write", "ENOSPC", 5),
        ("write", "EIO", 6),
        ("rename", "EIO", 3),
        pytest.param("fsync", "EIO", 1, marks=pytest.mark.slow),
        pytest.param("write", "ENOSPC", 1, marks=pytest.mark.slow),
        pytest.param("write", "EDQUOT", 1, marks=pytest.mark.slow),
        pytest.param("write", "EIO", 1, marks=pytest.mark.slow),
        pytest.param("rename", "EIO", 1, marks=pytest.mark.slow),
        pytest.param("fsync", "ENOSPC", 1, marks=pytest.mark.slow),
        pytest.param("flock", "ENOLCK", 1, marks=pytest.mark.slow),
    ],
)
def test_a_call_that_fails_once_loses_nothing(
    place: Place, call: str, error: str, step: int
) -> None:
    said = fail_at_each(place, call, error, step)
    assert len(said) >= 2
    for one in (one for errors in said for one in errors):
        assert re.match(r"Ledger(Full|Broken|)Error: ", one), one


def test_a_file_system_without_locks(place: Place) -> None:
    log = place.root / "log"
    assert place.write("--records", 1, before=failing("flock", "ENOLCK", "1+", log)) == 3
    (error,) = place.said().errors
    assert error == f"LedgerError: ledger {place.ledger} cannot be locked: No locks available"
    assert not place.tree()


def test_locks_that_are_lost_on_the_way(place: Place) -> None:
    log = place.root / "log"
    assert place.write("--records", 3, before=failing("flock", "ENOLCK", "5+", log)) == 3
    said = place.said()
    assert len(said.acks) == 1
    assert len(said.errors) == 3
    assert all("cannot be locked: No locks available" in one for one in said.errors)
    place.check_nothing_lost()


def test_the_names_of_new_folders_are_synced_before_the_first_record(place: Place) -> None:
    place.ledger = place.root / "a" / "b" / "ledger"
    log = place.root / "log"
    assert place.write("--records", 1, before=failing("fsync", "EIO", 10_000, log)) == 0
    before, _, _ = log.read_text().partition(segment_name(0))
    for folder in ("", "/a", "/a/b"):
        assert f"<{place.root}{folder}>) = 0" in before
