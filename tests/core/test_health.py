from __future__ import annotations

import threading
import time

import pytest

from cert.core.health import (
    Check,
    CheckResult,
    HealthChecker,
    HealthReport,
    HealthStatus,
    run_checks,
)
from cert.observability.correlation import correlation_id_context, get_correlation_id

GOOD = CheckResult.healthy("fine")
MEH = CheckResult.degraded("slow")
BAD = CheckResult.unhealthy("broken")
DUNNO = CheckResult.unknown("not asked")


@pytest.mark.parametrize(
    ("critical", "other", "status"),
    [
        ([], [], "unknown"),
        ([DUNNO], [DUNNO], "unknown"),
        ([GOOD], [], "healthy"),
        ([GOOD], [GOOD], "healthy"),
        ([GOOD, DUNNO], [], "degraded"),
        ([GOOD, MEH], [], "degraded"),
        ([GOOD], [BAD], "degraded"),
        ([GOOD, BAD], [], "unhealthy"),
        ([DUNNO, BAD], [], "unhealthy"),
        ([MEH], [BAD], "degraded"),
        ([], [BAD], "degraded"),
    ],
)
def test_what_the_checks_add_up_to(
    critical: list[CheckResult], other: list[CheckResult], status: str
) -> None:
    checks = {
        f"{kind}{n}": Check(lambda r=result: r, critical=kind == "c")
        for kind, results in (("c", critical), ("o", other))
        for n, result in enumerate(results)
    }
    report = run_checks(checks)
    assert report.status.value == status
    assert bool(report) is (status == "healthy")
    assert list(report.checks) == list(checks)


def test_a_result_reads_well_and_has_its_duration() -> None:
    def slow() -> CheckResult:
        time.sleep(0.02)
        return CheckResult.degraded("on the CPU")

    report = run_checks({"model": slow})
    result = report.checks["model"]
    assert (result.status, result.reason) == (HealthStatus.DEGRADED, "on the CPU")
    assert 0.02 <= result.duration_s < 5
    assert str(result) == f"degraded: on the CPU ({result.duration_s:.3f} s)"
    assert report.duration_s >= result.duration_s


def test_only_healthy_is_true() -> None:
    assert [bool(r) for r in (GOOD, MEH, BAD, DUNNO)] == [True, False, False, False]
    assert not HealthReport(HealthStatus.UNKNOWN)


def test_what_a_check_raises_is_the_finding_without_its_secrets() -> None:
    def explode() -> CheckResult:
        raise RuntimeError("token hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaa refused")

    def wrong() -> CheckResult:
        return "fine"  # type: ignore[return-value]

    report = run_checks({"inference": explode, "wrong": wrong})
    assert report.checks["inference"].status is HealthStatus.UNHEALTHY
    assert report.checks["inference"].reason == (
        "InternalError: RuntimeError: token [redacted] refused"
    )
    assert report.checks["wrong"].status is HealthStatus.UNHEALTHY


def test_each_check_has_its_own_deadline_and_they_run_at_the_same_time() -> None:
    release = threading.Event()

    def hang() -> CheckResult:
        release.wait(30)
        return GOOD

    began = time.monotonic()
    report = run_checks(
        {
            "quick": lambda: GOOD,
            "a": Check(hang, timeout_s=0.1),
            "b": Check(hang, timeout_s=0.2, critical=False),
        }
    )
    assert time.monotonic() - began < 5
    assert report.status is HealthStatus.UNHEALTHY
    assert report.checks["quick"]
    assert report.checks["a"].reason == "no answer within 0.1 s"
    assert report.checks["b"].reason == "no answer within 0.2 s"
    assert report.checks["a"].duration_s >= 0.1
    release.set()


def test_a_check_that_hangs_is_not_started_again_and_may_come_back() -> None:
    release = threading.Event()
    starts = 0

    def hang() -> CheckResult:
        nonlocal starts
        starts += 1
        release.wait(30)
        return GOOD

    checker = HealthChecker({"model": Check(hang, timeout_s=0.05)})
    for _ in range(3):
        assert checker.run().status is HealthStatus.UNHEALTHY
    assert starts == 1
    release.set()
    deadline = time.monotonic() + 10
    while not checker.run() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checker.run().status is HealthStatus.HEALTHY
    assert starts > 1


def test_two_probers_at_once_share_a_check_and_its_finding() -> None:
    entered, release = threading.Event(), threading.Event()
    starts = 0

    def slow() -> CheckResult:
        nonlocal starts
        starts += 1
        entered.set()
        release.wait(10)
        return GOOD

    checker = HealthChecker({"model": Check(slow, timeout_s=20)})
    reports: list[HealthReport] = []
    threads = [threading.Thread(target=lambda: reports.append(checker.run())) for _ in range(2)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    time.sleep(0.05)
    release.set()
    for thread in threads:
        thread.join(10)
    assert [r.status for r in reports] == [HealthStatus.HEALTHY] * 2
    assert starts == 1


def test_the_correlation_id_goes_along() -> None:
    seen: list[str | None] = []

    def look() -> CheckResult:
        seen.append(get_correlation_id())
        return GOOD

    with correlation_id_context("probe-1"):
        run_checks({"x": look})
    assert seen == ["probe-1"]


def test_as_dict_is_plain() -> None:
    report = HealthReport(
        HealthStatus.DEGRADED, {"m": CheckResult(HealthStatus.DEGRADED, "r", 0.25)}, 0.5
    )
    assert report.as_dict() == {
        "status": "degraded",
        "duration_s": 0.5,
        "checks": {"m": {"status": "degraded", "reason": "r", "duration_s": 0.25}},
    }
