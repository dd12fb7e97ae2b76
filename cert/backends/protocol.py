"""What a backend is: the place where tokens and their raw distributions come from.

    GenerationRequest -> Backend.submit -> Future[Generation]

A backend owns a loaded model and batches whatever is submitted together. The result of a request
depends on the request alone, not on its neighbours or on their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from cert.signals.trace import SignalTrace


class FinishReason(StrEnum):
    """Why a text ends where it ends."""

    EOS = "eos"
    LENGTH = "length"
    STOP = "stop"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SCORED = "scored"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; signals never depend on it.

    Attributes:
        max_new_tokens: Upper bound of tokens to generate, >= 1.
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the smallest set of most probable tokens whose mass reaches it; 1 keeps all.
        seed: Keys the counter-based generator together with the prompt's id and the step.
            None together with temperature > 0 is drawn at submission and recorded.
        stop: Texts that end a generation; the text is cut before them, the tokens are kept.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One text to generate, or one given response to score.

    Attributes:
        id: The prompt's id; with the seed and the step it keys sampling.
        prompt: The text as the user wrote it; chat templates are applied by the backend.
        sampling: Ignored where `response` is given.
        response: Score this text after the prompt instead of generating one.
        chat: `auto` applies the tokenizer's chat template where it has one.
        timeout_s: Seconds from submission, waiting included; None waits for ever.
        correlation_id: Ties log lines and records of one request together.
    """

    id: str
    prompt: str
    sampling: SamplingParams = field(default_factory=SamplingParams)
    response: str | None = None
    chat: str = "auto"
    timeout_s: float | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote (or was given to read), and what was measured of it.

    `sampling` is what was really used: a drawn seed stands in it. `fallbacks` lists what was
    done otherwise than asked, for example `("batch_rows:16->8", "device:cuda->cpu")`.
    `device` is the device it ran on in the end.
    """

    prompt_token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    trace: SignalTrace
    sampling: SamplingParams
    device: str
    queued_s: float
    generate_s: float
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model measured, as exactly as a stranger needs to find it again.

    Attributes:
        name: As the user named it.
        digest: `sha256:` over the manifest of every file that was loaded.
        tokenizer_digest: The same over the tokenizer's files.
        files: SHA-256 by file name: the manifest itself.
        architecture: For example `LlamaForCausalLM`.
        dtype: Of the weights as they were computed with, for example `float32`.
        device: Where it was loaded, for example `cpu` or `cuda:0`.
        quantization: None, or which one really ran, for example `dynamic-int8`.
        attention: The attention implementation.
        vocab_size: V; entropies lie in [0, ln V].
        max_context_tokens: Prompt and output together.
        parameters: Number of parameters.
        versions: Library versions, by name.
    """

    name: str
    digest: str
    tokenizer_digest: str
    files: Mapping[str, str]
    architecture: str
    dtype: str
    device: str
    quantization: str | None
    attention: str
    vocab_size: int
    max_context_tokens: int
    parameters: int
    versions: Mapping[str, str]


class Backend(Protocol):
    """A loaded model. Safe to call from several threads at once."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is; reflects a fallback to another device."""
        ...

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the prompt as it would be fed, template and special tokens included."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out; bytes that are not UTF-8 become U+FFFD."""
        ...

    def submit(self, request: GenerationRequest) -> Future[Generation]:
        """Queue a request; cancelling the future takes it back (between two steps if running).

        Raises (at once):
            InvalidInput, PromptTooLong: The request can never succeed.
            ModelNotLoaded: The backend was closed.

        The future raises `GenerationTimeout` (nothing measured in time), `NumericalError`,
        `GPUOutOfMemoryError`, `CPUFallbackFailed`. A deadline that passes later ends the text
        with `FinishReason.TIMEOUT` and is no error.
        """
        ...

    def memory_bytes(self) -> int:
        """Bytes that weights and caches hold on the device."""
        ...

    def close(self) -> None:
        """Free the model; requests in flight end with `FinishReason.CANCELLED`."""
        ...
