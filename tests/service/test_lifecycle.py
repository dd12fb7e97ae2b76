"""Loading, draining, a ledger that fails: what is answered, and what is left."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError, ModelUnavailableError
from cert.ledger import appender, writer
from cert.ledger.errors import LedgerBrokenError, LedgerFullError
from cert.service import server
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
    from pathlib import Path

BATCH = b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"


class SlowLoader(FakeLoader):
    """Loads once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def __call__(self, spec: str, *, device: str = "auto", **options: object):  # noqa: ANN204
        self.let.wait(60)
        return super().__call__(spec, device=device, **options)


def test_until_the_model_is_loaded_nothing_is_taken(tmp_path: Path) -> None:
    loader = SlowLoader()
    running = Running(configure(tmp_path), loader)
    running.start()
    wait_until(lambda: running.readiness() == "loading")
    assert ask(running.port, "GET", "/readyz").status == 503
    assert ask(running.port, "GET", "/livez").json == {"status": "alive"}
    reply = analyze(running.port, "x")
    assert reply.status == 503
    assert "loading" in reply.problem
    assert int(reply.headers["retry-after"]) > 0
    assert ask(running.port, "GET", "/v1/server").status == 503
    assert running.value("cert_ready") == 0.0
    assert running.value("cert_admission_refused_total", reason="loading") == 1.0
    loader.let.set()
    running.wait_ready()
    assert analyze(running.port, "x").status == 200
    running.stop()


def test_a_server_that_is_stopped_while_it_loads_leaves_no_run(tmp_path: Path) -> None:
    loader = SlowLoader()
    running = Running(configure(tmp_path), loader)
    running.start()
    wait_until(lambda: running.readiness() == "loading")
    running.stop(130)
    loader.let.set()
    assert running.error is None
    assert [one["kind"] for one in running.records()] == ["genesis"]


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    loader = FakeLoader(errors={"auto": ModelUnavailableError("there is no such model")})
    running = Running(configure(tmp_path), loader)
    running.start()
    wait_until(lambda: running.error is not None)
    assert isinstance(running.error, ModelUnavailableError)


def test_what_was_accepted_is_finished(tmp_path: Path) -> None:
    with serving(configure(tmp_path)) as running:
        (backend,) = running.loader.backends
        backend.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            accepted = [pool.submit(analyze, running.port, f"accepted {n}") for n in range(3)]
            accepted.append(pool.submit(batch, running.port, b'{"prompt":"accepted too"}'))
            wait_until(lambda: len(backend.requests) == 4)
            running.code = 143
            wait_until(lambda: running.readiness() == "draining")
            assert ask(running.port, "GET", "/readyz").status == 503
            assert ask(running.port, "GET", "/livez").status == 200
            refused = analyze(running.port, "too late")
            assert refused.status == 503
            assert "retry-after" in refused.headers
            backend.gate.set()
            assert [one.result().status for one in accepted] == [200] * 4
        running.stop()
    assert sum(one["kind"] == "analysis" for one in running.records()) == 4
    found = verify(tmp_path)
    assert found.returncode == 0
    assert "is not finished" not in found.stdout


def test_what_does_not_finish_is_cut_off_and_recorded(tmp_path: Path) -> None:
    with serving(configure(tmp_path, drain_timeout=0.2)) as running:
        (backend,) = running.loader.backends
        backend.gate.clear()
        with ThreadPoolExecutor(1) as pool, Wire(running.port) as wire:
            waiting = pool.submit(analyze, running.port, "never finished")
            lines = b'{"prompt": "never finished either"}\n'
            wire.send(BATCH + b"Content-Length: %d\r\n\r\n" % len(lines) + lines)
            assert status_of(wire.read_until(b"\r\n\r\n")) == 200
            wait_until(lambda: len(backend.requests) == 2)
            running.stop()
            reply = waiting.result()
            assert b"0\r\n\r\n" not in wire.read_all()
        assert reply.status == 503
        assert reply.json["error"]["type"] == "GenerationCancelled"
    records = running.records()
    assert reply.json in records
    phases = [one["run"]["phase"] for one in records if one["kind"] == "run"]
    assert phases == ["begin", "begin", "interrupted", "end"]
    assert verify(tmp_path).returncode == 0


