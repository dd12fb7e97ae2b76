"""SIGKILL before the Nth system call that changes anything, for every N of a whole session."""

from __future__ import annotations

import signal
from itertools import count

import pytest

from cert.ledger.reader import segment_name
from tests.faults.helpers import Place, needs

CALLS = ("write", "fdatasync", "fsync", "ftruncate", "rename", "mkdir", "unlink", "flock")
SESSION = (
    *("--records", 8, "--batch", 2, "--seal-records", 5),
    *("--segment-bytes", 2500, "--rotate-at", 5),
)
"""Creation, two segments, checkpoints, another key, close."""


def killed_at(call: str, number: int) -> list[str]:
    # Not with --seccomp-bpf, which lets injected signals go.
    inject = f"inject={call}:signal=KILL:when={number}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]


def kill_at_each(place: Place, call: str, step: int, torn: bytes = b"") -> int:
    """Kill at every so manieth call; returns how many kills that were."""
    for kills in count():
        place.begin_anew()
        place.acks.unlink(missing_ok=True)
        if torn:
            place.open().close()
            with (place.ledger / "segments" / segment_name(0)).open("ab") as file:
                file.write(torn)
        code = place.write(*SESSION, before=killed_at(call, 1 + kills * step))
        place.check_nothing_lost()
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
    raise AssertionError


@needs("strace")
@pytest.mark.parametrize(("call", "step"), [("write", 9), ("fdatasync", 5), ("fsync", 5)])
def test_a_session_that_is_killed_now_and_then(place: Place, call: str, step: int) -> None:
    assert kill_at_each(place, call, step) >= 2


@needs("strace")
@pytest.mark.parametrize("call", ["ftruncate", "rename"])
def test_a_repair_that_is_killed(place: Place, call: str) -> None:
    assert kill_at_each(place, call, 5, torn=b'{"_prev":"') >= 1


@pytest.mark.slow
@needs("strace")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("torn", [b"", b'{"_prev":"'], ids=["whole", "torn"])
def test_a_session_that_is_killed_anywhere(place: Place, call: str, torn: bytes) -> None:
    kills = kill_at_each(place, call, 1, torn)
    print(f"{call}: {kills} kills")  # noqa: T201 - the figure in docs/reliability.md
    happens = call != ("unlink" if torn else "ftruncate")
    assert kills >= happens
