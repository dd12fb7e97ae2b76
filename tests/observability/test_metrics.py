from __future__ import annotations

import gc
import math
import socket
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from cert.observability import metrics as module
from cert.observability.metrics import (
    CacheType,
    MetricsCollector,
    Operation,
    QualityResult,
    Service,
    Status,
    start_metrics_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def record_one_of_each(collector: MetricsCollector) -> None:
    collector.record_request(Service.HAMILTONIAN, Operation.ANALYZE, Status.SUCCESS, duration_s=0.3)
    collector.record_quality_check(QualityResult.PASS, perplexity=12.0)
    collector.record_cache(CacheType.ANALYSIS, hit=True)
    collector.record_cache(CacheType.ANALYSIS, hit=False)


def test_the_specifications_names_and_labels(registry: CollectorRegistry) -> None:
    record_one_of_each(MetricsCollector(namespace="cert", registry=registry))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("cert_requests_total", service="hamiltonian", status="success") == 1
    timed = {"service": "hamiltonian", "operation": "analyze"}
    assert value("cert_request_duration_seconds_count", **timed) == 1
    assert value("cert_request_duration_seconds_sum", **timed) == 0.3
    assert value("cert_request_duration_seconds_bucket", le="0.25", **timed) == 0
    assert value("cert_request_duration_seconds_bucket", le="0.5", **timed) == 1
    assert value("cert_hamiltonian_perplexity_count") == 1
    assert value("cert_hamiltonian_perplexity_bucket", le="10.0") == 0
    assert value("cert_hamiltonian_perplexity_bucket", le="15.0") == 1
    assert value("cert_hamiltonian_quality_checks_total", result="pass") == 1
    assert value("cert_cache_hits_total", cache_type="analysis") == 1
    assert value("cert_cache_misses_total", cache_type="analysis") == 1


def test_collectors_of_one_registry_share_and_of_two_do_not(registry: CollectorRegistry) -> None:
    first, second = MetricsCollector(registry=registry), MetricsCollector(registry=registry)
    apart = MetricsCollector(registry=CollectorRegistry())
    for collector in (first, second, apart):
        collector.record_cache(CacheType.ANALYSIS, hit=True)
    hits = {"cache_type": "analysis"}
    assert registry.get_sample_value("cert_cache_hits_total", hits) == 2
    assert apart.registry.get_sample_value("cert_cache_hits_total", hits) == 1


def test_two_collectors_over_the_default_registry_do_not_crash() -> None:
    assert MetricsCollector().registry is REGISTRY
    assert MetricsCollector(namespace="cert").registry is REGISTRY


def test_namespaces_are_apart(registry: CollectorRegistry) -> None:
    MetricsCollector("one", registry).record_cache(CacheType.BASELINE, hit=True)
    MetricsCollector("two", registry)
    hits = {"cache_type": "baseline"}
    assert registry.get_sample_value("one_cache_hits_total", hits) == 1
    assert registry.get_sample_value("two_cache_hits_total", hits) is None


def test_a_registry_is_not_kept_alive() -> None:
    gc.collect()  # what other tests left
    before = len(module._by_registry)
    collector = MetricsCollector(registry=CollectorRegistry())
    assert len(module._by_registry) == before + 1
    del collector
    gc.collect()
    assert len(module._by_registry) == before


def test_names_taken_by_somebody_else_are_an_error_each_time(registry: CollectorRegistry) -> None:
    Counter("cert_cache_hits_total", "x", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="cert_cache_hits"):
            MetricsCollector(registry=registry)


def test_a_namespace_that_is_no_name_is_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="a namespace has letters"):
        MetricsCollector("1 \n", registry)


def test_infinity_stays_infinite(registry: CollectorRegistry) -> None:
    collector = MetricsCollector(registry=registry)
    collector.record_quality_check(QualityResult.FAIL, perplexity=float("inf"))
    value = registry.get_sample_value
    assert value("cert_hamiltonian_perplexity_sum") == float("inf")
    assert value("cert_hamiltonian_perplexity_bucket", {"le": "+Inf"}) == 1
    assert value("cert_hamiltonian_perplexity_bucket", {"le": "10000.0"}) == 0


def test_where_nothing_was_measured_only_the_verdict_counts(registry: CollectorRegistry) -> None:
    collector = MetricsCollector(registry=registry)
    collector.record_quality_check(QualityResult.INCONCLUSIVE, perplexity=None)
    value = registry.get_sample_value
    assert value("cert_hamiltonian_quality_checks_total", {"result": "inconclusive"}) == 1
    assert value("cert_hamiltonian_perplexity_count") == 0


