"""Prometheus metrics under the specification's names, with the registry injected.

    cert_requests_total{service, status}
    cert_request_duration_seconds{service, operation}
    cert_hamiltonian_perplexity
    cert_hamiltonian_quality_checks_total{result}
    cert_cache_hits_total{cache_type}
    cert_cache_misses_total{cache_type}      (not in the specification; a hit rate needs it)

Every label is an enumeration of this file: no prompt, id, path or model name ever becomes one, so
the number of time series is fixed. The correlation id of the last request stands beside a series as
its exemplar, which only the OpenMetrics format shows.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from cert.observability.correlation import get_correlation_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.observability.http_server import Answer, HttpServer, Request

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
# From a cached answer to a long generation on a CPU.
DURATION_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Perplexity is at least 1; the specification's threshold of 50 is a bound, so that it can be read.
PERPLEXITY_BUCKETS = (1.1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 200, 500, 1e3, 1e4)

_EXEMPLAR = "correlation_id"
_PLAIN = re.compile(r"[\w.:/@+=-]{1,114}", re.ASCII)
"""OpenMetrics 1.0 allows 128 characters of names and values together."""


class Service(StrEnum):
    """Which monitor did the work."""

    HAMILTONIAN = "hamiltonian"
    COORDINATION = "coordination"


class Status(StrEnum):
    """How a request ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Operation(StrEnum):
    """What was done, for latencies."""

    ANALYZE = "analyze"
    SCORE = "score"
    LOAD = "load"
    HEALTH = "health"
    COORDINATE = "coordinate"


