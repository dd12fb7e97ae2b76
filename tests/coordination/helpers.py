"""Agents behind the protocol with abilities that a test plants, and small plans for them."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cert.coordination.evaluator_parameters import Numeric
from cert.coordination.orchestrator import run_plan
from cert.coordination.plan import AgentSpec, ArmPlan, Decide, Kind, Plan
from cert.coordination.prompts import load_prompts
from cert.coordination.protocol import Call, CallError, CallFailure, Reply, StopReason, Usage
from cert.coordination.tasks import Task
from cert.coordination.transcript import FinishedCall, PastCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cert.coordination.replicate import FinishedReplicate

PROMPTS = load_prompts()
FENCED = re.compile(r"<data-([0-9a-f]{16})>\n(.*?)\n</data-\1>", re.DOTALL)


def fenced(call: Call) -> list[str]:
    """What others wrote in a call's prompt."""
    return [match[2] for match in FENCED.finditer(call.messages[-1].text)]


def reply(text: str, *, model: str = "m", tokens: int = 10, **rest: object) -> Reply:
    given: dict[str, object] = {
        "stop_reason": StopReason.END_TURN,
        "usage": Usage(tokens // 2, tokens - tokens // 2),
        **rest,
    }
    return Reply(text=text, model=model, **given)  # type: ignore[arg-type]


def failure(kind: CallFailure = CallFailure.TRANSIENT, **rest: object) -> CallError:
    return CallError("planted", failure=kind, **rest)  # type: ignore[arg-type]


@dataclass
class FakeAgent:
    """Answers by a function of the call; counts, and takes as long as another one says."""

    answer: Callable[[Call], Reply | str]
    delay_s: Callable[[Call], float] = lambda _call: 0.0
    calls: list[Call] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def call(self, call: Call) -> Reply:
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(self.delay_s(call))
            said = self.answer(call)
            return said if isinstance(said, Reply) else reply(said, model=call.model)
        finally:
            self.running -= 1

    async def aclose(self) -> None:
        pass

    @property
    def keys(self) -> list[str]:
        return [call.key for call in self.calls]


def task(number: int = 0, **given: object) -> Task:
    values: dict[str, object] = {
        "id": f"t{number}",
        "group_id": f"g{number}",
        "prompt": f"What is {number} + 1?",
        "evaluator": Numeric(),
        "expected": (str(number + 1),),
        **given,
    }
    return Task(**values)  # type: ignore[arg-type]


def arm(kind: Kind, name: str = "", agents: int = 1, **given: object) -> ArmPlan:
    values: dict[str, object] = {"replicates": 1, **given}
    return ArmPlan(
        name=name or kind.value,
        kind=kind,
        agents=tuple(AgentSpec(f"m{number}") for number in range(agents)),
        **values,  # type: ignore[arg-type]
    )


SINGLE = arm(Kind.SINGLE)


def plan(*arms: ArmPlan, tasks: int | tuple[Task, ...] = 1, **given: object) -> Plan:
    chosen = tasks if isinstance(tasks, tuple) else tuple(task(number) for number in range(tasks))
    singles = () if any(one.kind is Kind.SINGLE for one in arms) else (SINGLE,)
    values: dict[str, object] = {"prompts": PROMPTS, "seed": 1, **given}
    return Plan(tasks=chosen, arms=(*singles, *arms), **values)  # type: ignore[arg-type]


def full_plan(*, tasks: int = 3, seed: int = 1) -> Plan:
    """Every kind of arm that votes or decides, two replicates each."""
    return plan(
        arm(Kind.SINGLE, replicates=2),
        arm(Kind.SEQUENTIAL, agents=3, replicates=2),
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE, replicates=2),
        arm(Kind.DEBATE, agents=3, rounds=2, replicates=2),
        arm(Kind.SELF_CONSISTENCY, reference="debate", replicates=2),
        arm(Kind.SELF_REFINE, reference="debate", rounds=2, replicates=2),
        arm(Kind.PLACEBO, agents=3, rounds=2, reference="debate", replicates=2),
        tasks=tasks,
        seed=seed,
    )


@dataclass(frozen=True)
class Outcome:
    calls: list[FinishedCall]
    replicates: dict[str, FinishedReplicate]

    def one(self, key: str) -> FinishedReplicate:
        return self.replicates[key]

    @property
    def past(self) -> dict[str, PastCall]:
        return {one.call.key: PastCall(one.digest, one.outcome) for one in self.calls}


async def run(
    chosen: Plan,
    agent: FakeAgent,
    *,
    past: Mapping[str, PastCall] | None = None,
    concurrency: int = 4,
    stop_after_calls: int | None = None,
) -> Outcome:
    """Run a plan, all of it or, as if killed, until so many calls were taken."""
    outcome = Outcome([], {})
    events = run_plan(chosen, agent, past=past, concurrency=concurrency)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, FinishedCall):
                outcome.calls.append(event)
                if len(outcome.calls) == stop_after_calls:
                    break
            else:
                assert event.unit.key not in outcome.replicates
                outcome.replicates[event.unit.key] = event
    return outcome
