"""A model in this process: how a session uses it, and how its ledger keeps the evidence."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from cert.evidence.parts import describe_sampling
from cert.evidence.run_record import RunBegin, load_host
from cert.observability.tracing import span
from cert.runner.ledger_run import describe_inputs, digest_job, is_repeatable
from cert.runner.local import open_engine
from cert.runner.pipeline import RunSettings, run_in_groups
from cert.runner.resume import Expected, count_common
from cert.runner.token_pieces import split_tokens
from cert.trajectory.settings import sampling_of
from cert_cli.errors import report
from cert_cli.evidence import open_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import ExitStack

    from cert.backends.protocol import ModelIdentity
    from cert.core.config import CERTConfig
    from cert.runner.ledger_run import LedgerRun, UnfinishedRun
    from cert.runner.pipeline import Outcome
    from cert.runner.record_file import RecordFile
    from cert.runner.tally import Tally
    from cert.trajectory.engine import HamiltonianEngine
    from cert_cli.options import SharedFlags
    from cert_cli.session import Cases, Job

_AHEAD_FACTOR = 2
"""Prompts submitted, as a multiple of the rows that run: what waits fills a freed row at once."""


class LocalInstrument:
    """An engine of our own."""

    def __init__(self, flags: SharedFlags, config: CERTConfig, stack: ExitStack) -> None:
        """Make the engine, which `stack` frees; the model is loaded if it is to be preloaded.

        Raises:
            CertError: The policy or the model is not usable.
        """
        self._flags = flags
        self._config = config
        self._engine = stack.enter_context(
            open_engine(config, policy=config.policy, expect_digest=flags.expect_digest)
        )
        # All that is done from here on is part of it, by whatever thread.
        stack.enter_context(span("run", is_run=True))
        if config.preload:
            self._engine.model_resource.load()

    @property
    def max_prompt_chars(self) -> int:
        """Longer prompts are refused."""
        return self._config.max_prompt_chars

    @property
    def expected(self) -> Expected:
        """What the records will have been made with."""
        return Expected(
            policy_digest=self._engine.policy.digest,
            sampling=describe_sampling(sampling_of(self._config)),
            content=self._config.content,
        )

    def admit(self, cases: Cases) -> Cases:
        """Every prompt that was read may be measured."""
        return cases

    def open_evidence(self, job: Job, stack: ExitStack) -> RunEvidence | None:
        """Open the ledger that the settings name, which `stack` closes; None where there is none.

        Raises:
            ConfigurationError, LedgerError: As `cert_cli.evidence.open_evidence`.
        """
        run = stack.enter_context(open_evidence(self._config, quiet=self._flags.quiet))
        return (
            None if run is None else RunEvidence(run, self._engine, job, self._flags, self._config)
        )

    def begin(self) -> None:
        """Load the model in the background."""
        self._engine.model_resource.request_backend()
        if not self._flags.quiet and self._config.origins()["model"] == "default":
            report(
                "note: no model was named, so this is `reference`: there to try the tool and to "
                "check the instrument, not to judge text (--model names another)"
            )

    def model_digest(self) -> str:
        """Wait for the model.

        Raises:
            CertError: It cannot be loaded.
        """
        return _identity(self._engine).digest

    def run_in_groups(
        self, cases: Cases, run_id: str, *, stopped: Callable[[], bool]
    ) -> Generator[list[Outcome], None, None]:
        """Measure; as `cert.runner.pipeline.run_in_groups`."""
        config = self._config
        rows = config.batch_rows
        settings = RunSettings(
            run_id=run_id,
            sampling=sampling_of(config),
            timeout_s=config.timeout,
            chat=config.chat,
            content=config.content,
            correlation_id=self._flags.correlation_id,
            in_flight=rows if config.timeout is not None else _AHEAD_FACTOR * rows,
        )
        return run_in_groups(cases, self._engine, settings, stopped=stopped)

    def split(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's share of the text."""
        return split_tokens(self._engine.model_resource.backend.decode, token_ids)


class RunEvidence:
    """The ledger's side of a run."""

    def __init__(
        self,
        run: LedgerRun,
        engine: HamiltonianEngine,
        job: Job,
        flags: SharedFlags,
        config: CERTConfig,
    ) -> None:
        self._run = run
        self._engine = engine
        self._job = job
        self._flags = flags
        self._config = config

    @property
    def is_failed(self) -> bool:
        """Whether the run went on without its ledger."""
        return self._run.is_failed

    @cached_property
    def _plan(self) -> RunBegin:
        """What is asked for, as far as it is known before the model is loaded."""
        job, config, policy = self._job, self._config, self._engine.policy
        sampling = sampling_of(config)
        inputs = describe_inputs(job.sources or ["argument"])
        asked = {
            **job.options,
            "model": config.model,
            "policy": policy.digest,
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
            policy=policy,
            content=config.content,
            sampling=sampling,
            limit=job.limit,
            identity=None,
            host=load_host(),
        )

    def find_unfinished(self, files: Sequence[RecordFile]) -> UnfinishedRun | None:
        """Find the run that this one can go on with, its model and these outputs being the same.

        Raises:
            CertError: The ledger cannot be read, or the model not be loaded.
        """
        if not is_repeatable(self._plan.inputs):
            return None
        run = self._run.find_unfinished(self._plan.job)
        if run is None:
            return None
        if run.model_digest == _identity(self._engine).digest and all(
            count_common(file, run) is not None for file in files
        ):
            return run
        self._run.release()
        if not self._flags.quiet:
            report(
                f"note: {run.path} did not end, and had another model or other outputs; this is "
                "a new run"
            )
        return None

    def begin(self, run_id: str) -> None:
        """Record that the run begins, or goes on.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        begin = replace(self._plan, identity=_identity(self._engine))
        self._run.begin(run_id, begin, correlation_id=self._flags.correlation_id)

    def write_all(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Append records, and return the outcomes with their lines as they stand in the ledger.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        return self._run.write_all(outcomes)

    def interrupt(self, tally: Tally) -> None:
        """Record that the run stops before its end, as far as that can be written still."""
        self._run.interrupt(tally)

    def end(self, tally: Tally, exit_code: int) -> None:
        """Record that the run came to its end.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        self._run.end(tally, exit_code)


def _identity(engine: HamiltonianEngine) -> ModelIdentity:
    return engine.model_resource.request_backend().result().identity
