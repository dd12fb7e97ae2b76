"""The embedded model, measured on this machine, against what was pinned in float64."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from cert.backends.folder import REFERENCE_FOLDER
from cert.core.health import HealthStatus
from cert.reference.readings import load_readings
from cert.trajectory import HamiltonianMonitor


def test_the_readings_were_pinned_for_the_weights_that_are_shipped() -> None:
    weights = (REFERENCE_FOLDER / "model.safetensors").read_bytes()
    readings = load_readings()
    assert readings.model_digest == "sha256:" + hashlib.sha256(weights).hexdigest()
    assert len(readings.token_ids) >= 100


def test_the_tolerances_are_worth_something() -> None:
    tolerances = load_readings().tolerances
    assert set(tolerances) == {"float32", "bfloat16", "float16", "dynamic-int8"}
    assert tolerances["float32"] <= 0.001
    assert max(tolerances.values()) <= 1.0


@pytest.mark.parametrize("settings", [{"dtype": "float32"}, {"use_8bit": True}])
def test_this_machine_measures_as_pinned(settings: dict[str, Any]) -> None:
    with HamiltonianMonitor("reference", device="cpu", **settings) as monitor:
        report = monitor.health_check()
    assert report.checks["instrument"].status is HealthStatus.HEALTHY, str(report.checks)
    assert report.checks["inference"].status is HealthStatus.HEALTHY
