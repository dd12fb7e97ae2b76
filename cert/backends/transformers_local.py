"""The local backend: a model in this process, batched continuously.

One thread owns the model. Callers submit from any thread; whatever is inside at the same time is
run together.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cert.backends.decode_loop import DecodeLoop, Finished, Job, result_of
from cert.backends.folder import inspect_folder, resolve_model
from cert.backends.loading import load_model
from cert.backends.protocol import FinishReason
from cert.backends.scoring import Scorer, score_of
from cert.core.errors import (
    CPUFallbackFailed,
    GenerationCancelled,
    GPUOutOfMemoryError,
    InvalidInput,
    ModelNotLoaded,
    PromptTooLong,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.backends.loading import LoadedModel
    from cert.backends.protocol import Generation, GenerationRequest, ModelIdentity, SamplingParams

_SEED_BITS = 53
"""Drawn seeds stay integers in JSON."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU (which torch gives no type of its own).

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class TransformersBackend:
    """A loaded model and the thread that runs it; implements `Backend`."""

    def __init__(
        self, loaded: LoadedModel, *, batch_rows: int = 16, max_prompt_chars: int = 100_000
    ) -> None:
        """Start a backend.

        Args:
            loaded: The model, its tokenization and its identity.
            batch_rows: Texts generated side by side at most; halved when memory runs out.
            max_prompt_chars: Longer prompts and responses are refused before they are tokenized.
        """
        self._tokenization = loaded.tokenization
        self._model = loaded.model
        window = self._model.window
        limit = loaded.identity.max_context_tokens
        self._limit = limit if window is None else min(limit, window)
        self._identity = replace(loaded.identity, max_context_tokens=self._limit)
        self._max_prompt_chars = max_prompt_chars
        self._rows = batch_rows
        self._fallbacks: tuple[str, ...] = ()
        self._decoder = DecodeLoop(self._model, self._tokenization, batch_rows, self._limit)
        self._scorer = Scorer(self._model, self._identity.vocab_size)
        self._inbox: list[Job] = []
        self._closed = False
        self._awake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._owner_pid = os.getpid()

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, and where it runs now."""
        return self._identity

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the prompt as it would be fed, template and special tokens included."""
        return len(self._tokenization.encode_prompt(request.prompt, chat=request.chat))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; see `Backend.decode`."""
        return self._tokenization.decode(token_ids)

    def memory_bytes(self) -> int:
        """Bytes of weights, buffers and cache."""
        return self._model.nbytes() + self._decoder.nbytes()

    def submit(self, request: GenerationRequest) -> Future[Generation]:
        """Queue a request; see `Backend.submit`."""
        job = self._job(request)
        with self._awake:
            if self._closed:
                raise ModelNotLoaded("the model was unloaded")
            if os.getpid() != self._owner_pid:
                message = "this model was loaded before the process forked; load it in the child"
                raise ModelNotLoaded(message)
            self._inbox.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cert-decode", daemon=True)
                self._thread.start()
                # A thread that still computes when the interpreter goes down aborts the process.
                atexit.register(self.close)
            self._awake.notify()
        return job.future

    def close(self) -> None:
        """Stop the thread and drop the model; what was in flight ends as cancelled."""
        with self._awake:
            self._closed = True
            self._awake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            atexit.unregister(self.close)

    def _job(self, request: GenerationRequest) -> Job:
        for name, text in (("prompt", request.prompt), ("response", request.response or "")):
            if len(text) > self._max_prompt_chars:
                message = (
                    f"the {name} has {len(text)} characters; at most {self._max_prompt_chars} "
                    "are taken"
                )
                raise PromptTooLong(message)
        prompt_ids = self._tokenization.encode_prompt(request.prompt, chat=request.chat)
        response_ids: list[int] = []
        if request.response is not None:
            response_ids = self._tokenization.encode_response(request.response)
            if not response_ids:
                raise InvalidInput("the response to score is empty")
        if not prompt_ids:
            raise InvalidInput("the prompt has no tokens")
        room = self._limit - len(prompt_ids)
        if room < max(1, len(response_ids)):
            what = f"and the response {len(response_ids)} " if response_ids else ""
            message = (
                f"the prompt has {len(prompt_ids)} tokens {what}and the model reads "
                f"{self._limit} at most, output included"
            )
            raise PromptTooLong(message)
        now = time.monotonic()
        return Job(
            request=request,
            sampling=_settled(request.sampling),
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            future=Future(),
            submitted=now,
            deadline=None if request.timeout_s is None else now + request.timeout_s,
            limit=min(request.sampling.max_new_tokens, room),
        )

    def _run(self) -> None:
        while self._take_in():
            try:
                if len(self._scorer):
                    self._scorer.turn(self._deliver)
                if len(self._decoder):
                    self._decoder.turn(self._deliver)
            except Exception as error:  # noqa: BLE001 - whatever it is, it reaches the callers
                self._recover(error)
        self._finish()

    def _take_in(self) -> bool:
        """Move what was submitted into the queues; wait while there is nothing to do."""
        with self._awake:
            while not (self._inbox or self._closed or len(self._decoder) or len(self._scorer)):
                self._awake.wait()
            if self._closed:
                return False
            jobs, self._inbox = self._inbox, []
        self._scorer.add(job for job in jobs if job.response_ids)
        self._decoder.add(job for job in jobs if not job.response_ids)
        return True

    def _deliver(self, finished: Finished) -> None:
        job = finished.job
        if not job.future.set_running_or_notify_cancel():
            return
        if finished.error is not None:
            job.future.set_exception(finished.error)
            return
        device = str(self._model.device)
        try:
            if finished.reason is FinishReason.SCORED:
                result = score_of(job, device, self._fallbacks)
            else:
                reason = finished.reason or FinishReason.CANCELLED
                result = result_of(job, reason, self._tokenization, device, self._fallbacks)
        except Exception as error:  # noqa: BLE001 - it belongs to this job alone
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _recover(self, error: Exception) -> None:
        """After a failed turn: run everything again with less memory, or hand the error out.

        Everything starts again from its first token; draws are keyed, so it comes out the same.
        """
        jobs = [*self._scorer.drain(), *self._decoder.drain()]
        for job in jobs:
            job.restart()
        if not is_out_of_memory(error):
            for job in jobs:
                self._deliver(Finished(job, error=error))
            return
        failure = self._shrink(error)
        if failure is not None:
            for job in jobs:
                self._deliver(Finished(job, error=failure))
            return
        self._scorer.add(job for job in jobs if job.response_ids)
        self._decoder.add(job for job in jobs if not job.response_ids)

    def _shrink(self, error: Exception) -> Exception | None:
        """Halve the batch; from one row on, go to the CPU; then give up with a typed error."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._rows > 1:
            rows = self._rows // 2
            self._note(f"batch_rows:{self._rows}->{rows}")
            self._rows = self._decoder.rows = rows
            self._scorer.batch_tokens = max(1, self._scorer.batch_tokens // 2)
            self._decoder.drain()
            return None
        device = self._model.device
        if device.type == "cpu":
            fell_back = any(note.startswith("device:") for note in self._fallbacks)
            kind = CPUFallbackFailed if fell_back else GPUOutOfMemoryError
            return kind(f"out of memory on {device} with one text at a time: {error}"[:500])
        try:
            self._model.to_cpu()
        except Exception as second:  # noqa: BLE001 - quantized weights refuse in several ways
            return CPUFallbackFailed(
                f"out of memory on {device}; moving to the CPU: {second}"[:500]
            )
        self._note(f"device:{device}->cpu")
        self._identity = replace(self._identity, device="cpu")
        self._decoder.drain()
        return None

    def _note(self, fallback: str) -> None:
        self._fallbacks = (*self._fallbacks, fallback)

    def _finish(self) -> None:
        """Give every caller an answer, then let go of the model."""
        with self._awake:
            jobs, self._inbox = self._inbox, []
        for job in [*self._scorer.drain(), *self._decoder.drain(), *jobs]:
            if job.token_ids:
                self._deliver(Finished(job, FinishReason.CANCELLED))
            else:
                error = GenerationCancelled("the model was unloaded before the first token")
                self._deliver(Finished(job, error=error))


def _settled(sampling: SamplingParams) -> SamplingParams:
    """The parameters with a seed, where one is needed and none was given."""
    if sampling.temperature > 0.0 and sampling.seed is None:
        return replace(sampling, seed=secrets.randbits(_SEED_BITS))
    return sampling


def load_backend(  # noqa: PLR0913 - one keyword an option
    spec: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "none",
    batch_rows: int = 16,
    aliases: Mapping[str, str] | None = None,
    allow_download: bool = False,
    expect_digest: str | None = None,
    max_prompt_chars: int = 100_000,
    own_decoder: bool = True,
) -> TransformersBackend:
    """Load a model and make a backend of it.

    Args:
        spec: `reference`, `hf:ORG/NAME`, a folder, or a name that `aliases` maps to a folder.
        device: `auto`, `cpu` or `cuda`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        quantize: `none`, `8bit` or `4bit`.
        batch_rows: Texts generated side by side at most.
        aliases: Local folder by model name.
        allow_download: Whether a hub may be asked for a model that is not here.
        expect_digest: Refuse any other model than the one of this digest.
        max_prompt_chars: Longer prompts are refused.
        own_decoder: False leaves every model to transformers, for comparisons.

    Raises:
        ModelUnavailableError: There is no such model.
        ModelRefusedError: It is not safe to load, not the expected one, or cannot be run here.
        ConfigurationError: An option does not exist or does not fit this machine.
    """
    path = resolve_model(spec, aliases=aliases or {}, allow_download=allow_download)
    loaded = load_model(
        inspect_folder(path),
        name=spec,
        device=device,
        dtype=dtype,
        quantize=quantize,
        expect_digest=expect_digest,
        own_decoder=own_decoder,
    )
    return TransformersBackend(loaded, batch_rows=batch_rows, max_prompt_chars=max_prompt_chars)
