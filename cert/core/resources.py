"""Things that are loaded once, used by many threads and freed for sure; and the memory there is.

A subclass says how to acquire; loading once, cleaning up after a failure, and unloading are here.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from cert.core.errors import ModelNotLoaded

logger = logging.getLogger(__name__)

T = TypeVar("T")
BYTES_PER_GB = 1024**3


class ManagedResource(ABC, Generic[T]):
    """A handle of type T that is there between `load` and `unload`.

    `load` and `unload` are idempotent and safe to call from several threads: the second caller of
    `load` waits for the first and gets the same handle. A `with` block loads and unloads.

    Args:
        name: Names the resource in errors and logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._loading = False
        self._loaded: tuple[T, ExitStack] | None = None
        self._load_s: float | None = None

    @abstractmethod
    def _acquire(self, cleanup: ExitStack) -> T:
        """Build the handle.

        What has to be undone is pushed on `cleanup` as soon as it is done: it is undone in
        reverse order by `unload`, and at once if this method raises.
        """

    def load(self) -> Self:
        """Acquire the handle, unless it is there already.

        Raises:
            Exception: Whatever `_acquire` raises; the resource is then unloaded and clean.
            RuntimeError: `_acquire` calls it.
        """
        with self._lock:
            if self._loaded is not None:
                return self
            if self._loading:
                raise RuntimeError(f"{self.name} is loaded while it is being loaded")
            self._loading = True
            began = time.monotonic()
            try:
                with ExitStack() as cleanup:
                    handle = self._acquire(cleanup)
                    self._loaded = (handle, cleanup.pop_all())
            finally:
                self._loading = False
            self._load_s = time.monotonic() - began
        logger.debug("loaded %s", self.name, extra={"load_s": round(self._load_s, 3)})
        return self

    def unload(self) -> None:
        """Free the handle, if there is one; waits while another thread loads.

        Raises:
            Exception: What a cleanup raises, after all the others have run; the resource is
                unloaded all the same.
        """
        with self._lock:
            if self._loaded is None:
                return
            _, cleanup = self._loaded
            self._loaded = None
            cleanup.close()
        logger.debug("unloaded %s", self.name)

    @property
    def is_loaded(self) -> bool:
        """Whether the handle is there; answers at once, also while another thread loads."""
        return self._loaded is not None

    @property
    def load_s(self) -> float | None:
        """Seconds that the last successful load took; None before the first."""
        return self._load_s

    @property
    def handle(self) -> T:
        """The handle.

        Raises:
            ModelNotLoaded: It is not loaded.
        """
        loaded = self._loaded
        if loaded is None:
            raise ModelNotLoaded(f"{self.name} is not loaded")
        return loaded[0]

    def __enter__(self) -> Self:
        return self.load()

    def __exit__(self, *_: object) -> None:
        self.unload()


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Memory of this process and its machine; None where the system does not say.

    Attributes:
        rss_bytes: Resident set of this process.
        peak_rss_bytes: The largest it has been.
        total_bytes: Of the machine, or of the container if that has less.
        available_bytes: What can still be used without swapping, within the same limit.
    """

    rss_bytes: int | None
    peak_rss_bytes: int | None
    total_bytes: int | None
    available_bytes: int | None


def read_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> MemoryInfo:
    """Read the memory of this process and machine from Linux's own files.

    Args:
        proc: Where procfs is mounted.
        cgroup: The control group of this process; its limit counts where it is lower than the
            machine's memory (version 2, and version 1 under `memory/`).

    Returns:
        What could be read; on other systems nothing can, and all four are None.
    """
    status = _kilobyte_fields(proc / "self" / "status")
    machine = _kilobyte_fields(proc / "meminfo")
    total, available = machine.get("MemTotal"), machine.get("MemAvailable")
    limit = _first_number(cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes")
    used = _first_number(cgroup / "memory.current", cgroup / "memory" / "memory.usage_in_bytes")
    # An unlimited version 1 group says about 2**63.
    if limit is not None and total is not None and limit < total:
        total = limit
        if used is not None:
            left = max(0, limit - used)
            available = left if available is None else min(available, left)
    return MemoryInfo(
        rss_bytes=status.get("VmRSS"),
        peak_rss_bytes=status.get("VmHWM"),
        total_bytes=total,
        available_bytes=available,
    )


def _kilobyte_fields(path: Path) -> dict[str, int]:
    """Parse the `Name:   123 kB` lines of a procfs file, as bytes."""
    fields = {}
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        match value.split():
            case [number, "kB"] if number.isdigit():
                fields[name] = int(number) * 1024
    return fields


def _first_number(*paths: Path) -> int | None:
    for path in paths:
        text = _read(path).strip()
        if text.isdigit():
            return int(text)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
