from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.errors import GPUOutOfMemoryError, ModelUnavailableError, NumericalError
from cert.core.health import HealthStatus, run_checks
from cert.core.health_host import check_memory
from cert.core.resources import MemoryInfo
from cert.reference.readings import Readings
from cert.trajectory import checks
from cert.trajectory.checks import (
    build_checks,
    check_inference,
    check_instrument,
    check_model,
)
from cert.trajectory.resources import HamiltonianModelResource
from tests.fakes import FakeBackend, FakeLoader, fake_identity, fake_trace, token_id

if TYPE_CHECKING:
    from collections.abc import Callable

GB = 1024**3
TRACE = fake_trace(["every", "word"])
READINGS = Readings(
    prompt="Measure",
    response="every word",
    prompt_token_ids=(0, token_id("Measure")),
    token_ids=TRACE.token_ids,
    logprobs=TRACE.logprobs,
    entropies=TRACE.entropies,
    tolerances={"float32": 0.001},
    model_digest=fake_identity("reference").digest,
)


def loaded(**settings: object) -> HamiltonianModelResource:
    loader = FakeLoader(settings=settings)
    return HamiltonianModelResource("reference", preload=True, loader=loader)


def backend_of(resource: HamiltonianModelResource) -> FakeBackend:
    assert isinstance(resource.handle, FakeBackend)
    return resource.handle


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def pin(**changes: Any) -> None:  # noqa: ANN401 - fields of many types
        fields = {name: getattr(READINGS, name) for name in READINGS.__struct_fields__}
        readings = Readings(**{**fields, **changes})
        monkeypatch.setattr(checks, "load_readings", lambda: readings)

    pin()
    return pin


def test_a_loaded_model_is_healthy() -> None:
    found = check_model(loaded())
    assert (found.status, found.reason) == (
        HealthStatus.HEALTHY,
        "reference on cpu, 4000 bytes",
    )


@pytest.mark.parametrize(("lazy", "when"), [(True, "at first use"), (False, "load()")])
def test_a_model_that_is_not_loaded_is_degraded(lazy: bool, when: str) -> None:
    resource = HamiltonianModelResource("m", lazy=lazy, loader=FakeLoader())
    found = check_model(resource)
    assert found.status is HealthStatus.DEGRADED
    assert when in found.reason


def test_a_model_that_cannot_be_loaded_is_unhealthy() -> None:
    error = ModelUnavailableError("no such model")
    resource = HamiltonianModelResource("m", loader=FakeLoader(errors={"auto": error}))
    with pytest.raises(ModelUnavailableError):
        resource.load()
    found = check_model(resource)
    assert found.status is HealthStatus.UNHEALTHY
    assert "ModelUnavailableError: no such model" in found.reason


def test_a_model_on_another_device_than_asked_is_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cert.trajectory.resources.cuda_available", lambda: True)
    loader = FakeLoader(errors={"auto": GPUOutOfMemoryError("full")})
    found = check_model(HamiltonianModelResource("m", preload=True, loader=loader))
    assert found.status is HealthStatus.DEGRADED
    assert "device:cuda->cpu" in found.reason


def test_inference_is_one_token_generated_now() -> None:
    resource = loaded()
    for _ in range(2):
        assert check_inference(resource, 5.0).status is HealthStatus.HEALTHY
    requests = backend_of(resource).requests
    assert [request.sampling.max_new_tokens for request in requests] == [1, 1]


def test_without_a_model_no_inference_is_claimed_and_nothing_is_loaded() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", loader=loader)
    assert check_inference(resource, 5.0).status is HealthStatus.UNKNOWN
    assert check_instrument(resource, 5.0).status is HealthStatus.UNKNOWN
    assert loader.calls == []


def test_a_model_that_writes_nothing_is_unhealthy() -> None:
    found = check_inference(loaded(eos_after=0), 5.0)
    assert (found.status, found.reason) == (HealthStatus.UNHEALTHY, "no token came: eos")


