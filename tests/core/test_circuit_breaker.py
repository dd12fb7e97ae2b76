from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cert.core.circuit_breaker import CircuitBreaker, CircuitState
from cert.core.errors import AnalysisError, CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fail() -> None:
    raise OSError("down")


def ok() -> str:
    return "ok"


def open_circuit(
    clock: Clock, *, threshold: int = 2, hook: Callable[..., None] | None = None
) -> CircuitBreaker:
    breaker = CircuitBreaker(
        failure_threshold=threshold, recovery_timeout=30.0, clock=clock, on_state_change=hook
    )
    for _ in range(threshold):
        with pytest.raises(OSError, match="down"):
            breaker.call(fail)
    assert breaker.state is CircuitState.OPEN
    return breaker


def test_the_specifications_call() -> None:
    breaker = CircuitBreaker(failure_threshold=5, recovery_timeout=30.0)
    assert breaker.call(lambda a, *, b: (a, b), 1, b=2) == (1, 2)


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = CircuitBreaker(failure_threshold=2)
    for function in (fail, ok, fail):
        if function is fail:
            with pytest.raises(OSError, match="down"):
                breaker.call(function)
        else:
            breaker.call(function)
    assert (breaker.state, breaker.failures) == (CircuitState.CLOSED, 1)
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    assert breaker.state is CircuitState.OPEN


def test_an_open_circuit_refuses_with_the_time_left() -> None:
    clock = Clock()
    breaker = open_circuit(clock)
    clock.now_s += 10
    called = []
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(lambda: called.append(1))
    assert called == []
    assert caught.value.retry_after == 20.0
    assert "20.0 s left" in caught.value.message
    assert AnalysisError.from_exception(caught.value).retry_after == 20.0


def test_a_probe_that_succeeds_closes_the_circuit() -> None:
    clock = Clock()
    changes: list[tuple[CircuitState, CircuitState]] = []
    breaker = open_circuit(clock, hook=lambda old, new: changes.append((old, new)))
    clock.now_s += 30
    assert breaker.call(ok) == "ok"
    assert (breaker.state, breaker.failures) == (CircuitState.CLOSED, 0)
    assert changes == [
        (CircuitState.CLOSED, CircuitState.OPEN),
        (CircuitState.OPEN, CircuitState.HALF_OPEN),
        (CircuitState.HALF_OPEN, CircuitState.CLOSED),
    ]


def test_a_probe_that_fails_opens_it_for_a_full_timeout() -> None:
    clock = Clock()
    breaker = open_circuit(clock)
    clock.now_s += 31
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(ok)
    assert caught.value.retry_after == 30.0


def test_only_one_probe_at_a_time() -> None:
    clock = Clock()
    breaker = open_circuit(clock)
    clock.now_s += 30
    probing, go_on = threading.Event(), threading.Event()

    def probe() -> str:
        probing.set()
        assert go_on.wait(10)
        return "probed"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(breaker.call, probe)
        assert probing.wait(10)
        others = [pool.submit(breaker.call, ok) for _ in range(7)]
        for other in others:
            error = other.exception(10)
            assert isinstance(error, CircuitOpenError)
            assert error.retry_after == 0.0
            assert "a probe is under way" in error.message
        go_on.set()
        assert first.result(10) == "probed"
    assert breaker.call(ok) == "ok"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), ValueError("not the service")])
def test_a_probe_that_says_nothing_leaves_the_next_one_free(interruption: BaseException) -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 30.0, exceptions=(OSError,), clock=clock)
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    clock.now_s += 30

    def interrupted() -> None:
        raise interruption

    with pytest.raises(type(interruption)):
        breaker.call(interrupted)
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.call(ok) == "ok"


def test_errors_that_are_not_the_services_do_not_count() -> None:
    breaker = CircuitBreaker(1, exceptions=(OSError,))

    def bug() -> None:
        raise TypeError("ours")

    for _ in range(5):
        with pytest.raises(TypeError):
            breaker.call(bug)
    assert (breaker.state, breaker.failures) == (CircuitState.CLOSED, 0)


def test_a_call_from_before_a_change_no_longer_counts() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 30.0, clock=clock)
    started, end = threading.Event(), threading.Event()

    def slow_failure() -> None:
        started.set()
        assert end.wait(10)
        fail()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(breaker.call, slow_failure)
        assert started.wait(10)
        with pytest.raises(OSError, match="down"):
            breaker.call(fail)
        clock.now_s += 30
        breaker.call(ok)
        assert breaker.state is CircuitState.CLOSED
        end.set()
        assert isinstance(late.exception(10), OSError)
    assert (breaker.state, breaker.failures) == (CircuitState.CLOSED, 0)


def test_many_threads_open_it_once() -> None:
    changes: list[object] = []
    breaker = CircuitBreaker(
        5, 1000.0, on_state_change=lambda *change: changes.append(change), name="api"
    )
    refused = 0
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(breaker.call, fail) for _ in range(200)]:
            error = future.exception(10)
            refused += isinstance(error, CircuitOpenError)
    assert changes == [(CircuitState.CLOSED, CircuitState.OPEN)]
    assert 200 - refused >= 5


def test_reset_closes_it_by_hand() -> None:
    breaker = open_circuit(Clock())
    breaker.reset()
    assert breaker.call(ok) == "ok"
    breaker.reset()
    assert breaker.state is CircuitState.CLOSED


def test_a_failing_hook_changes_no_outcome_and_loses_no_probe() -> None:
    clock = Clock()

    def hook(*_: object) -> None:
        raise RuntimeError("hook")

    breaker = open_circuit(clock, hook=hook)
    clock.now_s += 30
    assert breaker.call(ok) == "ok"
    assert breaker.state is CircuitState.CLOSED


def test_a_hook_may_call_the_breaker() -> None:
    clock = Clock()
    seen: list[int] = []
    breaker = open_circuit(clock, hook=lambda *_: seen.append(breaker.failures) if seen else None)
    clock.now_s += 30
    seen.append(0)
    breaker.call(ok)
    assert len(seen) == 3


async def test_coroutine_functions_go_through_call_async() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 30.0, clock=clock)

    async def down() -> None:
        await asyncio.sleep(0)
        fail()

    async def up(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert await breaker.call_async(up, 3) == 3
    with pytest.raises(OSError, match="down"):
        await breaker.call_async(down)
    with pytest.raises(CircuitOpenError):
        await breaker.call_async(up, 3)
    clock.now_s += 30
    assert await breaker.call_async(up, 4) == 4
    with pytest.raises(TypeError, match="call_async"):
        breaker.call(up, 3)


async def test_a_cancelled_probe_frees_its_place() -> None:
    clock = Clock()
    breaker = open_circuit(clock)
    clock.now_s += 30

    async def hang() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(breaker.call_async(hang))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.call(ok) == "ok"


@pytest.mark.parametrize(
    "make",
    [
        lambda: CircuitBreaker(0),
        lambda: CircuitBreaker(recovery_timeout=-1),
        lambda: CircuitBreaker(recovery_timeout=float("nan")),
    ],
)
def test_wrong_numbers_are_refused(make: Callable[[], CircuitBreaker]) -> None:
    with pytest.raises(ValueError, match=r"at least|finite"):
        make()
