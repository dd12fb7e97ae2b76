"""A circuit breaker: a service that keeps failing is left alone for a while.

    CLOSED     calls go through; `failure_threshold` failures in a row open the circuit
    OPEN       calls are refused with `CircuitOpenError` until `recovery_timeout` has passed
    HALF_OPEN  one call, the probe, goes through; all others are refused. If it succeeds the
               circuit closes, if it fails the circuit opens again for a full timeout

    CLOSED --failures--> OPEN --time, next call--> HALF_OPEN --success--> CLOSED
                           ^-----------failure--------'

A call that began before the last change of state no longer counts when it ends: it says nothing
about the service as it is now.

Source: M. Nygard, Release It!, 2nd ed., 2018, "Circuit Breaker".
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from cert.core.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class CircuitState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Guards calls of one service. Safe to use from several threads and event loops.

    Args:
        failure_threshold: Failures in a row that open the circuit, >= 1.
        recovery_timeout: Seconds until a probe is allowed, >= 0.
        exceptions: What counts as the service's failure. Any other exception, a cancellation
            among them, counts neither way.
        name: Names the service in errors and logs.
        clock: Monotonic seconds.
        on_state_change: Called with the old and the new state after each change, outside the
            lock, in the thread whose call caused it. What it raises is logged.

    Raises:
        ValueError: A number is out of its domain.
    """

    def __init__(  # noqa: PLR0913 - two of the specification's, the rest are optional
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 30.0,
        *,
        exceptions: tuple[type[Exception], ...] = (Exception,),
        name: str = "service",
        clock: Callable[[], float] = time.monotonic,
        on_state_change: Callable[[CircuitState, CircuitState], None] | None = None,
    ) -> None:
        if failure_threshold < 1:
            raise ValueError(f"failure_threshold is at least 1, got {failure_threshold}")
        if not 0 <= recovery_timeout < math.inf:
            raise ValueError(f"recovery_timeout is a finite number >= 0, got {recovery_timeout}")
        self.name = name
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self._exceptions = exceptions
        self._clock = clock
        self._on_state_change = on_state_change
        self._lock = threading.Lock()
        self._state = CircuitState.CLOSED
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._epoch = 0

    @property
    def state(self) -> CircuitState:
        """The state now; an open circuit becomes half open with its first call, not with time."""
        return self._state

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function if the circuit lets it through.

        Returns:
            What the function returns.

        Raises:
            CircuitOpenError: The call was not made; `retry_after` has the seconds left, 0 while
                another call is the probe.
            TypeError: The function is a coroutine function; that is for `call_async`.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is a coroutine function: use call_async")
        with self._guard():
            return function(*args, **kwargs)

    async def call_async(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await the coroutine function if the circuit lets it through; otherwise like `call`."""
        with self._guard():
            return await function(*args, **kwargs)

    def reset(self) -> None:
        """Close the circuit by hand and forget the failures."""
        with self._lock:
            change = self._move(CircuitState.CLOSED)
        self._announce(change)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        epoch = self._enter()
        try:
            yield
        except self._exceptions:
            self._leave(epoch, succeeded=False)
            raise
        except BaseException:
            self._leave(epoch, succeeded=None)
            raise
        self._leave(epoch, succeeded=True)

    def _enter(self) -> int:
        """Let a call in; returns the epoch that it belongs to."""
        change = None
        with self._lock:
            if self._state is CircuitState.OPEN:
                left_s = self._opened_at + self.recovery_timeout - self._clock()
                if left_s > 0:
                    raise self._refusal(left_s)
                change = self._move(CircuitState.HALF_OPEN)
            if self._state is CircuitState.HALF_OPEN:
                if self._probing:
                    raise self._refusal(0.0)
                self._probing = True
            epoch = self._epoch
        self._announce(change)
        return epoch

    def _leave(self, epoch: int, *, succeeded: bool | None) -> None:
        """Take in how a call ended; None where that says nothing about the service."""
        change = None
        with self._lock:
            if epoch != self._epoch:
                return
            self._probing = False
            if succeeded:
                self._failures = 0
                if self._state is CircuitState.HALF_OPEN:
                    change = self._move(CircuitState.CLOSED)
            elif succeeded is False:
                self._failures += 1
                if (
                    self._state is CircuitState.HALF_OPEN
                    or self._failures >= self.failure_threshold
                ):
                    change = self._move(CircuitState.OPEN)
        self._announce(change)

    def _move(self, new: CircuitState) -> tuple[CircuitState, CircuitState] | None:
        """Change the state, under the lock."""
        old, self._state = self._state, new
        self._epoch += 1
        self._probing = False
        if new is CircuitState.OPEN:
            self._opened_at = self._clock()
        elif new is CircuitState.CLOSED:
            self._failures = 0
        return None if old is new else (old, new)

    def _announce(self, change: tuple[CircuitState, CircuitState] | None) -> None:
        if change is None:
            return
        old, new = change
        logger.warning("circuit %s: %s -> %s", self.name, old.value, new.value)
        if self._on_state_change is None:
            return
        try:
            self._on_state_change(old, new)
        except Exception:
            # The guarded call's own outcome stands, and a probe must not be lost to a hook.
            logger.exception("the hook of circuit %s failed", self.name)

    def _refusal(self, left_s: float) -> CircuitOpenError:
        reason = f"{left_s:.1f} s left" if left_s > 0 else "a probe is under way"
        return CircuitOpenError(
            f"the circuit of {self.name} is {self._state.value.replace('_', ' ')}: {reason}",
            retry_after=left_s,
        )
