"""Engines on a fake backend, and cases for them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from cert.backends.protocol import SamplingParams
from cert.core.config import CERTConfig
from cert.inputs.case import PromptCase
from cert.observability.metrics import MetricsCollector
from cert.runner.pipeline import RunSettings
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.resources import HamiltonianModelResource
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes import FakeBackend

GREEDY = SamplingParams(max_new_tokens=3)


def cases(count: int, *, text: str = "prompt") -> list[PromptCase]:
    return [
        PromptCase(id=f"id-{n}", text=f"{text} {n}", source="a.txt", line=n)
        for n in range(1, count + 1)
    ]


def settings(**changes: Any) -> RunSettings:  # noqa: ANN401 - any field
    values: dict[str, Any] = {"run_id": "run-1", "sampling": GREEDY, "in_flight": 4}
    return RunSettings(**{**values, **changes})


@contextmanager
def engine(
    **backend: Any,  # noqa: ANN401 - any field
) -> Iterator[tuple[HamiltonianEngine, FakeBackend]]:
    loader = FakeLoader(settings=backend)
    resource = HamiltonianModelResource("fake", config=CERTConfig(), loader=loader)
    metrics = MetricsCollector(registry=CollectorRegistry())
    with resource:
        yield HamiltonianEngine(resource, metrics=metrics), loader.backends[0]
