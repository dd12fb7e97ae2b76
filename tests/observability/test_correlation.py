from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from cert.observability.correlation import correlation_id_context, get_correlation_id


def test_it_is_set_nested_and_restored() -> None:
    assert get_correlation_id() is None
    with correlation_id_context("outer") as outer:
        assert outer == get_correlation_id() == "outer"
        with correlation_id_context("inner"):
            assert get_correlation_id() == "inner"
        assert get_correlation_id() == "outer"
    assert get_correlation_id() is None


def test_it_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), correlation_id_context("x"):
        _ = 1 / (len(get_correlation_id() or "") - 1)
    assert get_correlation_id() is None


def test_without_one_it_is_drawn() -> None:
    with correlation_id_context() as first, correlation_id_context() as second:
        assert first != second
        assert len(first) == len(second) == 32


def test_as_a_decorator_each_call_has_its_own() -> None:
    @correlation_id_context()
    def work() -> str | None:
        return get_correlation_id()

    first, second = work(), work()
    assert first
    assert second
    assert first != second


async def test_concurrent_tasks_do_not_see_each_others() -> None:
    async def work(name: str) -> str | None:
        with correlation_id_context(name):
            await asyncio.sleep(0.001)
            return get_correlation_id()

    names = [f"req-{n}" for n in range(20)]
    assert await asyncio.gather(*map(work, names)) == names


def test_threads_start_without_it_unless_the_context_is_copied() -> None:
    seen: list[str | None] = []
    with correlation_id_context("x"):
        copied = contextvars.copy_context()
        for run in (lambda: seen.append(get_correlation_id()), None):
            target = run or (lambda: copied.run(lambda: seen.append(get_correlation_id())))
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, "x"]


@pytest.mark.parametrize("wrong", ["", "x" * 201, "a\nb", "a\x1b[2J", "a\u202eb", "\ud800"])
def test_what_could_forge_a_line_is_no_id(wrong: str) -> None:
    with (
        pytest.raises(ValueError, match="a correlation id has") as caught,
        correlation_id_context(wrong),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert get_correlation_id() is None
