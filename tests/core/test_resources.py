from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ModelNotLoaded
from cert.core.resources import ManagedResource, MemoryInfo, read_memory

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path


class Thing(ManagedResource[list[int]]):
    def __init__(self) -> None:
        super().__init__("thing")
        self.log: list[str] = []
        self.fail_at: str | None = None
        self.gate: threading.Event | None = None

    def _acquire(self, cleanup: ExitStack) -> list[int]:
        self.log.append("acquire")
        cleanup.callback(self._undo, "first")
        if self.fail_at == "acquire":
            raise OSError("no")
        cleanup.callback(self._undo, "second")
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.fail_at == "itself":
            self.load()
        return [1, 2]

    def _undo(self, what: str) -> None:
        self.log.append(f"undo {what}")
        if self.fail_at == f"undo {what}":
            raise OSError("cleanup")


def test_load_and_unload_are_idempotent() -> None:
    thing = Thing()
    assert not thing.is_loaded
    assert thing.load_s is None
    thing.unload()
    assert thing.load() is thing
    handle = thing.handle
    assert thing.load().handle is handle
    assert thing.is_loaded
    assert thing.load_s is not None
    assert thing.load_s >= 0
    thing.unload()
    thing.unload()
    assert thing.log == ["acquire", "undo second", "undo first"]
    assert not thing.is_loaded


def test_without_loading_there_is_no_handle() -> None:
    with pytest.raises(ModelNotLoaded, match="thing is not loaded"):
        _ = Thing().handle


def test_a_failed_load_is_cleaned_up_and_can_be_repeated() -> None:
    thing = Thing()
    thing.fail_at = "acquire"
    with pytest.raises(OSError, match="no"):
        thing.load()
    assert thing.log == ["acquire", "undo first"]
    assert not thing.is_loaded
    thing.fail_at = None
    assert thing.load().handle == [1, 2]


def test_a_failed_cleanup_runs_the_others_and_leaves_it_unloaded() -> None:
    thing = Thing()
    thing.load()
    thing.fail_at = "undo second"
    with pytest.raises(OSError, match="cleanup"):
        thing.unload()
    assert thing.log[-2:] == ["undo second", "undo first"]
    assert not thing.is_loaded
    thing.unload()


def test_the_with_block_unloads_also_after_an_error() -> None:
    thing = Thing()
    with thing as inside:
        assert inside is thing
        assert thing.is_loaded
    assert not thing.is_loaded
    with pytest.raises(ZeroDivisionError), thing:
        _ = 1 / (len(thing.handle) - 2)
    assert not thing.is_loaded
    assert thing.log == ["acquire", "undo second", "undo first"] * 2


def test_many_threads_load_once_and_is_loaded_does_not_wait() -> None:
    thing = Thing()
    thing.gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(thing.load) for _ in range(8)]
        assert thing.is_loaded is False
        thing.gate.set()
        handles = {id(future.result(10).handle) for future in futures}
    assert len(handles) == 1
    assert thing.log == ["acquire"]


def test_loading_while_loading_is_a_bug_that_says_so() -> None:
    thing = Thing()
    thing.fail_at = "itself"
    with pytest.raises(RuntimeError, match="while it is being loaded"):
        thing.load()
    assert thing.log == ["acquire", "undo second", "undo first"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path / "proc/self/status", "Name:\tpython\nVmHWM:\t  3000 kB\nVmRSS:\t  2000 kB\n")
    write(
        tmp_path / "proc/meminfo",
        "MemTotal:  10000 kB\nMemAvailable: 8000 kB\nHugePages_Total: 4\n",
    )
    return tmp_path / "proc"


def test_memory_is_read_from_proc(proc: Path, tmp_path: Path) -> None:
    assert read_memory(proc, tmp_path / "none") == MemoryInfo(
        rss_bytes=2000 * 1024,
        peak_rss_bytes=3000 * 1024,
        total_bytes=10000 * 1024,
        available_bytes=8000 * 1024,
    )


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({"memory.max": "4096000", "memory.current": "1096000"}, 4096000, 3000000),
        ({"memory.max": "4096000"}, 4096000, 8000 * 1024),
        ({"memory.max": "4096000", "memory.current": "5000000"}, 4096000, 0),
        ({"memory.max": "max", "memory.current": "1"}, 10000 * 1024, 8000 * 1024),
        ({"memory.max": str(2**62), "memory.current": "1"}, 10000 * 1024, 8000 * 1024),
        (
            {"memory/memory.limit_in_bytes": "4096000", "memory/memory.usage_in_bytes": "96000"},
            4096000,
            4000000,
        ),
    ],
)
def test_a_containers_limit_counts_where_it_is_lower(
    proc: Path, tmp_path: Path, files: dict[str, str], total: int, available: int
) -> None:
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text + "\n")
    memory = read_memory(proc, tmp_path / "cgroup")
    assert (memory.total_bytes, memory.available_bytes) == (total, available)


def test_elsewhere_nothing_is_known(tmp_path: Path) -> None:
    assert read_memory(tmp_path, tmp_path) == MemoryInfo(None, None, None, None)


def test_this_process_has_memory() -> None:
    memory = read_memory()
    assert memory.rss_bytes is not None
    assert memory.peak_rss_bytes is not None
    assert memory.total_bytes is not None
    assert 1_000_000 < memory.rss_bytes <= memory.peak_rss_bytes
    assert memory.rss_bytes < memory.total_bytes
