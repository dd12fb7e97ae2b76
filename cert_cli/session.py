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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cert.backends.protocol import SamplingParams
from cert.core.config import CERTConfig
from cert.core.errors import CertError, ConfigurationError
from cert.runner.local import open_engine
from cert.runner.pipeline import RunSettings, run_cases
from cert.runner.resume import Expected, Resumed, check_model, prepare_append, resume
from cert.runner.tally import ErrorBudget
from cert_cli.errors import report
from cert_cli.exit_codes import ExitCode, code_of_run
from cert_cli.outputs import Outputs, check_apart, open_outputs
from cert_cli.progress import Meter, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cert.inputs.case import PromptCase, RefusedInput
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
        sources: Files and `-`, as given; empty for an argument.
        read: Opens the input; raises for what is missing before anything costly begins.
        resumes: Whether an output that exists is continued rather than appended to.
        never_resumes: Whether an output that exists is refused.
        limit: Input lines to take at most, from the first one on; None for all.
        budget: How many errors are tolerated.
        is_batch: A line and a bar rather than a page.
    """

    sources: Sequence[str]
    read: Callable[[CERTConfig], Cases]
    resumes: bool = False
    never_resumes: bool = False
    limit: int | None = None
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    is_batch: bool = False


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
        CertError: Input, output or model are not usable, or an output broke; records that were
            acknowledged are in the outputs.
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
        outputs = open_outputs(flags.output or [], flags.format, color=flags.color, stack=stack)
        check_apart(job.sources, outputs)
        _refuse_existing(job, outputs)
        loading = engine.model_resource.request_backend()
        if not flags.quiet and config.origins()["model"] == "default":
            report(
                "note: no model was named, so this is `reference`: there to try the tool and to "
                "check the instrument, not to judge text (--model names another)"
            )
        resumed = _resume(job, outputs, cases, engine, config)
        backend = loading.result()
        if outputs.records:
            check_model(resumed, backend.identity.digest, str(outputs.records[0].path))
        _say_resumed(resumed, quiet=flags.quiet)
        with interrupts.deferred():
            _stream(job, flags, config, interrupts, cases, engine, outputs, resumed)
            outputs.close()
        return _finish(job, flags, interrupts, outputs, resumed)


def _cases(job: Job, config: CERTConfig) -> Cases:
    return itertools.islice(job.read(config), job.limit)


def _count(job: Job, config: CERTConfig, meter: Meter) -> None:
    """Count the input in the background, for the time that is left; reading is much faster."""

    def count() -> None:
        with suppress(CertError):  # whoever reads it for good reports that
            meter.total = sum(1 for _ in _cases(job, config))

    if meter.is_shown and "-" not in job.sources:
        threading.Thread(target=count, name="cert-count", daemon=True).start()


def _stream(  # noqa: PLR0913, PLR0917 - the parts of a run, which meet here
    job: Job,
    flags: SharedFlags,
    config: CERTConfig,
    interrupts: Interrupts,
    cases: Cases,
    engine: HamiltonianEngine,
    outputs: Outputs,
    resumed: Resumed,
) -> None:
    rows = config.batch_rows
    settings = RunSettings(
        run_id=str(uuid.uuid4()),
        sampling=_sampling(config),
        timeout_s=config.timeout,
        chat=config.chat,
        content=config.content,
        correlation_id=flags.correlation_id,
        in_flight=rows if config.timeout is not None else _AHEAD_FACTOR * rows,
    )
    meter = Meter(is_wanted=job.is_batch and not flags.quiet, color=flags.color)
    _count(job, config, meter)

    def render(outcome: Outcome, style: Style) -> str:
        from cert_cli.render import render_line, render_page  # noqa: PLC0415 - rich

        if job.is_batch:
            return render_line(outcome, style)
        return render_page(outcome, style, decode=engine.model_resource.backend.decode)

    def is_over() -> bool:
        return interrupts.seen() or not outputs.has_sink

    outcomes = run_cases(cases, engine, settings, stopped=is_over)
    with meter.running(), closing(outcomes):
        for outcome in outcomes:
            if outputs.shares_terminal:
                meter.make_room()
            outputs.write(outcome, render)
            resumed.tally.add(outcome.record)
            meter.show(resumed.tally)
            if not outputs.has_sink:
                break


def _resume(
    job: Job, outputs: Outputs, cases: Cases, engine: HamiltonianEngine, config: CERTConfig
) -> Resumed:
    if job.resumes:
        sampling = _sampling(config)
        expected = Expected(
            policy_digest=engine.policy.digest,
            sampling={
                "max_new_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
                "stop": list(sampling.stop),
            },
            content=config.content,
        )
        return resume(outputs.records, cases, expected)
    resumed = Resumed()
    resumed.torn = [copy for file in outputs.records if (copy := prepare_append(file)) is not None]
    return resumed


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


def _say_resumed(resumed: Resumed, *, quiet: bool) -> None:
    for copy in resumed.torn:
        report(f"warning: an incomplete last line was cut off and kept in {copy}")
    if quiet:
        return
    for path in resumed.completed:
        report(f"note: {path} was behind and now holds the same records as the longest output")
    if resumed.tally.total:
        report(f"note: continuing after {resumed.tally.total} records")


def _finish(
    job: Job, flags: SharedFlags, interrupts: Interrupts, outputs: Outputs, resumed: Resumed
) -> ExitCode:
    tally = resumed.tally
    if interrupts.code is not None:
        code = interrupts.code
    elif not outputs.has_sink:
        code = ExitCode.INCOMPLETE
    else:
        code = code_of_run(tally, job.budget)
    if not flags.quiet and (job.is_batch or tally.total != 1 or code is not ExitCode.PASS):
        report(f"{describe(tally)}; {code.meaning} (exit {int(code)})")
    return code
