from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cert.coordination.breaker import build_breaker
from cert.core.circuit_breaker import CircuitState
from cert.core.errors import CircuitOpenError
from tests.coordination.client.stub import Clock


class DownError(Exception):
    pass


class OtherError(Exception):
    pass


class BreakerMachine(RuleBasedStateMachine):
    """The breaker beside a model of the design: five in a row, one probe, 30 s to 300 s."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.changes: list[tuple[CircuitState, CircuitState]] = []
        self.breaker = build_breaker(
            "s",
            exceptions=(DownError,),
            clock=self.clock,
            on_state_change=lambda old, new: self.changes.append((old, new)),
        )
        self.state = "closed"
        self.in_a_row = 0
        self.recovery_s = 30.0
        self.may_probe_at_s = 0.0
        self.is_probing = False
        self.generation = 0

    @rule(seconds=st.sampled_from([0.5, 29.0, 30.0, 31.0, 120.0, 299.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(target=calls)
    def begin(self) -> tuple[asyncio.Future[object], asyncio.Task[object], int] | None:
        end: asyncio.Future[object] = self.loop.create_future()

        async def call() -> object:
            return await end

        task = self.loop.create_task(self.breaker.call_async(call))
        self.loop.run_until_complete(asyncio.sleep(0))
        is_refused = (self.state == "open" and self.clock.now_s < self.may_probe_at_s) or (
            self.state == "half_open" and self.is_probing
        )
        if is_refused:
            with pytest.raises(CircuitOpenError) as raised:
                self.loop.run_until_complete(task)
            left_s = self.may_probe_at_s - self.clock.now_s if self.state == "open" else 0.0
            assert raised.value.retry_after == pytest.approx(left_s)
            end.cancel()
            return None
        assert not task.done()
        if self.state == "open":
            self.move("half_open")
        if self.state == "half_open":
            self.is_probing = True
        return end, task, self.generation

    @rule(call=consumes(calls), how=st.sampled_from(["ok", "down", "down", "other", "cancelled"]))
    def end(
        self, call: tuple[asyncio.Future[object], asyncio.Task[object], int] | None, how: str
    ) -> None:
        if call is None:
            return
        end, task, generation = call
        if how == "cancelled":
            task.cancel()
        elif how == "ok":
            end.set_result("ok")
        else:
            end.set_exception(DownError() if how == "down" else OtherError())
        ended = self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        assert ended != []
        if generation == self.generation:
            self.take_in(how)

    def take_in(self, how: str) -> None:
        was_half_open = self.state == "half_open"
        self.is_probing = False
        if how == "ok":
            self.in_a_row = 0
            if was_half_open:
                self.recovery_s = 30.0
                self.move("closed")
        elif how == "down":
            self.in_a_row += 1
            if was_half_open:
                self.recovery_s = min(self.recovery_s * 2, 300.0)
            if was_half_open or self.in_a_row >= 5:
                self.move("open")

    def move(self, state: str) -> None:
        self.state = state
        self.generation += 1
        self.is_probing = False
        if state == "open":
            self.may_probe_at_s = self.clock.now_s + self.recovery_s
        elif state == "closed":
            self.in_a_row = 0

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state.value == self.state
        assert self.breaker.recovery_timeout == self.recovery_s
        assert 30.0 <= self.breaker.recovery_timeout <= 300.0
        assert len(self.changes) == self.generation

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_the_wait_doubles_with_each_probe_that_fails_and_starts_again() -> None:
    clock = Clock()
    breaker = build_breaker("s", exceptions=(DownError,), clock=clock)

    def down() -> None:
        raise DownError

    for _ in range(5):
        with pytest.raises(DownError):
            breaker.call(down)
    waits_s = []
    for _ in range(6):
        waits_s.append(breaker.recovery_timeout)
        clock.now_s += breaker.recovery_timeout
        with pytest.raises(DownError):
            breaker.call(down)
    assert waits_s == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    clock.now_s += 300.0
    breaker.call(lambda: None)
    assert (breaker.state, breaker.recovery_timeout) == (CircuitState.CLOSED, 30.0)
