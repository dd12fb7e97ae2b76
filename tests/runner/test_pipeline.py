from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.errors import AnalysisError, ConfigurationError, NumericalError
from cert.inputs.case import PromptCase, RefusedInput
from cert.runner.pipeline import run_cases, run_in_groups
from tests.runner.helpers import cases, engine, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cert.backends.protocol import Generation, GenerationRequest
    from cert.runner.pipeline import Outcome
    from cert.trajectory.engine import HamiltonianEngine


def ids(outcomes: Iterable[Outcome]) -> list[str]:
    return [json.loads(one.line)["prompt"]["id"] for one in outcomes]


def test_records_come_in_input_order_although_prompts_end_in_another() -> None:
    with engine() as (running, backend):
        original = backend._generate

        def slow_first(request: GenerationRequest, *rest: Any) -> Generation:  # noqa: ANN401
            if request.id == "id-1":
                time.sleep(0.2)
            return original(request, *rest)

        backend._generate = slow_first
        outcomes = list(run_cases(iter(cases(9)), running, settings()))
    assert ids(outcomes) == [f"id-{n}" for n in range(1, 10)]


def test_a_record_says_what_the_run_was_given() -> None:
    with engine() as (running, _):
        chosen = settings(run_id="r", correlation_id="c", content="omitted")
        (outcome,) = run_cases(iter(cases(1)), running, chosen)
    assert outcome.record["run_id"] == "r"
    assert outcome.record["correlation_id"] == "c"
    assert "text" not in outcome.record["prompt"]
    assert outcome.record["provenance"]["sampling"]["max_new_tokens"] == 3


def test_refused_lines_and_failed_prompts_stand_where_they_came_in() -> None:
    refused = RefusedInput("a.txt", 2, "InvalidInput", "not UTF-8")
    first, third = cases(1)[0], PromptCase(id="id-3", text="bad", source="a.txt", line=3)
    last = PromptCase(id="id-4", text="good", source="a.txt", line=4)
    with engine(errors={"bad": NumericalError("NaN")}) as (running, backend):
        outcomes = list(run_cases(iter([first, refused, third, last]), running, settings()))
        digest = backend.identity.digest
    assert [one.record["kind"] for one in outcomes] == ["analysis", "refused", "error", "analysis"]
    assert outcomes[1].record["input"] == {"source": "a.txt", "line": 2}
    assert isinstance(outcomes[2].result, AnalysisError)
    assert outcomes[2].record["error"]["type"] == "NumericalError"
    assert outcomes[2].record["provenance"]["model"]["digest"] == digest


def test_no_input_gives_no_records() -> None:
    with engine() as (running, _):
        assert list(run_cases(iter([]), running, settings())) == []


def test_the_input_is_read_ahead_by_a_bounded_number_of_lines() -> None:
    read = []

    def endless() -> Iterator[PromptCase | RefusedInput]:
        number = 0
        while True:
            number += 1
            read.append(number)
            yield PromptCase(id=str(number), text=f"p {number}", line=number)

    with engine() as (running, backend):
        backend.gate.clear()
        stop = threading.Event()
        outcomes = run_cases(endless(), running, settings(in_flight=4), stopped=stop.is_set)
        timer = threading.Timer(0.4, stop.set)
        timer.start()
        assert list(outcomes) == []
        assert len(backend.requests) == 4
        assert len(read) <= 6
        backend.gate.set()


def test_refused_lines_are_read_ahead_by_a_bounded_number_too() -> None:
    read = []

    def endless() -> Iterator[PromptCase | RefusedInput]:
        for number in range(1, 100_000):
            read.append(number)
            yield RefusedInput("a", number, "InvalidInput", "bad")

    with engine() as (running, _):
        outcomes = run_cases(endless(), running, settings(in_flight=4))
        next(outcomes)
        time.sleep(0.3)
        assert len(read) <= 20
        outcomes.close()


def test_what_came_before_an_unreadable_input_is_not_lost() -> None:
    def breaking() -> Iterator[PromptCase]:
        yield from cases(3)
        raise ConfigurationError("the disk is gone")

    seen: list[Outcome] = []
    with engine() as (running, _):
        outcomes = run_cases(breaking(), running, settings())
        with pytest.raises(ConfigurationError, match="the disk is gone"):
            seen.extend(outcomes)
    assert ids(seen) == ["id-1", "id-2", "id-3"]


def test_stopping_yields_only_complete_records_in_order_and_cancels_the_rest() -> None:
    with engine(token_s=0.02) as (running, backend):
        stop = threading.Event()
        seen = []
        started = time.monotonic()
        chosen = settings(in_flight=4, sampling=settings().sampling)
        for outcome in run_cases(iter(cases(1000)), running, chosen, stopped=stop.is_set):
            seen.append(outcome)
            if len(seen) == 3:
                stop.set()
        assert time.monotonic() - started < 15
        assert ids(seen) == [f"id-{n}" for n in range(1, len(seen) + 1)]
        assert 3 <= len(seen) < 20
        assert all(one.record["generation"]["finish_reason"] in {"length", "eos"} for one in seen)
        assert len(backend.requests) < 40


