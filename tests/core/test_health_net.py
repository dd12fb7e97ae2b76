from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.health import HealthStatus
from cert.core.health_net import check_anthropic, check_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def answering(status: int, body: bytes = b"", **headers: str) -> Iterator[tuple[str, list[Any]]]:
    """A server on loopback that always says the same, and remembers what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("code", [200, 503])
@pytest.mark.parametrize("status", ["healthy", "degraded", "unhealthy", "unknown"])
def test_a_server_speaks_for_itself(status: str, code: int) -> None:
    with answering(code, json.dumps({"status": status}).encode()) as (url, asked):
        found = check_server(f"{url}/", 5.0)
    assert found.status == status
    assert [path for path, _ in asked] == ["/healthz"]


def test_what_is_wrong_over_there_is_named() -> None:
    report = {
        "status": "degraded",
        "checks": {"disk": {"status": "degraded"}, "key": {"status": "healthy"}, "x\x1b[2J": {}},
    }
    with answering(200, json.dumps(report).encode()) as (url, _):
        assert check_server(url, 5.0).reason.endswith("says degraded: disk, x\\x1b[2J")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"no"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"status": "fine"}'),
        (200, b'{"status": ["healthy"]}'),
        (200, b"\xff"),
        (200, b"[" * 100_000),
    ],
)
def test_something_else_answers(status: int, body: bytes) -> None:
    with answering(status, body) as (url, _):
        found = check_server(url, 5.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert "no `cert serve` is there" in found.reason


def test_a_redirect_is_not_followed() -> None:
    with (
        answering(200, b'{"status": "healthy"}') as (other, asked),
        answering(302, Location=f"{other}/healthz") as (url, _),
    ):
        assert check_server(url, 5.0).status is HealthStatus.UNHEALTHY
    assert not asked


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:1", "http://", "http://[::1", ""])
def test_what_is_no_url(url: str) -> None:
    assert check_server(url, 1.0).status is HealthStatus.UNHEALTHY


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
        found = check_server(url, 1.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert "secret" not in found.reason


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = check_server(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.1)
    assert found.status is HealthStatus.UNHEALTHY
    assert "timed out" in found.reason


def test_a_server_that_speaks_another_protocol() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        found = check_server(f"http://127.0.0.1:{server.getsockname()[1]}", 5.0)
        thread.join()
    assert found.status is HealthStatus.UNHEALTHY


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (200, "healthy"),
        (401, "healthy"),
        (404, "unhealthy"),
        (429, "degraded"),
        (500, "degraded"),
        (529, "degraded"),
    ],
)
def test_anthropic_is_there(code: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-SECRETSECRETSECRET")
    with answering(code) as (url, asked):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        assert check_anthropic(5.0, is_offline=True).status == status
    ((path, headers),) = asked
    assert path == "/v1/models"
    assert "sk-ant" not in str(headers)


def test_anthropic_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert check_anthropic(1.0, is_offline=True).status is HealthStatus.UNHEALTHY


def test_offline_nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    found = check_anthropic(1.0, is_offline=True)
    assert found.status is HealthStatus.UNKNOWN
    assert "api.anthropic.com was not asked" in found.reason
