"""Fixtures of the program's tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cert.backends import transformers_local
from tests.cli.helpers import Processes, Program, clean_environment
from tests.model_factory import build_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no settings from outside."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def cert(monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program()
    monkeypatch.setattr(transformers_local, "load_backend", program.loader)
    return program


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), "llama", max_positions=512)


@pytest.fixture
def processes() -> Iterator[Processes]:
    running = Processes()
    yield running
    for process in running.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
