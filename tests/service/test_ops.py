from __future__ import annotations

import gzip
import http.client
import json
import logging
import socket
import threading
import time
from contextlib import ExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cert.core.health import CheckResult, HealthReport, HealthStatus
from cert.observability import http_server
from cert.service import ops as module
from cert.service.ops import OpsListener, Probes, names_loopback
from cert.service.state import Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "0123456789abcdefghij"  # noqa: S105 - a token of these tests alone
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Host:
    """A process that is probed."""

    def __init__(self) -> None:
        self.is_alive = True
        self.readiness = Readiness.READY
        self.status = HealthStatus.HEALTHY
        self.checked = 0
        self.entered = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def check(self) -> HealthReport:
        self.checked += 1
        self.entered.set()
        assert self.goes_on.wait(30)
        checks = {"model": CheckResult(self.status, "a reason", 0.5)}
        return HealthReport(self.status, MappingProxyType(checks), 0.5)

    def probes(self) -> Probes:
        return Probes(
            is_alive=lambda: self.is_alive, readiness=lambda: self.readiness, check=self.check
        )


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever it is
        return json.loads(self.body)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    histogram = Histogram("cert_seconds", "x", registry=registry, buckets=(1,))
    histogram.observe(0.5, {"correlation_id": "req-1"})
    return registry


@pytest.fixture
def listener(host: Host, registry: CollectorRegistry) -> Iterator[OpsListener]:
    with OpsListener("127.0.0.1", 0, registry=registry, probes=host.probes(), token=None) as one:
        yield one


@pytest.fixture
def guarded(host: Host, registry: CollectorRegistry) -> Iterator[OpsListener]:
    with OpsListener("127.0.0.1", 0, registry=registry, probes=host.probes(), token=TOKEN) as one:
        yield one


