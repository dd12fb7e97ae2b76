"""From replicates to the statistics' own types, with sums that can be done by hand."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest

from cert.coordination.evaluator_parameters import Criterion, Judged
from cert.coordination.plan import Decide, JudgePanel, Kind
from cert.coordination.prices import Price, Prices
from cert.coordination.protocol import Call, CallFailure, Reply, StopReason, Usage
from cert.coordination.results import (
    NO_OWN_ANSWER,
    NOT_RUN,
    NOT_SCORED,
    build_answers,
    build_individuals,
    build_trial,
)
from cert.core.errors import ConfigurationError
from cert.statistics.consensus import compare_debate
from cert.statistics.crossfit import estimate_omega
from cert.statistics.verdict import CoordinationVerdict, VerdictRule, judge
from tests.coordination.helpers import FakeAgent, arm, failure, full_plan, plan, reply, run, task

PRICE = Price(Decimal(1), Decimal(2), Decimal(0), Decimal(0))
PRICES = Prices({f"m{number}": PRICE for number in range(3)}, "sha256:0")


def planted(call: Call) -> Reply:
    """Agent n is right where task and n have the same parity; after a debate all are right."""
    task_id, _, _, round_, agent = call.key.split("/")
    number = int(task_id[1:])
    is_right = round_ != "0" or (number + int(agent)) % 2 == 0
    text = f"ANSWER: {number + 1 if is_right else 99}"
    return Reply(
        text=text, stop_reason=StopReason.END_TURN, usage=Usage(1_000_000, 500_000), model="m"
    )


async def test_a_trial_has_the_arms_in_their_roles() -> None:
    chosen = full_plan(tasks=4)
    done = await run(chosen, FakeAgent(planted))
    trial = build_trial(chosen, done.replicates.values(), prices=PRICES)
    assert trial.tasks == ("t0", "t1", "t2", "t3")
    assert trial.groups == ("g0", "g1", "g2", "g3")
    assert trial.single.scores().tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert [one.name for one in trial.strategies] == ["sequential", "parallel", "debate"]
    debate = trial.strategies[2]
    assert debate.coordinated.scores().tolist() == [[1, 1]] * 4
    assert debate.matched is not None
    assert debate.matched.name == "self_consistency"
    assert debate.refine is not None
    assert debate.refine.name == "self_refine"
    assert debate.placebo is not None
    assert debate.placebo.name == "placebo"
    assert trial.strategies[0].matched is None
    one = trial.single.rows[0][0]
    # 1 million tokens in at 1 USD, half a million out at 2 USD.
    assert (one.tokens, one.cost_usd) == (1_500_000, 2.0)
    assert debate.coordinated.rows[0][0].cost_usd == 18.0


async def test_the_order_of_the_replicates_does_not_matter() -> None:
    chosen = full_plan()
    done = await run(chosen, FakeAgent(planted))
    given = list(done.replicates.values())
    assert build_trial(chosen, given) == build_trial(chosen, given[::-1])


async def test_what_is_missing_is_missing() -> None:
    chosen = full_plan()

    def fails(call: Call) -> Reply:
        if call.key.startswith("t0/single/0"):
            raise failure(CallFailure.TRANSIENT, is_unknown_billed=True)
        return planted(call)

    done = await run(chosen, FakeAgent(fails))
    del done.replicates["t1/single/1"]
    trial = build_trial(chosen, done.replicates.values(), prices=PRICES)
    failed, gone = trial.single.rows[0][0], trial.single.rows[1][1]
    assert (failed.score, failed.unscored) == (None, "call_failed: transient")
    assert (failed.tokens, failed.cost_usd) == (None, None)
    assert (gone.score, gone.unscored) == (None, NOT_RUN)


async def test_a_model_without_a_price_is_an_error_and_no_prices_are_none() -> None:
    done = await run(plan(), FakeAgent(planted))
    with pytest.raises(ConfigurationError, match="no price for the model"):
        build_trial(plan(), done.replicates.values(), prices=Prices({}, "sha256:0"))
    assert build_trial(plan(), done.replicates.values()).single.rows[0][0].cost_usd is None


async def test_judges_cost_nothing_of_the_arms() -> None:
    free = task(evaluator=Judged((Criterion("a", "?"),)), expected=())
    chosen = plan(
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE),
        tasks=(free,),
        panel=JudgePanel(("j",), repeats=1),
    )

    def answer(call: Call) -> Reply:
        if "judge" in call.key:
            return reply('{"a": {"quote": "x", "score": 3}}', tokens=1000)
        return reply("x", tokens=10)

    done = await run(chosen, FakeAgent(answer))
    # No price of the judge is asked for.
    trial = build_trial(chosen, done.replicates.values(), prices=PRICES)
    assert trial.single.rows[0][0].score == 0.75
    assert trial.single.rows[0][0].tokens == 10
    individuals = build_individuals(chosen, done.replicates.values(), "parallel")
    assert [one.unscored for one in individuals.rows[0]] == [NOT_SCORED] * 2
    before, _ = build_answers(chosen, done.replicates.values(), "parallel")
    assert before[0].labels == (None, None)
    assert before[0].is_right == (None, None)


async def test_individuals_are_what_the_agents_knew_alone() -> None:
    chosen = full_plan(tasks=4)
    done = await run(chosen, FakeAgent(planted))
    individuals = build_individuals(chosen, done.replicates.values(), "debate")
    assert individuals.scores().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]]
    trial = build_trial(chosen, done.replicates.values())
    omega = estimate_omega(trial, trial.strategies[2].coordinated, individuals, seed=1)
    assert omega.individuals == 3
    assert omega.oracle_gap == 0.0
    chain = build_individuals(chosen, done.replicates.values(), "sequential")
    assert chain.rows[0][0].score == 1.0
    assert [one.unscored for one in chain.rows[0][1:]] == [NO_OWN_ANSWER] * 2
    cut = await run(chosen, FakeAgent(lambda _call: reply("x", stop_reason=StopReason.MAX_TOKENS)))
    nobody = build_individuals(chosen, cut.replicates.values(), "debate")
    assert {one.unscored for row in nobody.rows for one in row} == {NO_OWN_ANSWER}
    nothing = build_individuals(chosen, (), "debate")
    assert nothing.rows[0][0].unscored == NOT_RUN


async def test_flips_of_a_debate_are_counted() -> None:
    chosen = full_plan(tasks=4)

    def fails(call: Call) -> Reply:
        if call.key.startswith("t3/debate/1/0/0"):
            raise failure()
        return planted(call)

    done = await run(chosen, FakeAgent(fails))
    before, after = build_answers(chosen, done.replicates.values(), "debate")
    # 4 tasks, 2 replicates, one of them failed.
    assert len(before) == len(after) == 7
    assert before[0].labels == ("1", "99", "1")
    assert before[0].is_right == (True, False, True)
    assert after[0].labels == ("1", "1", "1")
    flips = compare_debate(before, after).flips
    # Wrong at first: 1 of 3 in t0 and t2 (4 replicates), 2 of 3 in t1 and t3 (3 replicates).
    assert flips.wrong_to_right == 4 * 1 + 3 * 2
    assert flips.right_to_wrong == 0
    assert flips.stayed_right == 4 * 2 + 3 * 1


def is_lucky(call: Call, rate: float) -> bool:
    """A coin that falls the same way for the same key."""
    draw = int.from_bytes(hashlib.sha256(call.key.encode()).digest()[:4], "big")
    return draw < rate * 2**32


@pytest.mark.parametrize(
    ("alone", "together", "expected"),
    [
        (0.4, 0.95, {CoordinationVerdict.BENEFICIAL}),
        (0.8, 0.3, {CoordinationVerdict.HARMFUL}),
        (0.6, 0.6, {CoordinationVerdict.INCONCLUSIVE, CoordinationVerdict.HARMFUL}),
    ],
)
async def test_planted_abilities_come_out_as_verdicts(
    alone: float, together: float, expected: set[CoordinationVerdict]
) -> None:
    """Agents right so often alone, and so often once they have read each other."""
    chosen = plan(
        arm(Kind.SINGLE, replicates=3),
        arm(Kind.SEQUENTIAL, agents=3, replicates=3),
        arm(Kind.SELF_CONSISTENCY, reference="sequential", replicates=3),
        tasks=40,
    )

    def answer(call: Call) -> Reply:
        task_id, _, _, round_, _ = call.key.split("/")
        is_right = is_lucky(call, alone if round_ == "0" else together)
        return reply(f"ANSWER: {int(task_id[1:]) + 1 if is_right else 99}")

    done = await run(chosen, FakeAgent(answer))
    trial = build_trial(chosen, done.replicates.values(), prices=PRICES)
    (verdict,) = judge(trial, VerdictRule())
    assert verdict.verdict in expected
