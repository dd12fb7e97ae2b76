from __future__ import annotations

import logging
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from cert.backends.protocol import SamplingParams
from cert.core.config import CERTConfig
from cert.core.errors import ModelUnavailableError
from cert.observability.metrics import MetricsCollector
from cert.runner.local import open_engine
from tests.fakes import FakeLoader
from tests.runner.helpers import cases


def test_the_configuration_reaches_the_engine_and_the_model() -> None:
    loader = FakeLoader()
    config = CERTConfig(
        model="m", device="cpu", dtype="bfloat16", batch_rows=3, model_aliases={"a": "b"}
    )
    with open_engine(config, policy="strict", expect_digest="sha256:1", loader=loader) as engine:
        assert loader.calls == []
        engine.model_resource.load()
        (call,) = loader.calls
        assert engine.policy.id == "strict"
        (result,) = [engine.analyze(cases(1)[0], sampling=SamplingParams(max_new_tokens=2))]
        assert result.assessment.policy_id == "strict"
    assert call["spec"] == "m"
    assert call["dtype"] == "bfloat16"
    assert call["batch_rows"] == 3
    assert call["aliases"] == {"a": "b"}
    assert call["allow_download"] is False
    assert call["expect_digest"] == "sha256:1"
    assert loader.backends[0].closed


def test_the_model_is_freed_after_an_error_too() -> None:
    loader = FakeLoader()

    def fail() -> None:
        with open_engine(CERTConfig(model="m"), loader=loader) as engine:
            engine.model_resource.load()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert loader.backends[0].closed


def test_a_preloaded_configuration_does_not_load_twice() -> None:
    loader = FakeLoader()
    with open_engine(CERTConfig(model="m", preload=True), loader=loader) as engine:
        engine.model_resource.load()
    assert len(loader.calls) == 1


def test_leaving_while_the_model_loads_does_not_wait_for_it() -> None:
    loader = FakeLoader(load_s=0.5)
    with open_engine(CERTConfig(model="m"), loader=loader) as engine:
        loading = engine.model_resource.request_backend()
    assert not loading.done()
    loading.result(5)


def test_a_model_that_cannot_be_loaded_says_so_once() -> None:
    loader = FakeLoader(errors={"auto": ModelUnavailableError("gone")})
    with open_engine(CERTConfig(model="m"), loader=loader) as engine:
        loading = engine.model_resource.request_backend()
        with pytest.raises(ModelUnavailableError, match="gone"):
            loading.result(5)


def test_metrics_are_served_while_the_engine_is_open() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = CERTConfig(model="m", metrics_enabled=True, metrics_port=port)
    url = f"http://127.0.0.1:{port}/metrics"
    with open_engine(config, loader=FakeLoader()) as engine:
        engine.analyze(cases(1)[0], sampling=SamplingParams(max_new_tokens=2))
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert b"cert_requests_total" in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_a_busy_metrics_port_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("cert"), "propagate", True)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        config = CERTConfig(model="m", metrics_enabled=True, metrics_port=port)
        with open_engine(config, loader=FakeLoader()):
            pass
    assert "metrics are not served" in caplog.text


def test_given_metrics_are_counted_in_and_not_served() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registry = CollectorRegistry()
    config = CERTConfig(model="m", metrics_enabled=True, metrics_port=port)
    metrics = MetricsCollector(registry=registry)
    with open_engine(config, metrics=metrics, loader=FakeLoader()) as engine:
        engine.analyze(cases(1)[0], sampling=SamplingParams(max_new_tokens=2))
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    counted = {"service": "hamiltonian", "status": "success"}
    assert registry.get_sample_value("cert_requests_total", counted) == 1.0
