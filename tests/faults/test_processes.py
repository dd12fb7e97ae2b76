"""Many processes at one ledger: killed at random, without the lock, forked, stopped."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cert.ledger.errors import LedgerError
from cert.ledger.findings import State
from cert.ledger.reader import FolderReader
from cert.ledger.writer import Limits
from tests.faults.helpers import Place, note

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def wait_until(done: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_at_random(place: Place, writers: int, kills: int) -> None:
    draw = random.Random(os.urandom(8))
    options = (
        *("--records", -1, "--batch", 3, "--size-bytes", 900),
        *("--seal-records", 40, "--segment-bytes", 60_000),
    )
    running: list[subprocess.Popen[bytes]] = [place.start(*options) for _ in range(writers)]
    for _ in range(kills):
        before = len(place.said().acks)
        wait_until(lambda: len(place.said().acks) > before)  # noqa: B023 - called at once
        time.sleep(draw.random() * 0.05)
        victim = running.pop(draw.randrange(writers))
        assert victim.poll() is None
        victim.kill()
        running.append(place.start(*options))
    for one in running:
        one.kill()
        one.wait()
    place.check_nothing_lost()
    acks = len(place.said().acks)
    print(f"{acks} acknowledged, {len(place.copies())} repairs")  # noqa: T201 - for the docs
    assert acks > kills
    assert not place.said().errors


@pytest.mark.parametrize("writers", [2, 8])
def test_writers_that_are_killed_at_random(place: Place, writers: int) -> None:
    kill_at_random(place, writers, 10)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [2, 8])
def test_writers_that_are_killed_at_random_for_long(place: Place, writers: int) -> None:
    kill_at_random(place, writers, 150)


def test_control_two_writers_without_the_lock_break_the_ledger(place: Place) -> None:
    """Shows that the tests above would notice."""
    place.open().close()
    options = ("--records", 6000, "--no-lock")
    two = [place.start(*options) for _ in range(2)]
    for one in two:
        one.wait(60)
    assert place.verify().state is State.INVALID


def test_two_writers_with_the_lock(place: Place) -> None:
    two = [place.start("--records", 300) for _ in range(2)]
    assert [one.wait(120) for one in two] == [0, 0]
    assert len(place.said().acks) == 600
    place.check_acknowledged()


def test_a_process_that_forks_goes_on_as_two(place: Place) -> None:
    assert place.write("--records", 100, "--fork", "--seal-records", 30) == 0
    assert len(place.said().acks) == 200
    assert place.said().words.count("closed") == 2
    place.check_acknowledged()


def test_a_stopped_process_that_holds_the_lock(place: Place) -> None:
    with place.open() as ledger:
        ledger.append([note()])
        stopped = place.start("--records", 2, "--stop-in-lock")
        wait_until(lambda: "holding" in place.said().words)
        limits = Limits(lock_timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(LedgerError, match="is held by another process, which does not let go"):
            place.open(limits)
        assert 0.3 <= time.monotonic() - started < 5
        assert place.write("--lock-timeout-s", 0.2) == 3
        assert "is held by another process" in place.said().errors[-1]
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(60) == 0
        ledger.append([note()])
    assert len(place.said().acks) == 2
    place.check_acknowledged()


def test_a_waiting_writer_gets_the_lock_of_a_killed_one(place: Place) -> None:
    place.open().close()
    stopped = place.start("--stop-in-lock")
    wait_until(lambda: "holding" in place.said().words)
    waiting = place.start("--records", 2)
    time.sleep(0.4)
    assert waiting.poll() is None
    stopped.kill()
    assert waiting.wait(60) == 0
    assert len(place.said().acks) == 2
    place.check_acknowledged()


def test_an_open_writer_times_out_and_goes_on(place: Place) -> None:
    with place.open(Limits(lock_timeout_s=0.2)) as ledger:
        stopped = place.start("--stop-in-lock", "--records", 1)
        wait_until(lambda: "holding" in place.said().words)
        with pytest.raises(LedgerError, match="is held by another process"):
            ledger.append([note("never")])
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(60) == 0
        ledger.append([note("later")])
    assert not any(b"never" in line for line in place.lines())
    place.check_acknowledged()


def test_verifying_does_not_wait_for_ever_for_a_stopped_writer(place: Place) -> None:
    place.open().close()
    place.start("--stop-in-lock", "--records", 1)
    wait_until(lambda: "holding" in place.said().words)
    with pytest.raises(LedgerError, match="is held by another process"):
        FolderReader(place.ledger, lock_timeout_s=0.3)
