"""What the server counts beside the measurements: requests over HTTP, admission, its own state.

    cert_build_info{version, python}          1
    cert_http_requests_total{route, code}
    cert_http_request_duration_seconds{route}
    cert_requests_in_flight
    cert_admission_refused_total{reason}
    cert_model_loaded                         0 or 1
    cert_ready                                0 or 1
    cert_ledger_append_failures_total

Every label is an enumeration of this file or a status code that the server sends itself.
"""

from __future__ import annotations

import platform
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

import cert
from cert.observability.metrics import DURATION_BUCKETS_S
from cert.service.state import Readiness

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from cert.service.state import ServiceState

ROUTES: Final = (
    "/v1/analyze",
    "/v1/batch",
    "/v1/tokens",
    "/v1/server",
    "/openapi.json",
    "/livez",
    "/readyz",
    "/healthz",
)
OTHER: Final = "other"
_MAX_EXEMPLAR_CHARS: Final = 100


class Refusal(StrEnum):
    """Why a request was not admitted."""

    OVERLOAD = "overload"
    LOADING = "loading"
    DRAINING = "draining"
    LEDGER_FAILED = "ledger_failed"


REFUSALS: Final = {
    Readiness.LOADING: Refusal.LOADING,
    Readiness.DRAINING: Refusal.DRAINING,
    Readiness.LEDGER_FAILED: Refusal.LEDGER_FAILED,
}


class ServiceMetrics:
    """The server's own time series in one registry.

    Args:
        state: What `cert_ready` and `cert_model_loaded` are read from.
        in_flight: How many requests are being worked on.
        registry: Where they are registered, once a registry.

    Raises:
        ValueError: The registry has them already.
    """

    def __init__(
        self,
        state: ServiceState,
        in_flight: Callable[[], int],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        def gauge(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(name, text, namespace="cert", registry=registry).set_function(read)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="cert", registry=registry)

        info = Gauge(
            "build_info",
            "1; says which program this is.",
            ("version", "python"),
            namespace="cert",
            registry=registry,
        )
        info.labels(cert.__version__, platform.python_version()).set(1)
        gauge("requests_in_flight", "Requests that run or wait.", in_flight)
        gauge("model_loaded", "Whether the model is in memory.", lambda: state.is_loaded)
        gauge(
            "ready",
            "Whether requests are taken.",
            lambda: state.readiness is Readiness.READY,
        )
        self._requests = counter("http_requests_total", "Answers over HTTP.", "route", "code")
        self._durations = Histogram(
            "http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            namespace="cert",
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        self._refused = counter("admission_refused_total", "Requests not admitted.", "reason")
        self._append_failures = counter(
            "ledger_append_failures_total", "Appends that the ledger did not take."
        )
        for reason in Refusal:
            self._refused.labels(reason.value)

    def answered(self, route: str, code: int, *, duration_s: float, correlation_id: str) -> None:
        """Count an answer.

        Args:
            route: One of `ROUTES`; whatever else is counted as `other`.
            code: HTTP status.
            duration_s: From the request's head to the end of the answer.
            correlation_id: Becomes the exemplar, if it is short enough for one.
        """
        label = route if route in ROUTES else OTHER
        self._requests.labels(label, str(code)).inc()
        fits = len(correlation_id) <= _MAX_EXEMPLAR_CHARS
        exemplar = {"correlation_id": correlation_id} if fits else None
        self._durations.labels(label).observe(duration_s, exemplar)

    def refused(self, reason: Refusal) -> None:
        """Count a request that was not admitted."""
        self._refused.labels(Refusal(reason).value).inc()

    def append_failed(self) -> None:
        """Count an append that the ledger did not take."""
        self._append_failures.inc()
