"""From runs of fake agents to records and back, with sums that can be done by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from cert.coordination.evaluator_parameters import Compared, Criterion, Exact, Judged
from cert.coordination.plan import Decide, JudgePanel, Kind
from cert.coordination.prices import Price, Prices
from cert.coordination.protocol import (
    Attempt,
    Call,
    CallFailure,
    Reply,
    StopReason,
    Usage,
)
from cert.coordination.transcript import FinishedCall, PastCall
from cert.core.errors import ConfigurationError
from cert.evidence.coordination_plan import read_plan_policy
from cert.evidence.coordination_result import SpendTally, build_result
from cert.evidence.coordination_trial import build_trial, place_replicates
from cert.ledger.canonical import canonical_bytes
from cert.runner.coordination_records import (
    describe_call,
    describe_plan,
    describe_replicate,
    parse_past,
)
from cert.statistics.verdict import VerdictRule
from tests.coordination.helpers import FakeAgent, arm, failure, full_plan, plan, reply, run, task

if TYPE_CHECKING:
    from cert.coordination.plan import Plan
    from cert.statistics.trial import Trial
    from tests.coordination.helpers import Outcome

PRICE = Price(Decimal(1), Decimal(2), Decimal(0), Decimal(0))
PRICES = Prices({f"m{number}": PRICE for number in range(3)}, "sha256:" + "0" * 64)
ENDPOINT = {
    "kind": "messages",
    "base_url": "http://127.0.0.1:1",
    "api_version": "2023-06-01",
    "sdk": "fake",
}
Members = dict[str, Any]


def planted(call: Call) -> Reply:
    """Agent n is right where task and n have the same parity; after a debate all are right."""
    task_id, _, _, round_, agent = call.key.split("/")
    number = int(task_id[1:])
    is_right = round_ != "0" or (number + int(agent)) % 2 == 0
    text = f"ANSWER: {number + 1 if is_right else 99}"
    return Reply(
        text=text, stop_reason=StopReason.END_TURN, usage=Usage(1_000_000, 500_000), model="m"
    )


def policy_of(chosen: Plan, prices: Prices | None = None) -> Members:
    policy = describe_plan(chosen, VerdictRule(), prices=prices, endpoints=[ENDPOINT], splits=50)
    return policy.members


def replicates_of(chosen: Plan, done: Outcome, prices: Prices | None = None) -> list[Members]:
    return [
        describe_replicate(one, chosen, prices=prices, content="full")
        for one in done.replicates.values()
    ]


def calls_of(done: Outcome, prices: Prices | None = None) -> list[Members]:
    return [describe_call(one, prices=prices, content="full") for one in done.calls]


def result_of(chosen: Plan, done: Outcome, prices: Prices | None = None) -> dict[str, Any]:
    spend = SpendTally()
    for call in calls_of(done, prices):
        spend.add(call)
    members = replicates_of(chosen, done, prices)
    return build_result(policy_of(chosen, prices), members, spend.members())


def trial_of(chosen: Plan, done: Outcome, prices: Prices | None = None) -> Trial:
    plan_ = policy_of(chosen)["plan"]
    return build_trial(plan_, place_replicates(plan_, replicates_of(chosen, done, prices)))


async def test_arms_are_in_their_roles() -> None:
    chosen = full_plan(tasks=4)
    trial = trial_of(chosen, await run(chosen, FakeAgent(planted)), PRICES)
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


async def test_a_result_follows_from_what_was_described() -> None:
    chosen = full_plan(tasks=4)
    done = await run(chosen, FakeAgent(planted))
    found = result_of(chosen, done, PRICES)
    assert found["replicates"] == {"planned": 56, "run": 56, "scored": 56}
    arms = {one["name"]: one for one in found["arms"]}
    assert arms["single"]["score"]["estimate"] == 0.5
    assert (arms["single"]["tokens_per_task"], arms["single"]["cost_per_task_usd"]) == (1.5e6, 2.0)
    # 3 agents, 3 rounds with the first one.
    assert arms["debate"]["cost_per_task_usd"] == 18.0
    strategies = {one["name"]: one for one in found["strategies"]}
    debate = strategies["debate"]
    assert debate["gamma"]["estimate"] == 2.0
    assert debate["delta"]["estimate"] == 0.5
    assert debate["token_ratio"]["estimate"] == 9.0
    assert (debate["omega"]["individuals"], debate["omega"]["oracle_gap"]) == (3, 0.0)
    assert debate["consensus"]["status"] == "measured"
    assert strategies["parallel"]["omega"]["individuals"] == 2
    assert strategies["sequential"]["omega"] is None
    assert strategies["sequential"]["consensus"]["status"] == "not_measured"
    spend = found["spend"]
    assert spend["calls"] == len(done.calls)
    assert spend["input_tokens"] == 1_000_000 * len(done.calls)
    assert spend["cost_usd"] == 2.0 * len(done.calls)
    assert found["judges"] is None
    canonical_bytes(found)


async def test_the_order_of_the_replicates_does_not_matter() -> None:
    chosen = full_plan()
    done = await run(chosen, FakeAgent(planted))
    given = replicates_of(chosen, done, PRICES)
    spend = SpendTally().members()
    one, other = (build_result(policy_of(chosen), some, spend) for some in (given, given[::-1]))
    assert canonical_bytes(one) == canonical_bytes(other)


async def test_what_is_missing_is_missing() -> None:
    chosen = full_plan()

    def fails(call: Call) -> Reply:
        if call.key.startswith("t0/single/0"):
            raise failure(CallFailure.TRANSIENT, is_unknown_billed=True)
        return planted(call)

    done = await run(chosen, FakeAgent(fails))
    del done.replicates["t1/single/1"]
    failed = describe_replicate(
        done.replicates["t0/single/0"], chosen, prices=PRICES, content="full"
    )
    assert (failed["score"], failed["tokens"], failed["cost_usd"]) == (None, None, None)
    assert failed["unscored"] == {"reason": "call_failed", "detail": "transient"}
    assert (failed["members"], failed["text"], failed["verdicts"]) == ([], None, None)
    single = result_of(chosen, done, PRICES)["arms"][0]
    assert single["unscored"] == {"call_failed": 1, "not_run": 1}
    assert single["missing"] == 2 / 6


async def test_a_model_without_a_price_is_an_error_and_no_prices_are_none() -> None:
    done = await run(plan(), FakeAgent(planted))
    nothing = Prices({}, "sha256:0")
    with pytest.raises(ConfigurationError, match="no price for the model"):
        replicates_of(plan(), done, nothing)
    with pytest.raises(ConfigurationError, match="no price for the model"):
        calls_of(done, nothing)
    assert replicates_of(plan(), done)[0]["cost_usd"] is None
    assert calls_of(done)[0]["cost_usd"] is None


async def test_costs_are_exact() -> None:
    third = Price(Decimal("0.1"), Decimal("0.2"), Decimal(0), Decimal(0))
    chosen = plan(arm(Kind.SELF_REFINE, reference="b", rounds=2), arm(Kind.PARALLEL, "b", agents=2))
    prices = Prices({"m0": third, "m1": third}, "sha256:0")
    done = await run(
        chosen,
        FakeAgent(lambda _call: reply("ANSWER: 1", usage=Usage(1_000_000, 0))),
    )
    refine = done.one("t0/self_refine/0")
    # Three times a tenth, which floats make 0.30000000000000004 of.
    assert describe_replicate(refine, chosen, prices=prices, content="full")["cost_usd"] == 0.3


JUDGED = task(evaluator=Judged((Criterion("a", "?"),)), expected=())


async def test_judges_are_no_cost_of_the_arms_and_their_verdicts_are_told() -> None:
    chosen = plan(
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE),
        tasks=(JUDGED,),
        panel=JudgePanel(("j",), repeats=2),
    )

    def answer(call: Call) -> Reply:
        if "judge" in call.key:
            return reply('{"a": {"quote": "x", "score": 3}}', tokens=1000, model="j-1")
        return reply("x", tokens=10)

    done = await run(chosen, FakeAgent(answer))
    # No price of the judge is asked for.
    single = describe_replicate(done.one("t0/single/0"), chosen, prices=PRICES, content="full")
    assert (single["score"], single["tokens"]) == (0.75, 10)
    assert single["verdicts"] == [{"judge": "j", "answered_by": "j-1", "value": 0.75}] * 2
    assert single["calls"] == [
        "t0/single/0/0/0",
        "t0/single/0/judge.0/0",
        "t0/single/0/judge.1/0",
    ]
    assert single["evidence"]["verdicts"][0]["marks"] == {"a": {"quote": "x", "score": 3}}
    parallel = describe_replicate(done.one("t0/parallel/0"), chosen, prices=None, content="full")
    nobody = {"label": None, "score": None}
    assert [(one["first"], one["last"]) for one in parallel["members"]] == [(nobody, nobody)] * 2
    [strategy] = result_of(chosen, done)["strategies"]
    assert strategy["omega"] is None
    assert strategy["consensus"]["status"] == "not_measured"
    purposes = [one["purpose"] for one in calls_of(done) if one["arm"] == "single"]
    assert sorted(purposes) == ["arm", "judge", "judge"]


async def test_a_comparison_in_both_orders_is_two_verdicts() -> None:
    chosen = plan(
        tasks=(task(evaluator=Compared("Which is clearer?"), expected=("y",)),),
        panel=JudgePanel(("j",), repeats=1),
    )

    def answer(call: Call) -> Reply:
        if "judge" not in call.key:
            return reply("x")
        quotes = ("x", "y") if ".ab" in call.key else ("y", "x")
        said = {"first_quote": quotes[0], "second_quote": quotes[1], "better": "first"}
        return reply(json.dumps(said), model="j-ab" if ".ab" in call.key else "j-ba")

    done = await run(chosen, FakeAgent(answer))
    # The first one is better whatever it is: a tie.
    found = describe_replicate(done.one("t0/single/0"), chosen, prices=None, content="full")
    assert found["score"] == 0.5
    assert found["verdicts"] == [
        {"judge": "j", "answered_by": "j-ab", "value": 1.0},
        {"judge": "j", "answered_by": "j-ba", "value": 0.0},
    ]


async def test_individuals_are_what_the_agents_knew_alone() -> None:
    chosen = full_plan(tasks=4)
    done = await run(chosen, FakeAgent(planted))
    debate = describe_replicate(done.one("t1/debate/0"), chosen, prices=None, content="full")
    assert [(one["agent"], one["model"]) for one in debate["members"]] == [
        ("0", "m0"),
        ("1", "m1"),
        ("2", "m2"),
    ]
    assert [one["first"]["score"] for one in debate["members"]] == [0.0, 1.0, 0.0]
    assert [one["last"]["score"] for one in debate["members"]] == [1.0] * 3
    chain = describe_replicate(done.one("t0/sequential/0"), chosen, prices=None, content="full")
    assert [one["first"]["score"] for one in chain["members"]] == [1.0, None, None]
    cut = await run(chosen, FakeAgent(lambda _call: reply("x", stop_reason=StopReason.MAX_TOKENS)))
    debate = describe_replicate(cut.one("t1/debate/0"), chosen, prices=None, content="full")
    assert [one["first"] for one in debate["members"]] == [{"label": None, "score": None}] * 3
    assert debate["unscored"] == {"reason": "max_tokens", "detail": ""}
    assert result_of(chosen, cut)["strategies"][2]["omega"] is None


async def test_flips_of_a_debate_are_counted() -> None:
    chosen = full_plan(tasks=4)

    def fails(call: Call) -> Reply:
        if call.key.startswith("t3/debate/1/0/0"):
            raise failure()
        return planted(call)

    done = await run(chosen, FakeAgent(fails))
    consensus = result_of(chosen, done)["strategies"][2]["consensus"]
    # 4 tasks, 2 replicates, one of them failed.
    assert consensus["before"]["tasks"] == consensus["after"]["tasks"] == 7
    flips = consensus["flips"]
    # Wrong at first: 1 of 3 in t0 and t2 (4 replicates), 2 of 3 in t1 and t3 (3 replicates).
    assert flips["wrong_to_right"] == 4 * 1 + 3 * 2
    assert flips["right_to_wrong"] == 0
    assert flips["stayed_right"] == 4 * 2 + 3 * 1
    assert consensus["alpha"] is None


async def test_labels_are_numbered_as_they_appear() -> None:
    chosen = full_plan(tasks=2)

    def answer(call: Call) -> str:
        _, arm_name, _, round_, agent = call.key.split("/")
        said = {"0": ["7", "8", "7"], "1": ["8", "8", "8"], "2": ["9", "8", "7"]}
        return f"ANSWER: {said[round_][int(agent)]}" if arm_name == "debate" else "ANSWER: 1"

    done = await run(chosen, FakeAgent(answer))
    debate = describe_replicate(done.one("t0/debate/0"), chosen, prices=None, content="full")
    assert debate["labels"] == ["7", "8", "9"]
    assert [one["first"]["label"] for one in debate["members"]] == [0, 1, 0]
    assert [one["last"]["label"] for one in debate["members"]] == [2, 1, 0]


def labelled(number: int, **labels: tuple[str, ...]) -> Any:  # noqa: ANN401 - a task
    given = labels or {"Yes": ("y",), "no": ("n",)}
    return task(number, evaluator=Exact(labels=given), expected=("yes",))


async def test_labels_of_a_closed_set_have_its_numbers() -> None:
    chosen = plan(arm(Kind.PARALLEL, agents=3), tasks=(labelled(0), labelled(1)))
    assert policy_of(chosen)["plan"]["labels"] == ["no", "yes"]
    texts = {"0": "Y", "1": "perhaps", "2": "N"}
    done = await run(chosen, FakeAgent(lambda call: f"ANSWER: {texts[call.key[-1]]}"))
    found = describe_replicate(done.one("t0/parallel/0"), chosen, prices=None, content="full")
    assert found["labels"] == ["no", "yes", "perhaps"]
    assert [one["first"]["label"] for one in found["members"]] == [1, 2, 0]
    alpha = result_of(chosen, done)["strategies"][0]["consensus"]["alpha"]
    assert (alpha["units"], alpha["values"], alpha["labels"]) == (2, 4, 2)


@pytest.mark.parametrize(
    "tasks",
    [
        (task(0), task(1)),
        (labelled(0), task(1)),
        (labelled(0), labelled(1, yes=(), no=(), perhaps=())),
        (labelled(0), replace(labelled(1), evaluator=Exact("keep", labels={"Yes": (), "no": ()}))),
        (task(0, evaluator=Exact()),),
    ],
)
def test_without_one_closed_set_there_is_none(tasks: tuple[Any, ...]) -> None:
    assert policy_of(plan(tasks=tasks))["plan"]["labels"] is None


def test_a_plan_can_be_read_back() -> None:
    chosen = full_plan(tasks=2)
    policy = describe_plan(
        chosen,
        VerdictRule(margin=0.1),
        prices=PRICES,
        endpoints=[ENDPOINT | {"base_url": "http://ann:s3cret@127.0.0.1:1/\ud800", "seed": 3}],
        splits=7,
    )
    members = json.loads(canonical_bytes(policy.members | {"digest": policy.digest}))
    assert read_plan_policy(members).digest == policy.digest
    assert members["prices"] == PRICES.digest
    assert members["rule"]["margin"] == 0.1
    assert members["endpoints"][0]["base_url"] == "http://[redacted]@127.0.0.1:1/\ufffd"
    assert members["endpoints"][0]["seed"] == 3
    described = members["plan"]
    assert (described["seed"], described["splits"], described["panel"]) == (1, 7, None)
    assert described["canaries"] == []
    assert described["tasks"][1] == {"id": "t1", "group": "g1", "digest": chosen.tasks[1].digest}
    assert described["prompts"] == chosen.prompts.digests
    assert described["arms"][4] == {
        "name": "self_consistency",
        "kind": "self_consistency",
        "agents": [{"model": "m0", "max_tokens": 1024, "timeout_s": 120}],
        "rounds": 1,
        "decide": "vote",
        "replicates": 2,
        "reference": "debate",
        "max_samples": 64,
    }
    assert policy_of(chosen)["prices"] is None


def test_judges_are_part_of_a_plan() -> None:
    chosen = plan(panel=JudgePanel(("j", "hf_abcdefghijklmnopqrst"), repeats=2))
    assert policy_of(chosen)["plan"]["panel"] == {
        "models": ["j", "[redacted]"],
        "repeats": 2,
        "max_tokens": 1024,
        "timeout_s": 120.0,
    }


def asked(outcome: Reply | None = None, *, fails: Exception | None = None) -> FakeAgent:
    def answer(_call: Call) -> Reply:
        if fails is not None:
            raise fails
        assert outcome is not None
        return outcome

    return FakeAgent(answer)


ATTEMPTS = (
    Attempt(529, "overloaded_error", 0.25, 1.5, "req_1"),
    Attempt(None, "connect", 0.5, 2.0),
    Attempt(200, None, 0.75, 0.0, "req_3"),
)
REPLIES = [
    reply("ANSWER: 1"),
    Reply(
        text="\u00e4 \U0001f600\n",
        stop_reason=StopReason.REFUSAL,
        usage=Usage(1, 2, 3, 4),
        model="m-2026",
        message_id="msg_1",
        attempts=ATTEMPTS,
        latency_s=5.0,
        rate_limits={"anthropic-ratelimit-tokens-remaining": "17"},
        signals={"tokens": 3, "perplexity": "inf", "mean_nll": None},
    ),
    Reply(text="", stop_reason=StopReason.MAX_TOKENS, usage=Usage(0, 0), model="m"),
]
FAILURES = [
    failure(kind, attempts=ATTEMPTS[:number], usage=usage, is_unknown_billed=bool(number % 2))
    for number, (kind, usage) in enumerate(
        (kind, usage) for kind in CallFailure for usage in (None, Usage(7, 0, 1, 0))
    )
]


async def first_call(agent: FakeAgent) -> FinishedCall:
    done = await run(plan(), agent, stop_after_calls=1)
    return done.calls[0]


def there_and_back(finished: FinishedCall) -> PastCall:
    member = describe_call(finished, prices=None, content="full")
    past: PastCall = parse_past(json.loads(canonical_bytes(member)))
    return past


@pytest.mark.parametrize("given", REPLIES)
async def test_a_reply_goes_there_and_back(given: Reply) -> None:
    finished = await first_call(asked(given))
    assert there_and_back(finished) == PastCall(finished.digest, given)


@pytest.mark.parametrize("error", FAILURES)
async def test_a_failure_goes_there_and_back(error: Exception) -> None:
    finished = await first_call(asked(fails=error))
    assert there_and_back(finished) == PastCall(finished.digest, finished.outcome)
    member = describe_call(finished, prices=PRICES, content="full")
    assert member["reply"] is None
    assert member["latency_s"] is None
    assert member["failure"]["message"] == "planted"


async def test_a_call_is_described_in_full() -> None:
    finished = await first_call(asked(REPLIES[1]))
    member = describe_call(finished, prices=PRICES, content="full", is_reused=True)
    assert {name: member[name] for name in ("key", "task", "arm", "replicate", "round")} == {
        "key": "t0/single/0/0/0",
        "task": "t0",
        "arm": "single",
        "replicate": 0,
        "round": "0",
    }
    assert (member["agent"], member["purpose"], member["model"]) == ("0", "arm", "m0")
    assert (member["max_tokens"], member["timeout_s"]) == (1024, 120.0)
    assert member["template"]["name"].startswith("solve@")
    assert member["template"]["digest"].startswith("sha256:")
    assert member["is_reused"] is True
    assert member["latency_s"] == 5.0
    # 1 token in at 1 USD, 2 out at 2 USD a million.
    assert member["cost_usd"] == 5e-6
    assert member["request"]["schema"] is None
    [said] = member["request"]["messages"]
    assert said["role"] == "user"
    assert "What is 0 + 1?" in said["text"]
    assert member["attempts"][1] == {
        "status": None,
        "error": "connect",
        "latency_s": 0.5,
        "waited_s": 2.0,
        "request_id": None,
    }


async def test_omitted_content_is_left_out_and_nothing_else() -> None:
    finished = await first_call(asked(REPLIES[1]))
    full = describe_call(finished, prices=PRICES, content="full")
    omitted = describe_call(finished, prices=PRICES, content="omitted")
    assert full.keys() - omitted.keys() == {"request", "request_digest"}
    assert full["reply"].keys() - omitted["reply"].keys() == {"text"}
    assert omitted["reply"] == {k: v for k, v in full["reply"].items() if k != "text"}
    rest = {name: full[name] for name in omitted if name != "reply"}
    assert rest == {name: omitted[name] for name in rest}
    with pytest.raises(ValueError, match="its content is omitted"):
        parse_past(omitted)
    chosen = plan()
    done = await run(chosen, FakeAgent(planted))
    one = done.one("t0/single/0")
    full, omitted = (
        describe_replicate(one, chosen, prices=PRICES, content=content)
        for content in ("full", "omitted")
    )
    assert full.keys() - omitted.keys() == {"evidence", "labels", "text"}
    assert omitted == {name: full[name] for name in omitted}
    fault = await first_call(asked(fails=failure()))
    assert "request" not in describe_call(fault, prices=None, content="omitted")


@pytest.mark.parametrize("content", ["committed", ""])
async def test_another_content_is_an_error(content: str) -> None:
    done = await run(plan(), FakeAgent(planted))
    with pytest.raises(ValueError, match="expected full or omitted"):
        describe_call(done.calls[0], prices=None, content=content)
    with pytest.raises(ValueError, match="expected full or omitted"):
        describe_replicate(done.one("t0/single/0"), plan(), prices=None, content=content)


async def test_what_utf_8_cannot_hold_and_secrets_are_replaced() -> None:
    given = replace(
        REPLIES[1],
        text="ANSWER: 1 \ud800",
        stop_reason=StopReason.END_TURN,
        model="m hf_abcdefghijklmnopqrst \udfff",
        message_id="\ud800",
        rate_limits={"x": "\ud800"},
        attempts=(Attempt(500, "\ud800", 0.0, 0.0, "\ud800"),),
    )
    finished = await first_call(asked(given))
    outcome = there_and_back(finished).outcome
    assert isinstance(outcome, Reply)
    assert outcome.text == "ANSWER: 1 \ufffd"
    assert outcome.model == "m [redacted] \ufffd"
    assert (outcome.message_id, outcome.rate_limits) == ("\ufffd", {"x": "\ufffd"})
    assert outcome.attempts == (Attempt(500, "\ufffd", 0.0, 0.0, "\ufffd"),)
    done = await run(plan(), asked(given))
    found = describe_replicate(done.one("t0/single/0"), plan(), prices=None, content="full")
    assert found["text"] == "ANSWER: 1 \ufffd"
    canonical_bytes(found)
    error = failure(CallFailure.INVALID)
    error.message = "with Bearer abcdefgh12345678 \ud800"
    fault = await first_call(asked(fails=error))
    assert describe_call(fault, prices=None, content="full")["failure"] == {
        "kind": "invalid",
        "message": "with Bearer [redacted] \ufffd",
    }


async def test_a_judges_schema_is_part_of_its_request() -> None:
    chosen = plan(tasks=(JUDGED,), panel=JudgePanel(("j",), repeats=1))
    said = '{"a": {"quote": "x", "score": 3}}'
    agent = FakeAgent(lambda call: reply(said if "judge" in call.key else "x"))
    done = await run(chosen, agent)
    finished = next(one for one in done.calls if "judge" in one.call.key)
    member = describe_call(finished, prices=None, content="full")
    assert member["request"]["schema"] == finished.call.schema
    assert member["request"]["system"] is not None
    assert (member["round"], member["purpose"]) == ("judge.0", "judge")
    assert there_and_back(finished) == PastCall(finished.digest, finished.outcome)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"failure": None, "reply": None}, "a failure, or a reply"),
        ({"usage": None}, "a failure, or a reply"),
        ({"attempts": [{"status": "200"}]}, "attempts"),
        ({"request_digest": 3}, "request_digest"),
    ],
)
async def test_what_is_no_call_is_an_error(change: Members, reason: str) -> None:
    finished = await first_call(asked(REPLIES[0]))
    member = describe_call(finished, prices=None, content="full")
    with pytest.raises(ValueError, match=reason):
        parse_past(member | change)
    with pytest.raises(ValueError, match="text"):
        parse_past(member | {"reply": {k: v for k, v in member["reply"].items() if k != "text"}})


async def test_a_run_goes_on_from_its_records() -> None:
    chosen = full_plan()

    def sometimes_fails(call: Call) -> Reply:
        if hashlib.sha256(call.key.encode()).digest()[0] < 10:
            raise failure(usage=Usage(3, 0))
        return planted(call)

    whole = await run(chosen, FakeAgent(sometimes_fails))
    part = await run(chosen, FakeAgent(sometimes_fails), stop_after_calls=60)
    lines = [canonical_bytes(call) for call in calls_of(part)]
    past = {call["key"]: parse_past(call) for call in map(json.loads, lines)}
    again = await run(chosen, FakeAgent(sometimes_fails), past=past)
    assert again.replicates == whole.replicates
    wanted, found = (result_of(chosen, one) for one in (whole, again))
    assert canonical_bytes(wanted | {"spend": 0}) == canonical_bytes(found | {"spend": 0})


def is_lucky(call: Call, rate: float) -> bool:
    """A coin that falls the same way for the same key."""
    draw = int.from_bytes(hashlib.sha256(call.key.encode()).digest()[:4], "big")
    return draw < rate * 2**32


@pytest.mark.parametrize(
    ("alone", "together", "expected"),
    [
        (0.4, 0.95, {"beneficial"}),
        (0.8, 0.3, {"harmful"}),
        (0.6, 0.6, {"inconclusive", "harmful"}),
    ],
)
async def test_planted_abilities_come_out_as_verdicts(
    alone: float, together: float, expected: set[str]
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
    [strategy] = result_of(chosen, done, PRICES)["strategies"]
    assert strategy["verdict"] in expected
