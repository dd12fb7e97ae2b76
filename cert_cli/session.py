"""One run of `cert analyze` or `cert batch`, from its flags to its exit code.

Settings; input and outputs exist; the model loads, here or in a server, while existing records are
walked; prompts are measured; outputs are closed; summary and exit code.
"""

from __future__ import annotations

import itertools
import sys
import threading
import uuid
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cert.core.config import CERTConfig
from cert.core.errors import CertError, ConfigurationError
from cert.runner.remote_errors import ServerUnavailableError
from cert.runner.resume import Resumed, check_model, prepare_append, resume
from cert.runner.tally import ErrorBudget, Tally
from cert_cli.errors import report, report_error
from cert_cli.exit_codes import ExitCode, code_of_run
from cert_cli.options import NO_LEDGER
from cert_cli.outputs import Outputs, check_apart, open_outputs
from cert_cli.progress import Meter, describe
from cert_cli.textfile import check_textfile, count_with

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from cert.inputs.case import PromptCase, RefusedInput
    from cert.runner.ledger_run import UnfinishedRun
    from cert.runner.pipeline import Outcome
    from cert.runner.resume import Expected
    from cert_cli.interrupts import Interrupts
    from cert_cli.local import RunEvidence
    from cert_cli.options import SharedFlags
    from cert_cli.terminal import Style

    Cases = Iterator[PromptCase | RefusedInput]


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


class Instrument(Protocol):
    """What measures: a model in this process, or a server."""

    @property
    def max_prompt_chars(self) -> int:
        """Longer prompts are refused."""

    @property
    def expected(self) -> Expected:
        """What the records will have been made with."""

    def admit(self, cases: Cases) -> Cases:
        """Refuse the prompts that cannot be measured however they were read."""

    def open_evidence(self, job: Job, stack: ExitStack) -> RunEvidence | None:
        """Open the ledger of this process, which `stack` closes; None where there is none."""

    def begin(self) -> None:
        """Begin with what takes time, in the background."""

    def model_digest(self) -> str:
        """Wait for the model."""

    def run_in_groups(
        self, cases: Cases, run_id: str, *, stopped: Callable[[], bool]
    ) -> Generator[list[Outcome], None, None]:
        """Yield one outcome a case, in input order, those together that are there together."""

    def split(self, token_ids: Sequence[int]) -> Sequence[str] | None:
        """Each token's share of a text; None where nobody can tell."""


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
    if flags.textfile is not None:
        check_textfile(flags.textfile)
    with ExitStack() as stack:
        if flags.dry_run:
            from cert_cli.dry_run import describe_run  # noqa: PLC0415 - numpy, only for this

            cases = _cases(job, config, max_chars=config.max_prompt_chars)
            return describe_run(cases, config)
        instrument = _open_instrument(flags, config, stack)
        cases = instrument.admit(_cases(job, config, max_chars=instrument.max_prompt_chars))
        has_ledger = config.ledger != NO_LEDGER and config.origins()["ledger"] != "default"
        outputs = open_outputs(
            flags.output or [],
            flags.format,
            color=flags.color,
            has_ledger=has_ledger and config.server is None,
            stack=stack,
        )
        check_apart(job.sources, outputs)
        _refuse_existing(job, outputs)
        evidence = instrument.open_evidence(job, stack)
        session = _Session(job, flags, config, interrupts, instrument, outputs, evidence)
        return session.run(cases)


def _open_instrument(flags: SharedFlags, config: CERTConfig, stack: ExitStack) -> Instrument:
    if config.server is not None:
        from cert_cli.remote import RemoteInstrument  # noqa: PLC0415 - no model stack

        return RemoteInstrument(config.server, flags, config)
    from cert_cli.local import LocalInstrument  # noqa: PLC0415 - not for a server

    return LocalInstrument(flags, config, stack)


