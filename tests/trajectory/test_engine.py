from __future__ import annotations

import logging
import math
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cert.assessment.policy import Policy, Threshold
from cert.assessment.verdict import Verdict
from cert.backends.protocol import FinishReason, GenerationRequest, SamplingParams
from cert.core.errors import (
    AnalysisError,
    ConfigurationError,
    GPUOutOfMemoryError,
    ModelUnavailableError,
    NumericalError,
    PolicyError,
)
from cert.inputs.case import PromptCase
from cert.observability import correlation_id_context
from cert.trajectory import AnalysisResult, HamiltonianEngine, HamiltonianModelResource
from tests.fakes import FakeBackend, FakeLoader, fake_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.observability.metrics import MetricsCollector

CASE = PromptCase(id="one", text="Explain AI")
DRAWN = SamplingParams(max_new_tokens=8, temperature=0.8, seed=7)


class Bench:
    """An engine over a fake model, and the way into both."""

    def __init__(
        self,
        metrics: MetricsCollector,
        *,
        loader: FakeLoader | None = None,
        policy: Policy | str | None = None,
        cache_size: int = 1000,
        model: str = "some/model",
        lazy: bool = True,
        **settings: object,
    ) -> None:
        self.loader = FakeLoader(settings=settings) if loader is None else loader
        self.resource = HamiltonianModelResource(
            model, loader=self.loader, lazy=lazy, max_prompt_chars=5000
        )
        self.engine = HamiltonianEngine(
            self.resource, metrics=metrics, policy=policy, cache_size=cache_size
        )

    @property
    def backend(self) -> FakeBackend:
        backend = self.resource.backend
        assert isinstance(backend, FakeBackend)
        return backend

    def result(self, case: PromptCase = CASE, **options: object) -> AnalysisResult:
        found = self.engine.analyze(case, **options)
        assert isinstance(found, AnalysisResult), found
        return found

    def error(self, case: PromptCase = CASE, **options: object) -> AnalysisError:
        found = self.engine.analyze(case, **options)
        assert isinstance(found, AnalysisError), found
        return found


@pytest.fixture
def bench(metrics: MetricsCollector) -> Callable[..., Bench]:
    def make(**options: object) -> Bench:
        return Bench(metrics, **options)

    return make


def test_a_prompt_becomes_a_result(bench: Callable[..., Bench]) -> None:
    one = bench()
    found = one.result(sampling=SamplingParams(max_new_tokens=3), correlation_id="req-1")
    assert found.case is CASE
    assert found.generation.finish_reason is FinishReason.LENGTH
    assert found.generation.trace == fake_trace(found.generated_text.split())
    assert found.identity is one.backend.identity
    assert (found.cached, found.correlation_id) == (False, "req-1")
    assert found.assessment.policy_id == "default"
    assert found.total_s >= found.generation.generate_s
    sent = one.backend.requests[0]
    assert sent == GenerationRequest(
        "one", "Explain AI", SamplingParams(max_new_tokens=3), correlation_id="req-1"
    )


def test_a_response_is_scored(bench: Callable[..., Bench]) -> None:
    found = bench().result(replace(CASE, response="every word"))
    assert found.generation.finish_reason is FinishReason.SCORED
    assert found.generated_text == "every word"
    assert found.generation.trace == fake_trace(["every", "word"])


@pytest.mark.parametrize(("model", "policy"), [("reference", "reference"), ("other", "default")])
def test_the_embedded_model_has_a_policy_of_its_own(
    model: str, policy: str, bench: Callable[..., Bench]
) -> None:
    assert bench(model=model).result().assessment.policy_id == policy


def test_a_named_policy_judges_the_embedded_model_too(bench: Callable[..., Bench]) -> None:
    one = bench(model="reference", policy="strict")
    assert one.result().assessment.policy_id == "strict"
    assert one.result(policy="default").assessment.policy_id == "default"


def test_an_unknown_policy_is_an_error_when_the_engine_is_made(bench: Callable[..., Bench]) -> None:
    with pytest.raises(PolicyError):
        bench(policy="no-such-policy")


def test_an_unknown_policy_of_one_request_concerns_that_request(
    bench: Callable[..., Bench],
) -> None:
    assert bench().error(policy="no-such-policy").error_type == "PolicyError"