class QualityResult(StrEnum):
    """The verdict on one text."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class CacheType(StrEnum):
    """Which cache was asked."""

    ANALYSIS = "analysis"
    BASELINE = "baseline"


# Newer versions of the library take any text as a name, and quote it.
_NAMESPACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Instruments:
    requests: Counter
    durations: Histogram
    perplexity: Histogram
    quality_checks: Counter
    cache_hits: Counter
    cache_misses: Counter


_lock = threading.Lock()
_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, _Instruments]] = (
    weakref.WeakKeyDictionary()
)


def _instruments(namespace: str, registry: CollectorRegistry) -> _Instruments:
    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=namespace, registry=None)

    instruments = _Instruments(
        requests=counter("requests_total", "Requests.", "service", "status"),
        durations=Histogram(
            "request_duration_seconds",
            "Time a request took, waiting included.",
            ("service", "operation"),
            namespace=namespace,
            registry=None,
            buckets=DURATION_BUCKETS_S,
        ),
        perplexity=Histogram(
            "hamiltonian_perplexity",
            "Perplexity of analysed texts: exp of the pooled mean negative log-likelihood.",
            namespace=namespace,
            registry=None,
            buckets=PERPLEXITY_BUCKETS,
        ),
        quality_checks=counter("hamiltonian_quality_checks_total", "Verdicts.", "result"),
        cache_hits=counter("cache_hits_total", "Answers found in a cache.", "cache_type"),
        cache_misses=counter("cache_misses_total", "Answers not found in a cache.", "cache_type"),
    )
    with ExitStack() as undo:
        for one in fields(instruments):
            metric = getattr(instruments, one.name)
            registry.register(metric)
            undo.callback(registry.unregister, metric)
        undo.pop_all()
    return instruments


def _exemplar() -> dict[str, str] | None:
    """The request that is counted, for readers of OpenMetrics; None where its id is not plain.

    Clients choose ids: one that a reader trips over would cost the whole scrape.
    """
    correlation_id = get_correlation_id()
    if correlation_id is None or not _PLAIN.fullmatch(correlation_id):
        return None
    return {_EXEMPLAR: correlation_id}


class MetricsCollector:
    """Counts and times what the monitors do.

    Collectors of the same namespace over the same registry share their time series, so that a
    second monitor in one process adds to the first one's numbers. Safe to use from several
    threads.

    Args:
        namespace: First part of every metric's name.
        registry: Where the metrics are registered; None is prometheus_client's own, which
            `start_metrics_server` exposes by default.

    Raises:
        ValueError: The namespace cannot begin a metric's name, or somebody else has registered
            metrics of these names.
    """

    def __init__(self, namespace: str = "cert", registry: CollectorRegistry | None = None) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError(f"a namespace has letters, digits and _ only, got {namespace!r}")
        self.namespace = namespace
        self.registry = REGISTRY if registry is None else registry
        with _lock:
            shared = _by_registry.setdefault(self.registry, {})
            if namespace not in shared:
                shared[namespace] = _instruments(namespace, self.registry)
            self._instruments = shared[namespace]

    def record_request(
        self, service: Service, operation: Operation, status: Status, *, duration_s: float
    ) -> None:
        """Count one finished request and its duration.

        Args:
            service: Which monitor.
            operation: What it did.
            status: How it ended.
            duration_s: From submission to the end, >= 0.

        Raises:
            ValueError: A label is no member of its enumeration.
        """
        # All labels are checked before anything is counted.
        request = (Service(service).value, Status(status).value)
        timed = (Service(service).value, Operation(operation).value)
        exemplar = _exemplar()
        self._instruments.requests.labels(*request).inc(exemplar=exemplar)
        self._instruments.durations.labels(*timed).observe(duration_s, exemplar)

    def record_quality_check(self, result: QualityResult, *, perplexity: float | None) -> None:
        """Count one verdict, and the perplexity it was given on.

        Args:
            result: The verdict.
            perplexity: At least 1, infinity included: that is counted in the last bucket and makes
                the sum infinite, as it is. None where no token was measured.

        Raises:
            ValueError: The result is no verdict, or the perplexity is NaN or below 1.
        """
        if perplexity is not None and not perplexity >= 1 - 1e-6:
            raise ValueError(f"a perplexity is at least 1, got {perplexity}")
        exemplar = _exemplar()
        self._instruments.quality_checks.labels(QualityResult(result).value).inc(exemplar=exemplar)
        if perplexity is not None:
            self._instruments.perplexity.observe(perplexity, exemplar)

    def record_cache(self, cache_type: CacheType, *, hit: bool) -> None:
        """Count one look into a cache.

        Raises:
            ValueError: `cache_type` is no member of its enumeration.
        """
        counter = self._instruments.cache_hits if hit else self._instruments.cache_misses
        counter.labels(CacheType(cache_type).value).inc()


class MetricsServer:
    """A running exporter. `close()` it, or use it in a `with` block.

    Attributes:
        host: The address it is bound to.
        port: The port it listens on, also where 0 was asked for.
    """

    def __init__(self, server: HttpServer) -> None:
        self.host = server.host
        self.port = server.port
        self._server = server

    @property
    def url(self) -> str:
        """Where to scrape."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening and wait for the thread; a second call does nothing."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_metrics_server(
    host: str = "127.0.0.1", port: int = 9090, registry: CollectorRegistry = REGISTRY
) -> MetricsServer:
    """Serve a registry over HTTP from a background thread.

    The metrics say how much is audited and with what outcome, and anyone who reaches the port can
    read them; so only this machine can, unless another address is given explicitly.

    Args:
        host: Address to bind; `0.0.0.0` is every interface.
        port: Port to bind; 0 takes a free one.
        registry: What to expose.

    Returns:
        The running server, with its real port.

    Raises:
        OSError: The address cannot be bound.
    """
    # asyncio, only where something is served.
    from cert.observability.exposition import answer_metrics  # noqa: PLC0415
    from cert.observability.http_server import HttpServer  # noqa: PLC0415

    def handle(request: Request) -> Answer | Callable[[], Answer]:
        return answer_metrics(registry, request)

    running = MetricsServer(HttpServer(host, port, handle, receive_timeout_s=REQUEST_TIMEOUT_S))
    if not _is_loopback(host):
        logger.warning(
            "metrics are readable from other machines", extra={"host": host, "port": running.port}
        )
    return running


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
