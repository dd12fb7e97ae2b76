"""Prometheus metrics of the coordination monitor's client, with the registry injected.

    cert_coordination_calls_total{outcome}
    cert_coordination_call_duration_seconds{outcome}
    cert_coordination_retries_total
    cert_coordination_tokens_total{direction}
    cert_coordination_cost_usd_total
    cert_coordination_in_flight
    cert_coordination_breakers{state}

Every label is an enumeration: no model, URL, prompt or key ever becomes one.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from cert.observability.metrics import DURATION_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from cert.coordination.protocol import Usage
    from cert.core.circuit_breaker import CircuitState

_NAMESPACE = "cert_coordination"


class Outcome(StrEnum):
    """How a call ended: with a reply, with one of `CallFailure`, or taken back."""

    OK = "ok"
    TRANSIENT = "transient"
    INVALID = "invalid"
    REJECTED = "rejected"
    FATAL = "fatal"
    LATER = "later"
    BUDGET = "budget"
    CANCELLED = "cancelled"


class Direction(StrEnum):
    """What tokens were charged for; `UNKNOWN` are those of calls that ended without a word."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Instruments:
    calls: Counter
    durations: Histogram
    retries: Counter
    tokens: Counter
    cost: Counter
    in_flight: Gauge
    breakers: Gauge


_lock = threading.Lock()
_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, _Instruments] = (
    weakref.WeakKeyDictionary()
)


def _instruments(registry: CollectorRegistry) -> _Instruments:
    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_NAMESPACE, registry=None)

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=_NAMESPACE, registry=None)

    instruments = _Instruments(
        calls=counter("calls_total", "Calls of agents and judges.", "outcome"),
        durations=Histogram(
            "call_duration_seconds",
            "Time a call took, all attempts and waits included.",
            ("outcome",),
            namespace=_NAMESPACE,
            registry=None,
            buckets=DURATION_BUCKETS_S,
        ),
        retries=counter("retries_total", "Attempts after a call's first one."),
        tokens=counter("tokens_total", "Tokens charged.", "direction"),
        cost=counter("cost_usd_total", "Price of the tokens charged, where prices are known."),
        in_flight=gauge("in_flight", "Requests that wait for an answer."),
        breakers=gauge("breakers", "Circuit breakers by state.", "state"),
    )
    with ExitStack() as undo:
        for one in fields(instruments):
            metric = getattr(instruments, one.name)
            registry.register(metric)
            undo.callback(registry.unregister, metric)
        undo.pop_all()
    return instruments


class CoordinationMetrics:
    """Counts what the client does. Those over one registry share their time series.

    Args:
        registry: Where the metrics are registered; None is prometheus_client's own.

    Raises:
        ValueError: Somebody else has registered metrics of these names.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = REGISTRY if registry is None else registry
        with _lock:
            if registry not in _by_registry:
                _by_registry[registry] = _instruments(registry)
            self._instruments = _by_registry[registry]

    def record_call(self, outcome: Outcome, *, duration_s: float, attempts: int) -> None:
        """Count one finished call.

        Args:
            outcome: How it ended.
            duration_s: From the call to its end, >= 0.
            attempts: Requests that were made, or refused by the breaker, >= 0.
        """
        label = Outcome(outcome).value
        self._instruments.calls.labels(label).inc()
        self._instruments.durations.labels(label).observe(duration_s)
        self._instruments.retries.inc(max(attempts - 1, 0))

    def record_usage(self, usage: Usage, cost_usd: Decimal | None) -> None:
        """Count the tokens of one answer and their price; None where that is not known."""
        tokens = self._instruments.tokens
        for direction, count in (
            (Direction.INPUT, usage.input_tokens),
            (Direction.OUTPUT, usage.output_tokens),
            (Direction.CACHE_READ, usage.cache_read_tokens),
            (Direction.CACHE_WRITE, usage.cache_write_tokens),
        ):
            tokens.labels(direction.value).inc(count)
        if cost_usd is not None:
            self._instruments.cost.inc(float(cost_usd))

    def record_unknown(self, tokens: int, cost_usd: Decimal) -> None:
        """Count what was charged for a request that ended without a word."""
        self._instruments.tokens.labels(Direction.UNKNOWN.value).inc(tokens)
        self._instruments.cost.inc(float(cost_usd))

    def move_breaker(self, old: CircuitState | None, new: CircuitState | None) -> None:
        """Count a breaker in its new state; None before it is built and after it is gone."""
        if old is not None:
            self._instruments.breakers.labels(old.value).dec()
        if new is not None:
            self._instruments.breakers.labels(new.value).inc()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight."""
        with self._instruments.in_flight.track_inprogress():
            yield
