"""What cannot happen in a run, and must be loud if it does; and the places of an installed copy."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

import cert.coordination.prompts as prompts_module
from cert.coordination import task_files
from cert.coordination.evaluator import Candidate
from cert.coordination.judge import ModelJudge
from cert.coordination.judge_pair import PairJudge
from cert.coordination.orchestrator import run_plan
from cert.coordination.plan import JudgePanel, Kind
from cert.coordination.protocol import Call, CallError, CallFailure, Reply
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import PROMPTS, FakeAgent, arm, failure, plan, reply, run, task

if TYPE_CHECKING:
    from pathlib import Path


async def never(_request: object) -> Reply:
    raise AssertionError


@pytest.mark.parametrize("kind", [ModelJudge, PairJudge])
async def test_a_judge_of_another_kind_of_task_is_a_bug(kind: type[ModelJudge]) -> None:
    judge = kind(JudgePanel(("j",)), PROMPTS)
    assert not judge.is_free
    with pytest.raises(TypeError, match="t0"):
        await judge.evaluate(task(), Candidate("x"), never)  # type: ignore[arg-type]


async def test_the_same_question_twice_in_a_replicate_is_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cert.coordination import strategies

    async def twice(task: object, setup: object, ask: object) -> object:
        await strategies.single(task, setup, ask)  # type: ignore[arg-type]
        return await strategies.single(task, setup, ask)  # type: ignore[arg-type]

    monkeypatch.setitem(strategies._ARRANGEMENTS, Kind.SINGLE, twice)
    with pytest.raises(ValueError, match="was asked already"):
        await run(plan(), FakeAgent(lambda _call: "ANSWER: 1"))


async def test_who_waits_for_a_stopped_reference_stops_and_is_not_unscored() -> None:
    """The arm C waits for B, which stops the run: C is run again later, so it has no outcome."""

    def stops(call: Call) -> Reply:
        if "debate" in call.key:
            raise failure(CallFailure.LATER)
        return reply("ANSWER: 1")

    arms = [arm(Kind.DEBATE, agents=2), arm(Kind.SELF_CONSISTENCY, reference="debate")]
    agent = FakeAgent(stops, lambda call: 0.05 if "debate" in call.key else 0.0)
    units = []

    async def consume() -> None:
        async with aclosing(run_plan(plan(*arms), agent, concurrency=4)) as events:
            async for event in events:
                units.append(getattr(event, "unit", None))  # noqa: PERF401 - kept if it raises

    with pytest.raises(CallError):
        await consume()
    assert {unit.arm for unit in units if unit is not None} == {"single"}


async def test_an_installed_copy_has_its_prompts_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "_configs" / "coordination"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("installed")
    monkeypatch.setattr(prompts_module.resources, "files", lambda _package: tmp_path)
    assert prompts_module.coordination_file("x.yaml").read_text() == "installed"


def test_more_tasks_than_anybody_runs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_files, "MAX_TASKS", 1)
    path = tmp_path / "tasks.jsonl"
    line = '{{"id": "{}", "prompt": "p", "label": "x", "evaluator": "exact"}}\n'
    path.write_text(line.format("a"))
    assert len(task_files.load_tasks([str(path)]).tasks) == 1
    path.write_text(line.format("a") + line.format("b"))
    with pytest.raises(ConfigurationError, match="more than 1 tasks"):
        task_files.load_tasks([str(path)])


async def test_a_run_under_a_deadline_ends_with_it() -> None:
    agent = FakeAgent(lambda _call: "ANSWER: 1", lambda _call: 60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run(plan(tasks=3), agent)
    assert agent.running == 0
