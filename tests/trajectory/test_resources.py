from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest
import torch

from cert.core.errors import (
    ConfigurationError,
    CPUFallbackFailed,
    GenerationCancelled,
    GPUOutOfMemoryError,
    ModelNotLoaded,
    ModelUnavailableError,
)
from cert.trajectory import resources
from cert.trajectory.resources import HamiltonianModelResource
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.backends.protocol import Backend

OUT = GPUOutOfMemoryError("CUDA out of memory")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cuda_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cuda_available", lambda: False)


def together(work: Callable[[], object], threads: int = 16) -> list[object]:
    """Run on many threads at the same time; returns what came out, errors included."""
    barrier = threading.Barrier(threads)
    found: list[object] = []

    def run() -> None:
        barrier.wait()
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 - handed to the test
            found.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", loader=loader)
    assert (resource.is_loaded, resource.memory_bytes, loader.calls) == (False, 0, [])


def test_first_use_loads_and_later_use_does_not() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", loader=loader)
    backend = resource.backend
    assert resource.backend is backend
    assert resource.request_backend().result() is backend
    assert len(loader.calls) == 1
    assert (resource.is_loaded, resource.memory_bytes) == (True, 4000)


def test_preload_loads_at_once() -> None:
    loader = FakeLoader()
    assert HamiltonianModelResource("m", preload=True, loader=loader).is_loaded
    assert len(loader.calls) == 1


def test_however_many_threads_ask_it_is_loaded_once() -> None:
    loader = FakeLoader(load_s=0.05)
    resource = HamiltonianModelResource("m", loader=loader)
    ways: list[Callable[[], Backend]] = [
        lambda: resource.backend,
        lambda: resource.request_backend().result(),
        lambda: resource.load().handle,
    ]
    lock = threading.Lock()

    def ask() -> Backend:
        with lock:
            ways.append(ways.pop(0))
            way = ways[0]
        return way()

    assert together(ask) == [loader.backends[0]] * 16
    assert len(loader.calls) == 1


def test_who_must_not_wait_gets_a_future_that_nobody_can_cancel() -> None:
    loader = FakeLoader(load_s=0.05)
    resource = HamiltonianModelResource("m", loader=loader)
    future = resource.request_backend()
    assert not future.done()
    assert resource.request_backend() is future
    assert not future.cancel()
    assert future.result() is loader.backends[0]


def test_settings_reach_the_loader() -> None:
    loader = FakeLoader()
    HamiltonianModelResource(
        "m",
        preload=True,
        device="cpu",
        use_8bit=True,
        dtype="bfloat16",
        batch_rows=3,
        model_aliases={"a": "b"},
        allow_download=True,
        expect_digest="sha256:1",
        max_prompt_chars=5,
        loader=loader,
    )
    assert loader.calls == [
        {
            "spec": "m",
            "device": "cpu",
            "dtype": "bfloat16",
            "quantize": "8bit",
            "batch_rows": 3,
            "aliases": {"a": "b"},
            "allow_download": True,
            "expect_digest": "sha256:1",
            "max_prompt_chars": 5,
        }
    ]


def test_the_environment_stands_in_for_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_MODEL", "from-outside")
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("PRELOAD_MODELS", "true")
    loader = FakeLoader()
    HamiltonianModelResource(loader=loader)
    assert (loader.calls[0]["spec"], loader.calls[0]["device"]) == ("from-outside", "cpu")
    assert loader.calls[0]["allow_download"] is False


def test_contradicting_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        HamiltonianModelResource("m", use_8bit=True, quantize="4bit")


def test_a_block_loads_and_unloads_also_after_an_error() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", loader=loader)
    with resource as entered:
        assert entered is resource
        assert resource.is_loaded
    assert not resource.is_loaded
    with pytest.raises(ZeroDivisionError), resource:
        raise ZeroDivisionError
    assert [backend.closed for backend in loader.backends] == [True, True]


def test_after_unloading_the_next_use_loads_again() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", preload=True, loader=loader)
    resource.unload()
    resource.unload()
    assert (resource.is_loaded, resource.memory_bytes) == (False, 0)
    assert resource.backend is loader.backends[1]
    assert resource.request_backend().result() is loader.backends[1]


def test_what_is_not_lazy_waits_for_load() -> None:
    resource = HamiltonianModelResource("m", lazy=False, loader=FakeLoader())
    with pytest.raises(ModelNotLoaded):
        _ = resource.backend
    with pytest.raises(ModelNotLoaded):
        resource.request_backend().result()
    resource.load()
    assert resource.backend is resource.request_backend().result()