def test_a_negative_cache_is_refused(bench: Callable[..., Bench]) -> None:
    with pytest.raises(ConfigurationError, match="cache_size must be at least 0"):
        bench(cache_size=-1)


# Validation


@pytest.mark.parametrize(
    ("case", "error_type"),
    [
        (PromptCase("1", ""), "InvalidInput"),
        (PromptCase("1", " \n"), "InvalidInput"),
        (PromptCase("1", 7), "InvalidInput"),  # type: ignore[arg-type]
        (PromptCase("1", "a\udfff"), "InvalidInput"),
        (PromptCase("1", "a", response=""), "InvalidInput"),
        (PromptCase("1", "a", response=b"x"), "InvalidInput"),  # type: ignore[arg-type]
        (PromptCase("1", "x" * 5001), "PromptTooLong"),
        (PromptCase("1", "a", response="x" * 5001), "PromptTooLong"),
        (PromptCase("1", "x " * 511), "PromptTooLong"),
    ],
)
def test_bad_input_is_returned_as_an_error(
    case: PromptCase, error_type: str, bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    found = bench().error(case)
    assert (found.error_type, found.recoverable, found.retry_after) == (error_type, False, None)
    assert count("cert_requests_total", service="hamiltonian", status="refused") == 1


def test_too_many_characters_are_refused_before_anything_is_loaded(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.error(PromptCase("1", "x" * 5001))
    assert one.loader.calls == []


def test_bad_settings_are_returned_as_an_error(bench: Callable[..., Bench]) -> None:
    found = bench().error(sampling=SamplingParams(max_new_tokens=0))
    assert found.error_type == "ConfigurationError"


def test_a_text_that_fills_the_context_says_that_it_was_cut(bench: Callable[..., Bench]) -> None:
    found = bench().result(PromptCase("1", "x " * 508), sampling=SamplingParams(max_new_tokens=10))
    assert len(found.generation.trace) == 3
    assert found.generation.finish_reason is FinishReason.LENGTH
    assert found.generation.fallbacks == ("max_new_tokens:10->3",)


def test_a_text_with_room_says_nothing(bench: Callable[..., Bench]) -> None:
    case = PromptCase("1", "x " * 508)
    assert (
        bench().result(case, sampling=SamplingParams(max_new_tokens=3)).generation.fallbacks == ()
    )
    ended = bench(eos_after=1).result(case, sampling=SamplingParams(max_new_tokens=10))
    assert ended.generation.fallbacks == ()


# Cache


def test_the_same_request_is_measured_once(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    one = bench(token_s=0.001)
    first = one.result(correlation_id="a")
    again = one.result(replace(CASE, id="two", line=9), correlation_id="b")
    assert len(one.backend.requests) == 1
    assert (first.cached, again.cached) == (False, True)
    assert again.generation.trace == first.generation.trace
    assert again.summary == first.summary
    assert (again.case.id, again.correlation_id) == ("two", "b")
    assert (again.generation.queued_s, again.generation.generate_s) == (0.0, 0.0)
    assert again.total_s < first.total_s
    assert count("cert_cache_hits_total", cache_type="analysis") == 1
    assert count("cert_cache_misses_total", cache_type="analysis") == 1
    assert (one.engine.cache_info().hits, one.engine.cache_info().size) == (1, 1)
    one.engine.clear_cache()
    assert not one.result().cached


def test_another_policy_judges_the_cached_measurement_anew(bench: Callable[..., Bench]) -> None:
    one = bench()
    assert one.result().verdict is Verdict.PASS
    harsh = Policy(id="harsh", version=1, checks=(Threshold("tokens", "<", 1.0),))
    again = one.result(policy=harsh)
    assert (again.cached, again.verdict, again.assessment.policy_id) == (
        True,
        Verdict.FAIL,
        "harsh",
    )


def test_seeded_sampling_is_cached_by_prompt_id(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = one.result(sampling=DRAWN)
    assert one.result(sampling=DRAWN).cached
    other = one.result(replace(CASE, id="two"), sampling=DRAWN)
    assert not other.cached
    assert other.generated_text != first.generated_text


def test_unseeded_sampling_is_never_cached(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    one = bench()
    unseeded = replace(DRAWN, seed=None)
    seeds = [one.result(sampling=unseeded).generation.sampling.seed for _ in range(2)]
    assert seeds == [1, 2]
    assert one.engine.cache_info().size == 0
    assert count("cert_cache_misses_total", cache_type="analysis") == 0


def test_another_model_in_the_same_resource_does_not_answer_from_the_old_ones_cache(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.result()
    one.resource.unload()
    one.backend.identity = replace(one.backend.identity, digest="sha256:other")
    assert not one.result().cached


def test_a_text_cut_off_by_its_deadline_is_measured_again(bench: Callable[..., Bench]) -> None:
    one = bench(token_s=0.02)
    assert one.result(timeout=0.4).generation.finish_reason is FinishReason.TIMEOUT
    assert not one.result(sampling=SamplingParams(max_new_tokens=2)).cached
    assert one.engine.cache_info().size == 1


def test_a_cached_answer_comes_however_short_the_deadline(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.result()
    assert one.result(timeout=0.05).cached


# Deadlines and cancellation


def test_a_deadline_returns_what_there_is(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    found = bench(token_s=0.02).result(timeout=0.4)
    assert found.generation.finish_reason is FinishReason.TIMEOUT
    assert 1 <= len(found.generation.trace) <= 20
    assert found.verdict is Verdict.INCONCLUSIVE
    assert count("cert_requests_total", service="hamiltonian", status="timeout") == 1


def test_a_deadline_before_the_first_token_is_a_generation_timeout(
    bench: Callable[..., Bench],
) -> None:
    found = bench(token_s=0.2).error(timeout=0.05)
    assert (found.error_type, found.recoverable, found.retry_after) == (
        "GenerationTimeout",
        True,
        1.0,
    )


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_a_deadline_in_the_past_costs_nothing(timeout: float, bench: Callable[..., Bench]) -> None:
    one = bench()
    assert one.error(timeout=timeout).error_type == "GenerationTimeout"
    assert one.loader.calls == []


def test_a_deadline_that_is_no_number_is_refused(bench: Callable[..., Bench]) -> None:
    assert bench().error(timeout=math.nan).error_type == "InvalidInput"


def test_an_endless_deadline_is_none(bench: Callable[..., Bench]) -> None:
    one = bench(loader=FakeLoader(load_s=0.02))
    assert one.result(timeout=math.inf).generation.finish_reason is FinishReason.LENGTH


def test_cancelling_takes_the_request_back(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    one = bench()
    one.backend.gate.clear()
    future = one.engine.submit(CASE)
    assert future.cancel()
    one.backend.gate.set()
    settled = time.monotonic() + 5
    while not count("cert_requests_total", service="hamiltonian", status="cancelled"):
        assert time.monotonic() < settled
        time.sleep(0.001)
    assert future.cancelled()


def test_cancelling_while_the_model_loads_submits_nothing(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    one = bench(loader=FakeLoader(load_s=0.05))
    future = one.engine.submit(CASE)
    assert future.cancel()
    assert one.result(PromptCase("2", "Another")).verdict is Verdict.PASS
    assert [request.prompt for request in one.backend.requests] == ["Another"]
    assert count("cert_requests_total", service="hamiltonian", status="cancelled") == 1


def test_an_interrupt_takes_the_request_back(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    one.backend.gate.clear()
    submit = one.engine.submit
    futures = []

    def interrupted(case: PromptCase, **options: object) -> Future[Any]:
        future = submit(case, **options)
        futures.append(future)

        def result(timeout: float | None = None) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(future, "result", result)
        return future

    monkeypatch.setattr(one.engine, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.engine.analyze(CASE)
    assert futures[0].cancelled()
    one.backend.gate.set()


# Loading


def test_a_model_that_loads_too_slowly_is_not_loaded_yet(bench: Callable[..., Bench]) -> None:
    one = bench(loader=FakeLoader(load_s=2.0))
    began = time.monotonic()
    found = one.error(timeout=0.05)
    assert time.monotonic() - began < 1.9
    assert (found.error_type, found.recoverable, found.retry_after) == ("ModelNotLoaded", True, 5.0)
    assert one.result().verdict is Verdict.PASS
    assert len(one.loader.calls) == 1


def test_submitting_does_not_wait_for_the_model(bench: Callable[..., Bench]) -> None:
    one = bench(loader=FakeLoader(load_s=2.0))
    began = time.monotonic()
    futures = [one.engine.submit(replace(CASE, text=f"Prompt {n}")) for n in range(8)]
    assert time.monotonic() - began < 1.9
    assert all(isinstance(future.result(), AnalysisResult) for future in futures)
    assert len(one.loader.calls) == 1


def test_a_deadline_counts_from_submission_loading_included(bench: Callable[..., Bench]) -> None:
    one = bench(loader=FakeLoader(load_s=0.1))
    one.result(timeout=5.0)
    left = one.backend.requests[0].timeout_s
    assert left is not None
    assert left < 4.95


def test_a_model_that_nobody_loaded_is_not_loaded(bench: Callable[..., Bench]) -> None:
    one = bench(lazy=False)
    assert one.error().error_type == "ModelNotLoaded"
    one.resource.load()
    assert one.result()


def test_a_model_that_does_not_exist_is_told_for_each_prompt(bench: Callable[..., Bench]) -> None:
    missing = ModelUnavailableError("there is no such model")
    one = bench(loader=FakeLoader(errors={"auto": missing}))
    for _ in range(2):
        assert one.error().error_type == "ModelUnavailableError"
    one.loader.errors = {}
    assert one.result()


def test_unloading_returns_what_is_in_flight_as_cancelled(bench: Callable[..., Bench]) -> None:
    one = bench(token_s=0.01)
    running = one.engine.submit(CASE)
    while not one.backend.requests:
        time.sleep(0.001)
    time.sleep(0.05)
    one.resource.unload()
    found = running.result(5)
    assert isinstance(found, AnalysisResult)
    assert found.generation.finish_reason is FinishReason.CANCELLED
    assert found.verdict is Verdict.INCONCLUSIVE
    assert one.engine.cache_info().size == 0


def test_unloading_before_the_first_token_is_a_cancelled_generation(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.backend.gate.clear()
    waiting = one.engine.submit(CASE)
    one.resource.unload()
    found = waiting.result(5)
    assert isinstance(found, AnalysisError)
    assert found.error_type == "GenerationCancelled"


def test_a_model_unloaded_under_the_engines_hands_is_not_loaded(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.backend.close()
    assert one.error().error_type == "ModelNotLoaded"


def test_fallbacks_of_loading_are_in_every_result(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cert.trajectory.resources.cuda_available", lambda: True)
    loader = FakeLoader(
        errors={"auto": GPUOutOfMemoryError("full")}, settings={"fallbacks": ("batch_rows:16->8",)}
    )
    found = bench(loader=loader).result()
    assert found.generation.fallbacks == ("device:cuda->cpu", "batch_rows:16->8")
    assert found.generation.device == "cpu"


# Errors


@pytest.mark.parametrize("where", ["errors", "submit_errors"])
def test_what_the_backend_raises_on_purpose_keeps_its_name(
    where: str, bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    found = bench(**{where: {CASE.text: NumericalError("NaN")}}).error()
    assert found == AnalysisError("NumericalError", "NaN", recoverable=False)
    assert count("cert_requests_total", service="hamiltonian", status="error") == 1


@pytest.mark.parametrize("where", ["errors", "submit_errors"])
def test_what_nobody_foresaw_is_an_internal_error_with_a_traceback_in_the_log(
    where: str, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    one = bench(**{where: {CASE.text: ZeroDivisionError("oops")}})
    with caplog.at_level(logging.ERROR, "cert"):
        found = one.error(correlation_id="req-9")
    assert (found.error_type, found.recoverable) == ("InternalError", False)
    assert found.message == "ZeroDivisionError: oops"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text


def test_a_backend_that_cancels_by_itself_is_reported(bench: Callable[..., Bench]) -> None:
    one = bench()
    taken: Future[Any] = Future()
    one.backend.submit = lambda request: taken  # type: ignore[method-assign]
    future = one.engine.submit(CASE)
    taken.cancel()
    found = future.result(5)
    assert isinstance(found, AnalysisError)
    assert found.error_type == "GenerationCancelled"


def test_one_prompts_error_leaves_the_others_alone(bench: Callable[..., Bench]) -> None:
    one = bench(errors={"bad": RuntimeError("x")})
    futures = [one.engine.submit(PromptCase(t, t)) for t in ("good", "bad", "", "fine")]
    kinds = [type(future.result()) for future in futures]
    assert kinds == [AnalysisResult, AnalysisError, AnalysisError, AnalysisResult]


# Metrics, logs and ids


def test_a_verdict_is_counted_with_its_perplexity(
    bench: Callable[..., Bench], count: Callable[..., float]
) -> None:
    bench().result()
    bench(logprob=-5.0).result()
    quality = "cert_hamiltonian_quality_checks_total"
    assert (count(quality, result="pass"), count(quality, result="fail")) == (1, 1)
    assert count("cert_hamiltonian_perplexity_count") == 2
    assert count("cert_hamiltonian_perplexity_sum") > math.exp(5.0)
    assert count("cert_requests_total", service="hamiltonian", status="success") == 2
    duration = "cert_request_duration_seconds_count"
    assert count(duration, service="hamiltonian", operation="analyze") == 2
    bench().result(replace(CASE, response="word"))
    assert count(duration, service="hamiltonian", operation="score") == 1


def test_a_result_that_cannot_be_counted_reaches_the_caller_all_the_same(
    bench: Callable[..., Bench],
    metrics: MetricsCollector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("metrics are broken")

    monkeypatch.setattr(metrics, "record_quality_check", broken)
    assert bench().engine.submit(CASE).result(5).passed_quality_check
    assert "analysis not counted" in caplog.messages


def test_log_lines_hold_the_outcome_and_no_text(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    one = bench()
    with caplog.at_level(logging.DEBUG, "cert"):
        one.result(PromptCase("p1", "my secret prompt"))
        one.error(PromptCase("p2", "my secret prompt" + "x" * 5000))
    lines = {record.prompt_id: record for record in caplog.records if hasattr(record, "prompt_id")}
    assert lines["p1"].message == "analysis finished"
    assert (lines["p1"].verdict, lines["p1"].tokens, lines["p1"].cached) == ("pass", 64, False)
    assert lines["p2"].message == "analysis failed"
    assert lines["p2"].error_type == "PromptTooLong"
    assert lines["p2"].levelno == logging.INFO
    assert not any("secret" in str(vars(record)) for record in caplog.records)


def test_the_current_correlation_id_is_taken_and_restored(bench: Callable[..., Bench]) -> None:
    one = bench()
    seen = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            from cert.observability import get_correlation_id

            seen.append(get_correlation_id())

    logger = logging.getLogger("cert.trajectory.counting")
    listener = Listener()
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        with correlation_id_context("outer"):
            assert one.result().correlation_id == "outer"
        drawn = one.result(PromptCase("x", "x")).correlation_id
    finally:
        logger.removeHandler(listener)
        logger.setLevel(logging.NOTSET)
    assert drawn not in {None, "outer"}
    assert seen == ["outer", drawn]


def test_a_correlation_id_that_forges_log_lines_is_the_callers_bug(
    bench: Callable[..., Bench],
) -> None:
    with pytest.raises(ValueError, match="control characters"):
        bench().engine.submit(CASE, correlation_id="a\nb")


def test_two_engines_without_a_registry_of_their_own_share_the_processs() -> None:
    for _ in range(2):
        resource = HamiltonianModelResource("m", loader=FakeLoader())
        assert isinstance(HamiltonianEngine(resource).analyze(CASE), AnalysisResult)


# Threads


def test_many_threads_get_their_own_results(bench: Callable[..., Bench]) -> None:
    one = bench(loader=FakeLoader(load_s=0.02))
    found: dict[int, AnalysisResult | AnalysisError] = {}

    def work(number: int) -> None:
        for repeat in range(5):
            case = PromptCase(f"{number}-{repeat}", f"Prompt {number}")
            found[number * 10 + repeat] = one.engine.analyze(case)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    for key, result in found.items():
        assert isinstance(result, AnalysisResult)
        assert result.prompt == f"Prompt {key // 10}"
        alone = one.result(result.case)
        assert alone.generated_text == result.generated_text
    assert len(one.loader.calls) == 1
