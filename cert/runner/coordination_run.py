"""A comparison as records: each call before anything builds on it, each replicate, the result.

    plan (policy) -> run begin -> call ... replicate ... -> coordination -> run end

A run that was killed goes on with the calls it has recorded: it asks nothing twice but what was in
flight, and comes to the same result.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from cert.coordination.baseline import recall_baselines, remember_baseline
from cert.coordination.orchestrator import run_plan
from cert.coordination.protocol import Call, Message, Role, Usage
from cert.coordination.transcript import STOPS_THE_RUN, FinishedCall, PastCall
from cert.core.errors import CertError, ConfigurationError
from cert.evidence.coordination_records import (
    build_call_record,
    build_coordination_record,
    build_replicate_record,
)
from cert.evidence.coordination_result import SpendTally, build_result
from cert.runner.coordination_records import describe_call, describe_replicate, parse_past

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cert.coordination.baseline import Baselines, Environment
    from cert.coordination.budget import Budget
    from cert.coordination.orchestrator import Event
    from cert.coordination.plan import Plan
    from cert.coordination.prices import Prices
    from cert.coordination.protocol import Agent
    from cert.evidence.coordination_plan import PlanPolicy


class Write(Protocol):
    """Keeps a record."""

    def __call__(self, record: dict[str, object]) -> None:
        """Keep it for good; nothing builds on it before this returns."""


@dataclass(frozen=True, slots=True)
class KeptBaselines:
    """Where the single agent's replies are kept, and in which circumstances they count."""

    baselines: Baselines
    environment: Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationJob:
    """What is run.

    Attributes:
        plan: Tasks, arms, prompts, judges.
        policy: The same as it is registered.
        prices: Of the calls; None for none.
        content: `full` or `omitted`.
        concurrency: Calls in flight at most, >= 1.
        kept: Replies of earlier runs to use, and to add to; None for none.
        earlier: What judges said to the same canaries in earlier runs.
    """

    plan: Plan
    policy: PlanPolicy
    prices: Prices | None = None
    content: str = "full"
    concurrency: int = 4
    kept: KeptBaselines | None = None
    earlier: Sequence[Mapping[str, Any]] = ()


@dataclass(slots=True)
class PastRecords:
    """What a run has recorded so far.

    Attributes:
        calls: Members `call` of its call records, in order.
        replicates: Members `replicate`, by the unit's key.
        result: Member `coordination`, without the policy; None where it is not there yet.
    """

    calls: list[Mapping[str, Any]] = field(default_factory=list)
    replicates: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    result: dict[str, Any] | None = None


def load_past(lines: Iterable[bytes]) -> PastRecords:
    """Read the records of a run that is gone on with.

    Raises:
        ConfigurationError: They do not hold what was asked and answered.
    """
    past = PastRecords()
    for line in lines:
        record = orjson.loads(line)
        if record["kind"] == "call":
            past.calls.append(record["call"])
        elif record["kind"] == "replicate":
            past.replicates[_unit_key(record["replicate"])] = record["replicate"]
        elif record["kind"] == "coordination":
            past.result = {k: v for k, v in record["coordination"].items() if k != "policy"}
    if past.calls and "request" not in past.calls[0]:
        raise ConfigurationError(
            "the run to go on with holds no replies: its content is omitted",
            hint="begin a new one with --resume never",
        )
    return past


def charge_past(budget: Budget, calls: Iterable[Mapping[str, Any]]) -> None:
    """Charge what a run has spent before it is gone on with.

    What nobody said the cost of is charged with the most that it can have been.

    Args:
        budget: Of the run.
        calls: Members `call` of its records.
    """
    for call in calls:
        if call["is_reused"]:
            continue
        if call["usage"] is not None:
            budget.charge_earlier(_build_call(call), Usage(**call["usage"]))
        elif call["is_unknown_billed"]:
            budget.charge_earlier(_build_call(call), None)


