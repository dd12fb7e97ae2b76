"""A server on a fake model in this process, the program as a process, and clients for both."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry

from cert.core.config import CERTConfig
from cert.ledger.appender import open_ledger
from cert.ledger.key_source import keys_of
from cert.service import server
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


@dataclass
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever it holds
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        found = self.json
        assert found["status"] == self.status
        assert found["type"] == "about:blank"
        assert found["title"]
        return str(found["detail"])


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | object | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())
    finally:
        connection.close()


def analyze(port: int, prompt: str, **members: object) -> Reply:
    return ask(port, "POST", "/v1/analyze", {"prompt": prompt, **members}, JSON)


def batch(port: int, lines: bytes, query: str = "", **headers: str) -> Reply:
    return ask(port, "POST", f"/v1/batch{query}", lines, {**LINES, **headers})


class Wire:
    """A bare connection, for what no client library sends."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_all(self) -> bytes:
        """What comes until the server closes."""
        data = b""
        with suppress(ConnectionResetError):
            while chunk := self.socket.recv(65536):
                data += chunk
        return data

    def read_until(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            chunk = self.socket.recv(65536)
            assert chunk, f"closed after {data!r}"
            data += chunk
        return data

    def read_reply(self) -> bytes:
        """One answer of a known length, head and body."""
        reply = self.read_until(b"\r\n\r\n")
        head, _, body = reply.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            more = self.socket.recv(length - len(body))
            assert more, f"closed after {reply!r}"
            body += more
        return head + body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def status_of(data: bytes) -> int:
    assert data.startswith(b"HTTP/1.1 "), data[:200]
    return int(data.split(b" ", 2)[1])


def wait_until(holds: Callable[[], object], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@dataclass
class Running:
    """A server in a thread of this process."""

    config: CERTConfig
    loader: FakeLoader
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    token: str | None = None
    port: int = 0
    code: int | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def start(self) -> None:
        binding = server.bind("127.0.0.1", 0, token=self.token)
        self.port = binding.socket.getsockname()[1]

        def run() -> None:
            ledger = None
            try:
                if self.config.ledger != "none":
                    folder = Path(self.config.ledger)
                    ledger = open_ledger(folder, keys_of(self.config))
                server.serve(
                    self.config,
                    binding,
                    ledger,
                    stop=lambda: self.code,
                    token=self.token,
                    registry=self.registry,
                    loader=self.loader,
                )
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                self.error = error
            finally:
                if ledger is not None:
                    with suppress(Exception):
                        ledger.close()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait_ready(self) -> None:
        wait_until(lambda: self.error or self.readiness() == "ready")
        assert self.error is None, self.error

    def readiness(self) -> str:
        return str(ask(self.port, "GET", "/readyz").json["status"])

    def stop(self, code: int = 143) -> None:
        self.code = code
        if self.thread is not None:
            self.thread.join(60)
            assert not self.thread.is_alive()

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def records(self) -> list[dict[str, Any]]:
        lines: list[bytes] = []
        for segment in sorted((Path(self.config.ledger) / "segments").iterdir()):
            lines += segment.read_bytes().splitlines()
        return [json.loads(line) for line in lines]


def configure(tmp_path: Path, **settings: object) -> CERTConfig:
    return CERTConfig.model_validate(
        {
            "model": "fake",
            "max_new_tokens": 4,
            "metrics_port": 0,
            "ledger": str(tmp_path / "ledger"),
            "keys": str(tmp_path / "keys"),
            "drain_timeout": 5.0,
            **settings,
        }
    )


@contextmanager
def serving(
    config: CERTConfig, *, token: str | None = None, loader: FakeLoader | None = None
) -> Iterator[Running]:
    running = Running(config, loader or FakeLoader(), token=token)
    running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        for backend in running.loader.backends:
            backend.gate.set()
        running.stop()


@dataclass
class Program:
    """`cert serve` as a process of its own."""

    folder: Path
    process: subprocess.Popen[bytes]
    err: Path

    @classmethod
    def start(
        cls,
        folder: Path,
        *flags: str,
        env: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Program:
        folder.mkdir(exist_ok=True)
        err = folder / "err"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CERT_", "LOG_"))},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CERT_KEYS": str(folder / "keys"),
            "XDG_CONFIG_HOME": str(folder),
            **(env or {}),
        }
        ledger = () if "--no-ledger" in flags else ("--ledger", str(folder / "ledger"))
        given = ["--port", "0", "--metrics-port", "0", *ledger, *flags]
        with err.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "cert_cli", "serve", *given],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=folder,
                **options,
            )
        return cls(folder, process, err)

    def logged(self, message: str) -> dict[str, Any] | None:
        for line in self.err.read_bytes().splitlines():
            with suppress(ValueError):
                entry: dict[str, Any] = json.loads(line)
                if entry.get("message") == message:
                    return entry
        return None

    def wait_for(self, message: str) -> dict[str, Any]:
        wait_until(lambda: self.logged(message) or self.process.poll() is not None, seconds=120)
        found = self.logged(message)
        assert found is not None, self.err.read_text()
        return found

    @property
    def port(self) -> int:
        return int(self.wait_for("listening")["url"].rpartition(":")[2])

    @property
    def ops_port(self) -> int:
        return int(self.wait_for("listening for operators")["url"].rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def verify(self) -> subprocess.CompletedProcess[str]:
        return verify(self.folder)


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """`cert verify --deep` of a folder's ledger, with its key."""
    return subprocess.run(
        [sys.executable, "-m", "cert_cli", "verify", "--deep", str(folder / "ledger")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CERT_KEYS": str(folder / "keys")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
