"""The server's evidence: its own run, and runs of their own for what is judged otherwise.

    serve:    policy -> run begin -> records of single analyses ........................ -> run end
    analyze:           (policy) -> run begin -> one record -> run end
    batch:                       (policy) -> run begin -> records .............. -> run end

All of them go into one ledger at once; those that wait share a sync. A record is durable before
its line leaves this module.
"""

from __future__ import annotations

import logging
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from cert.evidence.run_record import RunBegin, RunInput, load_host
from cert.ledger.errors import LedgerBrokenError, LedgerError, LedgerRefusedError
from cert.runner.ledger_run import LedgerRun, digest_job
from cert.runner.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.assessment.policy import Policy
    from cert.backends.protocol import ModelIdentity, SamplingParams
    from cert.ledger.appender import Ledger
    from cert.runner.pipeline import Outcome

logger = logging.getLogger(__name__)

SOURCE: Final = "request"
"""Where prompts come from, as records say it."""


class Run:
    """One run of the server, in its ledger or without one. Several threads may `write`."""

    def __init__(self, recorder: Recorder, *, run_id: str | None = None) -> None:
        self.run_id = str(uuid.uuid4()) if run_id is None else run_id
        self.tally = Tally()
        self._recorder = recorder
        self._lock = threading.Lock()
        self._evidence = recorder.open_evidence()

    def begin(
        self, command: str, policy: Policy, sampling: SamplingParams | None, correlation_id: str
    ) -> None:
        """Register the policy and record the beginning.

        Raises:
            LedgerError: The ledger does not take it.
        """
        if self._evidence is None:
            return
        with self._recorder.watched():
            begin = self._plan(command, policy, sampling)
            self._evidence.begin(self.run_id, begin, correlation_id=correlation_id)

    def prove(self, policy: Policy) -> None:
        """Begin and end without any record between.

        Raises:
            LedgerError: The ledger does not take it.
        """
        if self._evidence is not None:
            self._evidence.begin(
                self.run_id, self._plan("probe", policy, None), correlation_id=None
            )
            self._evidence.end(self.tally, None)

    def _plan(self, command: str, policy: Policy, sampling: SamplingParams | None) -> RunBegin:
        inputs = (RunInput(SOURCE),) if command in {"analyze", "batch"} else ()
        return RunBegin(
            command=command,
            # No other run asks for the same: a server's run is never continued by another.
            job=digest_job(command, inputs, {"run_id": self.run_id}),
            inputs=inputs,
            policy=policy,
            content=self._recorder.content,
            sampling=sampling,
            limit=None,
            identity=self._recorder.identity,
            host=load_host(),
        )

    def write(self, outcome: Outcome) -> bytes:
        """Record an outcome and count it.

        Returns:
            The record's line as it stands in the ledger, without newline.

        Raises:
            LedgerError: The ledger does not take it.
        """
        recorded = outcome
        if self._evidence is not None:
            with self._recorder.watched():
                recorded = self._evidence.write(outcome)
            if self._evidence.is_failed:
                self._recorder.skipped()
        with self._lock:
            self.tally.add(outcome.record)
        return recorded.line

    def end(self, exit_code: int | None = None) -> None:
        """Record the end.

        Raises:
            LedgerError: The ledger does not take it.
        """
        if self._evidence is None:
            return
        with self._recorder.watched():
            self._evidence.end(self.tally, exit_code)

    def interrupt(self) -> None:
        """Record that it stopped before its end, as far as that can be written still."""
        if self._evidence is not None:
            self._evidence.interrupt(self.tally)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._evidence is not None:
            self._evidence.release()


class Recorder:
    """Opens runs in one ledger, and tells whether it takes records."""

    def __init__(
        self,
        ledger: Ledger | None,
        *,
        content: str,
        warns_only: bool,
        failed: Callable[[bool], None],
    ) -> None:
        """Take an open ledger.

        Args:
            ledger: Stays the caller's to close; None for no evidence.
            content: `full`, `committed` or `omitted`, for every record.
            warns_only: Whether answers go out without evidence where the ledger fails.
            failed: Called with each record that the ledger does not have; True says that
                no answer may go out.
        """
        self.content = content
        self.identity: ModelIdentity | None = None
        self._ledger = ledger
        self._warns_only = warns_only
        self._failed = failed
        self._is_lost = False

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger."""
        return self._ledger is not None

    def open_evidence(self) -> LedgerRun | None:
        """What writes one run; None without a ledger."""
        if self._ledger is None:
            return None
        return LedgerRun(self._ledger, warns_only=self._warns_only)

    def watched(self) -> _Watched:
        """A block in which the ledger's failing is noticed, and raised on."""
        return _Watched(self)

    def notice(self, error: LedgerError) -> None:
        """Take note of a failed append."""
        if isinstance(error, LedgerBrokenError | LedgerRefusedError):
            self._is_lost = True
        logger.error("the ledger did not take a record", extra={"reason": error.message})
        self._failed(True)  # noqa: FBT003 - a callback's one argument

    def skipped(self) -> None:
        """Take note of a record that went out without being in the ledger."""
        self._failed(False)  # noqa: FBT003 - the same

    def seal_if_due(self) -> None:
        """Have the ledger sign what came since the last checkpoint, if that is old.

        A ledger that fails is noticed by the next record.
        """
        if self._ledger is not None and not self._is_lost:
            with suppress(LedgerError):
                self._ledger.seal_if_due()

    def is_back(self, policy: Policy) -> bool:
        """Whether a ledger that failed takes records again, by writing an empty run.

        A disk that failed is not asked again.
        """
        if self._ledger is None or self._is_lost:
            return False
        try:
            with Run(self) as probe:
                probe.prove(policy)
        except LedgerError:
            return False
        return True


class _Watched:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, LedgerError):
            self._recorder.notice(error)