def test_unloading_waits_for_a_load_in_progress() -> None:
    loader = FakeLoader(load_s=0.05)
    resource = HamiltonianModelResource("m", loader=loader)
    future = resource.request_backend()
    while not loader.calls:
        threading.Event().wait(0.001)
    resource.unload()
    assert not resource.is_loaded
    assert loader.backends[0].closed
    # Whoever asked before sees either the closed model or that there is none; never a hang.
    assert isinstance(future.exception(5), ModelNotLoaded | None)


def test_a_failed_load_reaches_everybody_who_waited_and_is_tried_again() -> None:
    error = ModelUnavailableError("no such model")
    loader = FakeLoader(errors={"auto": error})
    resource = HamiltonianModelResource("m", loader=loader)
    assert together(lambda: resource.request_backend().result(), 4) == [error] * 4
    assert resource.load_error is error
    assert not resource.is_loaded
    loader.errors = {}
    assert resource.backend is loader.backends[0]
    assert resource.load_error is None


@pytest.mark.usefixtures("no_gpu")
def test_a_missing_gpu_is_replaced_by_the_cpu_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = FakeLoader()
    with caplog.at_level(logging.WARNING, "cert"):
        resource = HamiltonianModelResource("m", preload=True, device="cuda", loader=loader)
    assert [call["device"] for call in loader.calls] == ["cpu"]
    assert resource.fallbacks == ("device:cuda->cpu",)
    assert [record.message for record in caplog.records] == ["falling back to the CPU"]
    assert caplog.records[0].reason == "no CUDA device was found"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("error", [OUT, torch.OutOfMemoryError("CUDA out of memory")])
def test_a_gpu_that_is_too_small_is_replaced_by_the_cpu(
    device: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    loader = FakeLoader(errors={device: error})
    with caplog.at_level(logging.WARNING, "cert"):
        resource = HamiltonianModelResource("m", preload=True, device=device, loader=loader)
    assert [call["device"] for call in loader.calls] == [device, "cpu"]
    assert resource.fallbacks == ("device:cuda->cpu",)
    assert resource.backend.identity.device == "cpu"
    assert "CUDA out of memory" in caplog.records[0].reason


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("second", [MemoryError("RAM"), ConfigurationError("no 4bit on a CPU")])
def test_when_the_cpu_fails_too_both_reasons_are_told(second: Exception) -> None:
    loader = FakeLoader(errors={"cuda": OUT, "cpu": second})
    resource = HamiltonianModelResource("m", device="cuda", loader=loader)
    with pytest.raises(CPUFallbackFailed, match=f"CUDA out of memory.*{second}"):
        resource.load()
    assert isinstance(resource.load_error, CPUFallbackFailed)


@pytest.mark.parametrize(
    "error", [MemoryError("RAM"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_cpu_that_is_too_small_is_no_fallback(error: Exception) -> None:
    loader = FakeLoader(errors={"cpu": error})
    resource = HamiltonianModelResource("m", device="cpu", loader=loader)
    with pytest.raises(GPUOutOfMemoryError, match="the CPU has too little memory") as caught:
        resource.load()
    assert type(caught.value) is GPUOutOfMemoryError
    assert resource.fallbacks == ()


def test_an_unforeseen_error_comes_out_as_it_is() -> None:
    error = RuntimeError("something else")
    resource = HamiltonianModelResource("m", loader=FakeLoader(errors={"auto": error}))
    with pytest.raises(RuntimeError, match="something else"):
        resource.load()


@pytest.mark.usefixtures("gpu")
def test_fallbacks_of_an_earlier_load_are_forgotten() -> None:
    loader = FakeLoader(errors={"auto": OUT})
    resource = HamiltonianModelResource("m", preload=True, loader=loader)
    resource.unload()
    loader.errors = {}
    resource.load()
    assert resource.fallbacks == ()


def test_a_model_over_the_memory_limit_is_freed_and_refused() -> None:
    loader = FakeLoader()
    resource = HamiltonianModelResource("m", max_memory_gb=1e-6, loader=loader)
    with pytest.raises(ModelUnavailableError, match="MAX_MEMORY_GB allows 1e-06 GB"):
        resource.load()
    assert loader.backends[0].closed
    assert not resource.is_loaded
    assert HamiltonianModelResource("m", max_memory_gb=1000.0, preload=True, loader=loader)


def test_unloading_ends_requests_in_flight() -> None:
    from cert.backends.protocol import GenerationRequest

    loader = FakeLoader()
    resource = HamiltonianModelResource("m", preload=True, loader=loader)
    loader.backends[0].gate.clear()
    future = resource.backend.submit(GenerationRequest("1", "Hello"))
    resource.unload()
    assert isinstance(future.exception(5), GenerationCancelled)


def test_without_torch_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    assert resources.cuda_available() is False


def test_torch_says_whether_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resources.cuda_available() is there
