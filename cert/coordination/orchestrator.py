"""Runs a plan over an agent, as a stream of finished calls and finished replicates.

    async with aclosing(run_plan(plan, agent, past=past)) as events:
        async for event in events:
            record(event)          # nothing that builds on it is asked before this returns

Whatever is taken from the stream was asked for and answered; what was not taken yet is at most
`concurrency` calls. A run that was killed goes on with the calls it has recorded as `past`, and
ends with the same replicates: they depend on the replies alone, never on which came first.

A call that failed with all its attempts leaves a score missing. So that a service that is down
doesn't take all of them away, the run stops at `MAX_SILENT_CALLS` such failures in a row, in the
order in which they end, whatever the model. They stay what they are, and are not asked again when
the run goes on; everything behind them is.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cert.coordination.evaluator import Candidate, Reason, Score, Unscored
from cert.coordination.evaluator_parameters import Compared, Judged
from cert.coordination.evaluators import Computed
from cert.coordination.judge import ModelJudge
from cert.coordination.judge_pair import PairJudge
from cert.coordination.plan import CANARY_ARM, Kind, Plan, Unit
from cert.coordination.protocol import CallError, CallFailure, Reply
from cert.coordination.replicate import (
    FinishedReplicate,
    Referred,
    arm_tokens,
    judge_members,
)
from cert.coordination.schedule import References, build_schedule
from cert.coordination.strategies import Setup, arrange
from cert.coordination.transcript import (
    STOPS_THE_RUN,
    CallFault,
    FinishedCall,
    PastCall,
    Purpose,
    Request,
    build_call,
    request_digest,
)
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from cert.coordination.evaluator import Evaluator
    from cert.coordination.protocol import Agent, Call
    from cert.coordination.tasks import Task

Event = FinishedCall | FinishedReplicate
MAX_SILENT_CALLS: Final = 5


async def run_plan(
    plan: Plan,
    agent: Agent,
    *,
    past: Mapping[str, PastCall] | None = None,
    concurrency: int = 4,
) -> AsyncGenerator[Event, None]:
    """Run all replicates of a plan, in the order of its schedule.

    Args:
        plan: What to run.
        agent: Answers every call, the judges' too; not closed here.
        past: Calls of this run that were answered before, by key. They are not made again and
            not yielded; a call that stopped the run is no answer.
        concurrency: Calls in flight, and answered but not taken yet, at most.

    Yields:
        Each call when it is finished, and each replicate behind all of its calls.

    Raises:
        CallError: A call failed in a way that no other could succeed either, or the service seems
            to be down (`LATER`); all calls that failed, and those that were in flight, are yielded
            before. The run can be continued.
        ConfigurationError: A call in `past` was asked something else than this plan asks.
    """
    if concurrency < 1:
        raise ConfigurationError(f"concurrency is {concurrency}; expected 1 or more")
    run = _Run(plan, agent, past or {}, concurrency)
    working = asyncio.create_task(run.work())
    try:
        while (item := await run.events.get()) is not None:
            event, taken = item
            yield event
            if not taken.done():
                taken.set_result(None)
        await working
        if run.stopped_by is not None:
            raise run.stopped_by
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def choose_evaluator(plan: Plan, task: Task) -> Evaluator:
    """Choose who judges the answers to a task."""
    if plan.panel is not None and isinstance(task.evaluator, Judged):
        return ModelJudge(plan.panel, plan.prompts)
    if plan.panel is not None and isinstance(task.evaluator, Compared):
        return PairJudge(plan.panel, plan.prompts)
    return Computed()


class _StoppedError(Exception):
    """No further call is made."""


class _Run:
    """The state of one run; of its replicates each has its own."""

    def __init__(
        self, plan: Plan, agent: Agent, past: Mapping[str, PastCall], concurrency: int
    ) -> None:
        self.plan = plan
        self.events: asyncio.Queue[tuple[Event, asyncio.Future[None]] | None] = asyncio.Queue()
        self.stopped_by: CallError | None = None
        self._agent = agent
        self._past = past
        self._concurrency = concurrency
        self._room = asyncio.Semaphore(concurrency)
        self._silent_calls = 0
        self._schedule = build_schedule(plan)
        self._tasks = {task.id: task for task in plan.tasks}
        self._canaries = {canary.id: canary for canary in plan.canaries}
        self._references = References(plan)
        wanted = {self._references.of(unit) for unit in self._schedule} - {None}
        loop = asyncio.get_running_loop()
        self._arranged: dict[Unit, asyncio.Future[Referred | None]] = {
            unit: loop.create_future() for unit in self._schedule if unit in wanted
        }

    async def work(self) -> None:
        """Run everything; ends with None in `events`, whatever happens."""
        units = iter(self._schedule)

        async def take_units() -> None:
            for unit in units:
                if self.stopped_by is not None:
                    return
                await self._run_unit(unit)

        workers = [asyncio.create_task(take_units()) for _ in range(self._concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self.events.put_nowait(None)

    async def emit(self, event: Event) -> None:
        """Hand on an event, and wait until whoever takes it has come back for the next."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events.put_nowait((event, taken))
        await taken

    async def ask(self, unit: Unit, request: Request) -> FinishedCall:
        """Make one call, or find it among those of the past."""
        call = build_call(unit.key, request)
        digest = request_digest(call)
        prompt = request.prompt.name, request.prompt.digest
        known = self._find(call.key, digest)
        if known is not None:
            return FinishedCall(
                call=call,
                digest=digest,
                outcome=known,
                purpose=request.purpose,
                prompt=prompt,
                is_replayed=True,
            )
        async with self._room:
            if self.stopped_by is not None:
                raise _StoppedError
            outcome = await self._call(call)
            finished = FinishedCall(
                call=call, digest=digest, outcome=outcome, purpose=request.purpose, prompt=prompt
            )
            await self.emit(finished)
        if _stops(outcome):
            raise _StoppedError
        return finished

    async def _call(self, call: Call) -> Reply | CallFault:
        try:
            reply = await self._agent.call(call)
        except CallError as error:
            fault = CallFault.from_error(error)
            self.stopped_by = self.stopped_by or self._find_stop(error, fault)
            return fault
        self._silent_calls = 0
        return reply

    def _find_stop(self, error: CallError, fault: CallFault) -> CallError | None:
        """What a failed call stops the run with; None where it goes on."""
        is_silent = fault.failure is CallFailure.TRANSIENT and fault.usage is None
        self._silent_calls = self._silent_calls + 1 if is_silent else 0
        if fault.failure in STOPS_THE_RUN:
            return error
        if self._silent_calls < MAX_SILENT_CALLS:
            return None
        return CallError(
            f"the service seems to be down: {self._silent_calls} calls in a row failed, the last "
            f"one with: {fault.message}",
            failure=CallFailure.LATER,
            hint="resume the run later; the calls that failed count as failed, and no others",
        )

    def _find(self, key: str, digest: str) -> Reply | CallFault | None:
        past = self._past.get(key)
        if past is None or _stops(past.outcome):
            return None
        if past.digest != digest:
            raise ConfigurationError(
                f"the call {key} was asked something else before",
                hint="tasks, prompts, arms or models have changed: begin a new run",
            )
        return past.outcome

    async def _run_unit(self, unit: Unit) -> None:
        replicate = _Replicate(self, unit)
        try:
            if unit.arm == CANARY_ARM:
                finished = await self._finish_canary(unit, replicate)
            else:
                finished = await self._finish_unit(unit, replicate)
        except _StoppedError:
            return
        finally:
            self._set_arranged(unit, None)
        await self.emit(finished)

    def _set_arranged(self, unit: Unit, value: Referred | None) -> None:
        future = self._arranged.get(unit)
        if future is not None and not future.done():
            future.set_result(value)

    async def _finish_canary(self, unit: Unit, replicate: _Replicate) -> FinishedReplicate:
        canary = self._canaries[unit.task_id]
        outcome = await choose_evaluator(self.plan, canary.task).evaluate(
            canary.task, Candidate(canary.candidate), replicate
        )
        return FinishedReplicate(
            unit=unit, outcome=outcome, text=canary.candidate, members=(), calls=replicate.calls
        )

    async def _finish_unit(self, unit: Unit, replicate: _Replicate) -> FinishedReplicate:
        task, arm = self._tasks[unit.task_id], self.plan.arm(unit.arm)
        evaluator = choose_evaluator(self.plan, task)
        setup = Setup(arm, self.plan.prompts, arm.kind, evaluator)
        reference = self._references.of(unit)
        if reference is not None:
            referred = await self._arranged[reference]
            if self.stopped_by is not None and referred is None:
                raise _StoppedError
            if referred is None:
                return _unscored(unit, replicate, Reason.REFERENCE_UNSCORED, reference.key)
            if arm.kind is Kind.PLACEBO:
                kind = self.plan.arm(reference.arm).kind
                setup = replace(setup, kind=kind, donated=referred.texts)
            else:
                setup = replace(setup, budget_tokens=referred.tokens)
        try:
            arranged = await arrange(task, setup, replicate)
        except CallError as error:
            return _unscored(unit, replicate, Reason.CALL_FAILED, error.failure.value)
        texts = tuple((member.first or member.last).text for member in arranged.members)
        self._set_arranged(unit, Referred(arm_tokens(replicate.calls) or 0, texts))
        if arranged.text is None:
            outcome: Score | Unscored = Unscored(arranged.unusable or Reason.CALL_FAILED)
        else:
            candidate = Candidate(arranged.text, replicate.models)
            outcome = await evaluator.evaluate(task, candidate, replicate)
        return FinishedReplicate(
            unit=unit,
            outcome=outcome,
            text=arranged.text,
            members=judge_members(task, arranged.members),
            calls=replicate.calls,
        )


