"""No room: a small file system that fills up, limits of file size, descriptors and memory."""

from __future__ import annotations

import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.faults.helpers import Place, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE_BYTES = 4096
PAGES = 16


@pytest.fixture
def small(tmp_path: Path, place: Place) -> Iterator[Place]:
    """A ledger on a file system of its own, of 64 KiB; keys and acknowledgements are elsewhere."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    size = f"size={PAGES * PAGE_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(mounted)], check=True)
    place.ledger = mounted / "ledger"
    yield place
    place.end_all()
    subprocess.run(["umount", str(mounted)], check=True)


def fill_and_go_on(place: Place, pages: int, *options: object) -> bool:
    """Leave so much room, write until there is none, make room, go on; whether it was short."""
    ballast = place.ledger.parent / "ballast"
    ballast.write_bytes(bytes((PAGES - pages) * PAGE_BYTES))
    code = place.write("--records", 60, *options)
    said = place.said()
    if place.segments():
        # What could not be written whole was taken back at once.
        assert all(data.endswith(b"\n") or not data for data in place.segments().values())
        assert place.verify().state.value in {"unsealed", "unanchored"}
    ballast.unlink()
    size = f"remount,size={2 * PAGES * PAGE_BYTES}"
    subprocess.run(["mount", "-o", size, str(place.ledger.parent)], check=True)
    for path in place.ledger.glob("checkpoints/.*"):
        raise AssertionError(path)
    assert place.check_nothing_lost() == 0
    if "open" in said.words:
        assert all(one.startswith(("LedgerFullError", "LedgerError")) for one in said.errors)
    return code != 0


@needs_root
@pytest.mark.parametrize("pages", [0, 1, 2, 3, 5])
def test_a_full_file_system(small: Place, pages: int) -> None:
    assert fill_and_go_on(small, pages, "--size-bytes", 700)
    assert any(one.startswith("Ledger") for one in small.said().errors)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("pages", range(PAGES + 1))
@pytest.mark.parametrize("size_bytes", [1, 333, 1500, 5000])
@pytest.mark.parametrize("more", [(), ("--seal-records", 2, "--segment-bytes", 3000)])
def test_every_level_of_a_file_system(
    small: Place, pages: int, size_bytes: int, more: tuple[object, ...]
) -> None:
    fill_and_go_on(small, pages, "--size-bytes", size_bytes, *more)


@needs_root
def test_the_open_writer_goes_on_once_there_is_room(small: Place) -> None:
    process = small.start("--size-bytes", 2000, "--on-line", "--records", -1)
    ballast = small.ledger.parent / "ballast"
    ask_until(small, process, lambda: "open" in small.said().words)
    ballast.write_bytes(bytes(8 * PAGE_BYTES))
    ask_until(small, process, lambda: bool(small.said().errors))
    full = small.said()
    assert full.errors[0].startswith("LedgerFullError: ")
    assert "No space left on device; it was not recorded" in full.errors[0]
    ballast.unlink()
    ask_until(small, process, lambda: len(small.said().acks) > len(full.acks))
    process.communicate()
    small.check_acknowledged()


def ask_until(place: Place, process: subprocess.Popen[bytes], done: Callable[[], bool]) -> None:
    assert process.stdin is not None
    for _ in range(100):
        said = place.acks.read_bytes() if place.acks.exists() else b""
        if said and done():
            return
        process.stdin.write(b"\n")
        process.stdin.flush()
        while not place.acks.exists() or place.acks.read_bytes() == said:
            assert process.poll() is None
    raise AssertionError


def limited(kind: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


@pytest.mark.parametrize("limit_bytes", [2500, 4001, 9000, 20000])
def test_the_limit_of_file_sizes(place: Place, limit_bytes: int) -> None:
    # Python ignores SIGXFSZ, so the call is cut short and the next one says EFBIG.
    option = limited(resource.RLIMIT_FSIZE, limit_bytes)
    assert place.write("--records", 8, "--size-bytes", 3000, preexec_fn=option) == 3
    errors = place.said().errors
    assert any("File too large" in one for one in errors)
    assert place.check_nothing_lost() == 0


@pytest.mark.parametrize("descriptors", range(3, 12))
def test_the_limit_of_descriptors(place: Place, descriptors: int) -> None:
    place.open().close()
    code = place.write(
        *("--records", 6, "--seal-records", 2, "--segment-bytes", 900),
        *("--descriptors", descriptors),
    )
    assert code in {0, 3}
    said = place.said()
    assert all("Too many open files" in one for one in said.errors), said.errors
    assert code == 0 or said.errors
    assert place.check_nothing_lost() == 0


@pytest.mark.parametrize("spare_bytes", [0, 1 << 20, 8 << 20, 32 << 20])
def test_the_limit_of_memory(place: Place, spare_bytes: int) -> None:
    code = place.write("--records", 4, "--size-bytes", 4 << 20, "--spare-bytes", spare_bytes)
    said = place.said()
    # orjson 3.11 ends the process where it gets no memory: then it was as good as killed.
    assert code in {0, 3, -signal.SIGSEGV, -signal.SIGABRT}
    assert (code == 3) == bool(said.errors)
    assert spare_bytes >= 32 << 20 or code
    place.check_nothing_lost()
