from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from cert.core.config_sources import SPECIFIED_VARIABLES
from cert.observability.metrics import MetricsCollector

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in SPECIFIED_VARIABLES.values() or name.startswith("CERT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> MetricsCollector:
    return MetricsCollector(registry=registry)


@pytest.fixture
def count(registry: CollectorRegistry) -> Callable[..., float]:
    """A metric's value; 0 where nobody has counted yet."""

    def read(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    return read
