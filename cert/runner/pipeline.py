"""From cases to records, as a stream: bounded, in input order, interruptible.

    reader thread: case -> engine.submit -> bounded queue        caller: queue -> record -> yield

The reader runs ahead by a bounded number of prompts, so that memory stays flat however long the
input is, and the model has something to do while a record is being written.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import CancelledError, Future
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.core.errors import AnalysisError, GenerationCancelled
from cert.evidence.commitment import commit
from cert.evidence.record import (
    build_analysis_record,
    build_error_record,
    build_refused_record,
    encode_record,
)
from cert.inputs.case import RefusedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from cert.assessment.policy import Policy
    from cert.backends.protocol import SamplingParams
    from cert.evidence.commitment import CommittedContent
    from cert.inputs.case import PromptCase
    from cert.trajectory.engine import HamiltonianEngine
    from cert.trajectory.types import AnalysisResult

_POLL_S = 0.05
"""How often an idle wait looks whether it should stop."""

_GROUP = 64
"""Records that are handed on together at most."""

_ORDER_FACTOR = 4
"""Prompts held back to keep the order, as a multiple of the prompts in flight."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What is the same for every prompt of a run.

    Attributes:
        run_id: Stands in every record of the run.
        sampling: How tokens are chosen.
        timeout_s: Seconds a prompt may take from its submission; None waits for ever.
        chat: `auto`, `always` or `never`.
        content: `full`, `committed` or `omitted`: whether texts and token ids enter the records,
            are committed to and kept apart, or are left out.
        correlation_id: Given to every request; None lets the engine make one each.
        in_flight: Prompts inside the engine at a time, at least 1. With a timeout, waiting for a
            free row counts: no more prompts than rows keeps that wait out.
        policy: Judges instead of the engine's own; None leaves it to that one.
    """

    run_id: str
    sampling: SamplingParams
    timeout_s: float | None = None
    chat: str = "auto"
    content: str = "full"
    correlation_id: str | None = None
    in_flight: int = 16
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of input, accounted for.

    Attributes:
        case: What came in.
        result: What the engine made of it; None for refused input, and where a server measured.
        record: The record, as built.
        line: The record's bytes, without newline.
        sealed: The content that the record is committed to, to be kept apart; None otherwise.
    """

    case: PromptCase | RefusedInput
    result: AnalysisResult | AnalysisError | None
    record: Mapping[str, object]
    line: bytes
    sealed: CommittedContent | None = None


_Pending = tuple["PromptCase", "Future[AnalysisResult | AnalysisError]"]
_Item = _Pending | RefusedInput | BaseException | None


def run_cases(
    cases: Iterator[PromptCase | RefusedInput],
    engine: HamiltonianEngine,
    settings: RunSettings,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Outcome, None, None]:
    """Yield one outcome a case, in input order.

    Args:
        cases: The input; advanced by a thread of its own from the first outcome on.
        engine: Whose model is used; it is neither loaded nor unloaded here.
        settings: The same for every prompt.
        stopped: Asked between records. Once true, nothing more is admitted, what is running is
            taken back, and the outcomes that are complete and next in order are the last ones.

    Raises:
        Exception: Whatever reading the input raised, after the outcomes of all lines before it.
    """
    with closing(run_in_groups(cases, engine, settings, stopped=stopped, most=1)) as groups:
        for group in groups:
            yield from group


def run_in_groups(
    cases: Iterator[PromptCase | RefusedInput],
    engine: HamiltonianEngine,
    settings: RunSettings,
    *,
    stopped: Callable[[], bool] = lambda: False,
    most: int = _GROUP,
) -> Generator[list[Outcome], None, None]:
    """Yield as `run_cases` does, but what is there already together, so that it shares a sync.

    Args:
        cases: As there.
        engine: As there.
        settings: As there.
        stopped: Asked between groups.
        most: Outcomes in a group at most; a group waits for its first one alone.

    Raises:
        Exception: As there.
    """
    feed = _Feed(cases, engine, settings)
    feed.start()
    try:
        while (item := feed.next_item(stopped)) is not None:
            group: list[Outcome] = []
            while item is not None:
                outcome = _account(item, engine, settings, stopped)
                if outcome is None:
                    break
                group.append(outcome)
                item = feed.next_ready() if len(group) < most else None
            if group:
                yield group
            if item is not None:
                return
    finally:
        feed.close()


def build_refusal(refused: RefusedInput, settings: RunSettings) -> Outcome:
    """Account for input that never became a prompt."""
    record = build_refused_record(
        run_id=settings.run_id, refused=refused, correlation_id=settings.correlation_id
    )
    return Outcome(refused, None, record, encode_record(record))


