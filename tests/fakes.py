"""A backend without a model, behind the real `Backend` protocol; and the loader that makes it.

Deterministic: what it writes and measures follows from the request alone. Programmable: delays a
token, a gate that holds every request, errors by prompt, and out-of-memory by device at load.
Words are tokens, separated by white space.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cert.backends.protocol import (
    FinishReason,
    Generation,
    GenerationRequest,
    ModelIdentity,
)
from cert.core.errors import (
    GenerationCancelled,
    GenerationTimeout,
    InvalidInput,
    ModelNotLoaded,
    PromptTooLong,
)
from cert.signals.trace import SignalTrace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORDS = ("a", "model", "measures", "how", "sure", "it", "is", "of", "every", "word", "here", "now")


def fake_identity(name: str = "fake", *, device: str = "cpu", context: int = 512) -> ModelIdentity:
    """Identify a fake model; its digest follows from its name."""
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    return ModelIdentity(
        name=name,
        digest=digest,
        tokenizer_digest=digest,
        files={"model.safetensors": digest.removeprefix("sha256:")},
        architecture="FakeForCausalLM",
        dtype="float32",
        device=device,
        quantization=None,
        attention="sdpa",
        vocab_size=1 << 16,
        max_context_tokens=context,
        parameters=1000,
        versions={"fake": "1.0"},
    )


def token_id(word: str) -> int:
    """A word's id in the fake vocabulary."""
    return int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:2], "big")


def fake_trace(words: list[str], *, logprob: float | None = None) -> SignalTrace:
    """Measure words: every value is an exact float32; without `logprob` each lies in [-1, 0)."""
    ids = [token_id(word) for word in words]
    return SignalTrace(
        token_ids=tuple(ids),
        logprobs=tuple(-(1 + one % 8) / 8 if logprob is None else logprob for one in ids),
        entropies=tuple((one % 16) / 8 for one in ids),
        top_k_entropies=tuple((one % 16) / 16 for one in ids),
        logit_margins=tuple(0.5 + one % 4 for one in ids),
        probability_margins=tuple((one % 4) / 8 for one in ids),
        ranks=tuple(one % 3 for one in ids),
    )


