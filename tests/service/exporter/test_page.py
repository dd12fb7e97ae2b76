"""docs/metrics.md and what is exposed are the same, metric by metric."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cert.evidence.schema import KINDS as RECORD_KINDS
from cert.observability.metrics import (
    DURATION_BUCKETS_S,
    PERPLEXITY_BUCKETS,
    CacheType,
    MetricsCollector,
    Operation,
    QualityResult,
    Service,
    Status,
)
from cert.service.exporter.exporter import LedgerExporter
from cert.service.exporter.follower import Condition
from cert.service.exporter.totals import COMMANDS, KINDS, OUTCOMES
from cert.service.metrics import Refusal, ServiceMetrics
from cert.service.state import ServiceState
from cert_cli.textfile import _build
from tests.service.exporter.disk import Disk, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(cert_\w+)` \| (\w+) \| (.*?)\| ([a-z, ]+) \| (.+) \|$", re.MULTILINE)


class Told(NamedTuple):
    kind: str
    labels: frozenset[str]


def told(source: str) -> dict[str, Told]:
    rows = [row for row in ROW.findall(PAGE) if source in row[3].split(", ")]
    return {
        name.removesuffix("_total"): Told(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, *_ in rows
    }


def exposed(families: Iterable[Metric], *without: str) -> dict[str, Told]:
    found = {}
    for family in families:
        labels = {name for sample in family.samples for name in sample.labels}
        found[family.name] = Told(family.type, frozenset(labels - {"le", *without}))
    return found


def test_the_page_has_every_metric_of_serve_metrics(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "ledger")
    disk.grow(range(40))
    disk.add(run("begin", "a"), run("end", "a"))
    gamma = {"estimate": 1.5, "lower": 1.25, "upper": 1.75}
    strategy = {"name": "debate", "verdict": "beneficial", "gamma": gamma}
    disk.add({"kind": "coordination", "coordination": {"strategies": [strategy]}})
    disk.seal()
    exporter = LedgerExporter({"a": disk.folder})
    exporter.look()
    assert exposed(exporter.collect(), "ledger") == told("ledgers")
    without = [f.name for f in exporter.collect() if "ledger" not in f.samples[0].labels]
    assert without == ["cert_build_info", "cert_exporter_last_update_timestamp_seconds"]
    for name in without:
        assert f"`{name}`" in PAGE


def test_the_page_has_every_metric_of_serve() -> None:
    registry = CollectorRegistry()
    metrics = ServiceMetrics(ServiceState(), lambda: 0, registry)
    metrics.answered("/v1/analyze", 200, duration_s=1, correlation_id="x")
    collector = MetricsCollector(registry=registry)
    collector.record_request(Service.HAMILTONIAN, Operation.ANALYZE, Status.SUCCESS, duration_s=1)
    collector.record_quality_check(QualityResult.PASS, perplexity=2)
    collector.record_cache(CacheType.ANALYSIS, hit=True)
    collector.record_cache(CacheType.ANALYSIS, hit=False)
    assert exposed(registry.collect()) == told("serve")


def test_the_page_has_every_metric_of_a_textfile(tmp_path: Path) -> None:
    text = _build(tmp_path / "a.prom", "batch", 0, 1.0).decode()
    families = text_string_to_metric_families(text)
    assert exposed(families, "textfile") == told("textfile")


def test_the_page_has_every_value_of_a_label() -> None:
    for name, values in {
        "cert_requests_total": Status,
        "cert_request_duration_seconds": Operation,
        "cert_hamiltonian_quality_checks_total": QualityResult,
        "cert_admission_refused_total": Refusal,
        "cert_ledger_state": Condition,
        "cert_runs_total": (*COMMANDS, *OUTCOMES),
    }.items():
        (row,) = [row for row in ROW.findall(PAGE) if row[0] == name]
        for value in values:
            assert f"`{value}`" in row[4], (name, value)
    for buckets in (DURATION_BUCKETS_S, PERPLEXITY_BUCKETS):
        assert " ".join(f"{one:g}" for one in buckets) in PAGE


def test_every_kind_of_record_is_counted_as_itself() -> None:
    assert set(RECORD_KINDS) <= set(KINDS)
