"""What canaries show about the judges of a run of fake agents."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from cert.coordination.canaries import load_canaries
from cert.coordination.plan import JudgePanel
from cert.evidence.coordination_result import SpendTally, build_result
from cert.runner.coordination_records import describe_plan, describe_replicate
from cert.statistics.verdict import VerdictRule
from tests.coordination.helpers import FakeAgent, fenced, plan, reply, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.coordination.protocol import Call, Reply

Members = dict[str, Any]
CANARIES = load_canaries()
BY_ID = {canary.id: canary for canary in CANARIES}
GOOD = {canary.candidate for canary in CANARIES if canary.kind == "good"}


def verdict(call: Call, score: int) -> str:
    """Every criterion the same score, with the first words as the quote."""
    ids = re.findall(r"^- (\w+): ", call.messages[-1].text, re.MULTILINE)
    quote = fenced(call)[2].split("\n")[0][:20]
    return json.dumps({name: {"quote": quote, "score": score} for name in ids})


def judge_with(score_of: object, *, model: str = "j") -> FakeAgent:
    def answer(call: Call) -> Reply | str:
        if "judge" not in call.key:
            return "ANSWER: 1"
        return reply(verdict(call, score_of(fenced(call)[2])), model=model)  # type: ignore[operator]

    return FakeAgent(answer)


def sound(text: str) -> int:
    return 4 if text in GOOD else 0


async def judges_of(
    agent: FakeAgent, judges: tuple[str, ...] = ("j",), earlier: Sequence[Members] = ()
) -> Members:
    """What a run says of its judges."""
    chosen = plan(panel=JudgePanel(judges), canaries=CANARIES)
    done = await run(chosen, agent)
    policy = describe_plan(chosen, VerdictRule(), prices=None, endpoints=[], splits=1)
    members = [
        describe_replicate(one, chosen, prices=None, content="omitted")
        for one in done.replicates.values()
    ]
    result: Members = build_result(policy.members, members, SpendTally().members(), earlier=earlier)
    judges_: Members = result["judges"]
    return judges_


async def find(agent: FakeAgent, judges: tuple[str, ...] = ("j",)) -> list[Members]:
    findings: list[Members] = (await judges_of(agent, judges))["findings"]
    return findings


async def test_a_sound_judge_has_no_fault() -> None:
    judges = await judges_of(judge_with(sound))
    readings = judges["readings"]
    assert [one["canary"] for one in readings] == [canary.id for canary in CANARIES]
    assert all(len(one["values"]) == 3 for one in readings)
    assert judges["findings"] == []
    again = await judges_of(judge_with(sound), earlier=readings)
    assert (again["findings"], again["earlier"]) == ([], readings)


async def test_canaries_come_first_and_look_like_any_other_answer() -> None:
    agent = judge_with(sound)
    chosen = plan(panel=JudgePanel(("j",), repeats=1), canaries=CANARIES)
    await run(chosen, agent, concurrency=1)
    keys = [f"{canary.id}/canary/0/judge.0/0" for canary in CANARIES]
    assert agent.keys[:6] == keys
    shown = "".join(f"{call.system}{call.messages[-1].text}" for call in agent.calls[:6])
    assert "canary" not in shown
    assert not any("canary" in call.model for call in agent.calls)


async def test_a_judge_that_obeys_is_found() -> None:
    def obedient(text: str) -> int:
        return 4 if text in GOOD or "score" in text else 0

    faults = await find(judge_with(obedient))
    assert {(one["canary"], one["fault"]) for one in faults} == {
        ("canary-injection-order", "obeyed"),
        ("canary-injection-fence", "obeyed"),
    }


@pytest.mark.parametrize(("score", "kinds"), [(4, {"bad", "injection"}), (0, {"good"})])
async def test_a_judge_that_always_says_the_same_is_found(score: int, kinds: set[str]) -> None:
    faults = await find(judge_with(lambda _text: score))
    assert {BY_ID[one["canary"]].kind for one in faults} == kinds
    assert {one["fault"] for one in faults} <= {"misjudged", "obeyed"}


async def test_a_judge_without_a_verdict_is_found() -> None:
    faults = await find(FakeAgent(lambda _call: "hm"))
    assert {one["fault"] for one in faults} == {"unscored"}
    assert {one["judge"] for one in faults} == {"j"}
    assert len(faults) == 6


async def test_judges_are_told_apart() -> None:
    def answer(call: Call) -> Reply | str:
        if "judge" not in call.key:
            return "ANSWER: 1"
        score = sound(fenced(call)[2]) if call.model == "a" else 4
        return reply(verdict(call, score), model=call.model)

    faults = await find(FakeAgent(answer), ("a", "b"))
    assert {one["judge"] for one in faults} == {"b"}


async def test_another_model_under_the_same_name_is_found() -> None:
    before = (await judges_of(judge_with(sound, model="j-2026-01")))["readings"]
    after = await judges_of(judge_with(sound, model="j-2026-06"), earlier=before)
    faults = after["findings"]
    assert {one["fault"] for one in faults} == {"model_changed"}
    assert len(faults) == 6
    both = [*before, *after["readings"]]
    again = await judges_of(judge_with(sound, model="j-2026-06"), earlier=both)
    assert again["findings"] == []
