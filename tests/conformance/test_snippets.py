"""Every Python snippet of the specification runs as written, on real models.

A snippet gets no name that the specification has not introduced before it; which ones it gets
stands in its test. `run` executes the text of docs/spec unchanged.
"""

from __future__ import annotations

import json
import logging
import re
from io import StringIO
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import torch

from cert.core.config import CERTConfig
from cert.core.errors import AnalysisError, EmbeddingTimeoutError
from cert.observability import MetricsCollector, configure_logging, reset_logging
from cert.trajectory import AnalysisResult, HamiltonianMonitor, exporter
from tests.conformance.specification import SPECIFICATION, python_snippets, read_snippets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.observability import MetricsServer

SNIPPETS = python_snippets()
OF_VERSION_3 = "Old API (v3.x)"
TESTED: set[str] = set()


def run(heading: str, namespace: dict[str, Any]) -> dict[str, Any]:
    snippet = SNIPPETS[heading]
    padding = "\n" * (snippet.line - 1)  # so that a traceback shows the specification's line
    exec(compile(padding + snippet.source, str(SPECIFICATION), "exec"), namespace)  # noqa: S102
    return namespace


def covers(heading: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    TESTED.add(heading)
    return lambda test: test


def test_every_python_snippet_but_that_of_version_3_is_tested() -> None:
    assert set(SNIPPETS) - TESTED == {OF_VERSION_3}
    blocks = [one for one in read_snippets() if one.language == "python"]
    assert len(blocks) == SPECIFICATION.read_text(encoding="utf-8").count("\npython\n") == 18
    assert len(SNIPPETS) == len(blocks) + 1  # and the one in a shell block


@covers("Option 1: Simple API (Recommended)")
def test_simple_api(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    result = run("Option 1: Simple API (Recommended)", namespace)["result"]
    assert isinstance(result, AnalysisResult)
    assert result.identity.quantization is not None
    out = capsys.readouterr().out
    if result.passed_quality_check:
        assert out.startswith("✅ Quality check PASSED\nAverage perplexity: ")
    else:
        assert out == f"❌ Quality check FAILED\nGenerated text: {result.generated_text}\n"


def test_simple_api_when_the_check_passes(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lenient = tmp_path / "lenient.yaml"
    lenient.write_text(
        "id: lenient\nversion: 1\nchecks:\n  - {signal: tokens, op: '>', threshold: 0}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CERT_POLICY", str(lenient))
        result = run("Option 1: Simple API (Recommended)", namespace)["result"]
    assert capsys.readouterr().out == (
        "✅ Quality check PASSED\n"
        f"Average perplexity: {result.avg_perplexity:.2f}\n"
        f"Average entropy: {result.avg_entropy:.2f}\n"
    )


@covers("Option 2: Context Manager (Auto-cleanup)")
def test_context_manager(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("Option 2: Context Manager (Auto-cleanup)", namespace)
    assert isinstance(namespace["result"], AnalysisResult)
    assert not namespace["monitor"].resource.is_loaded
    assert re.fullmatch(r"Quality: (True|False)\n", capsys.readouterr().out)


@covers("Option 3: Async API (High Throughput)")
def test_async_api(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("Option 3: Async API (High Throughput)", namespace)
    assert re.fullmatch(r"(Quality: (True|False)\n){3}", capsys.readouterr().out)


@covers("Option 4: Batch Processing")
def test_batch_processing(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("Option 4: Batch Processing", namespace)
    assert [result.prompt for result in namespace["results"]] == namespace["prompts"]
    out = capsys.readouterr().out
    assert re.fullmatch(r"Prompt 1: \w+\nPrompt 2: \w+\nPrompt 3: (PASSED|FAILED)\n", out)


@covers("Programmatic Configuration")
def test_programmatic_configuration(namespace: dict[str, Any], log_file: Path) -> None:
    run("Programmatic Configuration", namespace)
    assert namespace["config"] == CERTConfig.from_env()
    logging.getLogger("cert").info("a line")
    assert json.loads(log_file.read_text())["message"] == "a line"


@pytest.mark.usefixtures("metrics_server")
def test_the_environment_variables_are_read(
    monkeypatch: pytest.MonkeyPatch, namespace: dict[str, Any], log_file: Path
) -> None:
    (block,) = (one for one in read_snippets() if one.heading == "Environment Variables")
    exported = dict(re.findall(r"^export (\w+)=(\S+)", block.source, re.MULTILINE))
    assert len(exported) == 9
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    config = CERTConfig.from_env()
    assert (config.log_level, config.log_format, config.log_output) == ("INFO", "json", "both")
    assert config.log_file == "/var/log/cert.log"
    assert (config.metrics_enabled, config.metrics_port) == (True, 9090)
    assert (config.preload, config.device, config.max_memory_gb) == (True, "auto", 8.0)
    config.apply()
    monkeypatch.setenv("MAX_MEMORY_GB", "1000")
    namespace["monitor"] = HamiltonianMonitor("gpt2")
    assert namespace["monitor"].resource.is_loaded
    messages = [json.loads(line)["message"] for line in log_file.read_text().splitlines()]
    assert "model loaded" in messages
    assert (9090 in exporter._servers) != ("metrics are not served" in messages)


@covers("Prometheus Metrics")
def test_prometheus_metrics(namespace: dict[str, Any], metrics_server: list[MetricsServer]) -> None:
    run("Prometheus Metrics", namespace)
    assert isinstance(namespace["metrics"], MetricsCollector)
    with HamiltonianMonitor("gpt2", metrics=namespace["metrics"]) as monitor:
        for _ in range(2):
            assert isinstance(monitor.analyze("Explain AI"), AnalysisResult)
    (server,) = metrics_server
    assert server.host == "0.0.0.0"  # noqa: S104 - as the snippet says
    with urlopen(f"http://localhost:{server.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for line in (
        r'cert_requests_total\{service="hamiltonian",status="success"\}',
        r'cert_request_duration_seconds_count\{operation="analyze",service="hamiltonian"\}',
        r"cert_hamiltonian_perplexity_count",
        r'cert_hamiltonian_quality_checks_total\{result="(pass|fail)"\}',
        r'cert_cache_hits_total\{cache_type="analysis"\}',
    ):
        assert re.search(rf"^{line} [1-9]", text, re.MULTILINE), line


@covers("Structured Logging")
def test_structured_logging(namespace: dict[str, Any]) -> None:
    stream = StringIO()
    configure_logging(stream=stream)
    try:
        run("Structured Logging", namespace)
    finally:
        reset_logging()
    (shown,) = (one for one in read_snippets() if one.language == "json")
    expected = json.loads(shown.source)
    line = json.loads(stream.getvalue())
    assert list(line) == list(expected)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    del expected["timestamp"]
    # The snippet logs as "cert", the output shown comes from one of its modules.
    assert line == {**expected, "logger": "cert"}


@covers("Health Checks")
def test_health_checks(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    health = run("Health Checks", namespace)["health"]
    assert health.checks["model"].status.value == "healthy"
    assert health.checks["inference"].status.value == "healthy"
    status, model, inference = capsys.readouterr().out.splitlines()
    assert status in {"Status: healthy", "Status: degraded", "Status: unhealthy"}
    assert model.startswith("Model loaded: healthy: reference on ")
    assert inference.startswith("Inference working: healthy: a token in ")


@covers("Structured Errors")
def test_structured_errors(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    result = run("Structured Errors", namespace)["result"]
    assert isinstance(result, AnalysisError)
    assert capsys.readouterr().out == (
        f"Error type: PromptTooLong\nMessage: {result.message}\nRecoverable: False\n"
    )


@covers("Retry Logic")
def test_retry_logic(namespace: dict[str, Any]) -> None:
    namespace["monitor"] = HamiltonianMonitor("gpt2")
    compute_with_retry = run("Retry Logic", namespace)["compute_with_retry"]
    assert isinstance(compute_with_retry("Explain AI"), AnalysisResult)


def test_retry_logic_gives_up_on_what_it_was_not_told(namespace: dict[str, Any]) -> None:
    calls = []

    class Failing:
        def analyze(self, prompt: str, timeout: float) -> None:
            calls.append((prompt, timeout))
            raise OSError("another error")

    compute_with_retry = run("Retry Logic", namespace | {"monitor": Failing()})[
        "compute_with_retry"
    ]
    with pytest.raises(OSError, match="another error"):
        compute_with_retry("Explain AI")
    assert calls == [("Explain AI", 10.0)]


def test_retry_logic_retries(namespace: dict[str, Any]) -> None:
    calls = []

    class LateTwice:
        def analyze(self, prompt: str, timeout: float) -> str:
            calls.append(prompt)
            if len(calls) < 3:
                raise EmbeddingTimeoutError("late")
            return "done"

    names = run("Retry Logic", namespace | {"monitor": LateTwice()})
    assert names["compute_with_retry"]("Explain AI") == "done"
    assert len(calls) == 3


@covers("Circuit Breakers")
def test_circuit_breakers(namespace: dict[str, Any]) -> None:
    from cert.core.errors import CircuitOpenError

    calls = []

    class ExternalService:
        broken = False

        def fetch_data(self) -> str:
            calls.append(1)
            if self.broken:
                raise ConnectionError
            return "data"

    namespace["external_service"] = ExternalService()
    call_external_api = run("Circuit Breakers", namespace)["call_external_api"]
    assert call_external_api() == "data"
    namespace["external_service"].broken = True
    for _ in range(5):
        with pytest.raises(ConnectionError):
            call_external_api()
    with pytest.raises(CircuitOpenError):
        call_external_api()
    assert len(calls) == 6


@covers("Memory Optimization")
def test_memory_optimization(namespace: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    namespace["HamiltonianMonitor"] = HamiltonianMonitor
    monitor = run("Memory Optimization", namespace)["monitor"]
    with caplog.at_level(logging.WARNING, "cert"):
        result = monitor.analyze("Explain AI")
    assert isinstance(result, AnalysisResult)
    assert result.identity.quantization is not None
    if torch.cuda.is_available():
        assert (result.generation.device[:4], result.generation.fallbacks) == ("cuda", ())
    else:
        assert result.generation.device == "cpu"
        assert result.generation.fallbacks == ("device:cuda->cpu",)
        assert "falling back to the CPU" in caplog.messages


@covers("Caching")
def test_caching(namespace: dict[str, Any]) -> None:
    from cert.inputs.case import PromptCase

    run("Caching", namespace)
    engine = namespace["engine"]
    assert engine.cache_info().max_size == 5000
    case = PromptCase("1", "Explain AI")
    first, second = engine.analyze(case), engine.analyze(case)
    assert (first.cached, second.cached) == (False, True)
    assert second.generation.trace == first.generation.trace
    engine.clear_cache()
    assert engine.cache_info().size == 0


@covers("Preloading")
def test_preloading(namespace: dict[str, Any]) -> None:
    namespace["HamiltonianMonitor"] = HamiltonianMonitor
    assert run("Preloading", namespace)["monitor"].resource.is_loaded


@covers("New API (v4.0)")
def test_new_api(namespace: dict[str, Any]) -> None:
    assert isinstance(run("New API (v4.0)", namespace)["result"], AnalysisResult)


@covers("Model Not Loading")
def test_model_not_loading(namespace: dict[str, Any]) -> None:
    namespace["HamiltonianMonitor"] = HamiltonianMonitor
    monitor = run("Model Not Loading", namespace)["monitor"]
    result = monitor.analyze("Explain AI")
    assert (result.identity.architecture, result.identity.device) == ("GPT2LMHeadModel", "cpu")


@covers("Out of Memory")
def test_out_of_memory(namespace: dict[str, Any]) -> None:
    namespace["HamiltonianMonitor"] = HamiltonianMonitor
    monitor = run("Out of Memory", namespace)["monitor"]
    assert monitor.analyze("Explain AI").identity.architecture == "GPT2LMHeadModel"


@covers("Check Health")
def test_check_health(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("Check Health", namespace)
    status, checks = capsys.readouterr().out.splitlines()
    assert status.startswith("Status: ")
    assert all(f"'{name}'" in checks for name in ("model", "inference", "memory", "instrument"))


def test_the_error_types_are_the_specified_ones() -> None:
    from cert.core import errors

    text = SPECIFICATION.read_text(encoding="utf-8")
    section = text.split("**Error Types:**")[1].split("###")[0]
    named = dict(re.findall(r"^- `(\w+)` - .*?\((.*)\)$", section, re.MULTILINE))
    assert len(named) == 6
    for name, remark in named.items():
        described = AnalysisError.from_exception(getattr(errors, name)("why"))
        assert described.error_type == name
        assert described.recoverable is ("non-recoverable" not in remark)
        assert ("retry after 5s" in remark) == (described.retry_after == 5.0)
