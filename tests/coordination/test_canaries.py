from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from cert.coordination.canaries import Canary, load_canaries, parse_canaries
from cert.coordination.evaluator_parameters import Criterion, Judged
from cert.coordination.judge_canaries import (
    CanaryFault,
    CanaryReading,
    find_faults,
    read_canaries,
)
from cert.coordination.plan import JudgePanel
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import FakeAgent, fenced, plan, reply, run

if TYPE_CHECKING:
    from cert.coordination.protocol import Call, Reply

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


async def read(agent: FakeAgent, judges: tuple[str, ...] = ("j",)) -> tuple[CanaryReading, ...]:
    chosen = plan(panel=JudgePanel(judges), canaries=CANARIES)
    done = await run(chosen, agent)
    return read_canaries(done.replicates.values())


def test_there_are_canaries_of_every_kind() -> None:
    assert {canary.kind for canary in CANARIES} == {"good", "bad", "injection"}
    assert all(canary.least >= 0.5 for canary in CANARIES if canary.kind == "good")
    assert all(canary.most <= 0.5 for canary in CANARIES if canary.kind != "good")
    assert len(BY_ID) == 6


async def test_a_sound_judge_has_no_fault() -> None:
    readings = await read(judge_with(sound))
    assert len(readings) == 6
    assert all(len(reading.values) == 3 for reading in readings)
    assert find_faults(CANARIES, readings) == ()
    assert find_faults(CANARIES, readings, readings) == ()


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

    faults = find_faults(CANARIES, await read(judge_with(obedient)))
    assert {(one.canary, one.fault) for one in faults} == {
        ("canary-injection-order", CanaryFault.OBEYED),
        ("canary-injection-fence", CanaryFault.OBEYED),
    }


@pytest.mark.parametrize(("score", "kinds"), [(4, {"bad", "injection"}), (0, {"good"})])
async def test_a_judge_that_always_says_the_same_is_found(score: int, kinds: set[str]) -> None:
    faults = find_faults(CANARIES, await read(judge_with(lambda _text: score)))
    assert {BY_ID[one.canary].kind for one in faults} == kinds
    assert {one.fault for one in faults} <= {CanaryFault.MISJUDGED, CanaryFault.OBEYED}


async def test_a_judge_without_a_verdict_is_found() -> None:
    faults = find_faults(CANARIES, await read(FakeAgent(lambda _call: "hm")))
    assert {one.fault for one in faults} == {CanaryFault.UNSCORED}
    assert {one.judge for one in faults} == {"j"}
    assert len(faults) == 6


async def test_judges_are_told_apart() -> None:
    def answer(call: Call) -> Reply | str:
        if "judge" not in call.key:
            return "ANSWER: 1"
        score = sound(fenced(call)[2]) if call.model == "a" else 4
        return reply(verdict(call, score), model=call.model)

    faults = find_faults(CANARIES, await read(FakeAgent(answer), ("a", "b")))
    assert {one.judge for one in faults} == {"b"}


async def test_another_model_under_the_same_name_is_found() -> None:
    before = await read(judge_with(sound, model="j-2026-01"))
    after = await read(judge_with(sound, model="j-2026-06"))
    faults = find_faults(CANARIES, after, before)
    assert {one.fault for one in faults} == {CanaryFault.MODEL_CHANGED}
    assert len(faults) == 6
    assert find_faults(CANARIES, after, (*before, *after)) == ()


WIDE = Canary("c", "good", "p", "text", (Criterion("a", "?"),))


def reading(*values: float) -> CanaryReading:
    return CanaryReading("c", "j", values, ("j",))


@pytest.mark.parametrize(
    ("earlier", "now", "drifted"),
    [
        # Always 1 before: sigma is half a step, .125, and 3 * .125 * sqrt(1/9 + 1/3) = .25.
        ((1.0,) * 9, (1.0, 1.0, 0.5), False),
        ((1.0,) * 9, (0.75, 0.75, 0.7), True),
        # Scattered before: stdev .2165, and 3 * .2165 * sqrt(1/9 + 1/3) = .433.
        ((0.5, 0.75, 1.0) * 3, (0.5, 0.25, 0.25), False),
        ((0.5, 0.75, 1.0) * 3, (0.25, 0.25, 0.25), True),
        ((0.5,), (0.75,), False),
        ((0.0,), (1.0,), True),
    ],
)
def test_drift_is_three_standard_errors(
    earlier: tuple[float, ...], now: tuple[float, ...], drifted: bool
) -> None:
    faults = find_faults((WIDE,), [reading(*now)], [reading(*earlier)])
    assert [one.fault for one in faults] == ([CanaryFault.DRIFTED] if drifted else [])


def test_earlier_runs_are_pooled_and_empty_ones_are_nothing() -> None:
    pooled = [reading(1.0, 1.0), reading(), reading(0.5)]
    assert find_faults((WIDE,), [reading(1.0)], pooled) == ()
    assert find_faults((WIDE,), [reading(0.0)], [reading()]) == ()
    other = CanaryReading("c", "other", (1.0,) * 9, ("other",))
    assert find_faults((WIDE,), [reading(0.0)], [other]) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "Expected `array`"),
        ("- {id: a}", "missing required field"),
        (
            "- {id: a, kind: evil, prompt: p, candidate: c, rubric: [{id: x, text: y}]}",
            "kind is 'evil'",
        ),
        ("- {id: a/b, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}]}", "slash"),
        ("- {id: a, kind: bad, prompt: p, candidate: c, rubric: []}", "0 criteria"),
        (
            "- {id: a, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}], least: 2}",
            "0 <= least",
        ),
        (
            "- &a {id: a, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}]}\n- *a",
            "twice",
        ),
    ],
)
def test_wrong_canaries_are_an_error(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        parse_canaries(text.encode(), source="x")


def test_a_canary_is_a_task_like_any_other() -> None:
    assert WIDE.task.evaluator == Judged(WIDE.rubric)
    assert len({canary.digest for canary in CANARIES}) == 6
