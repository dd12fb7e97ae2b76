"""A run in a ledger: its policy registered, its beginning, its records, its end.

    policy -> run begin -> records ... -> run end
    policy -> run begin -> records ... -> (killed) ... run resumed -> records ... -> run end

A run that did not end is found again by the digest of what was asked for, and goes on under the
same id, so that its records are those of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import encode_record
from cert.evidence.run_record import RunBegin, RunCounts, RunInput, build_run_record
from cert.ledger.content import open_content
from cert.ledger.errors import LedgerError
from cert.ledger.reader import FolderReader
from cert.ledger.run_lock import RunLock
from cert.ledger.scan import scan_lines
from cert.observability.tracing import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cert.evidence.commitment import CommittedContent
    from cert.ledger.appender import Ledger
    from cert.ledger.content import ContentStore
    from cert.runner.pipeline import Outcome
    from cert.runner.tally import Tally

logger = logging.getLogger(__name__)

_RECORDS: Final = frozenset({"analysis", "error", "refused", "call", "replicate", "coordination"})
_HASH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that began and did not end, and whose process is gone.

    Attributes:
        run_id: Its id.
        model_digest: Of the model that it began with; None if there was none.
        path: Names it in messages.
    """

    run_id: str
    model_digest: str | None
    folder: Path
    segment: int
    offset: int

    @property
    def path(self) -> str:
        """Names it in messages."""
        return f"{self.folder}, run {self.run_id}"

    def lines(self) -> Iterator[bytes]:
        """Yield what it recorded of its prompts or tasks, as it stands in the ledger."""
        reader = FolderReader(self.folder)
        wanted = b'"run_id":"%b"' % self.run_id.encode()
        for one in scan_lines(reader, segment=self.segment, offset=self.offset):
            if wanted in one.line:
                record = orjson.loads(one.line)
                if record.get("run_id") == self.run_id and record.get("kind") in _RECORDS:
                    yield one.line


