"""The checks put together, with the real reference model, tiny others, and fakes."""

from __future__ import annotations

import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cert.backends import folder as folders
from cert.backends.folder import REFERENCE_FOLDER
from cert.core.config import CERTConfig
from cert.core.errors import ConfigurationError
from cert.core.health import CheckResult, HealthStatus
from cert.runner import health
from cert.runner.health import CHECKS, HealthOptions, build_health_checks
from cert.trajectory.resources import HamiltonianModelResource
from tests.fakes import FakeLoader
from tests.ledger.opened import begin, body
from tests.model_factory import build_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from cert.core.health import HealthReport


@pytest.fixture
def config(tmp_path: Path) -> CERTConfig:
    return CERTConfig(ledger=str(tmp_path / "ledger"), keys=str(tmp_path / "keys"), device="cpu")


def run(config: CERTConfig, *names: str, **options: Any) -> HealthReport:  # noqa: ANN401
    return build_health_checks(config, HealthOptions(only=names, **options)).run()


def test_everything_is_looked_at_and_nothing_is_written(config: CERTConfig, tmp_path: Path) -> None:
    report = build_health_checks(config).run()
    assert list(report.checks) == [name for name in CHECKS if name not in {"server", "anthropic"}]
    assert {name: found.status.value for name, found in report.checks.items()} | {
        "disk": "healthy",
        "memory": "healthy",
    } == dict.fromkeys(report.checks, "healthy")
    assert (
        "nats of the pinned ones; 0.0002 is fine in float32" in report.checks["instrument"].reason
    )
    assert not list(tmp_path.iterdir())


def test_every_check_can_be_named(config: CERTConfig) -> None:
    for name in CHECKS:
        assert build_health_checks(config, HealthOptions(only=(name,)))


def test_a_name_that_is_wrong(config: CERTConfig) -> None:
    with pytest.raises(ConfigurationError, match="no check 'instrumnt'") as caught:
        run(config, "disk", "instrumnt")
    assert caught.value.hint == "did you mean instrument?"
    with pytest.raises(ConfigurationError) as caught:
        run(config, "zzz")
    assert "environment, device" in (caught.value.hint or "")


def test_without_a_ledger_nothing_is_said_of_one(config: CERTConfig) -> None:
    none = config.model_copy(update={"ledger": "none"})
    checker = build_health_checks(none, resource=HamiltonianModelResource(loader=FakeLoader()))
    assert not {"ledger", "checkpoint", "key", "disk"} & set(checker.run().checks)
    report = run(none, "ledger", "clock")
    assert report.checks["ledger"].status is HealthStatus.UNKNOWN
    assert report.checks["clock"].status is HealthStatus.HEALTHY
    assert run(none, "key").status is HealthStatus.UNKNOWN


def test_with_a_server_only_that_is_asked(config: CERTConfig) -> None:
    elsewhere = config.model_copy(update={"server": "http://127.0.0.1:1"})
    report = build_health_checks(elsewhere, HealthOptions(timeout_s=5.0)).run()
    assert list(report.checks) == ["environment", "clock", "server"]
    assert report.status is HealthStatus.UNHEALTHY
    assert run(config, "server").status is HealthStatus.UNKNOWN


def test_anthropic_is_asked_only_where_the_settings_allow_it(config: CERTConfig) -> None:
    assert run(config, "anthropic").status is HealthStatus.UNKNOWN


def test_a_server_s_model_is_neither_loaded_nor_replaced(config: CERTConfig) -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", config=config, loader=loader)
    names = ("model", "inference")
    checker = build_health_checks(config, HealthOptions(only=names), resource=resource)
    assert [found.status.value for found in checker.run().checks.values()] == [
        "degraded",
        "unknown",
    ]
    assert loader.calls == []
    resource.load()
    assert checker.run().status is HealthStatus.HEALTHY
    assert len(loader.calls) == 1
    assert "files" not in build_health_checks(config, resource=resource)._checks


def test_another_digest_than_expected(config: CERTConfig) -> None:
    report = run(config, "files", "model", "inference", expect_digest="sha256:" + "0" * 64)
    assert report.status is HealthStatus.UNHEALTHY
    assert "0000 is expected" in report.checks["files"].reason
    assert "ModelRefusedError" in report.checks["model"].reason
    assert report.checks["inference"].status is HealthStatus.UNKNOWN
    right = report.checks["files"].reason.split(", ")[1].partition(";")[0]
    assert run(config, "files", expect_digest=right).status is HealthStatus.HEALTHY


@pytest.mark.parametrize("name", ["files", "model"])
def test_a_model_that_is_not_there(config: CERTConfig, name: str) -> None:
    report = run(config.model_copy(update={"model": "hf:no/such-model"}), name)
    assert report.status is HealthStatus.UNHEALTHY
    assert "not on this machine" in report.checks[name].reason


