"""What the snippets need around them, and what must not be left behind by them."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.config_sources import SPECIFIED_VARIABLES
from cert.observability import metrics, reset_logging
from cert.trajectory import HamiltonianModelResource, HamiltonianMonitor, exporter
from tests.model_factory import build_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cert.observability import MetricsServer

LOG_FILE = "/var/log/cert.log"


@pytest.fixture(scope="session")
def model_aliases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Local folders for every model of a hub that the specification names."""
    folder = tmp_path_factory.mktemp("models")
    qwen = build_tiny_model(folder / "qwen2", "qwen2", max_positions=512, chat_template=True)
    base = build_tiny_model(folder / "qwen2-base", "qwen2", max_positions=512)
    gpt2 = build_tiny_model(folder / "gpt2", "gpt2", max_positions=512)
    return {"Qwen/Qwen2.5-7B-Instruct": str(qwen), "Qwen/Qwen2.5-7B": str(base), "gpt2": str(gpt2)}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, model_aliases: dict[str, str]) -> None:
    """Hub names lead to the tiny models, as they would to an air-gapped user's folders."""
    for name in list(os.environ):
        if name in SPECIFIED_VARIABLES.values() or name.startswith("CERT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CERT_MODEL_ALIASES", json.dumps(model_aliases))


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    """Where a snippet runs; the models that it leaves loaded are unloaded."""
    names: dict[str, Any] = {"__name__": "snippet"}
    yield names
    for value in names.values():
        if isinstance(value, HamiltonianMonitor):
            value.close()
        elif isinstance(value, HamiltonianModelResource):
            value.unload()


@pytest.fixture
def log_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """/var/log/cert.log, redirected where a file is opened: not every tester may write there."""
    path = tmp_path / "cert.log"
    real = os.open

    def redirected(file: Any, *arguments: Any, **options: Any) -> int:  # noqa: ANN401 - as os.open
        return real(path if file == LOG_FILE else file, *arguments, **options)

    monkeypatch.setattr(os, "open", redirected)
    yield path
    reset_logging()


@pytest.fixture
def metrics_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MetricsServer]]:
    """The servers that a snippet starts and does not keep; on another port if 9090 is taken."""
    started: list[MetricsServer] = []
    by_monitors: dict[int, MetricsServer] = {}
    monkeypatch.setattr(exporter, "_servers", by_monitors)
    real = metrics.start_metrics_server

    def start(host: str, port: int) -> MetricsServer:
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                port = 0
        started.append(real(host=host, port=port))
        return started[-1]

    monkeypatch.setattr(metrics, "start_metrics_server", start)
    yield started
    for server in (*started, *by_monitors.values()):
        server.close()
