"""Whole comparisons as records, made by the real orchestrator with agents of planted abilities."""

from __future__ import annotations

import asyncio
import functools
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cert.coordination.plan import Decide, Kind
from cert.coordination.prices import Price, Prices
from cert.coordination.protocol import CallFailure, Reply, StopReason, Usage
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import encode_record
from cert.evidence.run_record import RunBegin, RunCounts, RunInput, build_run_record, load_host
from cert.runner.coordination_records import describe_plan
from cert.runner.coordination_run import CoordinationJob, run_coordination
from cert.statistics.verdict import VerdictRule
from tests.coordination.helpers import FakeAgent, arm, failure, plan

if TYPE_CHECKING:
    from cert.coordination.protocol import Call

RUN_ID = "run-compared"
PRICE = Price(Decimal(1), Decimal(2), Decimal(0), Decimal(0))
PRICES = Prices({f"m{number}": PRICE for number in range(3)}, "sha256:" + "0" * 64)
ENDPOINT = {
    "kind": "messages",
    "models": ["m0", "m1"],
    "base_url": "http://127.0.0.1:1",
    "api_version": "2023-06-01",
    "sdk": "fake",
}


def answer(call: Call) -> Reply:
    """Right where the first answers' parity says so, and in every later round; one call fails."""
    task_id, arm_name, _, round_, agent = call.key.split("/")
    if (task_id, arm_name) == ("t3", "single"):
        raise failure(CallFailure.TRANSIENT, is_unknown_billed=True)
    number = int(task_id[1:])
    is_right = round_ != "0" or (number + int(agent)) % 2 == 0
    return Reply(
        text=f"ANSWER: {number + 1 if is_right else 99}",
        stop_reason=StopReason.END_TURN,
        usage=Usage(100 + number, 50),
        model=call.model,
    )


@functools.cache
def _lines(content: str) -> tuple[bytes, ...]:
    chosen = plan(
        arm(Kind.DEBATE, agents=2),
        arm(Kind.PARALLEL, agents=2, decide=Decide.AGGREGATE),
        arm(Kind.SELF_CONSISTENCY, reference="debate"),
        tasks=4,
    )
    policy = describe_plan(chosen, VerdictRule(), prices=PRICES, endpoints=[ENDPOINT], splits=5)
    begin = RunBegin(
        command="coordinate",
        job="sha256:" + "1" * 64,
        inputs=(RunInput("tasks.jsonl", "2" * 64, 9),),
        policy=policy,
        content=content,
        sampling=None,
        limit=None,
        identity=None,
        host=load_host(),
    )
    records = [
        build_policy_record(policy),
        build_run_record(run_id=RUN_ID, phase="begin", details=begin),
    ]
    job = CoordinationJob(plan=chosen, policy=policy, prices=PRICES, content=content)
    result = asyncio.run(run_coordination(job, FakeAgent(answer), records.append, run_id=RUN_ID))
    assert len(result["strategies"]) == 2
    counts = RunCounts(inconclusive=2)
    records.append(build_run_record(run_id=RUN_ID, phase="end", details=counts, exit_code=3))
    return tuple(encode_record(record) for record in records)


def compared(content: str = "full") -> list[dict[str, Any]]:
    """Policy, begin, calls and replicates, result, end: anew each time, to be changed."""
    return [json.loads(line) for line in _lines(content)]
