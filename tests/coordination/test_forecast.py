"""Counted beforehand: exact where a plan fixes the number of calls, and never less than comes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from cert.coordination.budget import bound_input_tokens
from cert.coordination.canaries import load_canaries
from cert.coordination.evaluator_parameters import Compared, Criterion, Judged, Object
from cert.coordination.forecast import Forecast, Takings, count_calls
from cert.coordination.plan import AgentSpec, ArmPlan, Decide, JudgePanel, Kind, Plan
from cert.coordination.prices import Price, Prices
from cert.coordination.protocol import Call, Reply, StopReason, Usage
from cert.coordination.transcript import Purpose
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import FakeAgent, arm, full_plan, plan, reply, run, task

if TYPE_CHECKING:
    from cert.coordination.transcript import FinishedCall

NAMES = ("m0", "m1", "m2", "j")
PRICE = Price(Decimal(1), Decimal(5), Decimal("0.1"), Decimal("1.25"))
PRICES = Prices(dict.fromkeys(NAMES, PRICE), "sha256:0")
JUDGED = Judged((Criterion("a", "?"), Criterion("b", "?")))


def long_reply(call: Call) -> Reply:
    """As if each byte were a token: all of them are used, and all of the prompt is charged."""
    text = f"{call.key}\n" + "x" * (call.max_tokens - len(call.key) - 1)
    assert len(text) == call.max_tokens
    size = sum(len(one.text.encode()) for one in call.messages) + len((call.system or "").encode())
    return reply(text, usage=Usage(size, call.max_tokens))


def check_encloses(forecast: Forecast, calls: list[FinishedCall]) -> None:
    counts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for one in calls:
        name = "judges"
        if one.purpose is Purpose.ARM:
            name = one.call.key.rsplit("/", 4)[1]
        counts[name] += 1
        assert one.usage is not None
        tokens[f"{name} in"] += one.usage.input_tokens
        tokens[f"{name} out"] += one.usage.output_tokens
    for name, taken in {**forecast.arms, "judges": forecast.judges}.items():
        assert taken.least_calls <= counts[name] <= taken.most_calls
        assert tokens[f"{name} in"] <= taken.most_input_tokens
        assert tokens[f"{name} out"] <= taken.most_output_tokens


def test_fixed_numbers_of_calls_are_exact() -> None:
    forecast = count_calls(full_plan())
    # 3 tasks, 2 replicates.
    exact = {
        "single": 6,
        "sequential": 6 * 3,
        # 2 agents and one that decides.
        "parallel": 6 * 3,
        # 3 agents, 3 rounds with the first one, a vote.
        "debate": 6 * 9,
        "self_refine": 6 * 3,
        "placebo": 6 * 9,
    }
    for name, calls in exact.items():
        taken = forecast.arms[name]
        assert (taken.least_calls, taken.most_calls) == (calls, calls)
        assert taken.most_output_tokens == 1024 * calls
        assert taken.most_usd is None
    samples = forecast.arms["self_consistency"]
    assert (samples.least_calls, samples.most_calls) == (6, 6 * 64)
    assert list(forecast.arms) == [one.name for one in full_plan().arms]
    assert forecast.judges == Takings()
    assert forecast.total.least_calls == 6 + sum(exact.values())
    assert forecast.total.most_calls == 6 * 64 + sum(exact.values())


def test_a_run_takes_no_more_than_was_counted() -> None:
    chosen = full_plan()
    forecast = count_calls(chosen)
    for answer in (long_reply, lambda call: reply("ANSWER: 1", tokens=2)):
        done = asyncio.run(run(chosen, FakeAgent(answer)))
        check_encloses(forecast, done.calls)
        exact = [call for call in done.calls if "self_consistency" not in call.call.key]
        samples = forecast.arms["self_consistency"]
        assert len(exact) == forecast.total.least_calls - samples.least_calls


def test_input_is_what_is_known_and_the_replies_in_it() -> None:
    chosen = plan(
        ArmPlan(
            name="b",
            kind=Kind.SEQUENTIAL,
            agents=(AgentSpec("m0", max_tokens=300), AgentSpec("m1", max_tokens=50)),
            replicates=1,
        )
    )
    agent = FakeAgent(lambda call: "x" * call.max_tokens)
    asyncio.run(run(chosen, agent))
    bounds = [bound_input_tokens(call) for call in agent.calls if "/b/" in call.key]
    assert bounds[1] > bounds[0] + 300
    taken = count_calls(chosen).arms["b"]
    # 40 for the words that would stand there if the middle of a reply were left out.
    assert taken.most_input_tokens == sum(bounds) + 40
    assert taken.most_output_tokens == 350


@pytest.mark.parametrize("wide", [False, True])
def test_long_replies_are_bounded_by_what_prompts_hold_of_them(wide: bool) -> None:
    """A prompt holds 20,000 characters of a text, of four bytes at most."""
    agents = (AgentSpec("m0", max_tokens=100_000), AgentSpec("m1"))
    chosen = plan(ArmPlan(name="b", kind=Kind.SEQUENTIAL, agents=agents, replicates=1))
    taken = count_calls(chosen).arms["b"]
    assert 80_000 < taken.most_input_tokens < 82_000
    text = "\U0001f600" * 25_000 if wide else "x" * 100_000

    def answer(call: Call) -> Reply:
        size = bound_input_tokens(call)
        return reply(text, usage=Usage(size, call.max_tokens))

    done = asyncio.run(run(chosen, FakeAgent(answer)))
    check_encloses(count_calls(chosen), done.calls)
    middle = ArmPlan(
        name="b", kind=Kind.SEQUENTIAL, agents=(AgentSpec("m0", 30_001), AgentSpec("m1"))
    )
    between = count_calls(plan(middle)).arms["b"].most_input_tokens
    assert 3 * 30_001 < between < 3 * 32_000


def test_costs_are_bounded_by_the_dearest_price_of_input() -> None:
    chosen = plan(ArmPlan(name="b", kind=Kind.PARALLEL, agents=(AgentSpec("m0", 100),) * 2))
    forecast = count_calls(chosen, prices=PRICES)
    taken = forecast.arms["b"]
    # 1.25 USD where a cache is written, 5 USD out; by the million.
    usd = (taken.most_input_tokens * Decimal("1.25") + taken.most_output_tokens * 5) / 10**6
    assert taken.most_usd == usd
    assert forecast.judges.most_usd == 0
    single = forecast.arms["single"].most_usd
    assert single is not None
    assert forecast.total.most_usd == usd + single
    with pytest.raises(ConfigurationError, match="no price for the model m0"):
        count_calls(chosen, prices=Prices({}, "sha256:0"))


def test_samples_are_bounded_by_the_tokens_of_their_reference() -> None:
    chosen = plan(
        arm(Kind.DEBATE, agents=3, rounds=2), arm(Kind.SELF_CONSISTENCY, reference="debate")
    )
    forecast = count_calls(chosen, prices=PRICES)
    samples, debate = forecast.arms["self_consistency"], forecast.arms["debate"]
    single = forecast.arms["single"]
    one = single.most_input_tokens + single.most_output_tokens
    spent = debate.most_input_tokens + debate.most_output_tokens
    # 64 samples of 1,024 tokens each would be more.
    assert samples.most_output_tokens == spent + single.most_output_tokens < 64 * 1024
    assert samples.most_input_tokens == 64 * single.most_input_tokens
    assert samples.most_usd is not None
    assert samples.most_usd <= Decimal(5) * (spent + one) / 10**6

    def dear(call: Call) -> Reply:
        return reply("ANSWER: 1", usage=Usage(0, call.max_tokens))

    done = asyncio.run(run(chosen, FakeAgent(dear)))
    cost = sum(
        (
            PRICE.cost_usd(call.outcome.usage)
            for call in done.calls
            if "self_consistency" in call.call.key and call.outcome.usage is not None
        ),
        Decimal(),
    )
    assert 0 < cost <= samples.most_usd


def test_few_samples_are_bounded_by_their_number() -> None:
    chosen = plan(
        arm(Kind.DEBATE, agents=3),
        arm(Kind.SELF_CONSISTENCY, reference="debate", max_samples=2),
    )
    forecast = count_calls(chosen, prices=PRICES)
    samples, single = forecast.arms["self_consistency"], forecast.arms["single"]
    assert (samples.least_calls, samples.most_calls) == (1, 2)
    assert samples.most_output_tokens == 2048
    assert single.most_usd is not None
    assert samples.most_usd == 2 * single.most_usd


def valid(call: Call) -> str:
    if call.schema is not None and "better" in call.schema["properties"]:  # type: ignore[operator]
        return json.dumps({"first_quote": "", "second_quote": "", "better": "neither"})
    return json.dumps({name: {"quote": "", "score": 0} for name in ("a", "b")})


def answers(call: Call, *, second_time: bool) -> Reply:
    if call.schema is None:
        return long_reply(call)
    is_valid = not second_time or ".again" in call.key
    text = valid(call) if is_valid else "no"
    size = bound_input_tokens(call)
    return reply(text, usage=Usage(size, call.max_tokens), stop_reason=StopReason.END_TURN)


def judged_plan(evaluator: object = JUDGED) -> Plan:
    return plan(
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE),
        tasks=(
            task(0, evaluator=evaluator, expected=("y",)),
            task(1, evaluator=evaluator, expected=("y",)),
        ),
        panel=JudgePanel(("j",), repeats=3, max_tokens=100),
    )


@pytest.mark.parametrize(
    ("evaluator", "least"),
    # 2 tasks, 2 arms, 3 repeats; both orders.
    [(JUDGED, 12), (Compared("Which is clearer?"), 24)],
)
def test_verdicts_are_asked_for_once_or_twice(evaluator: object, least: int) -> None:
    chosen = judged_plan(evaluator)
    forecast = count_calls(chosen)
    judges = forecast.judges
    assert (judges.least_calls, judges.most_calls) == (least, 2 * least)
    assert judges.most_output_tokens == 100 * 2 * least
    for second_time in (False, True):
        agent = FakeAgent(lambda call, late=second_time: answers(call, second_time=late))
        done = asyncio.run(run(chosen, agent))
        check_encloses(forecast, done.calls)
        asked = sum(call.purpose is Purpose.JUDGE for call in done.calls)
        assert asked == (judges.most_calls if second_time else judges.least_calls)


def test_canaries_are_judged_too() -> None:
    canaries = load_canaries()
    chosen = plan(panel=JudgePanel(("j",), repeats=2), canaries=canaries)
    judges = count_calls(chosen).judges
    assert (judges.least_calls, judges.most_calls) == (2 * len(canaries), 4 * len(canaries))


def test_choosing_among_samples_is_part_of_the_arm() -> None:
    best = arm(Kind.BEST_OF_N, reference="parallel", max_samples=3)
    chosen = judged_plan()
    chosen = Plan(
        tasks=chosen.tasks,
        arms=(*chosen.arms, best),
        prompts=chosen.prompts,
        seed=1,
        panel=chosen.panel,
    )
    forecast = count_calls(chosen)
    # A sample and 3 verdicts; 3 samples with 6.
    taken = forecast.arms["best_of_n"]
    assert (taken.least_calls, taken.most_calls) == (2 * 4, 2 * 3 * 7)
    # The chosen one is judged like any other answer.
    assert forecast.judges.least_calls == 18
    for second_time in (False, True):
        agent = FakeAgent(lambda call, late=second_time: answers(call, second_time=late))
        check_encloses(forecast, asyncio.run(run(chosen, agent)).calls)


def test_samples_that_are_computed_take_no_verdicts() -> None:
    chosen = plan(
        arm(Kind.PARALLEL, agents=2),
        arm(Kind.BEST_OF_N, reference="parallel", max_samples=3),
        tasks=(task(evaluator=Object({"type": "object"}), expected=()),),
    )
    taken = count_calls(chosen).arms["best_of_n"]
    assert (taken.least_calls, taken.most_calls) == (1, 3)