def test_inference_with_a_fallback_is_degraded() -> None:
    found = check_inference(loaded(fallbacks=("batch_rows:16->8",)), 5.0)
    assert found.status is HealthStatus.DEGRADED
    assert "batch_rows:16->8" in found.reason


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"errors": {checks.PROBE: NumericalError("NaN")}}, "NumericalError: NaN"),
        ({"token_s": 0.5}, "GenerationTimeout"),
    ],
)
def test_a_model_that_does_not_answer_makes_the_whole_unhealthy(
    settings: dict[str, object], reason: str
) -> None:
    report = run_checks(build_checks(loaded(**settings), is_reference=False, timeout_s=0.1))
    assert report.status is HealthStatus.UNHEALTHY
    assert report.checks["inference"].status is HealthStatus.UNHEALTHY
    assert reason in report.checks["inference"].reason


def test_a_model_that_never_answers_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    monkeypatch.setattr(checks, "_GRACE_S", 0.01)
    never: Future[Any] = Future()
    resource = loaded()
    backend_of(resource).submit = lambda request: never  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        check_inference(resource, 0.01)
    assert never.cancelled()


@pytest.mark.usefixtures("pinned")
def test_a_machine_that_measures_as_pinned_is_healthy() -> None:
    found = check_instrument(loaded(), 5.0)
    assert (found.status, found.reason) == (
        HealthStatus.HEALTHY,
        "2 readings within 0 nats of the pinned ones; 0.001 is fine in float32",
    )


def test_a_machine_that_measures_otherwise_is_unhealthy(pinned: Callable[..., None]) -> None:
    pinned(entropies=(TRACE.entropies[0], TRACE.entropies[1] + 0.002))
    found = check_instrument(loaded(), 5.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert "deviate by 0.002 nats" in found.reason
    report = run_checks(build_checks(loaded(), is_reference=True, timeout_s=5.0))
    assert report.status is HealthStatus.UNHEALTHY


def test_quantized_weights_have_a_tolerance_of_their_own(pinned: Callable[..., None]) -> None:
    resource = loaded()
    backend_of(resource).identity = replace(
        backend_of(resource).identity, quantization="dynamic-int8"
    )
    found = check_instrument(resource, 5.0)
    assert (found.status, found.reason) == (
        HealthStatus.UNKNOWN,
        "no tolerance is pinned for dynamic-int8",
    )
    pinned(tolerances={"dynamic-int8": 0.5})
    assert check_instrument(resource, 5.0).status is HealthStatus.HEALTHY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_digest": "sha256:00"}, "pinned for weights sha256:00"),
        ({"prompt_token_ids": (0,)}, "the pinned prompt was tokenized into other tokens"),
        ({"token_ids": (1, 2)}, "other tokens than the pinned ones"),
    ],
)
def test_readings_of_something_else_are_not_compared(
    changes: dict[str, object], reason: str, pinned: Callable[..., None]
) -> None:
    pinned(**changes)
    found = check_instrument(loaded(), 5.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert reason in found.reason


@pytest.mark.parametrize(
    ("memory", "limit_gb", "status"),
    [
        (MemoryInfo(GB, GB, 8 * GB, 4 * GB), None, HealthStatus.HEALTHY),
        (MemoryInfo(GB, GB, 8 * GB, 4 * GB), 1.0, HealthStatus.HEALTHY),
        (MemoryInfo(GB + 1, GB, 8 * GB, 4 * GB), 1.0, HealthStatus.DEGRADED),
        (MemoryInfo(GB, GB, 100 * GB, 4 * GB), None, HealthStatus.DEGRADED),
        (MemoryInfo(None, None, None, None), None, HealthStatus.UNKNOWN),
    ],
)
def test_memory_says_what_is_left(
    memory: MemoryInfo, limit_gb: float | None, status: HealthStatus
) -> None:
    assert check_memory(limit_gb, memory).status is status


def test_a_want_of_memory_alone_is_not_critical() -> None:
    built = build_checks(loaded(), is_reference=True, timeout_s=1.0)
    assert {name for name, check in built.items() if not check.critical} == {"memory"}
    assert "instrument" not in build_checks(loaded(), is_reference=False, timeout_s=1.0)