def test_a_damaged_reference_model_is_found(
    config: CERTConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(REFERENCE_FOLDER, copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr(folders, "REFERENCE_FOLDER", copy)
    report = run(config, "model", "instrument")
    assert report.checks["model"].status is HealthStatus.HEALTHY
    assert report.checks["instrument"].status is HealthStatus.UNHEALTHY
    assert "pinned for weights" in report.checks["instrument"].reason


def test_numerics_that_are_off_are_found(
    config: CERTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.reference.readings import load_readings
    from cert.trajectory import checks

    real = load_readings()
    fields = {name: getattr(real, name) for name in real.__struct_fields__}
    moved = (real.logprobs[0] + 0.01, *real.logprobs[1:])
    monkeypatch.setattr(
        checks, "load_readings", lambda: type(real)(**(fields | {"logprobs": moved}))
    )
    report = run(config, "instrument")
    assert report.status is HealthStatus.UNHEALTHY
    assert "deviate by 0.01 nats; at most 0.0002" in report.checks["instrument"].reason


def test_beside_another_model_the_reference_is_the_instrument(
    config: CERTConfig, tmp_path: Path
) -> None:
    tiny = build_tiny_model(tmp_path / "tiny", "llama", max_positions=64)
    report = run(config.model_copy(update={"model": str(tiny)}), "model", "inference", "instrument")
    assert report.status is HealthStatus.HEALTHY
    assert "176 readings" in report.checks["instrument"].reason
    assert str(tiny) in report.checks["model"].reason


def test_the_instrument_waits_for_a_server_s_model(config: CERTConfig) -> None:
    other = config.model_copy(update={"model": "m"})
    resource = HamiltonianModelResource("m", config=other, loader=FakeLoader())
    checker = build_health_checks(other, HealthOptions(only=("instrument",)), resource=resource)
    assert checker.run().status is HealthStatus.UNKNOWN
    resource.load()
    assert checker.run().status is HealthStatus.HEALTHY


def test_a_load_that_hangs_is_given_up(config: CERTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    def hang(*_: object, **__: object) -> None:
        going_on.wait(60)
        raise ConfigurationError("too late")

    monkeypatch.setattr("cert.backends.transformers_local.load_backend", hang)
    report = run(config, "model", "inference", "instrument", timeout_s=0.2)
    going_on.set()
    assert report.duration_s < 30
    for found in report.checks.values():
        assert found.status is HealthStatus.UNHEALTHY
        assert "within 0." in found.reason


def test_a_check_that_hangs_does_not_hold_up_the_others(
    config: CERTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()

    def hang(*_: object) -> CheckResult:
        going_on.wait(60)
        return CheckResult.healthy("late")

    monkeypatch.setattr(health, "check_disk", hang)
    report = run(config, "disk", "clock", timeout_s=0.1)
    going_on.set()
    assert report.checks["clock"].status is HealthStatus.HEALTHY
    assert report.checks["disk"].reason == "no answer within 0.6 s"


def test_cuda_that_is_not_there(config: CERTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    report = run(config.model_copy(update={"device": "cuda"}), "device", "model")
    assert report.status is HealthStatus.DEGRADED
    assert "cuda was asked for" in report.checks["device"].reason
    assert "device:cuda->cpu" in report.checks["model"].reason
    assert run(config, "device").status is HealthStatus.HEALTHY


def test_a_gpu_is_named(config: CERTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2**30, 2**31))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Fake 9000")
    found = run(config.model_copy(update={"device": "auto"}), "device").checks["device"]
    assert found.reason == "cuda: Fake 9000, 1.0 of 2.0 GB free (auto was asked for)"


def test_a_broken_ledger_is_a_finding(config: CERTConfig, tmp_path: Path) -> None:
    with begin(tmp_path / "ledger") as ledger:
        ledger.append([body(1)])
    (segment,) = (tmp_path / "ledger" / "segments").iterdir()
    segment.write_bytes(b"\x00" * 100 + b"\n")
    report = run(config, "ledger", "checkpoint", "key", "disk", "clock")
    assert report.status is HealthStatus.UNHEALTHY
    assert report.checks["checkpoint"].status is HealthStatus.UNHEALTHY
    assert report.checks["key"].status is HealthStatus.UNKNOWN
    assert report.checks["clock"].status is HealthStatus.HEALTHY
    assert json.dumps(report.as_dict())


def test_a_ledger_of_another_key(config: CERTConfig, tmp_path: Path) -> None:
    with begin(tmp_path / "ledger") as ledger:
        ledger.append([body(1)])
    report = run(config, "key", "checkpoint")
    assert report.checks["key"].status is HealthStatus.UNHEALTHY
    assert report.checks["checkpoint"].status is HealthStatus.HEALTHY