class Disk:
    """Writes to ledgers fail while it is full, or syncs while it is broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.is_broken = False
        write, sync = writer.write_all, os.fdatasync

        def write_all(fd: int, data: bytes) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(fd, data)

        def fdatasync(fd: int) -> None:
            if self.is_broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(fd)

        monkeypatch.setattr(writer, "write_all", write_all)
        monkeypatch.setattr(os, "fdatasync", fdatasync)


def test_a_full_disk_stops_answers_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PROBE_S", 0.1)
    disk = Disk(monkeypatch)
    with serving(configure(tmp_path)) as running:
        assert analyze(running.port, "before").status == 200
        disk.is_full = True
        reply = analyze(running.port, "no room")
        assert reply.status == 503
        assert "ledger" in reply.problem
        assert "retry-after" in reply.headers
        assert running.readiness() == "ledger failed"
        assert ask(running.port, "GET", "/livez").status == 200
        assert running.value("cert_ledger_append_failures_total") == 1.0
        assert running.value("cert_ready") == 0.0
        for path, kind in (("/v1/analyze", JSON), ("/v1/batch", LINES)):
            refused = ask(running.port, "POST", path, b'{"prompt": "x"}', kind)
            assert refused.status == 503
            assert "ledger failed" in refused.problem
        disk.is_full = False
        wait_until(lambda: running.readiness() == "ready")
        assert analyze(running.port, "after").status == 200
    assert "no room" not in str(running.records())
    assert verify(tmp_path).returncode == 0


def test_what_an_idle_server_wrote_last_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PROBE_S", 0.1)
    limits = writer.Limits(seal_records=10**9, seal_s=0.5)
    monkeypatch.setattr(appender, "Limits", lambda: limits)
    with serving(configure(tmp_path)) as running:
        seq = analyze(running.port, "the last one for long").json["_seq"]
        checkpoints = tmp_path / "ledger" / "checkpoints"
        wait_until((checkpoints / f"{seq + 1:012}.note").exists)


def test_a_batch_ends_where_the_ledger_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with serving(configure(tmp_path)) as running, Wire(running.port) as wire:
        wire.send(BATCH + b"Transfer-Encoding: chunked\r\n\r\n")
        wire.send(b'12\r\n{"prompt": "one"}\n\r\n')
        assert b'"one"' in wire.read_until(b"}\n\r\n")
        disk.is_full = True
        wire.send(b'12\r\n{"prompt": "two"}\n\r\n')
        rest = wire.read_all()
        assert b'"two"' not in rest
        assert b"0\r\n\r\n" not in rest
        assert running.readiness() == "ledger failed"
        disk.is_full = False
    assert verify(tmp_path).returncode == 0


def test_a_server_whose_ledger_is_full_at_the_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with serving(configure(tmp_path)) as running:
        analyze(running.port, "before")
        disk.is_full = True
    assert isinstance(running.error, LedgerFullError)


def test_a_broken_disk_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PROBE_S", 0.05)
    disk = Disk(monkeypatch)
    with serving(configure(tmp_path)) as running:
        disk.is_broken = True
        assert analyze(running.port, "perhaps there").status == 503
        disk.is_broken = False
        time.sleep(0.5)
        assert running.readiness() == "ledger failed"
    assert isinstance(running.error, LedgerBrokenError)


def test_a_ledger_that_may_fail_is_only_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with serving(configure(tmp_path, on_ledger_failure="warn")) as running:
        disk.is_full = True
        reply = analyze(running.port, "without evidence")
        assert reply.status == 200
        assert "_seq" not in reply.json
        assert running.readiness() == "ready"
        assert running.value("cert_ledger_append_failures_total") == 1.0


def test_two_servers_share_a_ledger(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with serving(config) as one, serving(config) as other, ThreadPoolExecutor(8) as pool:
        ports = [one.port, other.port] * 8
        replies = list(pool.map(lambda port: analyze(port, f"to {port}"), ports))
        assert {reply.status for reply in replies} == {200}
    records = one.records()
    assert sum(record["kind"] == "analysis" for record in records) == 16
    assert len({record["run_id"] for record in records if record["kind"] == "analysis"}) == 2
    found = verify(tmp_path)
    assert found.returncode == 0, found.stdout
    assert "is not finished" not in found.stdout


def test_a_port_that_is_taken_is_a_usage_error(tmp_path: Path) -> None:
    binding = server.bind("127.0.0.1", 0, token=None)
    port = binding.socket.getsockname()[1]
    with binding.socket:
        with pytest.raises(ConfigurationError, match=str(port)) as caught:
            server.bind("127.0.0.1", port, token=None)
        assert "--port" in (caught.value.hint or "")
        running = Running(configure(tmp_path, metrics_port=port), FakeLoader())
        running.start()
        wait_until(lambda: running.error is not None)
        assert isinstance(running.error, ConfigurationError)
        assert "--metrics-port" in (running.error.hint or "")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "a" * 300, "::1%nowhere"])
def test_what_is_no_address_is_a_usage_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        server.bind(host, 0, token="x" * 16)
