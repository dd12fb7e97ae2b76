"""One run of `cert analyze` or `cert batch`, from its flags to its exit code.

Settings; input and outputs exist; the model loads while existing records are walked; prompts go
through the engine; outputs are closed; summary and exit code.
"""

from __future__ import annotations

import itertools
import sys
import threading
import uuid
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from cert.backends.protocol import SamplingParams
from cert.core.config import CERTConfig
from cert.core.errors import CertError, ConfigurationError
from cert.evidence.parts import describe_sampling
from cert.evidence.run_record import RunBegin, load_host
from cert.runner.ledger_run import describe_inputs, digest_job, is_repeatable
from cert.runner.local import open_engine
from cert.runner.pipeline import RunSettings, run_cases
from cert.runner.resume import (
    Expected,
    Resumed,
    check_model,
    count_common,
    prepare_append,
    resume,
)
from cert.runner.tally import ErrorBudget, Tally
from cert.runner.token_pieces import split_tokens
from cert_cli.errors import report
from cert_cli.evidence import open_evidence
from cert_cli.exit_codes import ExitCode, code_of_run
from cert_cli.options import NO_LEDGER
from cert_cli.outputs import Outputs, check_apart, open_outputs
from cert_cli.progress import Meter, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cert.backends.protocol import ModelIdentity
    from cert.inputs.case import PromptCase, RefusedInput
    from cert.runner.ledger_run import LedgerRun, UnfinishedRun
    from cert.runner.pipeline import Outcome
    from cert.trajectory.engine import HamiltonianEngine
    from cert_cli.interrupts import Interrupts
    from cert_cli.options import SharedFlags
    from cert_cli.terminal import Style

    Cases = Iterator[PromptCase | RefusedInput]

_AHEAD_FACTOR = 2
"""Prompts submitted, as a multiple of the rows that run: what waits fills a freed row at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a command asks of a run.

    Attributes:
        command: Its name.
        sources: Files and `-`, as given; empty for an argument.
        read: Opens the input; raises for what is missing before anything costly begins.
        resumes: Whether an output that exists is continued rather than appended to.
        never_resumes: Whether an output that exists is refused.
        limit: Input lines to take at most, from the first one on; None for all.
        budget: How many errors are tolerated.
        is_batch: A line and a bar rather than a page.
        options: How the input is read, as far as it is part of what was asked for.
    """

    command: str
    sources: Sequence[str]
    read: Callable[[CERTConfig], Cases]
    resumes: bool = False
    never_resumes: bool = False
    limit: int | None = None
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    is_batch: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


