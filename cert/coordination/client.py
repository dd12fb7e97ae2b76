"""Agents behind the Messages API, over the real SDK: the only layer that retries, waits and pays.

A call goes through these gates, in this order:

    slot       `AdaptiveLimit` of its model: waits for a turn, and for the end of a pause
    breaker    of (base URL, model): refuses while the service is down
    budget     sets the most aside that the attempt can cost, or ends the call
    deadline   `Call.timeout_s`, for the attempts and our waits between them. Waiting for a slot
               does not count, nor do waits that the server asks for, of `MAX_WAIT_S` at most
    SDK        one attempt, no retries of its own
    checks     what came back is a message, and follows the schema

`import` works without the extra; building a client needs it.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cert.coordination.breaker import build_breaker
from cert.coordination.budget import Budget, BudgetExceededError, bound_input_tokens
from cert.coordination.endpoint import resolve_endpoint
from cert.coordination.faults import (
    AttemptError,
    PassingError,
    ServiceDownError,
    ThrottledError,
    UnsentError,
    unsendable,
)
from cert.coordination.limits import AdaptiveLimit
from cert.coordination.metrics import Outcome
from cert.coordination.progress import Progress
from cert.coordination.protocol import Attempt, CallError, CallFailure, Role
from cert.coordination.replies import ReplySchema, invalid, parse_message
from cert.coordination.scrub import Scrubber
from cert.core.circuit_breaker import CircuitBreaker, CircuitState
from cert.core.errors import CircuitOpenError, ConfigurationError
from cert.core.extras import missing_extra
from cert.core.retry import retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cert.coordination.budget import Reservation
    from cert.coordination.connection import Answer
    from cert.coordination.endpoint import ClientConfig
    from cert.coordination.metrics import CoordinationMetrics
    from cert.coordination.protocol import Call, Reply, Usage
    from cert.core.retry import RetryEvent

MAX_ATTEMPTS = 5
MAX_WAIT_S = 300.0
# A call that meets the breaker's probe under way comes back after this.
PROBE_WAIT_S = 5.0


class AnthropicClient:
    """An `Agent` of `cert.coordination.protocol`, for one server and any of its models.

    Args:
        config: Where the server is, and how it is asked.
        budget: What the calls may spend; None is no limit.
        metrics: Counts the calls; None counts none.
        clock: Monotonic seconds.
        sleep: Waits.
        uniform: Draws the jitter.

    Raises:
        ConfigurationError: There is neither a key nor a base URL, or the configuration is wrong.
        MissingExtraError: The SDK is not installed.
    """

    def __init__(  # noqa: PLR0913 - one argument is the user's, the rest are optional
        self,
        config: ClientConfig,
        *,
        budget: Budget | None = None,
        metrics: CoordinationMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        try:
            from cert.coordination import connection  # noqa: PLC0415 - needs the extra
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in {"anthropic", "httpx2"}:
                raise
            raise missing_extra(
                "calling agents over HTTP needs anthropic", "coordination"
            ) from None
        endpoint = resolve_endpoint(config, default_base_url=connection.DEFAULT_BASE_URL)
        self.base_url = endpoint.base_url
        self.budget = Budget() if budget is None else budget
        self._scrub = Scrubber(endpoint.secrets)
        self._connection = connection.Connection(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            api_version=config.api_version,
            proxy=config.proxy,
            is_streamed=config.is_streamed,
            max_idle=config.max_concurrency,
            scrub=self._scrub,
        )
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._lanes: dict[str, _Lane] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"AnthropicClient({self.base_url!r})"

    @property
    def api_version(self) -> str:
        """Sent as `anthropic-version`; for records."""
        return self._connection.api_version

    @property
    def sdk_version(self) -> str:
        """Version of the SDK; for records."""
        return self._connection.sdk_version

    async def aclose(self) -> None:
        """Close the connections; calls after this raise. A second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._metrics is not None:
            for lane in self._lanes.values():
                self._metrics.move_breaker(lane.breaker.state, None)
        await self._connection.aclose()

    async def call(self, call: Call) -> Reply:
        """Answer a call.

        Returns:
            The reply. Where the call has a schema, the text is JSON that follows it, unless the
            model refused.

        Raises:
            CallError: There is no reply.
            RuntimeError: The client is closed.
        """
        progress = Progress(began_s=self._clock(), left_s=call.timeout_s)
        outcome = Outcome.CANCELLED
        try:
            result = await self._attempts(call, progress)
            outcome = Outcome.OK if not isinstance(result, CallError) else Outcome(result.failure)
        finally:
            if self._metrics is not None:
                self._metrics.record_call(
                    outcome,
                    duration_s=self._clock() - progress.began_s,
                    attempts=len(progress.attempts),
                )
        if isinstance(result, CallError):
            # Raised here, so that it has no context: that is not for records.
            raise result
        return result

    async def _attempts(self, call: Call, progress: Progress) -> Reply | CallError:
        """Return the reply, or the error that ends the call."""

        def before_wait(event: RetryEvent) -> None:
            error = event.error
            asked_s = error.retry_after if isinstance(error, PassingError) else None
            progress.wait(event.delay_s or 0.0, asked_s=asked_s or 0.0)

        attempt = retry(
            MAX_ATTEMPTS - 1,
            exceptions=(PassingError, CircuitOpenError),
            max_delay_s=MAX_WAIT_S,
            on_retry=before_wait,
            async_sleep=self._sleep,
            uniform=self._uniform,
        )(self._attempt)
        try:
            _check(call)
            schema = None if call.schema is None else ReplySchema(call.schema)
            reply = await attempt(call, schema, progress)
        except AttemptError as error:
            return self._call_error(error, progress)
        except CircuitOpenError as error:
            return CallError(
                self._scrub(error.message),
                failure=CallFailure.TRANSIENT,
                attempts=tuple(progress.attempts),
                is_unknown_billed=progress.is_unknown_billed,
                retry_after=error.retry_after,
            )
        return replace(
            reply,
            attempts=tuple(progress.attempts),
            latency_s=self._clock() - progress.began_s,
        )

    async def _attempt(self, call: Call, schema: ReplySchema | None, progress: Progress) -> Reply:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        lane = self._lane(call.model)
        async with lane.limit.slot() as slot:
            began_s = self._clock()
            try:
                answer, reply = await lane.breaker.call_async(self._paid, call, schema, progress)
            except AttemptError as error:
                if isinstance(error, ThrottledError):
                    slot.throttled()
                    if error.retry_after is not None and error.retry_after <= MAX_WAIT_S:
                        lane.limit.pause(error.retry_after)
                if not isinstance(error, UnsentError):
                    progress.fail(error, latency_s=self._clock() - began_s)
                raise
            except CircuitOpenError as error:
                error.retry_after = max(error.retry_after or 0.0, PROBE_WAIT_S)
                progress.attempts.append(Attempt(None, type(error).__name__, 0.0))
                raise
            slot.succeeded()
            progress.attempts.append(
                Attempt(answer.status, None, self._clock() - began_s, request_id=answer.request_id)
            )
            return reply

    async def _paid(
        self, call: Call, schema: ReplySchema | None, progress: Progress
    ) -> tuple[Answer, Reply]:
        """Make one attempt within the budget and the deadline, and pay for it."""
        reservation = self._reserve(call)
        began_s = self._clock()
        try:
            answer = await self._timed(call, progress.left_s)
            reply = self._checked(answer, schema)
        except AttemptError as error:
            if error.usage is not None:
                self._settle(reservation, error.usage)
            elif error.is_maybe_billed:
                self._charge_unknown(reservation)
            else:
                reservation.release()
            raise
        except BaseException:
            # Taken back, or a fault of this program: the request may be on its way all the same.
            self._charge_unknown(reservation)
            raise
        finally:
            progress.left_s -= self._clock() - began_s
        self._settle(reservation, reply.usage)
        return answer, reply

    def _checked(self, answer: Answer, schema: ReplySchema | None) -> Reply:
        """Return the reply that an answer holds.

        Raises:
            AttemptError: It holds none; `INVALID`.
        """
        try:
            reply = parse_message(answer.document)
            if any(map(self._scrub.finds, (reply.text, reply.model, reply.message_id or ""))):
                raise invalid("it holds the key", reply.usage)
            if schema is not None:
                schema.check(reply)
        except AttemptError as error:
            error.status, error.request_id = answer.status, answer.request_id
            raise
        return replace(reply, rate_limits=answer.rate_limits)

    async def _timed(self, call: Call, left_s: float) -> Answer:
        try:
            async with asyncio.timeout(left_s):
                if self._metrics is None:
                    return await self._connection.send(call)
                with self._metrics.request():
                    return await self._connection.send(call)
        except TimeoutError:
            pass
        raise AttemptError(
            f"no answer within the {call.timeout_s:g} s of the call",
            failure=CallFailure.TRANSIENT,
            error="deadline",
            is_maybe_billed=True,
            hint="raise the timeout, or lower max_tokens",
        )

    def _reserve(self, call: Call) -> Reservation:
        try:
            return self.budget.reserve(
                call.model,
                input_tokens=bound_input_tokens(call),
                output_tokens=call.max_tokens,
            )
        except BudgetExceededError as error:
            message, failure, hint = error.message, CallFailure.BUDGET, error.hint
        except ConfigurationError as error:
            message, failure, hint = error.message, CallFailure.FATAL, error.hint
        raise UnsentError(message, failure=failure, error=failure.value, hint=hint)

    def _settle(self, reservation: Reservation, usage: Usage) -> None:
        cost_usd = reservation.settle(usage)
        if self._metrics is not None:
            self._metrics.record_usage(usage, cost_usd)

    def _charge_unknown(self, reservation: Reservation) -> None:
        reservation.charge_unknown()
        if self._metrics is not None:
            self._metrics.record_unknown(reservation.tokens, reservation.usd)

    def _call_error(self, error: AttemptError, progress: Progress) -> CallError:
        asked_s = error.retry_after
        is_later = asked_s is not None and asked_s > MAX_WAIT_S
        return CallError(
            self._scrub(error.message),
            failure=CallFailure.LATER if is_later else error.failure,
            attempts=tuple(progress.attempts),
            usage=error.usage,
            is_unknown_billed=progress.is_unknown_billed,
            hint="resume the run after the wait that the server asks for"
            if is_later
            else error.hint,
            retry_after=asked_s if asked_s is not None and math.isfinite(asked_s) else None,
        )

    def _lane(self, model: str) -> _Lane:
        lane = self._lanes.get(model)
        if lane is None:
            metrics = self._metrics
            lane = self._lanes[model] = _Lane(
                breaker=build_breaker(
                    self._scrub(f"{self.base_url} {model}", max_chars=200),
                    exceptions=(ServiceDownError,),
                    clock=self._clock,
                    on_state_change=None if metrics is None else metrics.move_breaker,
                ),
                limit=AdaptiveLimit(
                    self._config.initial_concurrency,
                    self._config.max_concurrency,
                    clock=self._clock,
                    sleep=self._sleep,
                ),
            )
            if metrics is not None:
                metrics.move_breaker(None, CircuitState.CLOSED)
        return lane


@dataclass(frozen=True, slots=True)
class _Lane:
    """What the calls of one model share."""

    breaker: CircuitBreaker
    limit: AdaptiveLimit


def _check(call: Call) -> None:
    if not 0 < call.timeout_s < math.inf:
        reason = f"its timeout is a finite number > 0, got {call.timeout_s}"
    elif call.max_tokens < 1:
        reason = f"its max_tokens is at least 1, got {call.max_tokens}"
    elif not call.messages or call.messages[-1].role is not Role.USER:
        reason = "its last message is not the user's"
    else:
        return
    raise unsendable(reason)
