"""Traces, received by a real OTLP/HTTP receiver."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cert.observability import tracing
from cert.observability.correlation import correlation_id_context
from cert.observability.tracing import (
    current_trace,
    exporting_traces,
    record_span,
    span,
    trace_parent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "Zebras whisper at noon"  # noqa: S105 - a prompt that no span may show


class Received:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.raw = b""
        self.url = ""

    @property
    def spans(self) -> list[Any]:
        return [
            one
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for one in scope.spans
        ]

    def named(self, name: str) -> Any:  # noqa: ANN401 - a protobuf message
        (found,) = [one for one in self.spans if one.name == name]
        return found


@pytest.fixture
def collector() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            received.raw += body
            received.requests.append(request)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def here(collector: Received, monkeypatch: pytest.MonkeyPatch) -> Received:
    for name in [one for one in os.environ if one.startswith("OTEL_") or one == "TRACEPARENT"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    return collector


def values(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a protobuf message
    def plain(value: Any) -> Any:  # noqa: ANN401 - the same
        kind = value.WhichOneof("value")
        if kind == "array_value":
            return [plain(item) for item in value.array_value.values]
        return getattr(value, kind)

    return {item.key: plain(item.value) for item in one.attributes}


def test_spans_within_spans(here: Received) -> None:
    with exporting_traces("4.0"), span("outer", {"cert.records": 2}):
        with correlation_id_context("req-1"), span("inner"):
            time.sleep(0.01)
        with pytest.raises(KeyError), span("broken"):
            raise KeyError(SECRET)
    outer, inner, broken = map(here.named, ("outer", "inner", "broken"))
    assert (outer.parent_span_id, inner.parent_span_id) == (b"", outer.span_id)
    assert inner.trace_id == outer.trace_id == broken.trace_id
    assert values(outer) == {"cert.records": 2}
    assert values(inner) == {"cert.correlation_id": "req-1"}
    assert values(broken) == {"error.type": "KeyError"}
    assert broken.status.code == 2
    assert SECRET.encode() not in here.raw
    assert inner.end_time_unix_nano - inner.start_time_unix_nano >= 10_000_000
    (resource,) = here.requests[0].resource_spans
    said = values(resource.resource)
    assert (said["service.name"], said["service.version"]) == ("cert", "4.0")
    assert resource.scope_spans[0].schema_url == tracing.SCHEMA_URL


def test_a_caller_s_trace_is_continued(here: Received) -> None:
    with exporting_traces("4.0"), trace_parent(PARENT):
        parent = current_trace()
        record_span("late", parent=parent, duration_s=2.0, attributes={}, error_type="Boom")
        with span("inner"):
            pass
    for name in ("late", "inner"):
        one = here.named(name)
        assert one.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        assert one.parent_span_id.hex() == "b7ad6b7169203331"
    late = here.named("late")
    assert late.end_time_unix_nano - late.start_time_unix_nano == 2_000_000_000


@pytest.mark.parametrize("header", ["", "rubbish", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é"])
def test_a_malformed_header_begins_a_trace(here: Received, header: str) -> None:
    with exporting_traces("4.0"), trace_parent(header), span("one"):
        pass
    assert here.named("one").parent_span_id == b""


def test_a_run_is_the_parent_of_what_other_threads_do(here: Received) -> None:
    with exporting_traces("4.0"):
        with span("run", is_run=True):
            parents: list[Any] = []
            thread = threading.Thread(target=lambda: parents.append(current_trace()))
            thread.start()
            thread.join()
            record_span("in it", parent=parents[0], duration_s=0.0, attributes={})
        assert current_trace() is None
    assert here.named("in it").parent_span_id == here.named("run").span_id


def test_a_name_for_the_service_is_taken_from_outside(
    here: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "audits")
    with exporting_traces("4.0"), exporting_traces("5.0"), span("one"):
        pass
    assert values(here.requests[0].resource_spans[0].resource)["service.name"] == "audits"


def test_without_traces_nothing_is_imported_or_done() -> None:
    code = (
        "import sys\n"
        "from cert.observability.tracing import *\n"
        "from cert.observability.tracing import span, trace_parent, record_span, current_trace\n"
        f"with trace_parent('{PARENT}'), span('x'):\n"
        "    assert current_trace() is None\n"
        "    record_span('y', parent=None, duration_s=1.0, attributes={})\n"
        "assert not [one for one in sys.modules if one.startswith('opentelemetry')]\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_wrong_variable_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from cert.core.config import CERTConfig
    from cert.core.errors import ConfigurationError, MissingExtraError
    from cert.runner.local import open_engine

    config = CERTConfig(traces="otlp")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "0")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(ConfigurationError, match="OTEL_"), open_engine(config):
        pass
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError) as caught, open_engine(config):
        pass
    assert "[traces]" in str(caught.value.hint)


@contextmanager
def silent_collector() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def no_collector() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("collector_", [silent_collector, no_collector])
def test_a_collector_that_fails_holds_nothing_up(
    collector_: Any,  # noqa: ANN401 - either of the above
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with collector_() as url, caplog.at_level(logging.WARNING, "cert"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "4")
        with exporting_traces("4.0"):
            began = time.monotonic()
            for _ in range(5000):
                with span("one"):
                    pass
            taken_s = time.monotonic() - began
            began = time.monotonic()
        closed_s = time.monotonic() - began
        for thread in threading.enumerate():
            if thread.name.startswith(("cert-traces", "Otel")):
                thread.join(30)
                assert not thread.is_alive(), "it goes on trying"
    assert taken_s < 30
    assert closed_s < tracing.FLUSH_S + 5
    told = [one for one in caplog.records if one.name.startswith("cert")]
    assert 1 <= len(told) <= 2, "the library complains of every batch"
    assert "Traceback" not in capsys.readouterr().err


def analyze(tmp_path: Path, url: str, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    ledger = ["--ledger", str(tmp_path / "ledger"), "--correlation-id", "req-77"]
    return subprocess.run(
        [sys.executable, "-m", "cert_cli", "analyze", SECRET, *ledger, *more],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("CERT_")},
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "CERT_TRACES": "otlp",
            "CERT_MAX_NEW_TOKENS": "3",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )


def test_an_analysis_end_to_end(collector: Received, tmp_path: Path) -> None:
    ran = analyze(tmp_path, collector.url, "-v", "--log-format", "json", TRACEPARENT=PARENT)
    assert ran.returncode in {0, 1, 3}, ran.stderr
    logged = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    (finished,) = [one for one in logged if one["message"] == "analysis finished"]
    assert finished["correlation_id"] == "req-77"
    record = json.loads(
        (tmp_path / "ledger/segments/000000000000.jsonl").read_text().splitlines()[3]
    )
    analysis, run = collector.named("text_completion reference"), collector.named("run")
    said = values(analysis)
    assert said == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "transformers",
        "gen_ai.request.model": "reference",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.response.model": record["provenance"]["model"]["digest"],
        "gen_ai.response.finish_reasons": [record["generation"]["finish_reason"]],
        "gen_ai.usage.input_tokens": len(record["prompt"]["token_ids"]),
        "gen_ai.usage.output_tokens": len(record["generation"]["token_ids"]),
        "cert.verdict": record["assessment"]["verdict"],
        "cert.policy": "reference@1",
        "cert.cached": False,
        "cert.correlation_id": "req-77",
    }
    assert record["correlation_id"] == "req-77"
    names = [one.name for one in collector.spans]
    assert names.count("ledger append") == 3
    assert collector.named("model load").parent_span_id == run.span_id
    assert {one.trace_id.hex() for one in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert run.parent_span_id.hex() == "b7ad6b7169203331"
    assert analysis.parent_span_id == run.span_id
    for text in (SECRET, record["generation"]["text"]):
        assert text.encode() not in collector.raw


def test_an_analysis_without_a_collector(tmp_path: Path) -> None:
    with no_collector() as url:
        ran = analyze(tmp_path, url, "-q")
    assert ran.returncode in {0, 1, 3}
    assert json.loads(ran.stdout)["kind"] == "analysis"
    assert "Traceback" not in ran.stderr
