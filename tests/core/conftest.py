from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cert.core.config import CERTConfig
from cert.core.config_sources import environment_variable
from cert.observability.logging import reset_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, without settings from the machine that the tests run on."""
    strays = [name for name in os.environ if name.startswith("CERT_")]
    for name in [*map(environment_variable, CERTConfig.model_fields), *strays]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    yield project
    reset_logging()
