from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cert.assessment.policy import Policy, Threshold
from cert.backends.protocol import FinishReason
from cert.core.config import CERTConfig
from cert.core.errors import (
    AnalysisError,
    ConfigurationError,
    ModelUnavailableError,
    PolicyError,
)
from cert.core.health import HealthStatus
from cert.observability import correlation_id_context
from cert.trajectory import AnalysisResult, HamiltonianMonitor
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.observability.metrics import MetricsCollector


@pytest.fixture
def monitor(metrics: MetricsCollector) -> Callable[..., HamiltonianMonitor]:
    def make(loader: FakeLoader | None = None, **options: object) -> HamiltonianMonitor:
        loader = FakeLoader() if loader is None else loader
        return HamiltonianMonitor(metrics=metrics, loader=loader, **options)

    return make


def good(found: object) -> AnalysisResult:
    assert isinstance(found, AnalysisResult), found
    return found


def bad(found: object) -> AnalysisError:
    assert isinstance(found, AnalysisError), found
    return found


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    assert condition()


def cancelled(count: Callable[..., float]) -> float:
    return count("cert_requests_total", service="hamiltonian", status="cancelled")


def test_without_arguments_it_is_the_embedded_model(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    found = good(monitor().analyze("Explain AI"))
    assert (found.identity.name, found.assessment.policy_id) == ("reference", "reference")
    assert found.passed_quality_check


def test_arguments_reach_what_they_name(monitor: Callable[..., HamiltonianMonitor]) -> None:
    loader = FakeLoader()
    one = monitor(
        loader,
        model_name="some/model",
        use_8bit=True,
        device="cpu",
        policy="strict",
        max_new_tokens=5,
        temperature=0.5,
        top_k=4,
        top_p=0.9,
        seed=3,
        stop=["\n"],
        chat="never",
        timeout=9.0,
        cache_size=2,
    )
    found = good(one.analyze("Explain AI"))
    assert (loader.calls[0]["spec"], loader.calls[0]["quantize"]) == ("some/model", "8bit")
    request = loader.backends[0].requests[0]
    sampling = request.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.seed) == (5, 0.5, 3)
    assert (sampling.top_k, sampling.top_p, sampling.stop) == (4, 0.9, ("\n",))
    assert request.chat == "never"
    assert request.timeout_s == pytest.approx(9.0, abs=1.0)
    assert found.assessment.policy_id == "strict"
    assert one.engine.cache_info().max_size == 2


