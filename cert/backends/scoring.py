"""Scoring of given texts by teacher forcing: one forward pass a text, whatever its length.

Texts are batched by length; the projection to the vocabulary runs in chunks over all positions of
the batch together, so memory grows neither with length times vocabulary nor with padding.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from cert.backends.decode_loop import Finished, late_error, trace_of
from cert.backends.kernels import measure
from cert.backends.protocol import FinishReason, Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cert.backends.causal_lm import CausalLM
    from cert.backends.decode_loop import Job

BATCH_TOKENS = 4096
"""Padded tokens in one forward pass at most; a longer text goes alone."""

CHUNK_ELEMENTS = 8 * 1024 * 1024
"""Logits in existence at any time at most (one row at the least)."""


class Scorer:
    """The queue of texts to score, and one batch at a time. Not thread-safe: one owner."""

    def __init__(self, model: CausalLM, vocab_size: int) -> None:
        """Make an empty scorer."""
        self._model = model
        self._chunk_rows = max(1, CHUNK_ELEMENTS // vocab_size)
        self.batch_tokens = BATCH_TOKENS
        self._waiting: list[Job] = []
        self._batch: list[Job] = []

    def __len__(self) -> int:
        """Count the jobs inside."""
        return len(self._waiting) + len(self._batch)

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs."""
        self._waiting.extend(jobs)

    def drain(self) -> list[Job]:
        """Take every job out."""
        jobs = [*self._batch, *self._waiting]
        self._batch, self._waiting = [], []
        return jobs

    @torch.inference_mode()
    def turn(self, deliver: Callable[[Finished], None]) -> None:
        """Score the oldest text together with those nearest to it in length.

        Where it raises, `drain` returns every job that was not delivered.
        """
        now = time.monotonic()
        late = [job for job in self._waiting if job.late(now) or job.future.cancelled()]
        for job in late:
            self._waiting.remove(job)
            deliver(Finished(job, error=late_error(job)))
        if not self._waiting:
            return
        self._batch = self._choose()
        for job in self._batch:
            self._waiting.remove(job)
            job.started = now
        for job, rows in zip(self._batch, self._measure(self._batch), strict=True):
            job.token_ids = list(job.response_ids)
            job.measured = list(rows)
        while self._batch:
            deliver(Finished(self._batch.pop(0), FinishReason.SCORED))

    def _choose(self) -> list[Job]:
        """Pick the oldest job and, by nearness in length, what fits into the budget with it."""
        oldest = self._waiting[0]
        ranked = sorted(self._waiting[1:], key=lambda job: abs(_length(job) - _length(oldest)))
        batch, widest = [oldest], _length(oldest)
        for job in ranked:
            widest = max(widest, _length(job))
            if widest * (len(batch) + 1) > self.batch_tokens:
                break
            batch.append(job)
        return batch

    def _measure(self, batch: list[Job]) -> list[np.ndarray]:
        """Measure each job's response; a row a token."""
        device = self._model.device
        # The token at place i is predicted by the hidden state at place i - 1.
        wanted = self._model.hidden(
            [job.prompt_ids + job.response_ids[:-1] for job in batch],
            [len(job.prompt_ids) - 1 for job in batch],
        )
        targets = torch.tensor([t for job in batch for t in job.response_ids], device=device)
        measured = np.concatenate(
            [
                measure(self._model.head(states), chosen)
                for states, chosen in zip(
                    torch.split(wanted, self._chunk_rows),
                    torch.split(targets, self._chunk_rows),
                    strict=True,
                )
            ]
        )
        ends = np.cumsum([len(job.response_ids) for job in batch])[:-1]
        return np.split(measured, ends)


def _length(job: Job) -> int:
    return len(job.prompt_ids) + len(job.response_ids)


def score_of(job: Job, device: str, fallbacks: tuple[str, ...]) -> Generation:
    """Build what the caller gets of a scored text.

    Raises:
        NumericalError: The model's logits were no numbers.
    """
    return Generation(
        prompt_token_ids=tuple(job.prompt_ids),
        text=job.request.response or "",
        finish_reason=FinishReason.SCORED,
        trace=trace_of(job),
        sampling=job.sampling,
        device=device,
        queued_s=job.started - job.submitted,
        generate_s=time.monotonic() - job.started,
        fallbacks=fallbacks,
    )
