"""Health of the machine and of what is installed: checks that need neither a model nor a ledger."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Final

import cert
from cert.core.health import CheckResult
from cert.core.resources import BYTES_PER_GB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.core.resources import MemoryInfo

LOW_MEMORY_SHARE: Final = 0.05
MIB: Final = 2**20
SUPPORTED: Final = {"python": "3.11", "torch": "2.9", "transformers": "5.3"}
"""Oldest versions that this release is made for; the same as pyproject.toml asks for."""

FIRST_YEAR, LAST_YEAR = 2025, 2099
_FUTURE_S: Final = 5.0
"""A newest record further ahead than this is told; clocks of several writers differ by less."""
_WRONG_S: Final = 86_400.0
_STEP_S: Final = 2.0
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns for a clock that nothing keeps right."""


def check_environment(find_version: Callable[[str], str | None] | None = None) -> CheckResult:
    """Whether Python and the libraries are of versions that this release is made for.

    Args:
        find_version: Version of an installed library, None where it is not there; the installed
            ones by default. Nothing is imported.
    """
    find = installed_version if find_version is None else find_version
    found = {name: find(name) for name in SUPPORTED}
    words = [f"cert {cert.__version__}"]
    words += [f"{name} {version or 'not installed'}" for name, version in found.items()]
    words.append(f"{sys.platform} {platform.machine()}")
    state = ", ".join(words)
    old = [
        f"{name} {version} is older than {SUPPORTED[name]}, the first that is supported"
        for name, version in found.items()
        if version is not None and _release(version) < _release(SUPPORTED[name])
    ]
    if old:
        return CheckResult.unhealthy(f"{'; '.join(old)} ({state})")
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return CheckResult.degraded(f"no local model can run without {missing[0]} ({state})")
    return CheckResult.healthy(state)


def installed_version(name: str) -> str | None:
    """Version of a library, without importing it; None where it is not installed."""
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers: `(2, 9)` of `2.9.0+cpu`; what is no number counts as 0."""
    parts = version.split("+", maxsplit=1)[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts[:2])


def check_memory(max_memory_gb: float | None, memory: MemoryInfo) -> CheckResult:
    """Whether there is memory left, on the machine and under MAX_MEMORY_GB."""
    rss, total, available = memory.rss_bytes, memory.total_bytes, memory.available_bytes
    if rss is None or total is None or available is None:
        return CheckResult.unknown("this system does not say how much memory there is")
    state = f"{rss / BYTES_PER_GB:.2f} GB used, {available / BYTES_PER_GB:.2f} GB available"
    if max_memory_gb is not None and rss > max_memory_gb * BYTES_PER_GB:
        return CheckResult.degraded(f"{state}; MAX_MEMORY_GB is {max_memory_gb:g}")
    if available < LOW_MEMORY_SHARE * total:
        return CheckResult.degraded(f"{state}: less than {LOW_MEMORY_SHARE:.0%}")
    return CheckResult.healthy(state)


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """When a file system counts as short of room.

    Attributes:
        low_bytes: Fewer free bytes are degraded.
        low_share: A smaller free share of the whole, in [0, 1], is degraded.
        full_bytes: Fewer free bytes are unhealthy.
    """

    low_bytes: int = 1024 * MIB
    low_share: float = 0.05
    full_bytes: int = 50 * MIB


def check_disk(
    folder: Path,
    limits: DiskLimits,
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
) -> CheckResult:
    """Whether the file system of a folder has room for this user.

    Args:
        folder: Need not exist: the nearest one above it is looked at.
        limits: What is too little.
        statvfs: Asks the system.
    """
    place = nearest_folder(folder)
    try:
        found = statvfs(place)
    except OSError as error:
        return CheckResult.unhealthy(f"{place} cannot be looked at: {error.strerror}")
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    share = free / total if total else 0.0
    state = f"{_size(free)} of {_size(total)} ({share:.0%}) free at {place}"
    if total == 0:
        return CheckResult.unknown(f"the file system of {place} does not say how large it is")
    if found.f_files and not found.f_favail:
        return CheckResult.unhealthy(f"{state}, and no inodes: no file can be created")
    if free < limits.full_bytes:
        return CheckResult.unhealthy(f"{state}: less than {_size(limits.full_bytes)}")
    if free < limits.low_bytes or share < limits.low_share:
        least = f"{_size(limits.low_bytes)} or {limits.low_share:.0%}"
        return CheckResult.degraded(f"{state}: less than {least}")
    return CheckResult.healthy(state)


def nearest_folder(folder: Path) -> Path:
    """The folder itself where it is there, else the nearest one above it that is."""
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place


def _size(size_bytes: int) -> str:
    if size_bytes < BYTES_PER_GB:
        return f"{size_bytes / MIB:.1f} MiB"
    return f"{size_bytes / BYTES_PER_GB:.1f} GiB"


def clock_is_synchronised() -> bool | None:
    """Whether the kernel says that its clock is kept right; None where it says nothing."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, zeroed: nothing is set
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != _TIME_ERROR


@dataclass(frozen=True, slots=True)
class ClockWatch:
    """The wall clock beside the monotonic one, from the watch's making on.

    Attributes:
        wall: Seconds since 1970, by the wall clock.
        monotonic: Seconds of a clock that nobody sets, and that goes on while a machine sleeps.
        is_synchronised: Whether the system says that something keeps its clock right; None where
            it says nothing.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    is_synchronised: Callable[[], bool | None] = clock_is_synchronised
    _began: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        """Read both clocks."""
        object.__setattr__(self, "_began", (self.wall(), self.monotonic()))

    def check(self, newest_record: str | None) -> CheckResult:
        """Whether the wall clock can date records.

        Args:
            newest_record: RFC 3339 time of the ledger's last record; None where there is none.
        """
        now, ticks = self.wall(), self.monotonic()
        try:
            moment = datetime.fromtimestamp(now, UTC)
        except (ValueError, OverflowError, OSError):
            return CheckResult.unhealthy(f"the clock says {now:.0f} s since 1970: no time at all")
        state = f"{moment:%Y-%m-%dT%H:%M:%SZ}, {_SYNCHRONISED[self.is_synchronised()]}"
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            return CheckResult.unhealthy(f"the clock says {state}: no plausible year")
        ahead_s = 0.0 if newest_record is None else _seconds(newest_record) - now
        if ahead_s > _FUTURE_S:
            reason = (
                f"the ledger's newest record is of {newest_record}, {ahead_s:.0f} s ahead of the "
                f"clock ({state})"
            )
            wrong = ahead_s > _WRONG_S
            return CheckResult.unhealthy(reason) if wrong else CheckResult.degraded(reason)
        step_s = (now - self._began[0]) - (ticks - self._began[1])
        if abs(step_s) > _STEP_S:
            return CheckResult.degraded(
                f"the clock was set by {step_s:+.1f} s while this process ran ({state})"
            )
        return CheckResult.healthy(state)


_SYNCHRONISED: Final = {
    True: "kept right by time synchronisation",
    False: "the system says that nothing keeps it right",
    None: "the system does not say whether something keeps it right",
}


def _seconds(rfc_3339: str) -> float:
    try:
        return datetime.fromisoformat(rfc_3339).timestamp()
    except (ValueError, OverflowError):
        return float("-inf")  # `cert verify` has more to say about such a record