def test_a_temperature_of_zero_is_zero(
    monitor: Callable[..., HamiltonianMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_TEMPERATURE", "0.9")
    assert monitor(temperature=0.0).sampling.temperature == 0.0
    assert monitor().sampling.temperature == 0.9


def test_the_configured_policy_is_used(monitor: Callable[..., HamiltonianMonitor]) -> None:
    assert monitor(config=CERTConfig(policy="strict")).engine.policy.id == "strict"
    own = Policy(id="own", version=1, checks=(Threshold("tokens", ">", 0.0),))
    assert monitor(config=CERTConfig(policy="strict"), policy=own).engine.policy is own


def test_wrong_settings_are_told_at_once(monitor: Callable[..., HamiltonianMonitor]) -> None:
    with pytest.raises(ConfigurationError, match="temperature"):
        monitor(temperature=-1.0)
    loader = FakeLoader()
    with pytest.raises(PolicyError):
        monitor(loader, policy="no-such-policy", preload=True)
    assert loader.calls == []


def test_preloading_loads_in_the_constructor_and_raises_there(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    loader = FakeLoader()
    assert monitor(loader, preload=True).resource.is_loaded
    missing = FakeLoader(errors={"auto": ModelUnavailableError("none")})
    with pytest.raises(ModelUnavailableError):
        monitor(missing, preload=True)
    assert bad(monitor(missing).analyze("Hi")).error_type == "ModelUnavailableError"


def test_the_environment_preloads(
    monitor: Callable[..., HamiltonianMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELOAD_MODELS", "true")
    assert monitor().resource.is_loaded
    assert not monitor(preload=False).resource.is_loaded


def test_a_block_loads_and_unloads(monitor: Callable[..., HamiltonianMonitor]) -> None:
    loader = FakeLoader()
    with monitor(loader) as one:
        assert one.resource.is_loaded
        good(one.analyze("Hi"))
    assert loader.backends[0].closed
    assert not one.resource.is_loaded
    good(one.analyze("Hello"))
    assert len(loader.backends) == 2


def test_two_monitors_live_in_one_process() -> None:
    monitors = [HamiltonianMonitor(loader=FakeLoader()) for _ in range(2)]
    assert all(good(one.analyze("Hi")).passed_quality_check for one in monitors)


def test_a_response_is_scored(monitor: Callable[..., HamiltonianMonitor]) -> None:
    found = good(monitor().analyze("Explain AI", response="it is a model"))
    assert found.generation.finish_reason is FinishReason.SCORED
    assert found.generated_text == "it is a model"


def test_ids_follow_from_the_content_unless_given(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    one = monitor()
    assert good(one.analyze("Hello")).case.id == "185f8db32271fe25"
    assert good(one.analyze("Hello", id="mine")).case.id == "mine"


@pytest.mark.parametrize("prompt", [None, 7, b"x", "", "  ", "\ud800"])
def test_what_is_no_text_is_an_error(
    prompt: object, monitor: Callable[..., HamiltonianMonitor]
) -> None:
    assert bad(monitor().analyze(prompt)).error_type == "InvalidInput"


def test_a_timeout_of_the_call_wins_over_the_monitors(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    one = monitor(FakeLoader(settings={"token_s": 0.2}), timeout=0.05)
    assert bad(one.analyze("Hi")).error_type == "GenerationTimeout"
    assert good(one.analyze("Hi", timeout=0.5)).generation.finish_reason is FinishReason.TIMEOUT


# Asynchronous


async def test_many_at_once(monitor: Callable[..., HamiltonianMonitor]) -> None:
    loader = FakeLoader(load_s=0.05)
    one = monitor(loader)
    prompts = [f"Prompt {n}" for n in range(30)]
    results = await asyncio.gather(*(one.analyze_async(prompt) for prompt in prompts))
    assert [good(result).prompt for result in results] == prompts
    assert len(loader.calls) == 1


async def test_the_event_loop_goes_on_while_the_model_loads(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    one = monitor(FakeLoader(load_s=0.3))
    task = asyncio.create_task(one.analyze_async("Hi"))
    ticks = 0
    while not task.done():
        began = time.monotonic()
        await asyncio.sleep(0.005)
        ticks += time.monotonic() - began < 0.15
    assert ticks > 10
    good(task.result())


async def test_errors_are_returned(monitor: Callable[..., HamiltonianMonitor]) -> None:
    assert bad(await monitor().analyze_async("")).error_type == "InvalidInput"
    slow = monitor(FakeLoader(settings={"token_s": 0.2}))
    assert bad(await slow.analyze_async("Hi", timeout=0.05)).error_type == "GenerationTimeout"
    found = good(await slow.analyze_async("Hi", response="one word", id="x"))
    assert (found.generated_text, found.case.id) == ("one word", "x")


async def test_the_correlation_id_goes_along(monitor: Callable[..., HamiltonianMonitor]) -> None:
    one = monitor()

    async def ask(name: str) -> str | None:
        with correlation_id_context(name):
            return good(await one.analyze_async(f"Prompt {name}")).correlation_id

    assert await asyncio.gather(ask("a"), ask("b")) == ["a", "b"]


async def test_cancelling_the_task_takes_the_request_back(
    monitor: Callable[..., HamiltonianMonitor], count: Callable[..., float]
) -> None:
    loader = FakeLoader(settings={"token_s": 0.01})
    one = monitor(loader, preload=True)
    backend = loader.backends[0]
    task = asyncio.create_task(one.analyze_async("Hi"))
    await eventually(lambda: len(backend.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: cancelled(count) == 1)


async def test_cancelling_while_the_request_is_being_submitted(
    monitor: Callable[..., HamiltonianMonitor], count: Callable[..., float]
) -> None:
    loader = FakeLoader(settings={"token_s": 0.05})
    one = monitor(loader, preload=True)
    held = threading.Event()
    submit, submitting = loader.backends[0].submit, threading.Event()

    def slow_tokenizer(request: object) -> object:
        submitting.set()
        held.wait(5)
        return submit(request)

    loader.backends[0].submit = slow_tokenizer
    task = asyncio.create_task(one.analyze_async("Hi"))
    await asyncio.to_thread(submitting.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.set()
    await eventually(lambda: cancelled(count) == 1)


# Batches


def test_a_batch_comes_back_in_order_with_its_errors(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    prompts = ["Explain AI", "", "What is ML?", 3, "Define NLP"]
    results = monitor().analyze_batch(prompts)
    assert [type(result) for result in results] == [
        AnalysisResult,
        AnalysisError,
        AnalysisResult,
        AnalysisError,
        AnalysisResult,
    ]
    assert [good(results[n]).prompt for n in (0, 2, 4)] == [prompts[n] for n in (0, 2, 4)]
    assert [result.passed_quality_check for result in results] == [True, False, True, False, True]


def test_a_batch_member_equals_the_prompt_alone(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    options = {"temperature": 0.8, "seed": 5}
    together = monitor(**options).analyze_batch(["a", "b", "a"])
    alone = monitor(**options).analyze("b")
    assert good(together[1]).generated_text == good(alone).generated_text
    assert good(together[0]).generated_text == good(together[2]).generated_text


def test_prompts_may_be_any_iterable(monitor: Callable[..., HamiltonianMonitor]) -> None:
    assert len(monitor().analyze_batch(str(n) for n in range(3))) == 3


def test_an_empty_batch_loads_nothing(monitor: Callable[..., HamiltonianMonitor]) -> None:
    loader = FakeLoader()
    assert monitor(loader).analyze_batch([]) == []
    assert loader.calls == []


def test_one_string_is_no_batch(monitor: Callable[..., HamiltonianMonitor]) -> None:
    with pytest.raises(TypeError, match="one string"):
        monitor().analyze_batch("Explain AI")


def test_the_timeout_is_for_the_whole_batch(monitor: Callable[..., HamiltonianMonitor]) -> None:
    one = monitor(FakeLoader(settings={"token_s": 0.02}))
    began = time.monotonic()
    results = one.analyze_batch([f"Prompt {n}" for n in range(4)], timeout=0.3)
    assert time.monotonic() - began < 5.0
    assert {good(result).generation.finish_reason for result in results} == {FinishReason.TIMEOUT}


def test_a_batch_without_a_token_in_time_is_timeouts(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    one = monitor(FakeLoader(settings={"token_s": 0.3}))
    results = one.analyze_batch(["a", "b"], timeout=0.1)
    assert [bad(result).error_type for result in results] == ["GenerationTimeout"] * 2


def test_loading_counts_for_a_batchs_timeout(monitor: Callable[..., HamiltonianMonitor]) -> None:
    one = monitor(FakeLoader(load_s=2.0))
    began = time.monotonic()
    results = one.analyze_batch(["a", "", "b"], timeout=0.05)
    assert time.monotonic() - began < 1.9
    assert [bad(result).error_type for result in results] == [
        "GenerationTimeout",
        "InvalidInput",
        "GenerationTimeout",
    ]


def test_a_batch_without_a_limit_waits(monitor: Callable[..., HamiltonianMonitor]) -> None:
    one = monitor(FakeLoader(load_s=0.05), timeout=0.01)
    assert good(one.analyze_batch(["a"], timeout=None)[0]).passed_quality_check


def test_a_model_that_does_not_exist_is_told_for_each_prompt(
    monitor: Callable[..., HamiltonianMonitor],
) -> None:
    one = monitor(FakeLoader(errors={"auto": ModelUnavailableError("none")}))
    results = one.analyze_batch(["a", "b"])
    assert [bad(result).error_type for result in results] == ["ModelUnavailableError"] * 2


def test_an_interrupt_takes_the_whole_batch_back(
    monitor: Callable[..., HamiltonianMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = FakeLoader()
    one = monitor(loader, preload=True)
    loader.backends[0].gate.clear()
    submit, futures = one.engine.submit, []

    def interrupted_at_the_third(case: object, **options: object) -> object:
        if len(futures) == 2:
            raise KeyboardInterrupt
        futures.append(submit(case, **options))
        return futures[-1]

    monkeypatch.setattr(one.engine, "submit", interrupted_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        one.analyze_batch(["a", "b", "c"])
    assert [future.cancelled() for future in futures] == [True, True]
    loader.backends[0].gate.set()


def test_health_is_of_this_monitor(monitor: Callable[..., HamiltonianMonitor]) -> None:
    one = monitor(model_name="some/model")
    before = one.health_check()
    assert before.status is HealthStatus.DEGRADED
    assert set(before.checks) == {"model", "inference", "memory"}
    one.resource.load()
    after = one.health_check()
    assert (bool(after.checks["model"]), bool(after.checks["inference"])) == (True, True)
    assert after.status.value == "healthy"
    assert set(monitor().health_check().checks) == {"model", "inference", "memory", "instrument"}
