from __future__ import annotations

import os
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cert.core import health_host
from cert.core.health import HealthStatus
from cert.core.health_host import (
    SUPPORTED,
    ClockWatch,
    DiskLimits,
    check_disk,
    check_environment,
    clock_is_synchronised,
)

GIB, MIB = 2**30, 2**20
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


def test_supported_versions_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = {"python": project["requires-python"].removeprefix(">=")}
    for one in project["dependencies"]:
        name, _, version = one.partition(">=")
        asked[name] = version
    assert {name: asked[name] for name in SUPPORTED} == SUPPORTED


@pytest.mark.parametrize(
    ("versions", "status", "says"),
    [
        ({"python": "3.11.0", "torch": "2.9.1+cpu", "transformers": "5.3"}, "healthy", "torch 2.9"),
        ({"python": "3.13.1", "torch": "3.0", "transformers": "6.0.dev0"}, "healthy", "3.13.1"),
        (
            {"python": "3.11.0", "torch": "2.8.9", "transformers": "5.3"},
            "unhealthy",
            "torch 2.8.9 is older than 2.9",
        ),
        ({"python": "3.10.9", "torch": "2.9", "transformers": "5.3"}, "unhealthy", "python 3.10.9"),
        ({"python": "3.11.0"}, "degraded", "without torch"),
        ({"python": "3.11.0", "torch": "3.0", "transformers": "x"}, "unhealthy", "transformers x"),
    ],
)
def test_versions(versions: dict[str, str], status: str, says: str) -> None:
    found = check_environment(versions.get)
    assert found.status == status
    assert says in found.reason


def test_the_versions_of_this_environment_are_found() -> None:
    assert check_environment().status is HealthStatus.HEALTHY
    assert health_host.installed_version("no-such-library") is None


def file_system(free: int, total: int, *, files: int = 100, favail: int = 50) -> Any:  # noqa: ANN401
    return SimpleNamespace(
        f_bavail=free, f_blocks=total, f_frsize=1, f_files=files, f_favail=favail
    )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (file_system(2 * GIB, 10 * GIB), "healthy"),
        (file_system(GIB, 10 * GIB), "healthy"),
        (file_system(GIB - 1, 10 * GIB), "degraded"),
        (file_system(2 * GIB, 41 * GIB), "degraded"),
        (file_system(50 * MIB, 10 * GIB), "degraded"),
        (file_system(50 * MIB - 1, 10 * GIB), "unhealthy"),
        (file_system(0, 10 * GIB), "unhealthy"),
        (file_system(2 * GIB, 10 * GIB, favail=0), "unhealthy"),
        (file_system(2 * GIB, 10 * GIB, files=0, favail=0), "healthy"),
        (file_system(0, 0), "unknown"),
    ],
)
def test_room_on_the_disk(found: Any, status: str) -> None:  # noqa: ANN401 - a fake
    assert check_disk(Path("/x"), DiskLimits(), lambda _: found).status == status


def test_room_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    asked = []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        return os.statvfs(path)

    nothing = DiskLimits(low_bytes=0, low_share=0, full_bytes=0)
    assert check_disk(tmp_path / "a" / "b", nothing, statvfs)
    everything = DiskLimits(low_bytes=2**62, low_share=0, full_bytes=0)
    assert check_disk(tmp_path / "a" / "b", everything).status is HealthStatus.DEGRADED
    assert asked == [tmp_path]


def test_a_disk_that_cannot_be_asked() -> None:
    def statvfs(_: Path) -> os.statvfs_result:
        raise OSError(5, os.strerror(5))

    found = check_disk(Path("/"), DiskLimits(), statvfs)
    assert (found.status, "Input/output error" in found.reason) == (HealthStatus.UNHEALTHY, True)


class Clocks:
    """Two clocks that are set by hand."""

    def __init__(self, wall: float = NOW) -> None:
        self.now, self.ticks = wall, 100.0

    def watch(self, *, is_synchronised: bool | None = None) -> ClockWatch:
        return ClockWatch(lambda: self.now, lambda: self.ticks, lambda: is_synchronised)


@pytest.mark.parametrize(
    ("wall", "status"),
    [
        (NOW, "healthy"),
        (datetime(2025, 1, 1, tzinfo=UTC).timestamp(), "healthy"),
        (datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp(), "unhealthy"),
        (0.0, "unhealthy"),
        (datetime(2100, 1, 1, tzinfo=UTC).timestamp(), "unhealthy"),
        (1e18, "unhealthy"),
    ],
)
def test_the_year_has_to_be_plausible(wall: float, status: str) -> None:
    assert Clocks(wall).watch().check(None).status == status


@pytest.mark.parametrize(
    ("newest", "status"),
    [
        ("2026-11-25T12:00:05.000Z", "healthy"),
        ("2026-11-25T12:00:06.000Z", "degraded"),
        ("2026-11-26T12:00:00.000Z", "degraded"),
        ("2026-11-26T12:00:01.000Z", "unhealthy"),
        ("2025-11-25T12:00:00.000Z", "healthy"),
        ("not a time", "healthy"),
    ],
)
def test_a_record_from_the_future(newest: str, status: str) -> None:
    found = Clocks().watch().check(newest)
    assert found.status == status
    assert status == "healthy" or newest in found.reason


@pytest.mark.parametrize(("step", "status"), [(1.9, "healthy"), (-2.1, "degraded")])
def test_a_clock_that_is_set_is_noticed(step: float, status: str) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.now += 3600 + step
    clocks.ticks += 3600
    found = watch.check(None)
    assert found.status == status
    assert status == "healthy" or "-2.1 s" in found.reason


@pytest.mark.parametrize(
    ("synchronised", "says"),
    [(True, "kept right by"), (False, "nothing keeps it right"), (None, "does not say")],
)
def test_what_the_system_says_of_its_clock_is_told(synchronised: bool | None, says: str) -> None:
    assert says in Clocks().watch(is_synchronised=synchronised).check(None).reason


def test_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock_is_synchronised() in {True, False, None}
    monkeypatch.setattr(
        health_host.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(adjtimex=lambda _: 0)
    )
    assert clock_is_synchronised() is True
    monkeypatch.setattr(
        health_host.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(adjtimex=lambda _: 5)
    )
    assert clock_is_synchronised() is False
    monkeypatch.setattr(
        health_host.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(adjtimex=lambda _: -1)
    )
    assert clock_is_synchronised() is None
    monkeypatch.setattr(health_host.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    assert clock_is_synchronised() is None


def test_now_is_a_plausible_time() -> None:
    found = ClockWatch().check(None)
    assert re.match(r"20\d\d-\d\d-\d\dT", found.reason)