def ask(listener: OpsListener, path: str, method: str = "GET", **headers: str) -> Got:
    connection = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    got = Got(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    connection.close()
    return got


def exchange(listener: OpsListener, data: bytes) -> bytes:
    """Send bytes and read to the end."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as client:
        client.sendall(data)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_alive_as_long_as_the_main_loop_is(listener: OpsListener, host: Host) -> None:
    assert ask(listener, "/livez")[::2] == (200, b'{"status":"alive"}')
    host.is_alive = False
    assert ask(listener, "/livez")[::2] == (503, b'{"status":"hung"}')


@pytest.mark.parametrize("readiness", Readiness)
def test_ready_only_when_ready(listener: OpsListener, host: Host, readiness: Readiness) -> None:
    host.readiness = readiness
    got = ask(listener, "/readyz")
    assert got.status == (200 if readiness is Readiness.READY else 503)
    assert got.json == {"status": readiness.value}


@pytest.mark.parametrize(
    ("status", "code"), [("healthy", 200), ("degraded", 200), ("unhealthy", 503), ("unknown", 503)]
)
def test_health_by_its_status(listener: OpsListener, host: Host, status: str, code: int) -> None:
    host.status = HealthStatus(status)
    got = ask(listener, "/healthz")
    assert (got.status, got.json["status"]) == (code, status)
    assert got.json["checks"]["model"]["reason"] == "a reason"
    assert got.headers["cache-control"] == "no-store"


def test_only_who_has_the_token_reads_why_and_the_metrics(guarded: OpsListener) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert ask(guarded, path).status == 200
    assert ask(guarded, "/healthz").json == {"status": "healthy"}
    good = f"Bearer {TOKEN}"
    assert "checks" in ask(guarded, "/healthz", Authorization=good).json
    assert ask(guarded, "/metrics", Authorization=good).status == 200
    for wrong in ("Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", ""):
        got = ask(guarded, "/metrics", Authorization=wrong)
        assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
        assert b"cert_seconds" not in got.body
        assert ask(guarded, "/healthz", Authorization=wrong).json == {"status": "healthy"}
    assert ask(guarded, "/metrics").status == 401


def test_health_is_checked_once_for_all_who_ask_at_a_time(
    listener: OpsListener, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.goes_on.clear()
    got: list[Got] = []
    threads = [
        threading.Thread(target=lambda: got.append(ask(listener, "/healthz"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert host.entered.wait(30)
    # A check that takes its time holds up neither probe.
    assert ask(listener, "/livez").status == ask(listener, "/readyz").status == 200
    host.goes_on.set()
    for thread in threads:
        thread.join(30)
    assert [one.status for one in got] == [200] * 8
    assert host.checked == 1
    monkeypatch.setattr(module, "HEALTH_CACHE_S", 0.0)
    assert ask(listener, "/healthz").status == 200
    assert host.checked == 2


def test_slow_health_checks_leave_the_metrics_alone(listener: OpsListener, host: Host) -> None:
    host.goes_on.clear()
    asking = [threading.Thread(target=ask, args=(listener, "/healthz")) for _ in range(20)]
    for thread in asking:
        thread.start()
    assert host.entered.wait(30)
    try:
        assert ask(listener, "/metrics").status == 200
    finally:
        host.goes_on.set()
        for thread in asking:
            thread.join(30)


def test_the_format_that_is_asked_for(listener: OpsListener) -> None:
    plain = ask(listener, "/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert any(one.name == "cert_seconds" for one in parse_text(plain.body.decode()))
    assert b"req-1" not in plain.body
    rich = ask(listener, "/metrics", Accept=f"{OPENMETRICS},text/plain;q=0.5")
    assert rich.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    (family,) = parse_openmetrics(rich.body.decode())
    exemplars = [one.exemplar.labels for one in family.samples if one.exemplar]
    assert exemplars == [{"correlation_id": "req-1"}]
    packed = ask(listener, "/metrics", Accept=OPENMETRICS, Accept_Encoding="gzip, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == rich.body
    odd = ask(listener, "/metrics", Accept="application/openmetrics-text; version=;q=x\u00e9;;")
    assert odd.status == 200


def test_head_has_the_headers_alone(listener: OpsListener) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/healthz"):
        got, whole = ask(listener, path, "HEAD"), ask(listener, path)
        assert (got.status, got.body) == (200, b"")
        if path != "/healthz":
            assert got.headers["content-length"] == whole.headers["content-length"]
    assert ask(listener, "/nothing", "HEAD")[::2] == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"])
def test_nothing_else_is_done(listener: OpsListener, method: str) -> None:
    got = ask(listener, "/metrics", method)
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_other_paths_are_not_there(listener: OpsListener) -> None:
    for path in ("/", "/metrics/", "/../etc/passwd", "/v1/analyze", "//metrics", "/LIVEZ"):
        assert ask(listener, path).status == 404
    assert ask(listener, "/livez?verbose=1").status == 200


def test_no_header_says_what_runs_here(listener: OpsListener) -> None:
    names = set(ask(listener, "/livez").headers)
    assert names == {"content-type", "content-length", "connection", "cache-control"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000, b"431"),
        (b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\nxx", b"405"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nHost: [::1]:9\r\nTransfer-Encoding: chunked\r\n\r\n", b"200"),
    ],
)
def test_what_is_no_request_is_told_so_and_hung_up_on(
    listener: OpsListener, head: bytes, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as client:
        client.sendall(head)
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.split(b" ")[1] == status
    assert ask(listener, "/livez").status == 200


def test_a_large_upload_still_gets_its_answer(listener: OpsListener) -> None:
    head = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
    assert exchange(listener, head + b"x" * 3_000_000).startswith(b"HTTP/1.1 405 ")


def test_a_trickled_head_is_hung_up_on(host: Host, registry: CollectorRegistry) -> None:
    with (
        OpsListener(
            "127.0.0.1",
            0,
            registry=registry,
            probes=host.probes(),
            token=None,
            receive_timeout_s=0.5,
        ) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=30) as client,
    ):
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        with suppress(ConnectionError):  # the deadline is for all of it
            while time.monotonic() - began < 30:
                client.sendall(b"X: y\r\n")
                time.sleep(0.05)
        assert 0.4 <= time.monotonic() - began < 30


def test_500_half_open_sockets_hold_up_nothing(listener: OpsListener) -> None:
    with ExitStack() as stack:
        for number in range(500):
            client = socket.create_connection(("127.0.0.1", listener.port), timeout=30)
            stack.enter_context(client)
            client.sendall(b"GET /livez HT" if number % 2 else b"")
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert ask(listener, path).status == 200
        assert len(listener._server._open) <= http_server.MAX_CONNECTIONS
        # The oldest were dropped, not the newest.
        client.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    threads = [one for one in threading.enumerate() if one.name.startswith("cert-http")]
    assert len(threads) < 10


def test_a_flood_of_half_open_sockets_takes_no_answer_from_who_waits_for_it(
    listener: OpsListener, host: Host
) -> None:
    host.goes_on.clear()
    got: list[Got] = []
    asking = threading.Thread(target=lambda: got.append(ask(listener, "/healthz")))
    asking.start()
    assert host.entered.wait(30)
    with ExitStack() as stack:
        for _ in range(300):
            address = ("127.0.0.1", listener.port)
            stack.enter_context(socket.create_connection(address, timeout=30))
        assert ask(listener, "/livez").status == 200
        host.goes_on.set()
        asking.join(30)
    assert [one.status for one in got] == [200]


def test_many_at_once_are_all_answered(listener: OpsListener) -> None:
    statuses: list[int] = []

    def work() -> None:
        statuses.extend(ask(listener, path).status for path in ("/metrics", "/healthz", "/livez"))

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * 90


def test_a_failing_check_is_a_500_without_its_reason(
    listener: OpsListener, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> HealthReport:
        raise RuntimeError("a secret path")

    listener._probes._check = fail
    with caplog.at_level(logging.ERROR, "cert"):
        got = ask(listener, "/healthz")
    assert (got.status, got.body) == (500, b"Internal Server Error\n")
    assert caplog.messages == ["an answer could not be made"]
    assert ask(listener, "/livez").status == 200


def test_a_client_that_goes_away_is_nothing_to_log(
    listener: OpsListener, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.goes_on.clear()
    client = socket.create_connection(("127.0.0.1", listener.port), timeout=30)
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert host.entered.wait(30)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    host.goes_on.set()
    assert ask(listener, "/healthz").status == 200
    assert caplog.messages == []


def test_the_port_is_free_again_and_a_taken_one_is_an_error(
    listener: OpsListener, host: Host, registry: CollectorRegistry
) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{listener.port}: Address al"):
        OpsListener("127.0.0.1", listener.port, registry=registry, probes=host.probes(), token=None)
    listener.close()
    listener.close()
    with OpsListener(
        "127.0.0.1", listener.port, registry=registry, probes=host.probes(), token=None
    ) as again:
        assert ask(again, "/livez").status == 200


@pytest.mark.parametrize("address", ["no.such.host.invalid", "999.0.0.1", "x" * 80 + ".a"])
def test_what_is_no_address_is_an_error(
    address: str, host: Host, registry: CollectorRegistry
) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        OpsListener(address, 0, registry=registry, probes=host.probes(), token=None)


def test_closing_ends_open_connections(
    listener: OpsListener, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as client:
        client.sendall(b"GET /li")
        assert ask(listener, "/livez").status == 200  # so that the loop has met the first one
        listener.close()
        with suppress(ConnectionError):
            assert client.recv(1) == b""
    assert caplog.messages == []


def test_names_of_loopback() -> None:
    good = ["localhost", "LOCALHOST:1", "127.9.9.9:80", "[::1]", None]
    bad = ["", "a.example:9090", "localhost.evil.example", "[::2]:1", "10.0.0.1", "[", ":80"]
    assert [names_loopback(one) for one in good] == [True] * len(good)
    assert [names_loopback(one) for one in bad] == [False] * len(bad)