def test_stopping_does_not_wait_for_an_input_that_says_nothing() -> None:
    silent = threading.Event()

    def waiting() -> Iterator[PromptCase]:
        yield from cases(1)
        silent.wait(20)

    stop = threading.Event()
    with engine() as (running, _):
        outcomes = run_cases(waiting(), running, settings(), stopped=stop.is_set)
        assert next(outcomes).record["prompt"]["id"] == "id-1"
        stop.set()
        started = time.monotonic()
        assert list(outcomes) == []
        assert time.monotonic() - started < 15
    silent.set()


def test_a_record_does_not_wait_for_the_next_line_of_input() -> None:
    more = threading.Event()

    def slow() -> Iterator[PromptCase]:
        yield from cases(1)
        more.wait(20)

    with engine() as (running, _):
        outcomes = run_cases(slow(), running, settings(in_flight=16))
        started = time.monotonic()
        next(outcomes)
        assert time.monotonic() - started < 15
        more.set()
        assert list(outcomes) == []


def test_abandoning_the_outcomes_takes_back_what_was_submitted() -> None:
    with engine() as (running, backend):
        backend.gate.clear()
        futures = []
        submit = running.submit

        def watched(*args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
            futures.append(submit(*args, **kwargs))
            return futures[-1]

        running.submit = watched
        outcomes = run_cases(
            iter([RefusedInput("a", 1, "InvalidInput", "bad"), *cases(4)]), running, settings()
        )
        next(outcomes)
        while len(futures) < 4:
            time.sleep(0.01)
        time.sleep(0.1)
        outcomes.close()
        assert all(one.cancelled() for one in futures)
        backend.gate.set()


def test_a_future_that_somebody_else_cancelled_is_an_error_not_a_gap() -> None:
    class Cancelling:
        def __init__(self, inner: HamiltonianEngine) -> None:
            self.model_resource = inner.model_resource

        def submit(self, case: PromptCase, **_: object) -> Future[Any]:
            future = Future()
            future.cancel()
            return future

    with engine() as (running, _):
        outcomes = list(run_cases(iter(cases(2)), Cancelling(running), settings()))
    assert [one.record["error"]["type"] for one in outcomes] == ["GenerationCancelled"] * 2


def test_a_bug_in_the_engine_ends_the_run_loudly() -> None:
    class Broken:
        model_resource = None

        def submit(self, case: PromptCase, **_: object) -> Future[Any]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(run_cases(iter(cases(2)), Broken(), settings()))


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_there_already_comes_together_and_what_is_not_is_not_waited_for() -> None:
    last_line = threading.Event()

    def lines() -> Iterator[PromptCase | RefusedInput]:
        first, *rest = cases(4)
        yield first
        yield RefusedInput("a.txt", 2, "InvalidInput", "bad")
        yield from rest
        last_line.wait(30)

    with engine() as (running, backend):
        futures = []
        submit = running.submit

        def watched(*args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
            futures.append(submit(*args, **kwargs))
            return futures[-1]

        running.submit = watched
        backend.gate.clear()
        groups = run_in_groups(lines(), running, settings(in_flight=4))
        seen: list[list[Outcome]] = []
        reader = threading.Thread(target=lambda: seen.extend(groups))
        reader.start()
        wait_for(lambda: len(futures) == 4)
        backend.gate.set()
        wait_for(lambda: sum(map(len, seen)) == 5)
        last_line.set()
        reader.join(30)
    kinds = [one.record["kind"] for group in seen for one in group]
    assert kinds == ["analysis", "refused", "analysis", "analysis", "analysis"]
    assert len(seen[0]) >= 2  # a refused line is always there already


def test_a_group_has_no_more_than_it_was_given_room_for() -> None:
    refused = [RefusedInput("a", number, "InvalidInput", "bad") for number in range(1, 8)]
    with engine() as (running, _):
        groups = run_in_groups(iter(refused), running, settings(in_flight=4), most=3)
        first = next(groups)
        # The rest fits into the queue, its end included; all of it has arrived some time.
        time.sleep(0.1)
        rest = list(groups)
    lengths = [len(first), *map(len, rest)]
    assert max(lengths) <= 3
    assert sum(lengths) == 7


def test_an_input_that_breaks_while_a_group_is_gathered_loses_none_of_it() -> None:
    def breaking() -> Iterator[RefusedInput]:
        yield RefusedInput("a", 1, "InvalidInput", "bad")
        raise ConfigurationError("the disk is gone")

    seen: list[list[Outcome]] = []
    with engine() as (running, _), pytest.raises(ConfigurationError, match="the disk is gone"):
        seen.extend(run_in_groups(breaking(), running, settings()))
    assert [len(group) for group in seen] == [1]


def test_abandoning_groups_takes_back_a_prompt_that_was_looked_at() -> None:
    with engine() as (running, backend):
        backend.gate.clear()
        futures = []
        submit = running.submit

        def watched(*args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
            futures.append(submit(*args, **kwargs))
            return futures[-1]

        running.submit = watched
        groups = run_in_groups(
            iter([RefusedInput("a", 1, "InvalidInput", "bad"), *cases(2)]), running, settings()
        )
        next(groups)
        wait_for(lambda: len(futures) == 2)
        groups.close()
        wait_for(lambda: all(one.cancelled() for one in futures))
        backend.gate.set()
