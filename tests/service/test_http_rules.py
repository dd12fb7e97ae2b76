"""What the server does not let anybody do to it, seen on real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cert.core.health import Check, CheckResult, HealthChecker
from tests.fakes import FakeLoader
from tests.service.serving import (
    JSON,
    LINES,
    Running,
    Wire,
    analyze,
    ask,
    batch,
    configure,
    serving,
    status_of,
    verify,
    wait_until,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-token-of-sixteen-or-more"  # noqa: S105 - a test's
HEAD = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BATCH = b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Small limits."""
    config = configure(
        tmp_path_factory.mktemp("rules"),
        max_body_bytes=4096,
        receive_timeout=1.0,
        max_requests=4,
        max_prompt_chars=3000,
    )
    with serving(config) as running:
        yield running


def test_a_token_is_asked_for_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.service import server

    checker = HealthChecker({"one": lambda: CheckResult.healthy("fine")})
    # The real ones import torch, which is not what this is about.
    monkeypatch.setattr(server, "build_health_checks", lambda *_args, **_options: checker)
    with serving(configure(tmp_path), token=TOKEN) as running:
        port = running.port
        for given in ({}, {"Authorization": "Bearer wrong-token-of-this-size"}):
            reply = ask(port, "POST", "/v1/analyze", {"prompt": "x"}, {**JSON, **given})
            assert reply.status == 401
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN not in reply.problem
        shown = {**JSON, "Authorization": f"Bearer {TOKEN}"}
        assert ask(port, "POST", "/v1/analyze", {"prompt": "x"}, shown).status == 200
        assert ask(port, "GET", "/v1/server").status == 401
        assert ask(port, "GET", "/openapi.json").status == 401
        assert ask(port, "GET", "/nowhere").status == 401
        assert ask(port, "GET", "/livez").status == 200
        assert ask(port, "GET", "/readyz").status == 200
        assert set(ask(port, "GET", "/healthz").json) == {"status"}
        assert "checks" in ask(port, "GET", "/healthz", headers=shown).json
        with Wire(port) as wire:
            wire.send(HEAD + b"Content-Length: 99999999\r\n\r\n")
            assert status_of(wire.read_until(b"\r\n\r\n")) == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_names_for_loopback_are_refused(strict: Running, host: str) -> None:
    reply = ask(strict.port, "GET", "/v1/server", headers={"Host": host})
    assert reply.status == 421
    assert reply.problem


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:9"])
def test_loopbacks_own_names_are_taken(strict: Running, host: str) -> None:
    assert ask(strict.port, "GET", "/v1/server", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\x00\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD + CHUNKED + b"zz\r\n", 400),
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_closed(
    strict: Running, request_bytes: bytes, status: int
) -> None:
    with Wire(strict.port) as wire:
        wire.send(request_bytes)
        reply = wire.read_all()
    assert status_of(reply) == status
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert json.loads(body)["status"] == status
    assert analyze(strict.port, "still there").status == 200


