"""Followed ledgers as metrics (docs/metrics.md lists them).

Names of ledgers are the operator's; every other label is an enumeration, or the id of a policy.
"""

from __future__ import annotations

import math
import platform
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

import cert
from cert.observability.metrics import (
    DURATION_BUCKETS_S,
    PERPLEXITY_BUCKETS,
    CacheType,
    Service,
    Status,
)
from cert.service.exporter.follower import Condition
from cert.service.exporter.totals import (
    CALL_DIRECTIONS,
    CALL_OUTCOMES,
    COMMANDS,
    COORDINATION_VERDICTS,
    KINDS,
    OUTCOMES,
    STRATEGIES,
    VERDICTS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cert.service.exporter.follower import Follower
    from cert.service.exporter.totals import Comparisons, Counter, Histogram

_HAMILTONIAN: Final = Service.HAMILTONIAN.value
_FamilyT = TypeVar("_FamilyT", bound=Metric)


def build_families(followers: Mapping[str, Follower], *, updated_s: float | None) -> list[Metric]:
    """Write down what followers know, all of one moment.

    Args:
        followers: By name of the ledger.
        updated_s: Unix time of the last look at all of them; None where there was none.
    """
    build = GaugeMetricFamily(
        "cert_build_info", "1; says which program this is.", labels=("version", "python")
    )
    build.add_metric((cert.__version__, platform.python_version()), 1)
    updated = GaugeMetricFamily(
        "cert_exporter_last_update_timestamp_seconds", "When all ledgers were last looked at."
    )
    if updated_s is not None:
        updated.add_metric((), updated_s)
    families = _Families()
    for name, follower in followers.items():
        families.add_ledger(name, follower)
        families.add_requests(name, follower.counter)
        families.add_runs(name, follower)
        families.add_comparisons(name, follower.state.totals.comparisons)
    return [build, updated, *families.all()]


class _Families:
    def __init__(self) -> None:
        self._families: list[Metric] = []
        self.state = self._gauge("ledger_state", "1 for the state it is in.", "state")
        self.records = self._gauge("ledger_records", "Records that were counted.")
        self.kinds = self._gauge("ledger_records_by_kind", "The same, by kind.", "kind")
        self.bytes = self._gauge("ledger_bytes", "Size of its segments.")
        self.behind = self._gauge("ledger_behind_bytes", "Not read yet.")
        self.unsealed = self._gauge(
            "ledger_unsealed_records", "Records that no good checkpoint covers."
        )
        self.checkpoint = self._gauge(
            "ledger_checkpoint_timestamp_seconds", "When the newest good checkpoint was written."
        )
        self.requests = self._counter("requests", "Requests.", "service", "status")
        self.durations = self._histogram(
            "request_duration_seconds",
            "Time a request took, waiting included.",
            "service",
            "operation",
        )
        self.perplexity = self._histogram(
            "hamiltonian_perplexity",
            "Perplexity of analysed texts: exp of the pooled mean negative log-likelihood.",
        )
        self.checks = self._counter("hamiltonian_quality_checks", "Verdicts.", "result")
        self.verdicts = self._counter("verdicts", "Verdicts by policy.", "policy", "verdict")
        self.hits = self._counter("cache_hits", "Answers found in a cache.", "cache_type")
        self.misses = self._counter("cache_misses", "Answers not found in a cache.", "cache_type")
        self.runs = self._counter("runs", "Runs that ended.", "command", "outcome")
        self.open = self._gauge("run_open", "Runs that began and have no end.")
        self.last = self._gauge("run_last_timestamp_seconds", "The last run's end.", "command")
        self.success = self._gauge(
            "run_last_success_timestamp_seconds", "The last end with exit code 0.", "command"
        )
        self.code = self._gauge("run_last_exit_code", "Of the last run that had one.", "command")
        self.calls = self._counter("coordination_calls", "Calls of agents and judges.", "outcome")
        self.tokens = self._counter("coordination_tokens", "Tokens charged.", "direction")
        self.cost = self._counter(
            "coordination_cost_usd", "Price of the tokens charged, where prices are known."
        )
        self.compared = self._counter(
            "coordination_verdicts", "Verdicts on strategies of agents.", "verdict"
        )
        self.gammas = {
            part: self._gauge(f"coordination_last_gamma{suffix}", text, "strategy")
            for part, suffix, text in (
                ("estimate", "", "Score of a strategy over the model's alone, of the last result."),
                ("lower", "_lower", "Lower bound of its interval."),
                ("upper", "_upper", "Upper bound of its interval."),
            )
        }
        self.errors = self._counter("exporter_errors", "Looks at a ledger that failed.")
        self.restarts = self._counter(
            "exporter_restarts", "Counts begun anew because a ledger had another history."
        )

    def all(self) -> list[Metric]:
        return self._families

    def add_ledger(self, name: str, follower: Follower) -> None:
        for condition in Condition:
            is_it = condition is follower.condition
            self.state.add_metric((name, condition.value), float(is_it))
        totals = follower.state.totals
        self.records.add_metric((name,), totals.records)
        for kind in KINDS:
            self.kinds.add_metric((name, kind), totals.kinds.get(kind, 0))
        self.bytes.add_metric((name,), follower.size_bytes)
        self.behind.add_metric((name,), follower.behind_bytes)
        self.unsealed.add_metric((name,), follower.unsealed)
        if follower.checkpoint_s is not None:
            self.checkpoint.add_metric((name,), follower.checkpoint_s)
        self.errors.add_metric((name,), follower.state.errors)
        self.restarts.add_metric((name,), follower.state.restarts)

    def add_requests(self, name: str, counter: Counter) -> None:
        totals = counter.totals
        for status in Status:
            count = totals.statuses.get(status.value, 0)
            self.requests.add_metric((name, _HAMILTONIAN, status.value), count)
        for operation, histogram in sorted(totals.durations.items()):
            buckets = _buckets(histogram, DURATION_BUCKETS_S, counter, operation)
            labels = (name, _HAMILTONIAN, operation)
            self.durations.add_metric(labels, buckets, histogram.sum)
        perplexity = totals.perplexity
        total = math.inf if perplexity.infinite else perplexity.sum
        buckets = _buckets(perplexity, PERPLEXITY_BUCKETS, counter, "perplexity")
        self.perplexity.add_metric((name,), buckets, total)
        for verdict in VERDICTS:
            count = sum(one.get(verdict, 0) for one in totals.verdicts.values())
            self.checks.add_metric((name, verdict), count)
        for policy, verdicts in sorted(totals.verdicts.items()):
            for verdict in VERDICTS:
                self.verdicts.add_metric((name, policy, verdict), verdicts.get(verdict, 0))
        self.hits.add_metric((name, CacheType.ANALYSIS.value), totals.cache_hits)
        self.misses.add_metric((name, CacheType.ANALYSIS.value), totals.cache_misses)

    def add_runs(self, name: str, follower: Follower) -> None:
        totals = follower.state.totals
        self.open.add_metric((name,), len(totals.open_runs))
        for command in COMMANDS:
            runs = totals.commands.get(command)
            if runs is None:
                continue
            for outcome in OUTCOMES:
                self.runs.add_metric((name, command, outcome), runs.outcomes.get(outcome, 0))
            for family, value in (
                (self.last, runs.last_s),
                (self.success, runs.last_success_s),
                (self.code, runs.last_exit_code),
            ):
                if value is not None:
                    family.add_metric((name, command), value)

    def add_comparisons(self, name: str, comparisons: Comparisons) -> None:
        for outcome in CALL_OUTCOMES:
            self.calls.add_metric((name, outcome), comparisons.calls.get(outcome, 0))
        for direction in CALL_DIRECTIONS:
            self.tokens.add_metric((name, direction), comparisons.tokens.get(direction, 0))
        self.cost.add_metric((name,), comparisons.cost_usd)
        for verdict in COORDINATION_VERDICTS:
            self.compared.add_metric((name, verdict), comparisons.verdicts.get(verdict, 0))
        for strategy in STRATEGIES:
            gamma = comparisons.gammas.get(strategy)
            for part, family in self.gammas.items():
                value = None if gamma is None else getattr(gamma, part)
                if value is not None:
                    family.add_metric((name, strategy), value)

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return self._keep(GaugeMetricFamily(f"cert_{name}", text, labels=("ledger", *labels)))

    def _counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        return self._keep(CounterMetricFamily(f"cert_{name}", text, labels=("ledger", *labels)))

    def _histogram(self, name: str, text: str, *labels: str) -> HistogramMetricFamily:
        return self._keep(HistogramMetricFamily(f"cert_{name}", text, labels=("ledger", *labels)))

    def _keep(self, family: _FamilyT) -> _FamilyT:
        self._families.append(family)
        return family


def _buckets(
    histogram: Histogram, bounds: Iterable[float], counter: Counter, name: str
) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    edges = map(floatToGoString, chain(bounds, (math.inf,)))
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for number, (edge, count) in enumerate(zip(edges, accumulate(histogram.counts), strict=True)):
        found = counter.exemplars.get((name, number))
        if found is None:
            buckets.append((edge, count))
        else:
            exemplar = Exemplar({"correlation_id": found.correlation_id}, found.value)
            buckets.append((edge, count, exemplar))
    return buckets
