from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from cert.coordination.limits import AdaptiveLimit
from tests.coordination.client.stub import Clock

if TYPE_CHECKING:
    from cert.coordination.limits import Slot

ENDS = ("answered", "throttled", "failed", "raised", "cancelled")


class Worker:
    """One call: waits for a slot, holds it until it is told how it ends."""

    def __init__(self, limit: AdaptiveLimit, loop: asyncio.AbstractEventLoop) -> None:
        self.is_holding = False
        self.epoch = -1
        self._limit = limit
        self._end: asyncio.Future[str] = loop.create_future()
        self.task = loop.create_task(self._run())

    async def _run(self) -> None:
        with suppress(ZeroDivisionError):
            async with self._limit.slot() as slot:
                self.is_holding = True
                try:
                    self._tell(slot, await self._end)
                finally:
                    self.is_holding = False

    def _tell(self, slot: Slot, end: str) -> None:
        match end:
            case "answered":
                slot.succeeded()
            case "throttled":
                slot.throttled()
            case "raised":
                raise ZeroDivisionError

    def end(self, how: str) -> None:
        if how == "cancelled":
            self.task.cancel()
        else:
            self._end.set_result(how)


class LimitMachine(RuleBasedStateMachine):
    """The limit beside a model: a number, a set of holders and a queue."""

    workers = Bundle("workers")

    @initialize(initial=st.integers(1, 6), more=st.integers(0, 6))
    def build(self, initial: int, more: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.limit = AdaptiveLimit(initial, initial + more)
        self.size = float(initial)
        self.holding: list[Worker] = []
        self.queue: list[Worker] = []
        self.epoch = 0

    @rule(target=workers)
    def arrive(self) -> Worker:
        worker = Worker(self.limit, self.loop)
        self.queue.append(worker)
        self.settle()
        return worker

    @rule(worker=consumes(workers), how=st.sampled_from(ENDS))
    def leave(self, worker: Worker, how: str) -> None:
        self.take_out(worker, how)
        self.settle()

    @precondition(lambda self: len(self.holding) > 0)
    @rule(worker=consumes(workers), other=consumes(workers), how=st.sampled_from(ENDS))
    def leave_in_one_turn(self, worker: Worker, other: Worker, how: str) -> None:
        """Two at once: a slot may be granted to one that is taken back in the same turn."""
        if worker is other:
            return
        self.take_out(worker, how)
        self.loop.run_until_complete(asyncio.sleep(0))
        self.admit()
        self.take_out(other, "cancelled")
        self.settle()

    def take_out(self, worker: Worker, how: str) -> None:
        if worker in self.queue:
            how = "cancelled"
            self.queue.remove(worker)
        elif how == "answered":
            self.size = min(self.size + 1 / self.size, float(self.limit.maximum))
        elif how == "throttled" and worker.epoch == self.epoch:
            self.epoch += 1
            self.size = max(self.size / 2, 1.0)
        if worker in self.holding:
            self.holding.remove(worker)
        worker.end(how)

    def admit(self) -> None:
        while self.queue and len(self.holding) < int(self.size):
            worker = self.queue.pop(0)
            worker.epoch = self.epoch
            self.holding.append(worker)

    def settle(self) -> None:
        self.admit()
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "limit"):
            return
        assert 1 <= self.limit.limit <= self.limit.maximum
        assert self.limit.limit == int(self.size)
        assert self.limit.in_flight == len(self.holding)
        assert self.limit.waiting == len(self.queue)
        assert all(one.is_holding for one in self.holding)
        assert not any(one.is_holding for one in self.queue)

    def teardown(self) -> None:
        if not hasattr(self, "limit"):
            return
        for worker in [*self.holding, *self.queue]:
            worker.end("cancelled")
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))
        assert self.limit.in_flight == self.limit.waiting == 0
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestLimit = LimitMachine.TestCase
TestLimit.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


async def test_a_429_counts_once_for_all_that_were_in_flight() -> None:
    limit = AdaptiveLimit(8, 8)

    async def throttled() -> None:
        async with limit.slot() as slot:
            await asyncio.sleep(0.01)
            slot.throttled()

    await asyncio.gather(*(throttled() for _ in range(8)))
    assert limit.limit == 4
    await throttled()
    assert limit.limit == 2


async def test_a_round_of_successes_adds_about_one() -> None:
    limit = AdaptiveLimit(4, 16)
    for _ in range(5):
        async with limit.slot() as slot:
            slot.succeeded()
    assert limit.limit == 5


async def test_a_pause_holds_new_calls_and_the_longest_one_counts() -> None:
    clock = Clock()
    limit = AdaptiveLimit(4, 4, clock=clock, sleep=clock.sleep)
    limit.pause(30.0)
    limit.pause(10.0)
    async with limit.slot():
        assert clock.slept_s == [30.0]
    async with limit.slot():
        assert clock.slept_s == [30.0]


async def test_a_call_that_is_taken_back_within_a_pause_gives_its_slot_back() -> None:
    limit = AdaptiveLimit(1, 1)
    limit.pause(60.0)

    async def paused() -> None:
        async with limit.slot():
            raise AssertionError

    waiting = asyncio.ensure_future(paused())
    await asyncio.sleep(0.01)
    assert limit.in_flight == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limit.in_flight == 0


async def test_a_slot_granted_to_a_call_taken_back_in_the_same_turn_goes_to_the_next() -> None:
    limit = AdaptiveLimit(1, 1)
    held: list[str] = []

    async def hold(name: str) -> None:
        async with limit.slot():
            held.append(name)

    async with limit.slot():
        second, third = asyncio.ensure_future(hold("second")), asyncio.ensure_future(hold("third"))
        await asyncio.sleep(0)
        assert limit.waiting == 2
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    assert held == ["third"]
    assert limit.in_flight == 0


async def test_a_newcomer_behind_one_that_is_taken_back_gets_a_free_slot() -> None:
    limit = AdaptiveLimit(1, 1)

    async def hold() -> None:
        async with limit.slot():
            pass

    async with limit.slot():
        second = asyncio.ensure_future(hold())
        await asyncio.sleep(0)
        second.cancel()
    # The slot is free, and the cancelled one stands in the queue until its task runs.
    await asyncio.wait_for(hold(), timeout=5.0)
    assert second.cancelled()


@pytest.mark.parametrize(("initial", "maximum"), [(0, 1), (2, 1), (-1, 4)])
def test_numbers_out_of_their_domain_are_refused(initial: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="initial"):
        AdaptiveLimit(initial, maximum)