def test_a_length_beside_chunks_smuggles_nothing(strict: Running) -> None:
    before = len(strict.records())
    with Wire(strict.port) as wire:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        wire.send(HEAD + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n" + smuggled)
        reply = wire.read_all()
    assert status_of(reply) == 400
    assert b"exclude each other" in reply
    assert reply.count(b"HTTP/1.1 ") == 1
    assert len(strict.records()) == before


def test_a_slow_head_is_given_up(strict: Running) -> None:
    with Wire(strict.port) as wire:
        began = time.monotonic()
        wire.send(b"POST /v1/ana")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.2):
                try:
                    wire.send(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        reply = wire.read_all()
        stop.set()
        thread.join()
    assert status_of(reply) == 408
    assert time.monotonic() - began < 15.0


def test_a_connection_that_says_nothing_is_closed(strict: Running) -> None:
    with Wire(strict.port) as wire:
        assert wire.read_all() == b""


def test_a_connection_used_again_has_the_same_deadline(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(wire.read_until(b"alive")) == 200
        wire.send(b"GET /liv")
        assert status_of(wire.read_all().lstrip(b'"}')) == 408


def test_a_slow_body_is_given_up(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        reply = wire.read_all()
    assert status_of(reply) == 408
    assert b"problem+json" in reply


def test_a_body_that_says_it_is_too_large_is_not_read(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(HEAD + b"Content-Length: 209715200\r\n\r\n")
        reply = wire.read_all()
    assert status_of(reply) == 413
    assert b"connection: close" in reply.lower()


def test_200_mb_that_are_sent_all_the_same_get_their_answer(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(HEAD + b"Content-Length: 209715200\r\n\r\n")

        def pour() -> None:
            try:
                for _ in range(200):
                    wire.send(b" " * 2**20)
            except OSError:
                pass

        thread = threading.Thread(target=pour)
        thread.start()
        reply = wire.read_all()
        thread.join()
    assert status_of(reply) == 413


def test_chunks_are_counted_while_they_come(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(HEAD + CHUNKED + chunk(b'{"prompt": "' + b"x" * 3000))
        wire.send(chunk(b"x" * 3000))
        reply = wire.read_all()
    assert status_of(reply) == 413


def test_one_chunk_of_any_size_is_counted_too(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(HEAD + CHUNKED + b"ffffffff\r\n" + b"x" * 10_000)
        assert status_of(wire.read_all()) == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_encoded_bodies_are_refused(strict: Running, encoding: str) -> None:
    headers = {**JSON, "Content-Encoding": encoding}
    assert ask(strict.port, "POST", "/v1/analyze", b"\x1f\x8b", headers).status == 415
    headers = {**LINES, "Content-Encoding": encoding}
    assert ask(strict.port, "POST", "/v1/batch", b"\x1f\x8b", headers).status == 415


@pytest.mark.parametrize("given", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/batch", "/v1/tokens"])
def test_what_a_web_page_may_send_unasked_is_refused(
    strict: Running, path: str, given: str
) -> None:
    reply = ask(strict.port, "POST", path, b'{"prompt": "x"}', {"Content-Type": given})
    assert reply.status == 415
    assert reply.problem


def test_a_line_that_is_too_long_is_refused_and_the_others_go_on(strict: Running) -> None:
    long = json.dumps({"prompt": "x", "more": "y" * 5000}).encode()
    reply = batch(strict.port, b'{"prompt":"a"}\n' + long + b'\n{"prompt":"b"}\n')
    kinds = [json.loads(line)["kind"] for line in reply.body.splitlines()]
    assert kinds == ["analysis", "refused", "analysis"]


def test_a_batch_is_answered_while_it_is_sent(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(BATCH + CHUNKED)
        assert b"cert-run" in wire.read_until(b"\r\n\r\n").lower()
        for n in range(3):
            wire.send(chunk(b'{"prompt": "line %d"}\n' % n))
            assert b"line %d" % n in wire.read_until(b"\n\r\n")
        wire.send(b"0\r\n\r\n")
        assert wire.read_until(b"0\r\n\r\n")


def test_a_batch_whose_lines_stop_coming_ends_early(strict: Running) -> None:
    with Wire(strict.port) as wire:
        wire.send(BATCH + CHUNKED)
        head = wire.read_until(b"\r\n\r\n")
        wire.send(chunk(b'{"prompt": "only this"}\n{"prom'))
        reply = wire.read_all()
    assert b"only this" in reply
    assert not reply.endswith(b"0\r\n\r\n")
    assert _phases(strict, head) == ["begin", "interrupted"]


def test_a_batch_whose_client_leaves_is_interrupted(tmp_path: Path) -> None:
    loader = FakeLoader(settings={"token_s": 0.05})
    with serving(configure(tmp_path, batch_rows=2), loader=loader) as running:
        with Wire(running.port) as wire:
            lines = b"".join(b'{"prompt": "leaving %d"}\n' % n for n in range(500))
            wire.send(BATCH + b"Content-Length: %d\r\n\r\n" % len(lines) + lines)
            head = wire.read_until(b"\r\n\r\n")
            wire.read_until(b"leaving 1")
        wait_until(lambda: _phases(running, head)[-1] == "interrupted")
        wait_until(lambda: running.value("cert_requests_in_flight") == 0.0)
    assert len(running.records()) < 400
    assert verify(tmp_path).returncode == 0


def test_an_analysis_whose_client_leaves_is_taken_back_and_recorded(tmp_path: Path) -> None:
    with serving(configure(tmp_path)) as running:
        (backend,) = running.loader.backends
        backend.gate.clear()
        with Wire(running.port) as wire:
            body = b'{"prompt": "leaving"}'
            wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: backend.requests)
        wait_until(lambda: any(one["kind"] == "error" for one in running.records()))
        backend.gate.set()
        wait_until(lambda: running.value("cert_requests_in_flight") == 0.0)
        (error,) = [one for one in running.records() if one["kind"] == "error"]
        assert error["error"]["type"] == "GenerationCancelled"
        assert "client left" in error["error"]["message"]
        assert running.readiness() == "ready"
    assert verify(tmp_path).returncode == 0


def test_a_client_that_leaves_in_its_body_leaves_nothing(strict: Running) -> None:
    before = len(strict.records())
    for _ in range(20):
        with Wire(strict.port) as wire:
            wire.send(HEAD + b"Content-Length: 100\r\n\r\n{")
    wait_until(lambda: strict.value("cert_requests_in_flight") == 0.0)
    assert len(strict.records()) == before


def test_more_than_there_is_room_for_is_refused_at_once(tmp_path: Path) -> None:
    with serving(configure(tmp_path, max_requests=2)) as running:
        (backend,) = running.loader.backends
        backend.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            taken = [pool.submit(analyze, running.port, f"taken {n}") for n in range(2)]
            wait_until(lambda: len(backend.requests) == 2)
            seconds = []
            for path, kind in (("/v1/analyze", JSON), ("/v1/batch", LINES), ("/v1/tokens", JSON)):
                with Wire(running.port) as wire:
                    began = time.monotonic()
                    wire.send(
                        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\n"
                        b"Content-Length: 1000000\r\n\r\n"
                        % (path.encode(), kind["Content-Type"].encode())
                    )
                    head = wire.read_until(b"\r\n\r\n")
                    seconds.append(time.monotonic() - began)
                assert status_of(head) == 429
                assert b"retry-after: 1" in head.lower()
            assert min(seconds) < 0.1
            assert ask(running.port, "GET", "/readyz").status == 200
            backend.gate.set()
            assert [one.result().status for one in taken] == [200, 200]
        assert running.value("cert_admission_refused_total", reason="overload") == 3.0
        wait_until(lambda: running.value("cert_requests_in_flight") == 0.0)
        assert analyze(running.port, "room again").status == 200


def test_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    with serving(configure(tmp_path, receive_timeout=60.0)) as running:
        held = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(500)]
        try:
            for one in held:
                one.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost:")
            assert analyze(running.port, "through the crowd").status == 200
            assert ask(running.port, "GET", "/livez").status == 200
        finally:
            for one in held:
                one.close()


def test_the_oldest_idle_connection_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.service import server

    monkeypatch.setattr(server, "_max_connections", lambda: 3)
    with serving(configure(tmp_path, receive_timeout=60.0)) as running:
        held = [Wire(running.port) for _ in range(3)]
        assert ask(running.port, "GET", "/livez").status == 200
        assert held[0].read_all() == b""
        held[2].send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(held[2].read_until(b"alive")) == 200
        for one in held:
            one.socket.close()


def test_those_who_ask_for_health_do_not_use_up_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.service import server

    let = threading.Event()

    def slow() -> CheckResult:
        let.wait(30)
        return CheckResult.healthy("at last")

    checker = HealthChecker({"slow": Check(slow, timeout_s=30.0)})
    monkeypatch.setattr(server, "build_health_checks", lambda *_args, **_options: checker)
    with serving(configure(tmp_path, max_requests=1)) as running, ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(ask, running.port, "GET", "/healthz") for _ in range(20)]
        time.sleep(0.3)
        assert analyze(running.port, "in between").status == 200
        let.set()
        assert {one.result().status for one in asking} == {200}


def test_a_client_that_takes_nothing_loses_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.service import protocol

    monkeypatch.setattr(protocol, "STALL_S", 0.5)
    config = configure(tmp_path, ledger="none", max_new_tokens=200)
    with serving(config) as running, socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", running.port))
        lines = b"".join(b'{"prompt": "never read %d"}\n' % n for n in range(2000))
        greedy.sendall(BATCH + b"Content-Length: %d\r\n\r\n" % len(lines) + lines)
        wait_until(lambda: running.value("cert_requests_in_flight") == 1.0)
        wait_until(lambda: running.value("cert_requests_in_flight") == 0.0, seconds=50)
        assert running.value("cert_requests_total", service="hamiltonian", status="success") < 2000


def test_answers_do_not_wait_for_acknowledgements(
    strict: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.service import protocol

    found: list[int] = []
    made = protocol._Protocol.connection_made

    def look(self: protocol._Protocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        one = transport.get_extra_info("socket")
        found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(protocol._Protocol, "connection_made", look)
    assert ask(strict.port, "GET", "/livez").status == 200
    assert found
    assert all(found)


def test_one_connection_serves_many_requests(strict: Running) -> None:
    with Wire(strict.port) as wire:
        for n in range(3):
            body = b'{"prompt": "again %d"}' % n
            wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert b"again %d" % n in wire.read_reply()


def _phases(running: Running, head: bytes) -> list[str]:
    run_id = head.lower().split(b"cert-run: ")[1].split(b"\r\n")[0].decode()
    runs = (one for one in running.records() if one.get("run_id") == run_id)
    return [one["run"]["phase"] for one in runs if one["kind"] == "run"]
