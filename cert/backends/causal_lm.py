"""What the decode loop and the scorer know of a model: a body and a head.

The body turns tokens into hidden states; the head turns a few chosen hidden states into logits. So
logits are computed only where they are needed. Two classes do this: `Decoder`, which is ours, and
`TransformersLM` around a model class of transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from cert.backends.kv_cache import SlotCache

CONTRACT_FAMILIES = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose agreement with transformers' forward pass the contract tests show."""

UNLIMITED_CONTEXT_TOKENS = 2**31 - 1
"""Recorded for architectures whose configuration states no limit."""


class CausalLM(Protocol):
    """The forward passes that the decode loop and the scorer are made of."""

    @property
    def family(self) -> str:
        """The configuration's model type, for example `llama`."""
        ...

    @property
    def architecture(self) -> str:
        """For example `LlamaForCausalLM`."""
        ...

    @property
    def attention(self) -> str:
        """Which implementation computes attention."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def layers(self) -> int:
        """Number of layers that keep keys and values."""
        ...

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        ...

    @property
    def parameter_count(self) -> int:
        """Number of parameters before any quantization; shared ones count once."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Prompt and output together, as far as the configuration says."""
        ...

    @property
    def window(self) -> int | None:
        """The narrowest attention window, where the model has one that it uses.

        Texts are kept within it; inside the window, windowed and full attention are the same.
        """
        ...

    @property
    def has_fixed_steps(self) -> bool:
        """Whether `step` does the same work for the same shapes, so that it can be recorded."""
        ...

    def prefill(
        self, texts: Sequence[Sequence[int]], first_slot: int, cache: SlotCache
    ) -> torch.Tensor:
        """Feed whole prompts; logits after each one's last token.

        Args:
            texts: Token ids, one list a prompt.
            first_slot: Of the cache; the others follow it.
            cache: Where keys and values go.

        Returns:
            Shape (texts, V).
        """
        ...

    def step(self, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """Feed one token a row; logits after it.

        Args:
            ids: Token ids, shape (rows,).
            positions: Where each stands in its text, shape (rows,).
            cache: Told by `begin_step` the same positions.

        Returns:
            Shape (rows, V).
        """
        ...

    def hidden(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> torch.Tensor:
        """Last hidden states of whole texts, of each from its start on, one behind the other.

        Args:
            texts: Token ids.
            starts: The first place of each text whose state is wanted.

        Returns:
            Shape (wanted tokens, hidden size).
        """
        ...

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of chosen hidden states: (rows, hidden size) to (rows, V)."""
        ...

    def nbytes(self) -> int:
        """Bytes that the weights and buffers hold."""
        ...

    def to_cpu(self) -> None:
        """Move the weights to the CPU, where they are elsewhere."""
        ...
