"""The stream: what is recorded, in which order, and what a run that was cut off comes to."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.evaluator import Reason, Score, Unscored
from cert.coordination.orchestrator import run_plan
from cert.coordination.plan import Kind
from cert.coordination.protocol import Call, CallError, CallFailure, Reply, Usage
from cert.coordination.transcript import CallFault, FinishedCall, PastCall
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import FakeAgent, arm, failure, fenced, full_plan, plan, reply, run

if TYPE_CHECKING:
    from cert.coordination.plan import Plan
    from cert.coordination.replicate import FinishedReplicate


def answer(call: Call) -> Reply:
    """Depends on everything that a call can show, so that any mix-up shows in the transcript."""
    seen = sum(map(len, fenced(call))) + len(call.key)
    return reply(f"{call.key} saw {seen}\nANSWER: {seen % 4}", tokens=10 + seen % 7)


def sometimes_failing(call: Call) -> Reply:
    if hash_of(call.key) % 11 == 0:
        raise failure(usage=Usage(3, 0))
    return answer(call)


def hash_of(text: str) -> int:
    return sum(ord(char) * (place + 1) for place, char in enumerate(text))


async def test_calls_come_before_their_replicate_and_all_come_once() -> None:
    agent = FakeAgent(answer)
    chosen = full_plan()
    calls: set[str] = set()
    replicates: set[str] = set()
    async with aclosing(run_plan(chosen, agent)) as events:
        async for event in events:
            if isinstance(event, FinishedCall):
                assert event.call.key not in calls
                calls.add(event.call.key)
                continue
            assert event.unit.key not in replicates
            replicates.add(event.unit.key)
            assert {call.call.key for call in event.calls} <= calls
    assert calls == set(agent.keys)
    assert len(agent.keys) == len(calls)
    assert len(replicates) == 3 * 7 * 2


async def test_keys_are_unique_and_say_where_a_call_belongs() -> None:
    agent = FakeAgent(answer)
    await run(full_plan(), agent)
    for key in agent.keys:
        task_id, arm_name, replicate, round_, number = key.split("/")
        assert task_id in {"t0", "t1", "t2"}
        assert full_plan().arm(arm_name)
        assert replicate in {"0", "1"}
        assert round_.isdigit() or round_ == "decide"
        assert number.isdigit()


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10**6))
def test_replicates_do_not_depend_on_who_answers_first(concurrency: int, seed: int) -> None:
    def delay_s(call: Call) -> float:
        return (hash_of(call.key) * (seed + 1) % 5) / 5000

    async def both() -> None:
        slow = FakeAgent(sometimes_failing, delay_s)
        one = await run(full_plan(tasks=2), FakeAgent(sometimes_failing), concurrency=1)
        other = await run(full_plan(tasks=2), slow, concurrency=concurrency)
        assert one.replicates == other.replicates
        assert slow.most_running <= concurrency

    asyncio.run(both())


async def test_one_at_a_time_follows_the_schedule() -> None:
    agents = [FakeAgent(answer), FakeAgent(answer)]
    outcomes = [await run(full_plan(), agent, concurrency=1) for agent in agents]
    assert agents[0].keys == agents[1].keys
    assert list(outcomes[0].replicates) == list(outcomes[1].replicates)
    assert agents[0].most_running == 1


async def test_a_run_killed_at_any_call_ends_the_same() -> None:
    chosen = plan(
        arm(Kind.SEQUENTIAL, agents=2),
        arm(Kind.DEBATE, agents=3),
        arm(Kind.SELF_CONSISTENCY, reference="debate"),
        arm(Kind.PLACEBO, agents=3, reference="debate"),
        tasks=2,
    )
    whole_agent = FakeAgent(sometimes_failing)
    whole = await run(chosen, whole_agent, concurrency=3)
    total = len(whole_agent.calls)
    assert total > 30
    assert any(isinstance(one.outcome, Unscored) for one in whole.replicates.values())
    for count in range(1, total + 1):
        before_agent, after_agent = FakeAgent(sometimes_failing), FakeAgent(sometimes_failing)
        before = await run(chosen, before_agent, concurrency=3, stop_after_calls=count)
        after = await run(chosen, after_agent, past=before.past, concurrency=3)
        assert after.replicates == whole.replicates
        # What was taken from the stream is not asked again; at most 3 calls were lost in flight.
        assert not set(before.past) & set(after_agent.keys)
        assert len(before_agent.calls) - count <= 3
        assert len(after_agent.calls) == total - count


async def test_replayed_calls_are_marked_and_not_yielded() -> None:
    first = await run(full_plan(), FakeAgent(answer))
    agent = FakeAgent(answer)
    again = await run(full_plan(), agent, past=first.past)
    assert agent.calls == []
    assert again.calls == []
    assert again.replicates == first.replicates
    assert all(call.is_replayed for one in again.replicates.values() for call in one.calls)
    assert not any(call.is_replayed for one in first.replicates.values() for call in one.calls)


async def test_a_past_call_that_was_another_is_an_error() -> None:
    first = await run(plan(), FakeAgent(answer))
    key = "t0/single/0/0/0"
    past = {key: PastCall("sha256:0", first.past[key].outcome)}
    with pytest.raises(ConfigurationError, match="was asked something else"):
        await run(plan(), FakeAgent(answer), past=past)


async def test_nothing_builds_on_a_call_that_was_not_taken() -> None:
    """Whoever takes an event may record it before anything that follows from it is asked."""
    agent = FakeAgent(answer)
    taken: set[str] = set()
    chosen = plan(arm(Kind.SEQUENTIAL, agents=4), tasks=2)
    async with aclosing(run_plan(chosen, agent, concurrency=4)) as events:
        async for event in events:
            for _ in range(20):
                await asyncio.sleep(0)
            asked = {key for key in agent.keys if key not in taken}
            assert len(asked) <= 4
            for key in asked:
                unit, round_, _ = key.rsplit("/", 2)
                before = {f"{unit}/{number}/{number}" for number in range(int(round_))}
                assert before <= taken
            if isinstance(event, FinishedCall):
                taken.add(event.call.key)


async def test_a_failed_call_is_no_score_of_0() -> None:
    def fails(_call: Call) -> Reply:
        raise failure(CallFailure.INVALID)

    done = await run(full_plan(), FakeAgent(fails))
    outcomes = {one.unit.key: one.outcome for one in done.replicates.values()}
    assert len(outcomes) == 3 * 7 * 2
    assert not any(isinstance(one, Score) for one in outcomes.values())
    assert outcomes["t0/single/0"] == Unscored(Reason.CALL_FAILED, "invalid")
    own = outcomes["t0/self_consistency/0"]
    assert own == Unscored(Reason.REFERENCE_UNSCORED, "t0/debate/0")
    placebo = outcomes["t0/placebo/0"]
    assert isinstance(placebo, Unscored)
    assert placebo.reason is Reason.REFERENCE_UNSCORED
    assert not placebo.detail.startswith("t0")


@pytest.mark.parametrize("kind", [CallFailure.TRANSIENT, CallFailure.INVALID, CallFailure.REJECTED])
async def test_one_agents_failure_ends_its_replicate_alone(kind: CallFailure) -> None:
    def fails(call: Call) -> Reply:
        if call.key == "t0/debate/0/0/1":
            raise failure(kind)
        return answer(call)

    agent = FakeAgent(fails)
    done = await run(plan(arm(Kind.DEBATE, agents=3, replicates=2), tasks=2), agent)
    failed = done.one("t0/debate/0")
    assert failed.outcome == Unscored(Reason.CALL_FAILED, kind.value)
    # The others of its round were paid for and are kept; its second round was not asked.
    assert [call.call.key[-3:] for call in failed.calls] == ["0/0", "0/1", "0/2"]
    assert failed.members == ()
    others = [one for one in done.replicates.values() if one is not failed]
    assert all(isinstance(one.outcome, Score) for one in others)


@pytest.mark.parametrize("kind", [CallFailure.FATAL, CallFailure.LATER, CallFailure.BUDGET])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_failure_that_ends_the_run_can_be_continued(
    kind: CallFailure, concurrency: int
) -> None:
    chosen = full_plan(tasks=2)
    whole = await run(chosen, FakeAgent(answer))
    state = {"left": 25}

    def stops(call: Call) -> Reply:
        state["left"] -= 1
        if state["left"] < 0:
            raise failure(kind)
        return answer(call)

    agent = FakeAgent(stops)
    recorded: list[FinishedCall] = []
    replicates: list[FinishedReplicate] = []

    async def record() -> None:
        async with aclosing(run_plan(chosen, agent, concurrency=concurrency)) as events:
            async for event in events:
                if isinstance(event, FinishedCall):
                    recorded.append(event)
                else:
                    replicates.append(event)

    with pytest.raises(CallError) as raised:
        await record()
    assert raised.value.failure is kind
    assert len(recorded) == len(agent.calls)
    assert 26 <= len(recorded) <= 25 + concurrency
    assert all(one == whole.replicates[one.unit.key] for one in replicates)
    past = {one.call.key: PastCall(one.digest, one.outcome) for one in recorded}
    rest = FakeAgent(answer)
    again = await run(chosen, rest, past=past)
    assert again.replicates == whole.replicates
    assert len(rest.calls) == sum(len(one.calls) for one in whole.replicates.values()) - 25


async def take_all(
    agent: FakeAgent, chosen: Plan, *, past: dict[str, PastCall] | None = None, concurrency: int
) -> tuple[list[FinishedCall], list[FinishedReplicate], CallError | None]:
    calls: list[FinishedCall] = []
    replicates: list[FinishedReplicate] = []
    try:
        async with aclosing(run_plan(chosen, agent, past=past, concurrency=concurrency)) as events:
            async for event in events:
                if isinstance(event, FinishedCall):
                    calls.append(event)
                else:
                    replicates.append(event)
    except CallError as error:
        return calls, replicates, error
    return calls, replicates, None


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_service_that_is_down_stops_the_run(concurrency: int) -> None:
    chosen = full_plan(tasks=2)
    state = {"left": 20}

    def goes_down(call: Call) -> Reply:
        state["left"] -= 1
        if state["left"] < 0:
            raise failure()
        return answer(call)

    agent = FakeAgent(goes_down)
    calls, replicates, error = await take_all(agent, chosen, concurrency=concurrency)
    assert error is not None
    assert error.failure is CallFailure.LATER
    assert "5 calls in a row failed, the last one with: planted" in error.message
    failed = {one.call.key for one in calls if isinstance(one.outcome, CallFault)}
    # Those in flight with the fifth one fail, too; nothing is asked behind them.
    assert 5 <= len(failed) < 5 + concurrency
    assert len(agent.calls) == len(calls) == 20 + len(failed)
    unscored = {one.unit.key for one in replicates if isinstance(one.outcome, Unscored)}
    assert unscored <= {key.rsplit("/", 2)[0] for key in failed}

    past = {one.call.key: PastCall(one.digest, one.outcome) for one in calls}
    rest = FakeAgent(answer)
    _, after, error = await take_all(rest, chosen, past=past, concurrency=concurrency)
    assert error is None
    # What failed has failed; everything else is asked.
    assert not failed & set(rest.keys)
    assert len(after) == 2 * 7 * 2
    recorded = {one.unit.key: one for one in replicates}
    assert all(recorded.get(one.unit.key, one) == one for one in after)


async def test_a_service_that_stays_down_stops_the_run_again() -> None:
    def fails(_call: Call) -> Reply:
        raise failure()

    past: dict[str, PastCall] = {}
    for number in range(1, 4):
        calls, _, error = await take_all(FakeAgent(fails), full_plan(), past=past, concurrency=1)
        assert error is not None
        past |= {one.call.key: PastCall(one.digest, one.outcome) for one in calls}
        assert len(past) == 5 * number


@pytest.mark.parametrize(
    "between",
    [
        answer,
        failure(CallFailure.INVALID),
        failure(CallFailure.REJECTED),
        failure(usage=Usage(1, 1)),
    ],
)
async def test_a_service_that_answers_now_and_then_is_not_down(between: object) -> None:
    state = {"calls": 0}

    def stumbles(call: Call) -> Reply:
        state["calls"] += 1
        if state["calls"] % 5:
            raise failure()
        if isinstance(between, CallError):
            raise between
        return answer(call)

    calls, _, error = await take_all(FakeAgent(stumbles), full_plan(), concurrency=1)
    assert error is None
    assert len(calls) > 25


async def test_failures_are_counted_in_the_order_in_which_they_end() -> None:
    """Of 8 calls at once 4 fail before one that is answered, and 3 behind it."""
    state = {"calls": 0}

    def fails(call: Call) -> Reply:
        state["calls"] += 1
        if state["calls"] == 5:
            return answer(call)
        raise failure()

    chosen = plan(arm(Kind.SINGLE, replicates=8))
    calls, _, error = await take_all(FakeAgent(fails), chosen, concurrency=8)
    assert error is None
    assert len(calls) == 8


async def test_what_stops_a_run_for_good_goes_before_a_service_that_is_down() -> None:
    state = {"calls": 0}

    def fails(_call: Call) -> Reply:
        state["calls"] += 1
        raise failure(CallFailure.FATAL if state["calls"] == 5 else CallFailure.TRANSIENT)

    calls, _, error = await take_all(FakeAgent(fails), full_plan(), concurrency=1)
    assert error is not None
    assert (error.failure, len(calls)) == (CallFailure.FATAL, 5)


async def test_cancelling_cancels_the_calls_in_flight() -> None:
    agent = FakeAgent(answer, lambda _call: 60.0)

    async def consume() -> None:
        async with aclosing(run_plan(full_plan(), agent, concurrency=3)) as events:
            async for _ in events:
                pass

    consuming = asyncio.create_task(consume())
    while agent.running < 3:  # noqa: ASYNC110 - the fake has no event
        await asyncio.sleep(0)
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    assert agent.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_leaving_the_stream_leaves_nothing_behind() -> None:
    agent = FakeAgent(answer)
    events = run_plan(full_plan(), agent, concurrency=3)
    await anext(events)
    await events.aclose()
    count = len(agent.calls)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(agent.calls) == count <= 3
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_of_the_consumer_ends_the_run() -> None:
    agent = FakeAgent(answer)

    async def consume() -> None:
        async with aclosing(run_plan(full_plan(), agent)) as events:
            async for _ in events:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await consume()
    assert agent.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_an_agent_that_breaks_its_word_breaks_the_run_and_hides_nothing() -> None:
    def breaks(_call: Call) -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(full_plan(), FakeAgent(breaks))
    assert len(asyncio.all_tasks()) == 1


async def test_what_breaks_one_worker_ends_the_others() -> None:
    def breaks(call: Call) -> Reply:
        if call.key.endswith("debate/0/0/1"):
            raise ZeroDivisionError
        return answer(call)

    agent = FakeAgent(breaks, lambda call: 0.01 if "debate" in call.key else 60.0)
    chosen = plan(arm(Kind.DEBATE, agents=2), arm(Kind.SEQUENTIAL, agents=2))
    with pytest.raises(ZeroDivisionError):
        await run(chosen, agent)
    assert agent.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_failure_beside_one_that_ends_the_run_leaves_no_outcome() -> None:
    def fails(call: Call) -> Reply:
        if "parallel" not in call.key:
            return answer(call)
        is_first = call.key.endswith("/0/0")
        raise failure(CallFailure.TRANSIENT if is_first else CallFailure.LATER)

    seen: list[str] = []

    async def consume() -> None:
        chosen = plan(arm(Kind.PARALLEL, agents=2))
        async with aclosing(run_plan(chosen, FakeAgent(fails))) as events:
            async for event in events:
                is_call = isinstance(event, FinishedCall)
                seen.append("call" if is_call else event.unit.arm)

    with pytest.raises(CallError, match="planted"):
        await consume()
    # Both calls are there, and the replicate is not: it is run again later.
    assert "parallel" not in seen
    assert seen.count("call") >= 2


async def test_replicates_share_nothing() -> None:
    """Replicates of an arm differ by their keys alone, and never see each other."""
    agent = FakeAgent(answer)
    await run(plan(arm(Kind.DEBATE, agents=2, replicates=3)), agent)
    for call in agent.calls:
        unit = call.key.rsplit("/", 2)[0]
        assert all(unit in text for text in fenced(call))
    firsts = [call for call in agent.calls if call.key.endswith("/0/0") and "debate" in call.key]
    assert len({call.messages for call in firsts}) == 1


async def test_two_runs_side_by_side_do_not_disturb_each_other() -> None:
    one, other = await asyncio.gather(
        run(full_plan(), FakeAgent(answer)), run(full_plan(), FakeAgent(answer))
    )
    assert one.replicates == other.replicates


async def test_tokens_are_unknown_where_a_charge_may_have_gone_unsaid() -> None:
    def fails(call: Call) -> Reply:
        if call.key == "t0/single/0/0/0":
            raise failure(is_unknown_billed=True)
        if call.key == "t0/single/1/0/0":
            raise failure(usage=Usage(4, 0, 2, 1))
        if call.key == "t0/single/2/0/0":
            raise failure()
        return answer(call)

    done = await run(plan(arm(Kind.SINGLE, replicates=3)), FakeAgent(fails))
    assert [done.one(f"t0/single/{number}").tokens for number in range(3)] == [None, 7, 0]


async def test_a_long_message_of_a_failure_is_cut() -> None:
    def fails(_call: Call) -> Reply:
        raise CallError("x" * 5_000_000, failure=CallFailure.INVALID)

    done = await run(plan(), FakeAgent(fails))
    outcome = done.calls[0].outcome
    assert isinstance(outcome, CallFault)
    assert len(outcome.message) == 1000
    assert outcome.to_error().failure is CallFailure.INVALID


async def test_concurrency_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="concurrency is 0"):
        await run(plan(), FakeAgent(answer), concurrency=0)


async def test_a_stream_that_nobody_takes_asks_no_more_than_its_limit() -> None:
    agent = FakeAgent(answer)
    events = run_plan(full_plan(), agent, concurrency=2)
    taking = asyncio.ensure_future(anext(events))
    for _ in range(200):
        await asyncio.sleep(0)
    assert taking.done()
    assert len(agent.calls) <= 2
    with suppress(StopAsyncIteration):
        await events.aclose()
