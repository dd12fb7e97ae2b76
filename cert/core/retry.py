"""Retries with exponential backoff and full jitter, for functions and coroutine functions.

The loop is tenacity's; the arguments are the specification's. Before retry n (1, 2, ...) the wait
is drawn from [0, min(max_delay_s, backoff_base ** (n - 1))], and is never shorter than what the
error itself asks for with `retry_after`.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import tenacity

from cert.core import errors
from cert.core.errors import AnalysisError, CertError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """One failed attempt, as the hooks see it.

    Attributes:
        function: Qualified name of the decorated function.
        attempt: How many attempts were made so far, from 1.
        error: What the attempt raised or returned.
        delay_s: Seconds until the next attempt; None where there is none.
        elapsed_s: Seconds since the first attempt began.
    """

    function: str
    attempt: int
    error: Exception | AnalysisError
    delay_s: float | None
    elapsed_s: float


def retry(  # noqa: PLR0913 - three of the specification's, the rest are optional
    max_retries: int = 3,
    backoff_base: float = 2.0,
    exceptions: tuple[type[Exception], ...] | None = None,
    *,
    max_delay_s: float = 60.0,
    on_retry: Callable[[RetryEvent], None] | None = None,
    on_give_up: Callable[[RetryEvent], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function so that it is called again after a passing failure.

    Where the monitors return an `AnalysisError` instead of raising, that counts as the error it
    names, if it is recoverable; after the last attempt it is returned as it is.

    Args:
        max_retries: Attempts after the first one, >= 0.
        backoff_base: Base of the exponential, >= 1. The first wait is at most one second.
        exceptions: What is worth another attempt; None is every `CertError` that says it is
            recoverable. Anything else is raised at once.
        max_delay_s: Upper bound of a wait, > 0. An error that asks for a longer one is raised at
            once: asking again earlier would be rude, and waiting longer was not allowed.
        on_retry: Called before each wait. What it raises ends the retries.
        on_give_up: Called when the attempts are used up, before the last error is raised.
        sleep: Waits, for functions.
        async_sleep: Waits, for coroutine functions.
        uniform: Draws the jitter.

    Returns:
        A decorator. The decorated function raises what its last attempt raised.

    Raises:
        ValueError: An argument is out of its domain.
        TypeError: `exceptions` holds something else than subclasses of `Exception` (an interrupt
            or a cancellation must not be retried), or the function is a generator.
    """
    policy = _Policy(
        max_retries=max_retries,
        backoff_base=backoff_base,
        exceptions=exceptions,
        max_delay_s=max_delay_s,
        on_retry=on_retry,
        on_give_up=on_give_up,
        uniform=uniform,
    ).arguments()

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator: what it yielded cannot be taken back")
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, T]", _decorate_async(function, async_sleep, policy))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return tenacity.Retrying(sleep=sleep, **policy)(function, *args, **kwargs)

        return call

    return decorate


def _decorate_async(
    function: Callable[P, Awaitable[T]],
    sleep: Callable[[float], Awaitable[None]],
    policy: dict[str, Any],
) -> Callable[P, Awaitable[T]]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await tenacity.AsyncRetrying(sleep=sleep, **policy)(function, *args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class _Policy:
    """The decorator's arguments, as the callbacks that tenacity's loop asks."""

    max_retries: int
    backoff_base: float
    exceptions: tuple[type[Exception], ...] | None
    max_delay_s: float
    on_retry: Callable[[RetryEvent], None] | None
    on_give_up: Callable[[RetryEvent], None] | None
    uniform: Callable[[float, float], float]

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries is at least 0, got {self.max_retries}")
        if not 1 <= self.backoff_base < math.inf:
            raise ValueError(f"backoff_base is a finite number >= 1, got {self.backoff_base}")
        if not 0 < self.max_delay_s < math.inf:
            raise ValueError(f"max_delay_s is a finite number > 0, got {self.max_delay_s}")
        for kind in self.exceptions or ():
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError(f"exceptions holds subclasses of Exception, got {kind!r}")

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `tenacity.Retrying`."""
        return {
            "retry": self.is_worth_it,
            "wait": self.wait_s,
            "stop": self.is_over,
            "before_sleep": self.announce_retry,
            "retry_error_callback": self.give_up,
        }

    def is_worth_it(self, state: tenacity.RetryCallState) -> bool:
        failure = _failure(state)
        return failure is not None and _matches(failure, self.exceptions)

    def wait_s(self, state: tenacity.RetryCallState) -> float:
        exponent = state.attempt_number - 1
        # Compared as logarithms, because 2.0 ** 1024 overflows.
        if exponent * math.log(self.backoff_base) >= math.log(self.max_delay_s):
            ceiling_s = self.max_delay_s
        else:
            ceiling_s = self.backoff_base**exponent
        return max(self.uniform(0.0, ceiling_s), _asked_for_s(state))

    def is_over(self, state: tenacity.RetryCallState) -> bool:
        return state.attempt_number > self.max_retries or _asked_for_s(state) > self.max_delay_s

    def announce_retry(self, state: tenacity.RetryCallState) -> None:
        event = _event(state, delay_s=state.upcoming_sleep)
        _log("retrying", event)
        if self.on_retry is not None:
            self.on_retry(event)

    def give_up(self, state: tenacity.RetryCallState) -> object:
        event = _event(state, delay_s=None)
        _log("giving up", event)
        if self.on_give_up is not None:
            self.on_give_up(event)
        return cast("tenacity.Future", state.outcome).result()


def _failure(state: tenacity.RetryCallState) -> Exception | AnalysisError | None:
    outcome = cast("tenacity.Future", state.outcome)
    if outcome.failed:
        error = outcome.exception()
        return error if isinstance(error, Exception) else None
    result = outcome.result()
    return result if isinstance(result, AnalysisError) else None


def _matches(
    failure: Exception | AnalysisError, exceptions: tuple[type[Exception], ...] | None
) -> bool:
    if isinstance(failure, AnalysisError):
        kind = getattr(errors, failure.error_type, None)
        return (
            failure.recoverable
            and isinstance(kind, type)
            and issubclass(kind, CertError if exceptions is None else exceptions)
        )
    if exceptions is None:
        return isinstance(failure, CertError) and failure.recoverable
    return isinstance(failure, exceptions)


def _asked_for_s(state: tenacity.RetryCallState) -> float:
    """Return the seconds that the failure itself asks to wait; 0 where it does not say."""
    asked = getattr(_failure(state), "retry_after", None)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or math.isnan(asked):
        return 0.0
    return max(0.0, float(asked))


def _event(state: tenacity.RetryCallState, *, delay_s: float | None) -> RetryEvent:
    return RetryEvent(
        function=getattr(state.fn, "__qualname__", type(state.fn).__name__),
        attempt=state.attempt_number,
        error=cast("Exception | AnalysisError", _failure(state)),
        delay_s=delay_s,
        elapsed_s=state.seconds_since_start or 0.0,
    )


def _log(what: str, event: RetryEvent) -> None:
    failure = event.error
    described = (
        failure if isinstance(failure, AnalysisError) else AnalysisError.from_exception(failure)
    )
    logger.warning(
        "%s %s",
        what,
        event.function,
        extra={
            "attempt": event.attempt,
            "delay_s": event.delay_s,
            "error_type": described.error_type,
            "error": described.message,
        },
    )