class _Replicate:
    """Makes the calls of one replicate and keeps them; shares nothing with any other."""

    def __init__(self, run: _Run, unit: Unit) -> None:
        self._run = run
        self._unit = unit
        self._calls: dict[tuple[str, str], FinishedCall | None] = {}

    async def __call__(self, request: Request) -> Reply:
        place = request.round, request.agent
        if place in self._calls:
            raise ValueError(f"{self._unit.key}: {place} was asked already")
        # Kept in the order of asking, which is the same in every run; answers come as they come.
        self._calls[place] = None
        finished = self._calls[place] = await self._run.ask(self._unit, request)
        if isinstance(finished.outcome, CallFault):
            raise finished.outcome.to_error()
        return finished.outcome

    @property
    def calls(self) -> tuple[FinishedCall, ...]:
        """Those that were answered or failed, in the order of asking."""
        return tuple(call for call in self._calls.values() if call is not None)

    @property
    def models(self) -> frozenset[str]:
        """Who took part in the arm, as asked and as answered."""
        calls = [call for call in self.calls if call.purpose is Purpose.ARM]
        asked = {call.call.model for call in calls}
        return frozenset(
            asked | {call.outcome.model for call in calls if isinstance(call.outcome, Reply)}
        )


def _stops(outcome: Reply | CallFault) -> bool:
    return isinstance(outcome, CallFault) and outcome.failure in STOPS_THE_RUN


def _unscored(unit: Unit, replicate: _Replicate, reason: Reason, detail: str) -> FinishedReplicate:
    return FinishedReplicate(
        unit=unit,
        outcome=Unscored(reason, detail),
        text=None,
        members=(),
        calls=replicate.calls,
    )