class _Session:
    """A run whose parts are all there."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run, which meet here
        self,
        job: Job,
        flags: SharedFlags,
        config: CERTConfig,
        interrupts: Interrupts,
        instrument: Instrument,
        outputs: Outputs,
        evidence: RunEvidence | None,
    ) -> None:
        self._job = job
        self._flags = flags
        self._config = config
        self._interrupts = interrupts
        self._instrument = instrument
        self._outputs = outputs
        self._evidence = evidence
        self._resumed = Resumed()
        self._in_run = Tally()
        """Records of this run alone; an output that is continued may hold others, too."""
        self._lost: ServerUnavailableError | None = None

    def run(self, cases: Cases) -> ExitCode:
        """Load, resume, stream, finish."""
        outputs, evidence = self._outputs, self._evidence
        self._instrument.begin()
        unfinished = None
        if evidence is not None and self._job.resumes:
            unfinished = evidence.find_unfinished(outputs.records)
        self._resume(cases, unfinished)
        digest = self._instrument.model_digest()
        if outputs.records:
            check_model(self._resumed, digest, str(outputs.records[0].path))
        self._say_resumed()
        with self._interrupts.deferred():
            run_id = str(uuid.uuid4()) if unfinished is None else unfinished.run_id
            if unfinished is not None:
                self._in_run = replace(self._resumed.tally)
            count_with(self._in_run)
            if evidence is not None:
                evidence.begin(run_id)
            try:
                self._stream(cases, run_id)
                outputs.close()
            except BaseException:
                if evidence is not None:
                    evidence.interrupt(self._in_run)
                raise
        return self._finish()

    def _resume(self, cases: Cases, unfinished: UnfinishedRun | None) -> None:
        files = self._outputs.records
        if self._job.resumes:
            self._resumed = resume(files, cases, self._instrument.expected, unfinished)
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
        outputs = self._outputs
        is_wanted = self._job.is_batch and not self._flags.quiet
        meter = Meter(is_wanted=is_wanted, color=self._flags.color)
        _count(self._job, self._config, meter)
        groups = self._instrument.run_in_groups(cases, run_id, stopped=self._is_over)
        try:
            with meter.running(), closing(groups):
                for group in groups:
                    if outputs.shares_terminal:
                        meter.make_room()
                    self._write(group)
                    meter.show(self._resumed.tally)
                    if not outputs.has_sink:
                        break
        except ServerUnavailableError as error:
            if not self._in_run.total:
                raise
            self._lost = error

    def _write(self, group: Sequence[Outcome]) -> None:
        recorded = group if self._evidence is None else self._evidence.write_all(group)
        # All of them first: they are in the ledger, whatever becomes of an output.
        for outcome in recorded:
            self._in_run.add(outcome.record)
            self._resumed.tally.add(outcome.record)
        for outcome in recorded:
            self._outputs.write(outcome.line, partial(self._render, outcome))

    def _is_over(self) -> bool:
        return self._interrupts.seen() or not self._outputs.has_sink

    def _render(self, outcome: Outcome, style: Style) -> str:
        from cert_cli.render import render_line, render_page  # noqa: PLC0415 - rich

        if self._job.is_batch:
            return render_line(outcome.record, style)
        return render_page(outcome.record, style, split=self._instrument.split)

    def _finish(self) -> ExitCode:
        tally, evidence = self._resumed.tally, self._evidence
        stopped = self._interrupts.code
        if self._lost is not None:
            report_error(self._lost)
        if stopped is None and (self._lost is not None or not self._outputs.has_sink):
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


def _cases(job: Job, config: CERTConfig, *, max_chars: int) -> Cases:
    limited = config.model_copy(update={"max_prompt_chars": max_chars})
    return itertools.islice(job.read(limited), job.limit)


def _count(job: Job, config: CERTConfig, meter: Meter) -> None:
    """Count the input in the background, for the time that is left; reading is much faster."""

    def count() -> None:
        with suppress(CertError):  # whoever reads it for good reports that
            meter.total = sum(1 for _ in _cases(job, config, max_chars=config.max_prompt_chars))

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