async def run_coordination(  # noqa: PLR0913 - a job, its agent, and where its records go
    job: CoordinationJob,
    agent: Agent,
    write: Write,
    *,
    run_id: str,
    correlation_id: str | None = None,
    past: PastRecords | None = None,
    watch: Callable[[Event], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a plan to its result.

    Args:
        job: What is run.
        agent: Answers every call; not closed here.
        write: Keeps each record.
        run_id: Of the run.
        correlation_id: Stands in the records.
        past: What the run has recorded before; nothing of it is written again.
        watch: Told of each finished call and replicate, once it is recorded.

    Returns:
        The result, as `cert.evidence.coordination_result.build_result` builds it.

    Raises:
        CallError: The run cannot go on now; what was answered is recorded, and it can be resumed.
        CertError: A record could not be written, or the past is of another plan.
    """
    past = PastRecords() if past is None else past
    if past.result is not None:
        return past.result
    book = _Book(job, write, run_id, correlation_id, past)
    known: dict[str, PastCall] = {}
    if job.kept is not None:
        known |= recall_baselines(job.plan, job.kept.baselines, job.kept.environment)
    known |= {call["key"]: parse_past(call) for call in past.calls}
    events = run_plan(job.plan, agent, past=known, concurrency=job.concurrency)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, FinishedCall):
                book.add_call(event)
            else:
                book.add_replicate(event)
            watch(event)
    return book.finish()


class _Book:
    """Writes what happens, once each."""

    def __init__(
        self,
        job: CoordinationJob,
        write: Write,
        run_id: str,
        correlation_id: str | None,
        past: PastRecords,
    ) -> None:
        self._job = job
        self._write = write
        self._head: dict[str, Any] = {
            "run_id": run_id,
            "content": job.content,
            "correlation_id": correlation_id,
        }
        self._past = past
        self._spend = SpendTally()
        self._answered: set[str] = set()
        self._replicates: list[Mapping[str, Any]] = []
        for call in past.calls:
            self._note(call)

    def add_call(self, finished: FinishedCall, *, is_reused: bool = False) -> None:
        """Write a call, and keep it for later runs."""
        job = self._job
        call = describe_call(finished, prices=job.prices, content=job.content, is_reused=is_reused)
        self._write(build_call_record(call, **self._head))
        self._note(call)
        if job.kept is not None and not is_reused:
            remember_baseline(job.plan, finished, job.kept.baselines, job.kept.environment)

    def add_replicate(self, finished: Any) -> None:  # noqa: ANN401
        """Write a replicate, and what it took from earlier runs before it."""
        job = self._job
        for call in finished.calls:
            if call.is_replayed and call.call.key not in self._answered:
                self.add_call(call, is_reused=True)
        member = describe_replicate(finished, job.plan, prices=job.prices, content=job.content)
        before = self._past.replicates.get(finished.unit.key)
        if before is None:
            self._write(build_replicate_record(member, **self._head))
        elif before != orjson.loads(orjson.dumps(member)):
            raise CertError(
                f"{finished.unit.key} comes to something else than what is recorded of it",
                hint="this program is another version than the one that began the run: begin a "
                "new one with --resume never",
            )
        self._replicates.append(member)

    def finish(self) -> dict[str, Any]:
        """Compute and write the result."""
        job = self._job
        result = build_result(
            job.policy.members, self._replicates, self._spend.members(), earlier=job.earlier
        )
        self._write(build_coordination_record(result, job.policy, **self._head))
        return result

    def _note(self, call: Mapping[str, Any]) -> None:
        self._spend.add(call)
        failure = call["failure"]
        if failure is None or failure["kind"] not in STOPS_THE_RUN:
            self._answered.add(call["key"])


def _build_call(call: Mapping[str, Any]) -> Call:
    """What was asked, out of the member `call` of a record."""
    request = call["request"]
    return Call(
        key=call["key"],
        model=call["model"],
        messages=tuple(Message(Role(one["role"]), one["text"]) for one in request["messages"]),
        system=request["system"],
        max_tokens=call["max_tokens"],
        schema=request["schema"],
        timeout_s=call["timeout_s"],
    )


def _unit_key(member: Mapping[str, Any]) -> str:
    return f"{member['task']}/{member['arm']}/{member['replicate']}"