class LedgerRun:
    """Writes one run into a ledger. Several threads may `write` at once."""

    def __init__(self, ledger: Ledger, *, warns_only: bool = False) -> None:
        """Take an open ledger.

        Args:
            ledger: Stays the caller's to close.
            warns_only: Whether a run goes on, without evidence, where the ledger cannot be
                written. Otherwise no evidence, no result.
        """
        self._ledger = ledger
        self._warns_only = warns_only
        self._run_id = ""
        self._correlation_id: str | None = None
        self._lock: RunLock | None = None
        self._contents: ContentStore | None = None
        self._opening = threading.Lock()
        self.is_failed = False

    @property
    def folder(self) -> Path:
        """Of the ledger."""
        return self._ledger.folder

    def find_unfinished(self, job: str) -> UnfinishedRun | None:
        """Find the newest run of a job that did not end and that no process works on.

        Args:
            job: Digest of what was asked for, from `digest_job`.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        runs = self._ledger.index.runs
        newest_first = sorted(runs, key=lambda run_id: -runs[run_id]["seq"])
        for run_id in newest_first:
            if runs[run_id]["job"] == job and (found := self._open_unfinished(run_id)) is not None:
                return found
        return None

    def begin(self, run_id: str, begin: RunBegin, *, correlation_id: str | None) -> None:
        """Register the policy and record that a run begins, or goes on.

        Args:
            run_id: Of a new run, or of the one that was found unfinished.
            begin: What is asked for.
            correlation_id: Ties the records to log lines.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        self._run_id, self._correlation_id = run_id, correlation_id
        phase: Literal["begin", "resumed"] = "begin" if self._lock is None else "resumed"
        if self._lock is None:
            self._lock = RunLock(self._ledger.folder, run_id)
            self._lock.acquire()
        records = []
        if begin.policy.digest not in self._ledger.index.policies:
            records.append(build_policy_record(begin.policy))
        records.append(
            build_run_record(
                run_id=self._run_id, phase=phase, details=begin, correlation_id=correlation_id
            )
        )
        self._append(records)

    def write(self, outcome: Outcome) -> Outcome:
        """Append the record of an outcome.

        Returns:
            The outcome with its line as it stands in the ledger.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        return self.write_all([outcome])[0]

    def write_all(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Append the records of outcomes, with one sync for all; all of them or none.

        Returns:
            The outcomes with their lines as they stand in the ledger.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        # The content first: a record without it could not be told from one that was tampered with.
        contents = [one.sealed for one in outcomes if one.sealed is not None]
        lines = self._append_encoded([one.line for one in outcomes], contents)
        if not lines:
            return list(outcomes)
        return [replace(one, line=line) for one, line in zip(outcomes, lines, strict=True)]

    def append(self, record: dict[str, object]) -> bytes:
        """Append a record of the run.

        Returns:
            Its line as it stands in the ledger; as it would stand alone where the run goes on
            without evidence.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        body = encode_record(record)
        return next(iter(self._append_encoded([body])), body)

    def end(self, tally: Tally, exit_code: int | None) -> None:
        """Record that the run came to its end.

        Args:
            tally: All records of the run.
            exit_code: Of the process; None where the run's end is not the process's.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        record = build_run_record(
            run_id=self._run_id,
            phase="end",
            details=_counts(tally),
            correlation_id=self._correlation_id,
            exit_code=exit_code,
        )
        self._append([record])

    def interrupt(self, tally: Tally) -> None:
        """Record that the run stops before its end, as far as that can be written still."""
        record = build_run_record(
            run_id=self._run_id,
            phase="interrupted",
            details=_counts(tally),
            correlation_id=self._correlation_id,
        )
        with suppress(LedgerError):
            self._append([record])

    def release(self) -> None:
        """Let another process go on with the run, if it did not end; `begin` begins a new one."""
        if self._contents is not None:
            self._contents.close()
            self._contents = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_unfinished(self, run_id: str) -> UnfinishedRun | None:
        place: Mapping[str, Any] = self._ledger.index.runs[run_id]
        folder = self._ledger.folder
        lock = RunLock(folder, run_id)
        if not lock.acquire():
            return None
        reader = FolderReader(folder)
        wanted = b'"run_id":"%b"' % run_id.encode()
        model_digest = None
        for one in scan_lines(reader, segment=place["segment"], offset=place["offset"]):
            if wanted in one.line:
                record = orjson.loads(one.line)
                model_digest = (record.get("run", {}).get("model") or {}).get("digest")
                break
        self._lock = lock
        return UnfinishedRun(run_id, model_digest, folder, place["segment"], place["offset"])

    def _append(self, records: Sequence[dict[str, object]]) -> None:
        self._append_encoded([encode_record(record) for record in records])

    def _append_encoded(
        self, bodies: Sequence[bytes], contents: Sequence[CommittedContent] = ()
    ) -> list[bytes]:
        if self.is_failed:
            return []
        try:
            if contents:
                self._keep(contents)
            with span("ledger append", {"cert.records": len(bodies), "cert.run_id": self._run_id}):
                return [entry.line for entry in self._ledger.append(bodies)]
        except LedgerError as error:
            if not self._warns_only:
                raise
            self.is_failed = True
            logger.warning("the run goes on without its ledger: %s", error)
            return []

    def _keep(self, contents: Sequence[CommittedContent]) -> None:
        with self._opening:
            if self._contents is None:
                self._contents = open_content(self._ledger.folder)
        self._contents.put(contents)


def digest_job(command: str, inputs: Sequence[RunInput], options: Mapping[str, object]) -> str:
    """Digest what was asked for: a run of the same digest asks for the same.

    Returns:
        `sha256:` and hex.
    """
    asked = {
        "command": command,
        "inputs": [[one.source, one.sha256, one.bytes] for one in inputs],
        "options": dict(options),
    }
    # Not canonical JSON: names of files and folders may hold what UTF-8 does not.
    return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def describe_inputs(sources: Sequence[str]) -> tuple[RunInput, ...]:
    """Digest the input files; of a pipe nothing is known before it is read."""
    return tuple(map(_describe_input, sources))


def is_repeatable(inputs: Sequence[RunInput]) -> bool:
    """Whether the same input can be read again, so that a run of it can be continued."""
    return all(one.sha256 is not None for one in inputs)


def _describe_input(source: str) -> RunInput:
    if source == "-":
        return RunInput(source)
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116 - a source is a text
            return RunInput(source)
        with open(source, "rb") as file:  # noqa: PTH123 - the same
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_HASH_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except (OSError, ValueError):
        return RunInput(source)  # the reader says what is wrong with it
    return RunInput(source, digest.hexdigest(), size)


def _counts(tally: Tally) -> RunCounts:
    return RunCounts(tally.passed, tally.failed, tally.inconclusive, tally.errors, tally.refused)