@pytest.mark.parametrize(
    "record",
    [
        lambda c: c.record_quality_check(QualityResult.PASS, perplexity=float("nan")),
        lambda c: c.record_quality_check(QualityResult.PASS, perplexity=0.5),
        lambda c: c.record_quality_check("a prompt", perplexity=2.0),
        lambda c: c.record_cache("a path", hit=True),
        lambda c: c.record_request("x", Operation.LOAD, Status.ERROR, duration_s=1),
        lambda c: c.record_request(Service.HAMILTONIAN, "x", Status.ERROR, duration_s=1),
        lambda c: c.record_request(Service.HAMILTONIAN, Operation.LOAD, "\ud800", duration_s=1),
    ],
)
def test_no_label_comes_from_outside_and_nothing_is_counted_by_half(
    record: Callable[[Any], None], registry: CollectorRegistry
) -> None:
    with pytest.raises(ValueError, match=r"."):
        record(MetricsCollector(registry=registry))
    samples = [s for m in registry.collect() for s in m.samples if not s.name.endswith("_created")]
    assert sum(sample.value for sample in samples) == 0


def test_many_threads_lose_no_count(registry: CollectorRegistry) -> None:
    def work() -> None:
        for _ in range(200):
            MetricsCollector(registry=registry).record_cache(CacheType.ANALYSIS, hit=True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hits = registry.get_sample_value("cert_cache_hits_total", {"cache_type": "analysis"})
    assert hits == 1600


def test_the_server_serves_the_registry_on_loopback(registry: CollectorRegistry) -> None:
    record_one_of_each(MetricsCollector(registry=registry))
    with start_metrics_server(port=0, registry=registry) as server:
        assert server.host == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(server.url, timeout=10) as response:  # noqa: S310 - loopback
            text = response.read().decode()
    assert 'cert_requests_total{service="hamiltonian",status="success"} 1.0' in text
    with pytest.raises(OSError, match=r"."):
        socket.create_connection((server.host, server.port), timeout=1)
    server.close()


def test_the_port_is_free_again_after_closing(registry: CollectorRegistry) -> None:
    with start_metrics_server(port=0, registry=registry) as first:
        port = first.port
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
            start_metrics_server(port=port, registry=registry)
    start_metrics_server(port=port, registry=registry).close()


def test_an_explicit_address_is_honoured_and_warned_about(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with start_metrics_server(host="0.0.0.0", port=0, registry=registry) as server:  # noqa: S104 - the specification's
        assert server.host == "0.0.0.0"  # noqa: S104 - the same
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass
    assert caplog.messages == ["metrics are readable from other machines"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_loopback_is_not_warned_about(
    host: str, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    start_metrics_server(host=host, port=0, registry=registry).close()
    assert caplog.messages == []


def test_a_client_that_never_asks_is_hung_up_on(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 0.2)
    with (
        start_metrics_server(port=0, registry=registry) as server,
        socket.create_connection((server.host, server.port), timeout=10) as client,
    ):
        began = time.monotonic()
        client.sendall(b"GET /met")
        assert client.recv(100) == b""
        assert time.monotonic() - began < 30


def openmetrics(registry: CollectorRegistry) -> str:
    from prometheus_client.openmetrics.exposition import generate_latest

    return generate_latest(registry).decode()


@pytest.mark.parametrize("correlation_id", ["req-123", "x" * 114])
def test_the_request_that_was_counted_is_the_exemplar(correlation_id: str) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    from cert.observability.correlation import correlation_id_context

    registry = CollectorRegistry()
    collector = MetricsCollector(registry=registry)
    with correlation_id_context(correlation_id):
        collector.record_request(
            Service.HAMILTONIAN, Operation.ANALYZE, Status.SUCCESS, duration_s=0.2
        )
        collector.record_quality_check(QualityResult.PASS, perplexity=3.5)
        collector.record_cache(CacheType.ANALYSIS, hit=True)
    samples = [
        one
        for family in text_string_to_metric_families(openmetrics(registry))
        for one in family.samples
        if one.exemplar is not None
    ]
    assert {one.name for one in samples} == {
        "cert_requests_total",
        "cert_request_duration_seconds_bucket",
        "cert_hamiltonian_perplexity_bucket",
        "cert_hamiltonian_quality_checks_total",
    }
    assert {one.exemplar.labels["correlation_id"] for one in samples} == {correlation_id}


@pytest.mark.parametrize("correlation_id", [None, "x" * 115, 'a"b', "a\\b", "a b", "é"])
def test_without_an_id_that_fits_there_is_no_exemplar(correlation_id: str | None) -> None:
    from contextlib import nullcontext

    from cert.observability.correlation import correlation_id_context

    registry = CollectorRegistry()
    collector = MetricsCollector(registry=registry)
    with nullcontext() if correlation_id is None else correlation_id_context(correlation_id):
        collector.record_request(
            Service.HAMILTONIAN, Operation.ANALYZE, Status.SUCCESS, duration_s=0.2
        )
        collector.record_quality_check(QualityResult.PASS, perplexity=math.inf)
    text = openmetrics(registry)
    assert 'status="success"} 1.0\n' in text
    assert "correlation_id" not in text
