"""Garbage collection while the program starts and ends."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cert_cli.start_up import YOUNG_OBJECTS, collect_rarely, leave_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.helpers import Processes


@pytest.fixture
def _collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("_collector")
def test_only_the_youngest_are_collected_less_often() -> None:
    older = gc.get_threshold()[1:]
    collect_rarely()
    assert gc.get_threshold() == (YOUNG_OBJECTS, *older)
    assert gc.isenabled()


@pytest.mark.usefixtures("_collector")
def test_what_is_left_is_not_looked_at_again() -> None:
    left = [[]]
    leave_memory()
    assert gc.get_freeze_count() > 0
    assert not any(one is left for one in gc.get_objects())


def test_the_program_sets_both_before_its_imports_and_at_its_end(processes: Processes) -> None:
    # Buffers, exit functions and threads are there to the end, and the exit code is the same.
    program = """
import atexit, gc, sys, threading, time
from cert_cli.__main__ import main
def end():
    print("left", gc.get_freeze_count() > 0, gc.get_threshold()[0], joined)
joined = []
atexit.register(end)
threading.Thread(target=lambda: (time.sleep(0.1), joined.append(1))).start()
assert "cert_cli.app" not in sys.modules
sys.argv = ["cert", "exit-codes", "--nonsense"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=processes.environment(),
    )
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == f"left True {YOUNG_OBJECTS} [1]"
