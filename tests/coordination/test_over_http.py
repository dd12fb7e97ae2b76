"""A whole run through the real client against a server on loopback that misbehaves."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from cert.coordination.canaries import load_canaries
from cert.coordination.evaluator import Reason, Score, Unscored
from cert.coordination.evaluator_parameters import Criterion, Judged
from cert.coordination.plan import AgentSpec, Decide, JudgePanel, Kind
from cert.coordination.protocol import CallFailure
from cert.coordination.transcript import CallFault
from tests.coordination.client.stub import client, error_body, message, raw, stub
from tests.coordination.helpers import arm, plan, run, task

if TYPE_CHECKING:
    from tests.coordination.client.stub import Exchange

pytest.importorskip("anthropic")

JUDGED = task(0, evaluator=Judged((Criterion("clear", "Is it clear?"),)), expected=())


def body_of(text: str, model: str) -> bytes:
    content = [{"type": "text", "text": text}]
    return raw(json.dumps(message(content=content, model=model)).encode())


async def serve(exchange: Exchange) -> None:
    """Solves, judges with a score of the wrong kind first, and breaks on what asks for it."""
    asked = exchange.request.body
    said = json.dumps(asked["messages"])
    if "refuse this" in said:
        await exchange.send(
            raw(json.dumps(error_body("invalid_request_error")).encode(), status=400)
        )
    elif "break this" in said:
        await exchange.send(raw(b"<html>Bad gateway</html>", kind="text/html"))
    elif asked["model"] == "judge":
        score: float = 3 if "could not be used" in said else 1.5
        ids = re.findall(r"- (\w+): ", said)
        text = json.dumps({name: {"quote": "", "score": score} for name in ids})
        text = text.replace('"quote": ""', '"quote": "words"')
        await exchange.send(body_of(text, "judge-1"))
    else:
        await exchange.send(body_of("Some words.\nANSWER: 1", "m-1"))


async def test_every_fault_is_a_reason_and_no_score() -> None:
    tasks = (task(0), task(1, prompt="refuse this"), task(2, prompt="break this"))
    chosen = plan(arm(Kind.DEBATE, agents=2), tasks=tasks)
    async with stub(serve) as server, client(server) as agent:
        done = await run(chosen, agent)  # type: ignore[arg-type]
    good = done.one("t0/debate/0")
    assert isinstance(good.outcome, Score)
    assert good.outcome.value == 1.0
    assert good.tokens == 4 * 15
    for key in ("t1/debate/0", "t1/single/0", "t2/debate/0", "t2/single/0"):
        outcome = done.one(key).outcome
        assert isinstance(outcome, Unscored)
        assert outcome.reason is Reason.CALL_FAILED
    faults = {
        call.call.key[:2]: call.outcome.failure
        for call in done.calls
        if isinstance(call.outcome, CallFault)
    }
    assert faults == {"t1": CallFailure.REJECTED, "t2": CallFailure.INVALID}


async def test_a_score_of_one_and_a_half_is_asked_for_again() -> None:
    chosen = plan(
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE),
        tasks=(JUDGED,),
        panel=JudgePanel(("judge",), repeats=2),
        canaries=load_canaries()[:1],
    )
    async with stub(serve) as server, client(server) as agent:
        done = await run(chosen, agent)  # type: ignore[arg-type]
        asked = [request.body for request in server.requests if request.body["model"] == "judge"]
    for name in ("single", "parallel"):
        outcome = done.one(f"t0/{name}/0").outcome
        assert isinstance(outcome, Score)
        assert outcome.value == 0.75
    # Two arms with two repeats, each asked twice; the canary's answer has no such words at all.
    canary = done.one("canary-good-boiling/canary/0").outcome
    assert isinstance(canary, Unscored)
    assert canary.reason is Reason.JUDGE_INVALID
    assert len(asked) == 2 * 2 * 2 + 2


async def test_agents_are_asked_under_their_own_models() -> None:
    spec = arm(Kind.PARALLEL, agents=2)
    assert spec.agents == (AgentSpec("m0"), AgentSpec("m1"))
    async with stub(serve) as server, client(server) as agent:
        await run(plan(spec), agent)  # type: ignore[arg-type]
        models = sorted(request.body["model"] for request in server.requests)
    assert models == ["m0", "m0", "m1"]
