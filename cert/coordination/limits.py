"""How many calls may be in flight: additive increase, multiplicative decrease.

A success raises the limit by 1/limit, so by about one call a round; a 429 halves it, once for all
the calls that were in flight when it fell: they all met the same wall. A server that asks for a
wait stops new calls until then.

Source: D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", Computer Networks and ISDN Systems 17, 1989.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DECREASE = 0.5


class AdaptiveLimit:
    """Slots for calls, given in the order in which they were asked for. For one event loop.

    Args:
        initial: Calls in flight at first, from 1 to `maximum`.
        maximum: Calls in flight at most.
        clock: Monotonic seconds.
        sleep: Waits.

    Raises:
        ValueError: A number is out of its domain.
    """

    def __init__(
        self,
        initial: int,
        maximum: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 1 <= initial <= maximum:
            raise ValueError(f"1 <= initial <= maximum, got {initial} and {maximum}")
        self.maximum = maximum
        self.in_flight = 0
        self._limit = float(initial)
        self._epoch = 0
        self._not_before_s = float("-inf")
        self._clock = clock
        self._sleep = sleep
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, from 1 to `maximum`."""
        return int(self._limit)

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a slot and for the end of a pause, and hold the slot."""
        await self._acquire()
        try:
            while (left_s := self._not_before_s - self._clock()) > 0:
                await self._sleep(left_s)
            yield Slot(self, self._epoch)
        finally:
            self.in_flight -= 1
            self._wake()

    def pause(self, wait_s: float) -> None:
        """Let no call begin for so many seconds; a longer pause under way stays."""
        self._not_before_s = max(self._not_before_s, self._clock() + wait_s)

    async def _acquire(self) -> None:
        if self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting.remove(granted)
            else:
                # Granted in the same turn of the loop: the slot goes to the next one.
                self.in_flight -= 1
            self._wake()
            raise

    def _wake(self) -> None:
        index = 0
        while self.in_flight < self.limit and index < len(self._waiting):
            # One that is cancelled takes itself out when its task runs next.
            if self._waiting[index].cancelled():
                index += 1
                continue
            granted = self._waiting[index]
            del self._waiting[index]
            self.in_flight += 1
            granted.set_result(None)

    def _succeeded(self) -> None:
        self._limit = min(self._limit + 1 / self._limit, float(self.maximum))
        self._wake()

    def _throttled(self, epoch: int) -> None:
        if epoch == self._epoch:
            self._epoch += 1
            self._limit = max(self._limit * DECREASE, 1.0)


class Slot:
    """One call in flight; it says how the call ended."""

    def __init__(self, limit: AdaptiveLimit, epoch: int) -> None:
        self._limit = limit
        self._epoch = epoch

    def succeeded(self) -> None:
        """Tell that the server answered."""
        self._limit._succeeded()  # noqa: SLF001 - the slot is the limit's own

    def throttled(self) -> None:
        """Tell that the server said 429."""
        self._limit._throttled(self._epoch)  # noqa: SLF001 - the same