def load_config(flags: SharedFlags, **further: object) -> CERTConfig:
    """Read the settings, flags first, and start logging on stderr.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    config = CERTConfig.load({**flags.overrides(), **further}, config_file=flags.config)
    origins = config.origins()
    quieter = {"log_level": "WARNING", "log_format": "human"}
    # The defaults of a service's log are not those of a program at a terminal.
    unset = {name: value for name, value in quieter.items() if origins[name] == "default"}
    config.model_copy(update=unset).apply(stream=sys.stderr)
    return config


def run(job: Job, flags: SharedFlags, config: CERTConfig, interrupts: Interrupts) -> ExitCode:
    """Do what the flags ask for.

    Raises:
        CertError: Input, output, ledger or model are not usable, or an output broke; records that
            were acknowledged are in the ledger and in the outputs.
        Interrupted: A signal came before the first prompt was submitted.
    """
    with ExitStack() as stack:
        if flags.dry_run:
            from cert_cli.dry_run import describe_run  # noqa: PLC0415 - numpy, only for this

            return describe_run(_cases(job, config), config)
        engine = stack.enter_context(
            open_engine(config, policy=config.policy, expect_digest=flags.expect_digest)
        )
        if config.preload:
            engine.model_resource.load()
        cases = _cases(job, config)
        has_ledger = config.ledger != NO_LEDGER and config.origins()["ledger"] != "default"
        outputs = open_outputs(
            flags.output or [], flags.format, color=flags.color, has_ledger=has_ledger, stack=stack
        )
        check_apart(job.sources, outputs)
        _refuse_existing(job, outputs)
        evidence = stack.enter_context(open_evidence(config, quiet=flags.quiet))
        session = _Session(job, flags, config, interrupts, engine, outputs, evidence)
        return session.run(cases)


class _Session:
    """A run whose parts are all there."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run, which meet here
        self,
        job: Job,
        flags: SharedFlags,
        config: CERTConfig,
        interrupts: Interrupts,
        engine: HamiltonianEngine,
        outputs: Outputs,
        evidence: LedgerRun | None,
    ) -> None:
        self._job = job
        self._flags = flags
        self._config = config
        self._interrupts = interrupts
        self._engine = engine
        self._outputs = outputs
        self._evidence = evidence
        self._resumed = Resumed()
        self._in_run = Tally()
        """Records of this run alone; an output that is continued may hold others, too."""

    def run(self, cases: Cases) -> ExitCode:
        """Load, resume, stream, finish."""
        outputs, evidence = self._outputs, self._evidence
        loading = self._engine.model_resource.request_backend()
        if not self._flags.quiet and self._config.origins()["model"] == "default":
            report(
                "note: no model was named, so this is `reference`: there to try the tool and to "
                "check the instrument, not to judge text (--model names another)"
            )
        plan = self._plan()
        unfinished = None
        if evidence is not None and self._job.resumes and is_repeatable(plan.inputs):
            unfinished = evidence.find_unfinished(plan.job)
        if unfinished is not None and not self._still_fits(unfinished, loading.result().identity):
            unfinished = None
        self._resume(cases, unfinished)
        identity = loading.result().identity
        if outputs.records:
            check_model(self._resumed, identity.digest, str(outputs.records[0].path))
        self._say_resumed()
        with self._interrupts.deferred():
            run_id = str(uuid.uuid4()) if unfinished is None else unfinished.run_id
            if unfinished is not None:
                self._in_run = replace(self._resumed.tally)
            if evidence is not None:
                begin = replace(plan, identity=identity)
                evidence.begin(run_id, begin, correlation_id=self._flags.correlation_id)
            try:
                self._stream(cases, run_id)
                outputs.close()
            except BaseException:
                if evidence is not None:
                    evidence.interrupt(self._in_run)
                raise
        return self._finish()

    def _plan(self) -> RunBegin:
        """Say what is asked for, as far as it is known before the model is loaded."""
        job, config = self._job, self._config
        sampling = _sampling(config)
        inputs = describe_inputs(job.sources or ["argument"])
        asked = {
            **job.options,
            "model": config.model,
            "policy": self._engine.policy.digest,
            "sampling": describe_sampling(sampling),
            "chat": config.chat,
            "content": config.content,
            "limit": job.limit,
            "max_prompt_chars": config.max_prompt_chars,
        }
        return RunBegin(
            command=job.command,
            job=digest_job(job.command, inputs, asked),
            inputs=inputs,
            policy=self._engine.policy,
            content=config.content,
            sampling=sampling,
            limit=job.limit,
            identity=None,
            host=load_host(),
        )

    def _still_fits(self, run: UnfinishedRun, identity: ModelIdentity) -> bool:
        """Whether an unfinished run can go on with this model and these outputs."""
        if run.model_digest == identity.digest and all(
            count_common(file, run) is not None for file in self._outputs.records
        ):
            return True
        if self._evidence is not None:
            self._evidence.release()
        if not self._flags.quiet:
            report(
                f"note: {run.path} did not end, and had another model or other outputs; this is "
                "a new run"
            )
        return False

    def _resume(self, cases: Cases, unfinished: UnfinishedRun | None) -> None:
        files = self._outputs.records
        if self._job.resumes:
            expected = Expected(
                policy_digest=self._engine.policy.digest,
                sampling=describe_sampling(_sampling(self._config)),
                content=self._config.content,
            )
            self._resumed = resume(files, cases, expected, unfinished)
        else:
            copies = (prepare_append(file) for file in files)
            self._resumed.torn = [copy for copy in copies if copy is not None]

    def _say_resumed(self) -> None:
        for copy in self._resumed.torn:
            report(f"warning: an incomplete last line was cut off and kept in {copy}")
        if self._flags.quiet:
            return
        for path in self._resumed.completed:
            report(f"note: {path} was behind and now holds the same records as the longest output")
        if self._resumed.tally.total:
            report(f"note: continuing after {self._resumed.tally.total} records")

    def _stream(self, cases: Cases, run_id: str) -> None:
        config, outputs = self._config, self._outputs
        rows = config.batch_rows
        settings = RunSettings(
            run_id=run_id,
            sampling=_sampling(config),
            timeout_s=config.timeout,
            chat=config.chat,
            content=config.content,
            correlation_id=self._flags.correlation_id,
            in_flight=rows if config.timeout is not None else _AHEAD_FACTOR * rows,
        )
        is_wanted = self._job.is_batch and not self._flags.quiet
        meter = Meter(is_wanted=is_wanted, color=self._flags.color)
        _count(self._job, config, meter)
        outcomes = run_cases(cases, self._engine, settings, stopped=self._is_over)
        with meter.running(), closing(outcomes):
            for outcome in outcomes:
                if outputs.shares_terminal:
                    meter.make_room()
                recorded = outcome if self._evidence is None else self._evidence.write(outcome)
                self._in_run.add(outcome.record)
                self._resumed.tally.add(outcome.record)
                outputs.write(recorded, self._render)
                meter.show(self._resumed.tally)
                if not outputs.has_sink:
                    break

    def _is_over(self) -> bool:
        return self._interrupts.seen() or not self._outputs.has_sink

    def _render(self, outcome: Outcome, style: Style) -> str:
        from cert_cli.render import render_line, render_page  # noqa: PLC0415 - rich

        if self._job.is_batch:
            return render_line(outcome.record, style)
        decode = self._engine.model_resource.backend.decode
        return render_page(outcome.record, style, split=partial(split_tokens, decode))

    def _finish(self) -> ExitCode:
        tally, evidence = self._resumed.tally, self._evidence
        stopped = self._interrupts.code
        if stopped is None and not self._outputs.has_sink:
            stopped = ExitCode.INCOMPLETE
        code = code_of_run(tally, self._job.budget) if stopped is None else stopped
        if evidence is not None and stopped is not None:
            evidence.interrupt(self._in_run)
        elif evidence is not None:
            evidence.end(self._in_run, int(code))
        if evidence is not None and evidence.is_failed:
            report("warning: the ledger could not be written; this run is not wholly in it")
        is_worth_saying = self._job.is_batch or tally.total != 1 or code is not ExitCode.PASS
        if not self._flags.quiet and is_worth_saying:
            report(f"{describe(tally)}; {code.meaning} (exit {int(code)})")
        return code


def _cases(job: Job, config: CERTConfig) -> Cases:
    return itertools.islice(job.read(config), job.limit)


def _count(job: Job, config: CERTConfig, meter: Meter) -> None:
    """Count the input in the background, for the time that is left; reading is much faster."""

    def count() -> None:
        with suppress(CertError):  # whoever reads it for good reports that
            meter.total = sum(1 for _ in _cases(job, config))

    if meter.is_shown and "-" not in job.sources:
        threading.Thread(target=count, name="cert-count", daemon=True).start()


def _refuse_existing(job: Job, outputs: Outputs) -> None:
    if not job.never_resumes:
        return
    for file in outputs.records:
        if file.size_bytes:
            raise ConfigurationError(
                f"output {file.path} is not empty, and --resume never was given",
                hint="write to another file with -o, or continue with --resume auto",
            )


def _sampling(config: CERTConfig) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        stop=tuple(config.stop),
    )
