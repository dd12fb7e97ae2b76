"""The decode loop: many texts side by side, measured token by token as they are written.

Waiting requests enter as soon as enough slots are free, finished ones leave at once. Each turn is
one forward pass for all running rows; its logits are measured, the next tokens chosen, and the
logits are gone. Nothing of shape (tokens, V) exists at any time.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from cert.backends.kernels import is_finite, measure, signals_of
from cert.backends.kv_cache import SlotCache
from cert.backends.protocol import FinishReason, Generation
from cert.backends.sampling import choose
from cert.backends.step_graphs import StepGraphs
from cert.backends.top_logits import top_logits
from cert.core.errors import GenerationTimeout, NumericalError
from cert.signals.trace import build_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from cert.backends.causal_lm import CausalLM
    from cert.backends.protocol import GenerationRequest, SamplingParams
    from cert.backends.step_graphs import GreedyStep
    from cert.backends.tokenization import Tokenization
    from cert.signals.trace import SignalTrace

PREFILL_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Padded tokens in one prefill pass at most; a longer prompt goes alone. On a CPU more of them
leave the processor's cache between one operation and the next: 4096 take a tenth longer."""

_BYTES_PER_CHARACTER = 4


@dataclass(slots=True)
class Job:
    """A request on its way through the backend."""

    request: GenerationRequest
    sampling: SamplingParams
    prompt_ids: list[int]
    response_ids: list[int]
    future: Future[Generation]
    submitted: float
    deadline: float | None
    limit: int
    started: float = 0.0
    token_ids: list[int] = field(default_factory=list)
    measured: list[NDArray[np.floating]] = field(default_factory=list)
    stopped_text: str | None = None

    def restart(self) -> None:
        """Forget what was generated; the same tokens come again, because draws are keyed."""
        self.started = 0.0
        self.token_ids.clear()
        self.measured.clear()
        self.stopped_text = None

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now >= self.deadline


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that is done: with a reason, or with an error."""

    job: Job
    reason: FinishReason | None = None
    error: Exception | None = None


def late_error(job: Job) -> GenerationTimeout:
    """The error of a job that was never started."""
    waited = time.monotonic() - job.submitted
    return GenerationTimeout(f"the deadline passed after {waited:.3f} s, before the first token")


def trace_of(job: Job) -> SignalTrace:
    """Compute the signals of all its tokens.

    Raises:
        NumericalError: The logits of a token were no distribution.
    """
    measured = np.stack(job.measured)
    finite = is_finite(measured)
    if not finite.all():
        place = int(np.argmin(finite))
        message = (
            f"the model's logits for output token {place + 1} hold NaN, +inf or nothing finite; "
            "nothing measured from them would mean anything"
        )
        raise NumericalError(message)
    signals = signals_of(measured)
    logprobs, entropies, top_k_entropies, logit_margins, probability_margins = signals[:5].astype(
        np.float32
    )
    return build_trace(
        job.token_ids,
        logprobs,
        entropies,
        top_k_entropies,
        logit_margins,
        probability_margins,
        signals[5].astype(np.int64),
    )


class DecodeLoop:
    """Slots, the queue before them, and one `turn` at a time. Not thread-safe: one owner."""

    def __init__(
        self,
        model: CausalLM,
        tokenization: Tokenization,
        rows: int,
        limit: int,
        *,
        record: Callable[[CausalLM, SlotCache], StepGraphs] = StepGraphs,
    ) -> None:
        """Make an empty loop.

        Args:
            model: The forward passes.
            tokenization: For stop strings and end-of-text ids.
            rows: Texts side by side at most.
            limit: Tokens of the longest text, prompt included.
            record: How steps run on a GPU.
        """
        self._record = record
        self._model = model
        self._tokenization = tokenization
        self.rows = rows
        self._limit = limit
        self._cache = SlotCache(model.layers, rows, limit)
        self._graphs: StepGraphs | None = None
        self._running: list[Job] = []
        self._waiting: deque[Job] = deque()

    def __len__(self) -> int:
        """Count the jobs inside, waiting and running."""
        return len(self._waiting) + len(self._running)

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs behind those that wait."""
        self._waiting.extend(jobs)

    def drain(self) -> list[Job]:
        """Take every job out, running ones first, and free the cache."""
        jobs = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        self._cache = SlotCache(self._model.layers, self.rows, self._limit)
        self._graphs = None
        return jobs

    def nbytes(self) -> int:
        """Bytes that the cache holds."""
        return self._cache.nbytes()

    @torch.inference_mode()
    def turn(self, deliver: Callable[[Finished], None]) -> None:
        """Admit what fits, advance every running text by one token, deliver what has finished.

        Where it raises, `drain` returns every job that was not delivered.
        """
        self._expire(deliver)
        for count in self._admissions():
            self._prefill(count, deliver)
        if self._running:
            self._step(deliver)

    def _expire(self, deliver: Callable[[Finished], None]) -> None:
        """Take out jobs whose deadline has passed or whose caller has gone."""
        now = time.monotonic()
        for job in [job for job in self._waiting if job.late(now) or job.future.cancelled()]:
            self._waiting.remove(job)
            deliver(Finished(job, error=late_error(job)))
        for slot in reversed(range(len(self._running))):
            job = self._running[slot]
            if job.future.cancelled():
                deliver(self._retire(slot, FinishReason.CANCELLED))
            elif job.late(now):
                deliver(self._retire(slot, FinishReason.TIMEOUT))

    def _admissions(self) -> list[int]:
        """Decide how many enter, in prefill passes of how many each; the oldest first.

        A few free slots are left waiting for more to become free, because a prefill pass for one
        prompt stops everybody else for as long as one for several. Those who enter are put in
        order of length, so that little of a pass is padding.
        """
        free = self.rows - len(self._running)
        if not self._waiting or free < min(len(self._waiting), max(1, self.rows // 4)):
            return []
        entering = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        entering.sort(key=lambda job: len(job.prompt_ids))
        self._waiting.extendleft(reversed(entering))
        counts = [0]
        limit = PREFILL_TOKENS[self._model.device.type]
        for job in entering:
            if counts[-1] and (counts[-1] + 1) * len(job.prompt_ids) > limit:
                counts.append(0)
            counts[-1] += 1
        return counts

    def _prefill(self, count: int, deliver: Callable[[Finished], None]) -> None:
        batch = [self._waiting.popleft() for _ in range(count)]
        first, now = len(self._running), time.monotonic()
        self._running += batch
        for job in batch:
            job.started = now
        logits = self._model.prefill([job.prompt_ids for job in batch], first, self._cache)
        self._measure(logits, first, deliver)

    def _step(self, deliver: Callable[[Finished], None]) -> None:
        device = self._model.device
        positions = [len(job.prompt_ids) + len(job.token_ids) - 1 for job in self._running]
        fed = [job.token_ids[-1] for job in self._running]
        if device.type == "cuda" and self._model.has_fixed_steps:
            if self._graphs is None:
                self._graphs = self._record(self._model, self._cache)
            step = self._graphs.run(fed, positions)
            self._measure(step.logits, 0, deliver, step)
            return
        where = torch.tensor(positions, device=device)
        self._cache.begin_step(where, max(positions) + 1)
        logits = self._model.step(torch.tensor(fed, device=device), where, self._cache)
        self._measure(logits, 0, deliver)

    def _measure(
        self,
        logits: torch.Tensor,
        first: int,
        deliver: Callable[[Finished], None],
        greedy: GreedyStep | None = None,
    ) -> None:
        """Choose and measure the next token of rows `first` and up; retire what ends there."""
        jobs = self._running[first : first + len(logits)]
        if greedy is not None and all(job.sampling.temperature <= 0.0 for job in jobs):
            ids, measured = greedy.token_ids, greedy.measured
        else:
            top = top_logits(logits)
            chosen = choose(
                logits,
                top.first,
                [job.sampling for job in jobs],
                [job.request.id for job in jobs],
                [len(job.token_ids) for job in jobs],
            )
            measured = measure(logits, chosen, top)
            ids = chosen.tolist()
        finite = is_finite(measured)
        ends: list[tuple[int, FinishReason]] = []
        for row, job in enumerate(jobs):
            job.token_ids.append(ids[row])
            job.measured.append(measured[row])
            reason = self._end_of(job) if finite[row] else FinishReason.LENGTH
            if reason is not None:
                ends.append((first + row, reason))
        for slot, reason in reversed(ends):
            deliver(self._retire(slot, reason))

    def _end_of(self, job: Job) -> FinishReason | None:
        if job.token_ids[-1] in self._tokenization.eos_token_ids:
            return FinishReason.EOS
        if job.sampling.stop and self._stops(job):
            return FinishReason.STOP
        if len(job.token_ids) >= job.limit:
            return FinishReason.LENGTH
        return None

    def _stops(self, job: Job) -> bool:
        """Whether a stop string has just been completed; keeps the text before it.

        Every token holds at least one byte, so the last few tokens hold the whole stop string.
        """
        longest = max(len(stop) for stop in job.sampling.stop)
        tail = self._tokenization.decode(job.token_ids[-(_BYTES_PER_CHARACTER * (longest + 1)) :])
        if not any(stop in tail for stop in job.sampling.stop):
            return False
        text = self._tokenization.decode(job.token_ids)
        places = [place for stop in job.sampling.stop if (place := text.find(stop)) >= 0]
        if not places:
            return False
        job.stopped_text = text[: min(places)]
        return True

    def _retire(self, slot: int, reason: FinishReason) -> Finished:
        """Take a row out and move the last one into the hole."""
        job, last = self._running[slot], len(self._running) - 1
        if slot != last:
            mover = self._running[last]
            self._cache.move(last, slot, len(mover.prompt_ids) + len(mover.token_ids) - 1)
            self._running[slot] = mover
        self._running.pop()
        return Finished(job, reason)


def result_of(
    job: Job,
    reason: FinishReason,
    tokenization: Tokenization,
    device: str,
    fallbacks: tuple[str, ...],
) -> Generation:
    """Build what the caller gets of a generated text.

    Raises:
        NumericalError: The model's logits were no numbers.
    """
    trace = trace_of(job)
    text = job.stopped_text
    now = time.monotonic()
    return Generation(
        prompt_token_ids=tuple(job.prompt_ids),
        text=tokenization.decode(job.token_ids) if text is None else text,
        finish_reason=reason,
        trace=trace,
        sampling=job.sampling,
        device=device,
        queued_s=job.started - job.submitted,
        generate_s=now - job.started,
        fallbacks=fallbacks,
    )