@dataclass
class FakeBackend:
    """A loaded model that is none.

    Attributes:
        identity: Which model it claims to be.
        token_s: Seconds that a token takes.
        errors: Raised through the future, by prompt.
        submit_errors: Raised by `submit` at once, by prompt.
        logprob: Every token's logprob; None draws them from the words.
        eos_after: Tokens after which a generation ends with eos; None never.
        fallbacks: What every generation says was done otherwise than asked.
        gate: Requests wait here before their first token; `gate.clear()` holds them.
        requests: What was submitted, in order.
        closed: Whether `close` was called.
    """

    identity: ModelIdentity = field(default_factory=fake_identity)
    token_s: float = 0.0
    errors: Mapping[str, Exception] = field(default_factory=dict)
    submit_errors: Mapping[str, Exception] = field(default_factory=dict)
    logprob: float | None = None
    eos_after: int | None = None
    fallbacks: tuple[str, ...] = ()
    gate: threading.Event = field(default_factory=threading.Event)
    requests: list[GenerationRequest] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()
        self._closing = threading.Event()
        self._seeds = itertools.count(1)

    def count_tokens(self, request: GenerationRequest) -> int:
        """One for the start of the text, one a word."""
        return 1 + len(request.prompt.split())

    def submit(self, request: GenerationRequest) -> Future[Generation]:
        """Run the request on a thread of its own."""
        if self.closed:
            raise ModelNotLoaded("the fake was closed")
        self.requests.append(request)
        if request.prompt in self.submit_errors:
            raise self.submit_errors[request.prompt]
        room = self.identity.max_context_tokens - self.count_tokens(request)
        if not request.prompt.strip():
            raise InvalidInput("empty prompt")
        if room < 1:
            raise PromptTooLong(f"no room left in {self.identity.max_context_tokens} tokens")
        if request.sampling.temperature > 0.0 and request.sampling.seed is None:
            drawn = replace(request.sampling, seed=next(self._seeds))
            request = replace(request, sampling=drawn)
        future: Future[Generation] = Future()
        threading.Thread(
            target=self._run, args=(request, room, future, time.monotonic()), daemon=True
        ).start()
        return future

    def decode(self, token_ids: Sequence[int]) -> str:
        """Words that it may write; every other id as a number."""
        words = {token_id(word): word for word in WORDS}
        return " ".join(words.get(one, str(one)) for one in token_ids)

    def memory_bytes(self) -> int:
        """4 bytes a parameter until it is closed."""
        return 0 if self.closed else 4 * self.identity.parameters

    def close(self) -> None:
        """End what is running."""
        self.closed = True
        self._closing.set()
        self.gate.set()

    def _run(
        self, request: GenerationRequest, room: int, future: Future[Generation], start: float
    ) -> None:
        # A cancelled future accepts no outcome; whoever cancelled it does not wait for one.
        with suppress(InvalidStateError):
            try:
                outcome = self._generate(request, room, future, start)
            except Exception as error:  # noqa: BLE001 - programmed errors of any type
                future.set_exception(error)
            else:
                future.set_result(outcome)

    def _generate(
        self, request: GenerationRequest, room: int, future: Future[Generation], start: float
    ) -> Generation:
        limit = request.timeout_s
        deadline = None if limit is None else start + limit
        self.gate.wait(limit)
        begun = time.monotonic()
        if request.prompt in self.errors:
            raise self.errors[request.prompt]
        words: list[str] = []
        plan = self._plan(request, room)
        reason = FinishReason.SCORED if request.response is not None else FinishReason.LENGTH
        for word in plan:
            if request.response is None and self.eos_after == len(words):
                reason = FinishReason.EOS
                break
            self._closing.wait(self.token_s)
            if self._closing.is_set() or future.cancelled():
                reason = FinishReason.CANCELLED
                break
            if deadline is not None and time.monotonic() > deadline:
                reason = FinishReason.TIMEOUT
                break
            words.append(word)
        if not words and reason is FinishReason.TIMEOUT:
            raise GenerationTimeout(f"nothing was measured within {limit} s")
        if not words and reason is FinishReason.CANCELLED:
            raise GenerationCancelled("cancelled before the first token")
        text = " ".join(words)
        for stop in request.sampling.stop:
            if stop in text and request.response is None:
                text, reason = text.split(stop)[0], FinishReason.STOP
        return Generation(
            prompt_token_ids=(0, *(token_id(word) for word in request.prompt.split())),
            text=text,
            finish_reason=reason,
            trace=fake_trace(words, logprob=self.logprob),
            sampling=request.sampling,
            device=self.identity.device,
            queued_s=begun - start,
            generate_s=time.monotonic() - begun,
            fallbacks=self.fallbacks,
        )

    def _plan(self, request: GenerationRequest, room: int) -> list[str]:
        if request.response is not None:
            return request.response.split()
        sampling = request.sampling
        drawn = f"{sampling.seed}\0{request.id}" if sampling.temperature > 0.0 else ""
        count = min(sampling.max_new_tokens, room)
        return [
            WORDS[token_id(f"{request.prompt}\0{drawn}\0{step}") % len(WORDS)]
            for step in range(count)
        ]


@dataclass
class FakeLoader:
    """Stands where `load_backend` would; makes one `FakeBackend` a call.

    Attributes:
        load_s: Seconds that a load takes.
        errors: Raised instead of loading, by device.
        settings: Passed on to every `FakeBackend`, without its identity.
        calls: Model and options of every call, in order.
        backends: What was made, in order.
    """

    load_s: float = 0.0
    errors: Mapping[str, Exception] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    context: int = 512
    calls: list[dict[str, object]] = field(default_factory=list)
    backends: list[FakeBackend] = field(default_factory=list)

    def __call__(self, spec: str, *, device: str = "auto", **options: object) -> FakeBackend:
        """Load, or raise what was programmed."""
        self.calls.append({"spec": spec, "device": device, **options})
        time.sleep(self.load_s)
        if device in self.errors:
            raise self.errors[device]
        real = "cpu" if device == "auto" else device
        backend = FakeBackend(
            identity=fake_identity(spec, device=real, context=self.context), **self.settings
        )
        self.backends.append(backend)
        return backend