def build_outcome(
    case: PromptCase,
    result: AnalysisResult | AnalysisError,
    engine: HamiltonianEngine,
    settings: RunSettings,
) -> Outcome:
    """Account for a prompt.

    Args:
        case: The prompt.
        result: What the engine made of it.
        engine: That engine; its model is loaded.
        settings: Of the run that the record belongs to.
    """
    record, sealed = _record(case, result, engine, settings)
    return Outcome(case, result, record, encode_record(record), sealed)


def _account(
    item: _Pending | RefusedInput,
    engine: HamiltonianEngine,
    settings: RunSettings,
    stopped: Callable[[], bool],
) -> Outcome | None:
    """Wait for what becomes of an item; None once the run was stopped and nothing has."""
    if isinstance(item, RefusedInput):
        return build_refusal(item, settings)
    case, future = item
    result = _wait(future, stopped)
    if result is None:
        future.cancel()
        return None
    return build_outcome(case, result, engine, settings)


def _wait(
    future: Future[AnalysisResult | AnalysisError], stopped: Callable[[], bool]
) -> AnalysisResult | AnalysisError | None:
    """Wait for a result; None once the run was stopped and there is none yet."""
    while True:
        try:
            return future.result(timeout=_POLL_S)
        except CancelledError:
            if stopped():
                return None
            lost = GenerationCancelled("the model was unloaded before the prompt was measured")
            return AnalysisError.from_exception(lost)
        except TimeoutError:
            if stopped() and not future.done():
                return None


def _record(
    case: PromptCase,
    result: AnalysisResult | AnalysisError,
    engine: HamiltonianEngine,
    settings: RunSettings,
) -> tuple[dict[str, object], CommittedContent | None]:
    is_committed = settings.content == "committed"
    content = "full" if is_committed else settings.content
    if isinstance(result, AnalysisError):
        record = build_error_record(
            run_id=settings.run_id,
            case=case,
            error=result,
            identity=engine.model_resource.backend.identity,
            correlation_id=settings.correlation_id,
            content=content,
        )
    else:
        record = build_analysis_record(
            run_id=settings.run_id,
            case=result.case,
            generation=result.generation,
            summary=result.summary,
            assessment=result.assessment,
            identity=result.identity,
            correlation_id=result.correlation_id,
            content=content,
            total_s=result.total_s,
            cached=result.cached,
        )
    return commit(record) if is_committed else (record, None)


class _Feed:
    """Reads and submits ahead of whoever writes."""

    def __init__(
        self,
        cases: Iterator[PromptCase | RefusedInput],
        engine: HamiltonianEngine,
        settings: RunSettings,
    ) -> None:
        self._cases = cases
        self._engine = engine
        self._settings = settings
        self._free = threading.Semaphore(settings.in_flight)
        self._queue: queue.Queue[_Item] = queue.Queue(_ORDER_FACTOR * settings.in_flight)
        self._looked_at: list[_Item] = []
        self._closed = threading.Event()
        # A daemon: it may be waiting for a line of stdin that never comes.
        self._thread = threading.Thread(target=self._run, name="cert-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next_item(self, stopped: Callable[[], bool]) -> _Pending | RefusedInput | None:
        """Wait for the next item; None at the end of the input, and once the run was stopped."""
        while True:
            if is_last_look := stopped():
                self._closed.set()
            try:
                # Not to be waited for once stopped: the reader may be blocked for ever.
                item = self._take(0 if is_last_look else _POLL_S)
            except queue.Empty:
                if is_last_look:
                    return None
                continue
            if isinstance(item, BaseException):
                raise item
            return item

    def next_ready(self) -> _Pending | RefusedInput | None:
        """Return the next item if nothing about it has to be waited for; None otherwise."""
        try:
            item = self._take(0)
        except queue.Empty:
            return None
        if isinstance(item, RefusedInput) or (isinstance(item, tuple) and item[1].done()):
            return item
        self._looked_at.append(item)
        return None

    def _take(self, timeout_s: float) -> _Item:
        return self._looked_at.pop() if self._looked_at else self._queue.get(timeout=timeout_s)

    def close(self) -> None:
        """Admit nothing more and take back what was submitted."""
        self._closed.set()
        while True:
            try:
                item = self._take(0)
            except queue.Empty:
                return
            if isinstance(item, tuple):
                item[1].cancel()

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            for case in self._cases:
                if not self._admit(case):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that writes
            last = error
        self._put(last)

    def _admit(self, case: PromptCase | RefusedInput) -> bool:
        if isinstance(case, RefusedInput):
            return self._put(case)
        while not self._free.acquire(timeout=_POLL_S):
            if self._closed.is_set():
                return False
        settings = self._settings
        future = self._engine.submit(
            case,
            sampling=settings.sampling,
            timeout=settings.timeout_s,
            chat=settings.chat,
            policy=settings.policy,
            correlation_id=settings.correlation_id,
        )
        future.add_done_callback(lambda _: self._free.release())
        if self._put((case, future)):
            return True
        future.cancel()
        return False

    def _put(self, item: _Item) -> bool:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_S)
                return True
        return False
