from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from cert.core.config import CERTConfig
from cert.trajectory import AnalysisResult, HamiltonianMonitor, exporter
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.observability.metrics import MetricsCollector, MetricsServer


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, MetricsServer]]:
    running: dict[int, MetricsServer] = {}
    monkeypatch.setattr(exporter, "_servers", running)
    yield running
    for server in running.values():
        server.close()


def test_however_many_monitors_there_is_one_exporter(servers: dict[int, MetricsServer]) -> None:
    config = CERTConfig(metrics_enabled=True, metrics_port=0)
    for _ in range(2):
        monitor = HamiltonianMonitor(config=config, loader=FakeLoader())
        assert isinstance(monitor.analyze("Explain AI"), AnalysisResult)
    (server,) = servers.values()
    assert server.host == "127.0.0.1"
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'cert_requests_total{service="hamiltonian",status="success"}' in text


def test_nothing_is_served_unasked_or_for_a_collector_of_ones_own(
    servers: dict[int, MetricsServer], metrics: MetricsCollector
) -> None:
    HamiltonianMonitor(loader=FakeLoader())
    config = CERTConfig(metrics_enabled=True, metrics_port=0)
    HamiltonianMonitor(config=config, loader=FakeLoader(), metrics=metrics)
    assert servers == {}


@pytest.mark.usefixtures("servers")
def test_a_port_that_is_taken_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = CERTConfig(metrics_enabled=True, metrics_port=port)
        with caplog.at_level(logging.WARNING, "cert"):
            monitor = HamiltonianMonitor(config=config, loader=FakeLoader())
    assert "metrics are not served" in caplog.messages
    assert isinstance(monitor.analyze("Explain AI"), AnalysisResult)
