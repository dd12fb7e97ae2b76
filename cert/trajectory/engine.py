"""From a prompt to a verdict: validate, look into the cache, measure, summarise, judge, count.

What concerns one prompt comes back as a value, an `AnalysisResult` or an `AnalysisError`; it is
never raised. A request that waits for the model to load, or for the model itself, occupies no
thread.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from cert.assessment.assess import assess
from cert.assessment.policy import Policy, load_policy
from cert.backends.folder import REFERENCE_NAME
from cert.backends.protocol import FinishReason, GenerationRequest, SamplingParams
from cert.core.errors import (
    AnalysisError,
    CertError,
    ConfigurationError,
    GenerationCancelled,
    GenerationTimeout,
    InvalidInput,
    ModelNotLoaded,
)
from cert.observability.correlation import correlation_id_context, get_correlation_id
from cert.observability.metrics import MetricsCollector, Status
from cert.observability.tracing import current_trace
from cert.signals.summary import summarize
from cert.trajectory.cache import Measured, ResultCache, cache_key
from cert.trajectory.counting import RequestCounter, status_of_error, status_of_reason
from cert.trajectory.spans import record_analysis
from cert.trajectory.texts import check_sampling, check_text
from cert.trajectory.types import AnalysisResult

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from opentelemetry.context import Context

    from cert.backends.protocol import Backend, Generation
    from cert.inputs.case import PromptCase
    from cert.trajectory.cache import CacheInfo
    from cert.trajectory.resources import HamiltonianModelResource

P = ParamSpec("P")

logger = logging.getLogger(__name__)

_GREEDY = SamplingParams()


@dataclass(eq=False, slots=True)
class _Call:
    """A request on its way. Whoever claims it first settles it; everybody else comes too late."""

    case: PromptCase
    sampling: SamplingParams
    chat: str
    timeout: float | None
    policy: Policy
    correlation_id: str
    started: float
    outcome: Future[AnalysisResult | AnalysisError] = field(default_factory=Future)
    trace: Context | None = field(default_factory=current_trace)
    load_timer: threading.Timer | None = None
    _claimed: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        return self._claimed.acquire(blocking=False)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def remaining_s(self) -> float | None:
        return None if self.timeout is None else self.timeout - self.elapsed_s()


class HamiltonianEngine:
    """Analyses prompts on one model resource, with a cache. Safe to use from several threads."""

    def __init__(
        self,
        model_resource: HamiltonianModelResource,
        *,
        cache_size: int = 1000,
        policy: Policy | str | None = None,
        metrics: MetricsCollector | None = None,
    ) -> None:
        """Make an engine; nothing is loaded by that.

        Args:
            model_resource: The model, which others may use as well.
            cache_size: Measurements kept at most; 0 keeps none.
            policy: What judges: a policy, its id, or its file. None is `reference` for the
                embedded model, which would fail any policy meant for a real one, and `default`
                for every other.
            metrics: Where requests are counted; None is the process's own registry.

        Raises:
            ConfigurationError: The cache size is negative.
            PolicyError: There is no such policy, or it is wrong.
        """
        if cache_size < 0:
            raise ConfigurationError(f"cache_size must be at least 0, got {cache_size}")
        self.model_resource = model_resource
        if policy is None:
            policy = "reference" if model_resource.model_name == REFERENCE_NAME else "default"
        self.policy = load_policy(policy) if isinstance(policy, str) else policy
        self._counter = RequestCounter(MetricsCollector() if metrics is None else metrics)
        self._cache = ResultCache(cache_size)

    def submit(  # noqa: PLR0913 - one keyword an option
        self,
        case: PromptCase,
        *,
        sampling: SamplingParams = _GREEDY,
        timeout: float | None = None,
        chat: str = "auto",
        policy: Policy | str | None = None,
        correlation_id: str | None = None,
    ) -> Future[AnalysisResult | AnalysisError]:
        """Queue a prompt and return at once.

        Args:
            case: The prompt, and the response to score where there is one.
            sampling: How to choose tokens; without meaning for a response.
            timeout: Seconds from now, waiting and loading included; None waits for ever. A
                deadline that passes while the text is being written ends it: the result holds
                what there is, and is inconclusive unless a check has failed for good.
            chat: `auto`, `always` or `never`: whether the chat template is applied.
            policy: Judge by this one instead of the engine's.
            correlation_id: Ties log lines and records together; None takes the current one, or
                draws one.

        Returns:
            A future that raises nothing by itself. Cancelling it takes the request back, also
            while it runs. Errors in it, by `error_type`: `InvalidInput`, `PromptTooLong`,
            `ModelNotLoaded` (also when loading took longer than `timeout`),
            `ModelUnavailableError`, `GenerationTimeout`, `GenerationCancelled` (the model was
            unloaded), `NumericalError`, `GPUOutOfMemoryError`, `CPUFallbackFailed`,
            `ConfigurationError`, `PolicyError`, and `InternalError` for what nobody foresaw.

        Raises:
            ValueError: The correlation id has control characters, or is empty or too long.
        """
        with correlation_id_context(
            correlation_id or get_correlation_id() or uuid.uuid4().hex
        ) as effective_id:
            call = _Call(
                case=case,
                sampling=sampling,
                chat=chat,
                timeout=timeout,
                policy=self.policy,
                correlation_id=effective_id,
                started=time.monotonic(),
            )
        self._guard(self._begin, call, policy)
        return call.outcome

    def analyze(  # noqa: PLR0913 - one keyword an option
        self,
        case: PromptCase,
        *,
        sampling: SamplingParams = _GREEDY,
        timeout: float | None = None,
        chat: str = "auto",
        policy: Policy | str | None = None,
        correlation_id: str | None = None,
    ) -> AnalysisResult | AnalysisError:
        """Analyse a prompt and wait for it; arguments and errors as in `submit`."""
        future = self.submit(
            case,
            sampling=sampling,
            timeout=timeout,
            chat=chat,
            policy=policy,
            correlation_id=correlation_id,
        )
        try:
            return future.result()
        except BaseException:  # an interrupt: nobody waits for this text any more
            future.cancel()
            raise

    def clear_cache(self) -> None:
        """Forget every measurement."""
        self._cache.clear()

    def cache_info(self) -> CacheInfo:
        """How the cache is doing."""
        return self._cache.info()

    def _guard(
        self,
        step: Callable[Concatenate[_Call, P], None],
        call: _Call,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run one step of a call; whatever it raises becomes the call's outcome.

        Steps run in callbacks of futures, where an exception would be swallowed and leave the
        caller waiting for ever.
        """
        with correlation_id_context(call.correlation_id):
            try:
                step(call, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(call, error)

    def _begin(self, call: _Call, policy: Policy | str | None) -> None:
        case, limit = call.case, self.model_resource.config.max_prompt_chars
        check_text(case.text, what="prompt", max_chars=limit)
        if case.response is not None:
            check_text(case.response, what="response", max_chars=limit)
        check_sampling(call.sampling, call.chat)
        if policy is not None:
            call.policy = load_policy(policy) if isinstance(policy, str) else policy
        if call.timeout is not None:
            if math.isnan(call.timeout):
                raise InvalidInput("the timeout is not a number")
            if call.timeout <= 0.0:
                raise GenerationTimeout(f"the timeout of {call.timeout:g} s had passed already")
        loading = self.model_resource.request_backend()
        if call.timeout is not None and not loading.done():
            wait_s = min(call.timeout, threading.TIMEOUT_MAX)
            timer = threading.Timer(wait_s, self._guard, (self._give_up_loading, call))
            timer.daemon = True
            call.load_timer = timer
            timer.start()
        loading.add_done_callback(lambda done: self._guard(self._run, call, done))

    def _give_up_loading(self, call: _Call) -> None:
        raise ModelNotLoaded(
            f"{self.model_resource.model_name} was not loaded within {call.timeout:g} s; "
            "loading goes on"
        )

    def _run(self, call: _Call, loading: Future[Backend]) -> None:
        if call.load_timer is not None:
            call.load_timer.cancel()
        if call.outcome.done():
            raise GenerationCancelled("the request was taken back while the model was loading")
        backend = loading.result()
        key = cache_key(backend.identity, call.case, call.sampling, call.chat)
        if key is not None:
            measured = self._cache.get(key)
            self._counter.cache_lookup(hit=measured is not None)
            if measured is not None:
                fresh = replace(measured.generation, queued_s=0.0, generate_s=0.0)
                self._judge(call, replace(measured, generation=fresh), cached=True)
                return
        request = GenerationRequest(
            id=call.case.id,
            prompt=call.case.text,
            sampling=call.sampling,
            response=call.case.response,
            chat=call.chat,
            timeout_s=call.remaining_s(),
            correlation_id=call.correlation_id,
        )
        inner = backend.submit(request)
        call.outcome.add_done_callback(lambda outer: outer.cancelled() and inner.cancel())
        inner.add_done_callback(lambda done: self._guard(self._finish, call, done, backend, key))

    def _finish(
        self, call: _Call, inner: Future[Generation], backend: Backend, key: Hashable | None
    ) -> None:
        try:
            generation = inner.result()
        except CancelledError as error:
            raise GenerationCancelled("the request was taken back") from error
        identity = backend.identity
        generation = replace(
            generation,
            fallbacks=(
                *self.model_resource.fallbacks,
                *generation.fallbacks,
                *_cut(call, generation, identity.max_context_tokens),
            ),
        )
        measured = Measured(generation, summarize(generation.trace), identity)
        if key is not None:
            self._cache.put(key, measured)
        self._judge(call, measured, cached=False)

    def _judge(self, call: _Call, measured: Measured, *, cached: bool) -> None:
        generation = measured.generation
        result = AnalysisResult(
            case=call.case,
            generation=generation,
            summary=measured.summary,
            assessment=assess(
                measured.summary, call.policy, finish_reason=generation.finish_reason.value
            ),
            identity=measured.identity,
            cached=cached,
            total_s=call.elapsed_s(),
            correlation_id=call.correlation_id,
        )
        self._settle(call, result, status_of_reason(generation.finish_reason))

    def _fail(self, call: _Call, error: Exception) -> None:
        outcome = AnalysisError.from_exception(error)
        if not isinstance(error, CertError):
            logger.error(
                "analysis failed unexpectedly",
                exc_info=error,
                extra={"prompt_id": call.case.id, "error_type": type(error).__name__},
            )
        self._settle(call, outcome, status_of_error(error))

    def _settle(self, call: _Call, outcome: AnalysisResult | AnalysisError, status: Status) -> None:
        """Hand the outcome to the caller and count it, once."""
        if not call.claim():
            return
        wanted = call.outcome.set_running_or_notify_cancel()
        try:
            duration_s = call.elapsed_s()
            self._counter.outcome(
                call.case,
                outcome,
                status if wanted else Status.CANCELLED,
                duration_s=duration_s,
            )
            record_analysis(
                call.case,
                outcome,
                call.sampling,
                model=self.model_resource.model_name,
                parent=call.trace,
                duration_s=duration_s,
            )
        except Exception:
            # Whoever waits gets the measurement, even if it could not be counted.
            logger.exception("analysis not counted", extra={"prompt_id": call.case.id})
        if wanted:
            call.outcome.set_result(outcome)


def _cut(call: _Call, generation: Generation, context_tokens: int) -> tuple[str, ...]:
    """Say that a text ended because the context was full, before the length that was asked for."""
    asked = call.sampling.max_new_tokens
    room = context_tokens - len(generation.prompt_token_ids)
    if generation.finish_reason is FinishReason.LENGTH and room < asked:
        return (f"max_new_tokens:{asked}->{room}",)
    return ()
