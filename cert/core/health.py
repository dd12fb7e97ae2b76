"""Health: what was checked, how it went and why, under a deadline for each check.

every critical and other check healthy      healthy
a critical check unhealthy                   unhealthy
anything else that is not healthy            degraded
nothing was checked                          unknown, which is never healthy
"""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from cert.core.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_TIMEOUT_S = 5.0


class HealthStatus(StrEnum):
    """How something does; `UNKNOWN` where nothing looked."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found. True in a condition only if it is healthy.

    Attributes:
        status: The finding.
        reason: Why, in words, also where all is well: "model gpt2 on cpu".
        duration_s: How long the check took.

    >>> str(CheckResult(HealthStatus.DEGRADED, "on the CPU after the GPU ran out of memory", 0.25))
    'degraded: on the CPU after the GPU ran out of memory (0.250 s)'
    """

    status: HealthStatus
    reason: str
    duration_s: float = 0.0

    @classmethod
    def healthy(cls, reason: str) -> CheckResult:
        """Build the result of a check that found all well."""
        return cls(HealthStatus.HEALTHY, reason)

    @classmethod
    def degraded(cls, reason: str) -> CheckResult:
        """Build the result of a check that found it working, with a reservation."""
        return cls(HealthStatus.DEGRADED, reason)

    @classmethod
    def unhealthy(cls, reason: str) -> CheckResult:
        """Build the result of a check that found it broken."""
        return cls(HealthStatus.UNHEALTHY, reason)

    @classmethod
    def unknown(cls, reason: str) -> CheckResult:
        """Build the result of a check that could not look."""
        return cls(HealthStatus.UNKNOWN, reason)

    def __bool__(self) -> bool:
        return self.status is HealthStatus.HEALTHY

    def __str__(self) -> str:
        return f"{self.status.value}: {self.reason} ({self.duration_s:.3f} s)"


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes:
        run: Looks, and returns what it found. What it raises is an unhealthy result.
        timeout_s: Seconds until no answer counts as unhealthy, > 0. A check that hangs cannot be
            stopped: its thread is left behind, so give the check a deadline of its own as well.
        critical: Whether the whole is unhealthy if this is; otherwise it is degraded.
    """

    run: Callable[[], CheckResult]
    timeout_s: float = DEFAULT_TIMEOUT_S
    critical: bool = True


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The checks and what they add up to. True in a condition only if all is healthy.

    Attributes:
        status: The whole, as the table in this module's docstring says.
        checks: Result by name, in the order given.
        duration_s: How long all took; they run at the same time.
    """

    status: HealthStatus
    checks: Mapping[str, CheckResult] = field(default_factory=lambda: MappingProxyType({}))
    duration_s: float = 0.0

    def __bool__(self) -> bool:
        return self.status is HealthStatus.HEALTHY

    def as_dict(self) -> dict[str, object]:
        """Return plain values, to be written as JSON."""
        return {
            "status": self.status.value,
            "duration_s": round(self.duration_s, 6),
            "checks": {
                name: {
                    "status": result.status.value,
                    "reason": result.reason,
                    "duration_s": round(result.duration_s, 6),
                }
                for name, result in self.checks.items()
            },
        }


class HealthChecker:
    """A fixed set of checks, run as often as somebody asks.

    A check that is still running, perhaps for ever, is not started a second time but waited for
    until its deadline, so that a prober who asks every few seconds piles up no threads. Safe to
    use from several threads.

    Args:
        checks: Check by name; a bare function is a critical one with `DEFAULT_TIMEOUT_S`.
    """

    def __init__(self, checks: Mapping[str, Check | Callable[[], CheckResult]]) -> None:
        self._checks = {
            name: check if isinstance(check, Check) else Check(check)
            for name, check in checks.items()
        }
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def run(self) -> HealthReport:
        """Run all checks at the same time, each under its deadline.

        Returns:
            The report, after at most the longest timeout. Never raises what a check raises.
        """
        began = time.monotonic()
        with self._lock:
            for name, check in self._checks.items():
                one = self._running.get(name)
                if one is None or not one.is_alive:
                    self._running[name] = _Running(name, check)
            running = dict(self._running)
        results = {name: one.result() for name, one in running.items()}
        return HealthReport(
            status=_overall([(check, results[name]) for name, check in self._checks.items()]),
            checks=MappingProxyType(results),
            duration_s=time.monotonic() - began,
        )


def run_checks(checks: Mapping[str, Check | Callable[[], CheckResult]]) -> HealthReport:
    """Run checks once; see `HealthChecker`, which is for running them again and again."""
    return HealthChecker(checks).run()


def _overall(found: list[tuple[Check, CheckResult]]) -> HealthStatus:
    statuses = {result.status for _, result in found}
    if statuses <= {HealthStatus.UNKNOWN}:
        return HealthStatus.UNKNOWN
    if statuses == {HealthStatus.HEALTHY}:
        return HealthStatus.HEALTHY
    if any(check.critical and r.status is HealthStatus.UNHEALTHY for check, r in found):
        return HealthStatus.UNHEALTHY
    return HealthStatus.DEGRADED


class _Running:
    """A check in a thread of its own, started at once."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self.check = check
        self._began = time.monotonic()
        self._found: CheckResult | None = None
        # The correlation id of the caller goes along. A daemon, so that a check that hangs does
        # not keep the process from ending.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=f"health-{name}", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = replace(self.check.run(), duration_s=time.monotonic() - self._began)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            described = AnalysisError.from_exception(error)
            self._found = self._unhealthy(f"{described.error_type}: {described.message}")

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> CheckResult:
        """Wait for the finding until the check's deadline."""
        self._thread.join(max(0.0, self._began + self.check.timeout_s - time.monotonic()))
        if self._found is not None:
            return self._found
        return self._unhealthy(f"no answer within {self.check.timeout_s:g} s")

    def _unhealthy(self, reason: str) -> CheckResult:
        return CheckResult(HealthStatus.UNHEALTHY, reason, time.monotonic() - self._began)
