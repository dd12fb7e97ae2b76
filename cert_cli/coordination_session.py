"""One run of `cert coordinate`, from its choices to its exit code.

Plan; outputs and ledger; models; the plan is registered; calls, replicates, result; exit code.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from cert.backends.protocol import SamplingParams
from cert.coordination.baseline_store import SqliteBaselines
from cert.coordination.budget import Budget
from cert.coordination.prices import load_prices
from cert.coordination.protocol import CallError, CallFailure
from cert.coordination.schedule import build_schedule
from cert.coordination.transcript import CallFault, FinishedCall
from cert.core.errors import ConfigurationError
from cert.evidence.run_record import RunBegin
from cert.runner.coordination_records import describe_plan
from cert.runner.coordination_run import (
    CoordinationJob,
    KeptBaselines,
    PastRecords,
    charge_past,
    load_past,
    run_coordination,
)
from cert.runner.judge_history import load_earlier_readings
from cert.runner.ledger_run import describe_inputs, digest_job, is_repeatable
from cert.runner.resume import count_common
from cert.runner.tally import ErrorBudget, Tally
from cert.statistics.crossfit import SPLITS
from cert.statistics.verdict import CoordinationVerdict, VerdictRule
from cert_cli.coordination_agents import open_agents
from cert_cli.coordination_choices import build_plan, name_of, read_tasks
from cert_cli.coordination_view import describe_spend, render_result
from cert_cli.errors import report, report_error
from cert_cli.evidence import open_evidence
from cert_cli.exit_codes import ExitCode, code_of_run
from cert_cli.options import NO_LEDGER
from cert_cli.outputs import check_apart, open_outputs
from cert_cli.progress import Meter
from cert_cli.terminal import style_of
from cert_cli.textfile import check_textfile, count_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.orchestrator import Event
    from cert.coordination.plan import Plan
    from cert.coordination.prices import Prices
    from cert.core.config import CERTConfig
    from cert.evidence.coordination_plan import PlanPolicy
    from cert.runner.ledger_run import LedgerRun, UnfinishedRun
    from cert_cli.coordination_agents import Agents
    from cert_cli.coordination_choices import Choices
    from cert_cli.interrupts import Interrupts
    from cert_cli.options import SharedFlags
    from cert_cli.outputs import Outputs

COMMAND: Final = "coordinate"
_LOOK_S: Final = 0.1
_STOP_CODES: Final = {CallFailure.FATAL: ExitCode.UNAVAILABLE}
"""What stopped a run, where that is more than that it is incomplete."""


def run(
    choices: Choices, flags: SharedFlags, config: CERTConfig, interrupts: Interrupts
) -> ExitCode:
    """Do what was chosen.

    Raises:
        CertError: Input, outputs, ledger or models are not usable, or an output broke; what was
            answered until then is in the ledger.
        Interrupted: A signal came before the first call.
    """
    if flags.textfile is not None:
        check_textfile(flags.textfile)
    if config.content == "committed":
        raise ConfigurationError(
            "content: committed is not there for comparisons: agents' replies are needed to go on "
            "with a run",
            hint="use --content full or omitted",
        )
    rule = _build_rule(choices)
    tasks = read_tasks(choices)
    if not tasks:
        report("error: no task came in", hint="give a file with a task a line")
        return ExitCode.NOTHING
    plan = build_plan(choices, tasks)
    prices = None if choices.prices is None else load_prices(choices.prices)
    if prices is not None:
        for spec in (*choices.models, *choices.judges):
            prices.price(name_of(spec))  # rather now than at the first call
    if flags.dry_run:
        from cert_cli.coordination_dry_run import describe_plan_cost  # noqa: PLC0415 - only for this

        return describe_plan_cost(plan, prices, style_of(sys.stdout, color=flags.color))
    with ExitStack() as stack:
        has_ledger = config.ledger != NO_LEDGER
        outputs = open_outputs(
            flags.output or [],
            flags.format,
            color=flags.color,
            has_ledger=has_ledger and config.origins()["ledger"] != "default",
            stack=stack,
        )
        check_apart(choices.sources, outputs)
        evidence = stack.enter_context(open_evidence(config, quiet=flags.quiet))
        budget = Budget(
            max_tokens=choices.max_total_tokens,
            max_usd=None if choices.max_usd is None else Decimal(repr(choices.max_usd)),
            prices=prices,
        )
        agents = open_agents(choices, config, budget, stack=stack, quiet=flags.quiet)
        policy = _describe(plan, rule, prices, agents)
        session = _Session(
            choices=choices,
            flags=flags,
            config=config,
            interrupts=interrupts,
            plan=plan,
            policy=policy,
            prices=prices,
            budget=budget,
            agents=agents,
            outputs=outputs,
            evidence=evidence,
            meter=Meter(is_wanted=not flags.quiet, color=flags.color),
        )
        return session.run(stack)


def _describe(plan: Plan, rule: VerdictRule, prices: Prices | None, agents: Agents) -> PlanPolicy:
    try:
        return describe_plan(plan, rule, prices=prices, endpoints=agents.endpoints, splits=SPLITS)
    except ValueError as error:
        raise ConfigurationError(
            f"the plan: {error}", hint="take fewer tasks (--limit), arms or --replicates"
        ) from error


def _build_rule(choices: Choices) -> VerdictRule:
    try:
        return VerdictRule(
            margin=choices.margin, confidence=choices.confidence, min_tasks=choices.min_tasks
        )
    except ValueError as error:
        raise ConfigurationError(f"the rule: {error}") from error


@dataclass(slots=True, kw_only=True)
class _Session:
    """A run whose parts are all there."""

    choices: Choices
    flags: SharedFlags
    config: CERTConfig
    interrupts: Interrupts
    plan: Plan
    policy: PlanPolicy
    prices: Prices | None
    budget: Budget
    agents: Agents
    outputs: Outputs
    evidence: LedgerRun | None
    meter: Meter

    def run(self, stack: ExitStack) -> ExitCode:
        """Find what there is already, then run the rest of it."""
        begin = self._describe_begin()
        unfinished = self._find_unfinished(begin)
        past = self._take_up(unfinished)
        job = CoordinationJob(
            plan=self.plan,
            policy=self.policy,
            prices=self.prices,
            content=self.config.content,
            concurrency=self.agents.concurrency,
            kept=self._open_baselines(stack),
            earlier=self._earlier(),
        )
        with self.interrupts.deferred():
            tally = Tally()
            count_with(tally)
            run_id = str(uuid.uuid4()) if unfinished is None else unfinished.run_id
            if self.evidence is not None:
                self.evidence.begin(run_id, begin, correlation_id=self.flags.correlation_id)
            try:
                ended = asyncio.run(self._drive(job, run_id, past))
                if isinstance(ended, dict):
                    _count(tally, ended)
                if past.result is not None:
                    self.outputs.show(b"", partial(render_result, past.result))
                self.outputs.close()
            except BaseException:
                if self.evidence is not None:
                    self.evidence.interrupt(tally)
                raise
            return self._finish(ended, tally)

    def _describe_begin(self) -> RunBegin:
        inputs = describe_inputs(self.choices.sources)
        content = self.config.content
        asked = {"policy": self.policy.digest, "content": content, "limit": self.choices.limit}
        identity = self.agents.identity
        sampling = None
        if identity is not None:
            sampling = SamplingParams(
                max_new_tokens=max(one.max_tokens for arm in self.plan.arms for one in arm.agents),
                temperature=self.choices.temperature,
                seed=self.choices.seed,
            )
        return RunBegin(
            command=COMMAND,
            job=digest_job(COMMAND, inputs, asked),
            inputs=inputs,
            policy=self.policy,
            content=content,
            sampling=sampling,
            limit=self.choices.limit,
            identity=identity,
            host=self.agents.host,
        )

    def _find_unfinished(self, begin: RunBegin) -> UnfinishedRun | None:
        if self.evidence is None or not self.choices.resumes or not is_repeatable(begin.inputs):
            return None
        return self.evidence.find_unfinished(begin.job)

    def _take_up(self, unfinished: UnfinishedRun | None) -> PastRecords:
        """Read what is recorded, and bring the outputs level with it.

        Raises:
            ConfigurationError: An output holds something else.
        """
        past = PastRecords() if unfinished is None else load_past(unfinished.lines())
        if unfinished is not None and not self.flags.quiet:
            report(
                f"note: going on with run {unfinished.run_id}: {len(past.calls)} calls and "
                f"{len(past.replicates)} replicates are recorded"
            )
        for file in self.outputs.records:
            count = None if file.size_bytes else 0
            if unfinished is not None:
                count = count_common(file, unfinished)
            if count is None:
                raise ConfigurationError(
                    f"output {file.path} is not empty, and holds no beginning of this run",
                    hint="write to another file with -o",
                )
            if unfinished is not None:
                file.cut_torn_end()
                for line in islice(unfinished.lines(), count, None):
                    file.write(line)
        return past

    def _open_baselines(self, stack: ExitStack) -> KeptBaselines | None:
        if self.choices.baselines is None:
            return None
        baselines = stack.enter_context(SqliteBaselines(self.choices.baselines))
        return KeptBaselines(baselines, self.agents.environment)

    def _earlier(self) -> list[Mapping[str, Any]]:
        if self.plan.panel is None or self.evidence is None:
            return []
        return load_earlier_readings(self.evidence.folder, self.policy)

    async def _drive(
        self, job: CoordinationJob, run_id: str, past: PastRecords
    ) -> dict[str, Any] | CallError | None:
        """Run, and look out for signals.

        Returns:
            The result; what stopped the run; None where a signal did.
        """
        charge_past(self.budget, past.calls)
        self.meter.total = len(build_schedule(self.plan))
        seen = _Seen(self.meter)
        with self.meter.running():
            running = asyncio.create_task(
                run_coordination(
                    job,
                    self.agents.agent,
                    self._write,
                    run_id=run_id,
                    correlation_id=self.flags.correlation_id,
                    past=past,
                    watch=seen.add,
                )
            )
            try:
                while not running.done():
                    await asyncio.wait([running], timeout=_LOOK_S)
                    if self.interrupts.seen() or not self.outputs.has_sink:
                        running.cancel()
                        await asyncio.wait([running])
                        with suppress(asyncio.CancelledError):
                            return running.result()
                        return None
                return running.result()
            except CallError as error:
                return error
            finally:
                await self.agents.agent.aclose()

    def _write(self, record: dict[str, object]) -> None:
        from cert.evidence.record import encode_record  # noqa: PLC0415 - beside its use

        line = encode_record(record) if self.evidence is None else self.evidence.append(record)
        draw = None
        if record["kind"] == "coordination":
            draw = partial(render_result, cast("Mapping[str, Any]", record["coordination"]))
        if self.outputs.shares_terminal:
            self.meter.make_room()
        self.outputs.write(line, draw)

    def _finish(self, ended: dict[str, Any] | CallError | None, tally: Tally) -> ExitCode:
        """Say how it ended, record that, and choose the exit code."""
        evidence = self.evidence
        if isinstance(ended, dict):
            code = code_of_run(tally, ErrorBudget())
            if evidence is not None:
                evidence.end(tally, int(code))
        else:
            if isinstance(ended, CallError):
                report_error(ended)
                code = _STOP_CODES.get(ended.failure, ExitCode.INCOMPLETE)
            else:
                code = self.interrupts.code or ExitCode.INCOMPLETE
            if evidence is not None:
                evidence.interrupt(tally)
            if evidence is not None and not self.flags.quiet:
                goes_on = self.config.content == "full" and "-" not in self.choices.sources
                then = (
                    "the same command goes on from there"
                    if goes_on
                    else "it cannot be gone on with"
                )
                report(f"note: what was answered is recorded; {then}")
        if evidence is not None and evidence.is_failed:
            report("warning: the ledger could not be written; this run is not wholly in it")
        if not self.flags.quiet:
            words = describe_spend(ended["spend"]) + "; " if isinstance(ended, dict) else ""
            report(f"{words}{code.meaning} (exit {int(code)})")
        return code


class _Seen:
    """Counts what is finished, for the bar."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._calls = 0
        self._failed = 0
        self._replicates = 0

    def add(self, event: Event) -> None:
        """Count a call or a replicate."""
        if isinstance(event, FinishedCall):
            self._calls += 1
            self._failed += isinstance(event.outcome, CallFault)
        else:
            self._replicates += 1
        self._meter.show_count(self._replicates, self._describe)

    def _describe(self) -> str:
        return f"{self._calls} calls, {self._failed} failed"


def _count(tally: Tally, result: Mapping[str, Any]) -> None:
    """Count the verdicts as those of prompts are counted."""
    for strategy in result["strategies"]:
        match CoordinationVerdict(strategy["verdict"]):
            case CoordinationVerdict.BENEFICIAL:
                tally.passed += 1
            case CoordinationVerdict.HARMFUL:
                tally.failed += 1
            case _:
                tally.inconclusive += 1
