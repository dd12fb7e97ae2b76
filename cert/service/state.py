"""What the server can do at the moment, told to whoever asks: probes, metrics, admission."""

from __future__ import annotations

import threading
import time
from enum import StrEnum
from typing import Final

ALIVE_S: Final = 30.0
"""How long the main loop may be silent until it counts as hung."""


class Readiness(StrEnum):
    """Whether requests are taken, and why not."""

    READY = "ready"
    LOADING = "loading"
    DRAINING = "draining"
    LEDGER_FAILED = "ledger failed"


class ServiceState:
    """The one place that knows; safe to use from several threads.

    loading -> ready <-> ledger failed
          any of them -> draining, for good
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_loaded = False
        self._is_failed = False
        self._is_draining = False
        self._beat_at = time.monotonic()

    @property
    def readiness(self) -> Readiness:
        """Whether requests are taken now."""
        with self._lock:
            if self._is_draining:
                return Readiness.DRAINING
            if not self._is_loaded:
                return Readiness.LOADING
            return Readiness.LEDGER_FAILED if self._is_failed else Readiness.READY

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._is_loaded

    @property
    def is_alive(self) -> bool:
        """Whether the main loop went round within the last `ALIVE_S` seconds."""
        return time.monotonic() - self._beat_at < ALIVE_S

    def beat(self) -> None:
        """Say that the main loop goes round."""
        self._beat_at = time.monotonic()

    def loaded(self) -> None:
        """The model is there, and the server's run has begun."""
        with self._lock:
            self._is_loaded = True

    def ledger_failed(self, *, is_failed: bool) -> None:
        """The ledger takes no records, or takes them again."""
        with self._lock:
            self._is_failed = is_failed

    def drain(self) -> None:
        """Take nothing more, for good."""
        with self._lock:
            self._is_draining = True
