from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import (
    AnalysisError,
    CircuitOpenError,
    CPUFallbackFailed,
    EmbeddingTimeoutError,
    GPUOutOfMemoryError,
    InvalidInput,
    ModelNotLoaded,
)
from cert.core.retry import RetryEvent, retry

if TYPE_CHECKING:
    from collections.abc import Callable


class Script:
    """Raises or returns what it is told, one thing a call; the last one for ever."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.calls = 0

    def __call__(self, value: object = None) -> object:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        if isinstance(step, BaseException):
            raise step
        return step if value is None else value


def upper(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_the_specifications_call_retries_three_times_and_raises_the_last_error() -> None:
    errors = [EmbeddingTimeoutError(str(n)) for n in range(9)]
    script = Script(*errors)
    slept: list[float] = []

    @retry(
        max_retries=3,
        backoff_base=2.0,
        exceptions=(EmbeddingTimeoutError,),
        sleep=slept.append,
        uniform=upper,
    )
    def compute_with_retry(prompt: str) -> object:
        return script(prompt)

    with pytest.raises(EmbeddingTimeoutError) as caught:
        compute_with_retry("p")
    assert caught.value is errors[3]
    assert script.calls == 4
    assert slept == [1.0, 2.0, 4.0]


def test_success_after_failures_returns_the_value_and_keeps_the_name() -> None:
    script = Script(ModelNotLoaded("wait"), "done")
    slept: list[float] = []

    @retry(sleep=slept.append, uniform=upper)
    def named() -> object:
        """Doc."""
        return script()

    assert named() == "done"
    assert (named.__name__, named.__doc__) == ("named", "Doc.")
    # The error asked for five seconds, the backoff for one.
    assert slept == [5.0]


def test_jitter_is_drawn_from_zero_to_the_ceiling() -> None:
    ceilings: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0.0
        ceilings.append(high)
        return high / 4

    slept: list[float] = []
    script = Script(EmbeddingTimeoutError("x"))
    decorated = retry(5, 3.0, max_delay_s=20, sleep=slept.append, uniform=draw)(script)
    with pytest.raises(EmbeddingTimeoutError):
        decorated()
    assert ceilings[:5] == [1.0, 3.0, 9.0, 20, 20]
    assert slept == [0.25, 0.75, 2.25, 5.0, 5.0]


def test_a_large_exponent_does_not_overflow() -> None:
    slept: list[float] = []
    script = Script(EmbeddingTimeoutError("x"))
    decorated = retry(1100, 2.0, max_delay_s=1e300, sleep=slept.append, uniform=upper)(script)
    with pytest.raises(EmbeddingTimeoutError):
        decorated()
    assert slept[-1] == 1e300
    assert len(slept) == 1100


@pytest.mark.parametrize("error", [InvalidInput("no"), CPUFallbackFailed("no"), ValueError("no")])
def test_by_default_only_recoverable_errors_are_retried(error: Exception) -> None:
    script = Script(error)
    with pytest.raises(type(error)):
        retry(sleep=lambda _: None)(script)()
    assert script.calls == 1


@pytest.mark.parametrize(
    "error", [EmbeddingTimeoutError("x"), GPUOutOfMemoryError("x"), ModelNotLoaded("x")]
)
def test_by_default_recoverable_errors_are_retried(error: Exception) -> None:
    script = Script(error, "ok")
    assert retry(sleep=lambda _: None)(script)() == "ok"


def test_named_exceptions_are_all_that_is_retried() -> None:
    script = Script(ModelNotLoaded("x"))
    with pytest.raises(ModelNotLoaded):
        retry(exceptions=(ValueError,), sleep=lambda _: None)(script)()
    assert script.calls == 1
    script = Script(ValueError("x"), "ok")
    assert retry(exceptions=(ValueError,), sleep=lambda _: None)(script)() == "ok"


def test_an_empty_tuple_retries_nothing() -> None:
    script = Script(ModelNotLoaded("x"))
    with pytest.raises(ModelNotLoaded):
        retry(exceptions=(), sleep=lambda _: None)(script)()
    assert script.calls == 1


def test_zero_retries_calls_once() -> None:
    script = Script(ModelNotLoaded("x"))
    with pytest.raises(ModelNotLoaded):
        retry(0)(script)()
    assert script.calls == 1


def test_retry_after_beyond_the_limit_gives_up_at_once() -> None:
    script = Script(CircuitOpenError("open", retry_after=61.0))
    slept: list[float] = []
    with pytest.raises(CircuitOpenError):
        retry(max_delay_s=60.0, sleep=slept.append)(script)()
    assert (script.calls, slept) == (1, [])


@pytest.mark.parametrize("asked", [math.nan, -3.0, True, "5", None])
def test_a_senseless_retry_after_is_ignored(asked: object) -> None:
    error = ValueError("x")
    error.retry_after = asked  # type: ignore[attr-defined]
    slept: list[float] = []
    script = Script(error, "ok")
    assert retry(exceptions=(ValueError,), sleep=slept.append, uniform=upper)(script)() == "ok"
    assert slept == [1.0]


def test_a_returned_error_is_retried_and_in_the_end_returned() -> None:
    failed = AnalysisError("ModelNotLoaded", "wait", recoverable=True, retry_after=7.0)
    slept: list[float] = []
    script = Script(failed, "ok")
    assert retry(sleep=slept.append, uniform=upper)(script)() == "ok"
    assert slept == [7.0]

    script = Script(failed)
    assert retry(2, sleep=slept.append)(script)() is failed
    assert script.calls == 3


@pytest.mark.parametrize(
    ("error_type", "recoverable", "exceptions", "calls"),
    [
        ("GPUOutOfMemoryError", True, (GPUOutOfMemoryError,), 2),
        ("EmbeddingTimeoutError", True, (GPUOutOfMemoryError,), 1),
        ("GPUOutOfMemoryError", False, (GPUOutOfMemoryError,), 1),
        ("InternalError", True, None, 1),
        ("dataclass", True, None, 1),
        ("EmbeddingTimeoutError", True, (), 1),
    ],
)
def test_which_returned_errors_are_retried(
    error_type: str,
    recoverable: bool,
    exceptions: tuple[type[Exception], ...] | None,
    calls: int,
) -> None:
    script = Script(AnalysisError(error_type, "m", recoverable=recoverable), "ok")
    retry(exceptions=exceptions, sleep=lambda _: None)(script)()
    assert script.calls == calls


def test_hooks_see_every_failed_attempt() -> None:
    retried: list[RetryEvent] = []
    given_up: list[RetryEvent] = []
    errors = [EmbeddingTimeoutError(str(n)) for n in range(3)]
    script = Script(*errors)

    @retry(
        2,
        sleep=lambda _: None,
        uniform=upper,
        on_retry=retried.append,
        on_give_up=given_up.append,
    )
    def embed() -> object:
        return script()

    with pytest.raises(EmbeddingTimeoutError):
        embed()
    assert [(e.attempt, e.error, e.delay_s) for e in retried] == [
        (1, errors[0], 1.0),
        (2, errors[1], 2.0),
    ]
    (last,) = given_up
    assert (last.attempt, last.error, last.delay_s) == (3, errors[2], None)
    assert last.function.endswith("embed")
    assert last.elapsed_s >= 0


def test_what_a_hook_raises_ends_the_retries() -> None:
    def stop(_: RetryEvent) -> None:
        raise RuntimeError("enough")

    script = Script(EmbeddingTimeoutError("x"))
    with pytest.raises(RuntimeError, match="enough"):
        retry(on_retry=stop, sleep=lambda _: None)(script)()
    assert script.calls == 1


async def test_coroutine_functions_are_awaited_and_retried() -> None:
    script = Script(ModelNotLoaded("x"), ModelNotLoaded("y"), "ok")
    slept: list[float] = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)

    @retry(async_sleep=pause, uniform=upper)
    async def fetch() -> object:
        await asyncio.sleep(0)
        return script()

    assert asyncio.iscoroutinefunction(fetch)
    assert await fetch() == "ok"
    assert slept == [5.0, 5.0]


async def test_a_coroutine_function_raises_its_last_error() -> None:
    script = Script(EmbeddingTimeoutError("x"))

    async def pause(_: float) -> None:
        return None

    @retry(1, async_sleep=pause)
    async def fetch() -> object:
        return script()

    with pytest.raises(EmbeddingTimeoutError):
        await fetch()
    assert script.calls == 2


async def test_a_cancellation_is_not_retried() -> None:
    calls = 0

    @retry(exceptions=(Exception,))
    async def wait() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


def test_an_interrupt_is_not_retried() -> None:
    script = Script(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        retry(exceptions=(Exception,), sleep=lambda _: None)(script)()
    assert script.calls == 1


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: retry(-1), ValueError),
        (lambda: retry(backoff_base=0.5), ValueError),
        (lambda: retry(backoff_base=math.nan), ValueError),
        (lambda: retry(max_delay_s=0), ValueError),
        (lambda: retry(max_delay_s=math.inf), ValueError),
        (lambda: retry(exceptions=(KeyboardInterrupt,)), TypeError),  # type: ignore[arg-type]
        (lambda: retry(exceptions=("x",)), TypeError),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused_where_they_stand(
    make: Callable[[], object], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        make()


def test_generators_are_refused() -> None:
    def gen() -> object:
        yield 1

    async def agen() -> object:
        yield 1

    for function in (gen, agen):
        with pytest.raises(TypeError, match="generator"):
            retry()(function)


def test_calls_do_not_share_their_counts() -> None:
    slept: list[float] = []
    script = Script(ModelNotLoaded("x"))
    decorated = retry(1, sleep=slept.append)(script)
    for _ in range(2):
        with pytest.raises(ModelNotLoaded):
            decorated()
    assert script.calls == 4
