"""The parts of our own decoder: norms, and the blocks of both kinds.

    x = x + output(attention(first_norm(x)))
    x = x + mlp(second_norm(x))

Weights are plain tensors without gradients. Arithmetic follows transformers' model classes; where
it is 16 bits wide, so do the places at which it is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from cert.backends.linear import gelu_of
from cert.backends.rotary import rotate

if TYPE_CHECKING:
    from cert.backends.attention import Attention
    from cert.backends.linear import Linear


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis; or a weight for each head."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise in float32; the result is rounded to the input's type before the weight."""
        exact = x.float()
        mean = exact.square().mean(-1, keepdim=True)
        return self.weight * (exact * torch.rsqrt(mean + self.epsilon)).to(x.dtype)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, over the last axis."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class Pass:
    """What every block of one forward pass needs to know.

    Attributes:
        attend: The form of attention.
        rotation: Cosine and signed sine of `Rotary.rotation`; None without rotary embeddings.
        wanted: The tokens, counted over all rows, whose states go on from attention; None for
            all. In the last block that is a few: of a prompt, its last token.
    """

    attend: Attention
    rotation: tuple[torch.Tensor, torch.Tensor] | None
    wanted: torch.Tensor | None

    def keep(self, states: torch.Tensor) -> torch.Tensor:
        """Those that are wanted; shape (wanted, size), or as it was where all are."""
        return states if self.wanted is None else states.flatten(0, 1)[self.wanted]


class Block(Protocol):
    """One layer of a decoder."""

    def __call__(self, x: torch.Tensor, at: Pass) -> torch.Tensor:
        """Run it: hidden states, shape (rows, tokens, hidden size), to the next ones.

        Where only some are wanted, those, of shape (wanted, hidden size).
        """
        ...


@dataclass(frozen=True, slots=True)
class Gated:
    """A block of Llama, Mistral, Qwen2 and Qwen3: rotary embeddings, and a gated MLP.

    Attributes:
        layer: Its number.
        heads: Query heads.
        key_value_heads: Heads of keys and values.
        first_norm: Before attention.
        joined: Queries, keys and values.
        head_norm: Of queries and keys, a weight for each head; None without.
        attended: Output of attention.
        second_norm: Before the MLP.
        gate_and_input: The MLP's gate, then its input.
        inner: The MLP's output.
    """

    layer: int
    heads: int
    key_value_heads: int
    first_norm: RMSNorm
    joined: Linear
    head_norm: RMSNorm | None
    attended: Linear
    second_norm: RMSNorm
    gate_and_input: Linear
    inner: Linear

    def __call__(self, x: torch.Tensor, at: Pass) -> torch.Tensor:
        """Run it; see `Block`."""
        assert at.rotation is not None  # noqa: S101 - every model of these blocks has one
        both = self.heads + self.key_value_heads
        joined = self.joined(self.first_norm(x))
        joined = joined.view(*x.shape[:-1], both + self.key_value_heads, -1)
        turning, values = joined[:, :, :both], joined[:, :, both:]
        if self.head_norm is not None:
            turning = self.head_norm(turning)
        turning = rotate(turning, *at.rotation)
        mixed = at.attend(
            self.layer, turning[:, :, : self.heads], turning[:, :, self.heads :], values
        )
        x = at.keep(x) + self.attended(at.keep(mixed))
        gate, value = self.gate_and_input(self.second_norm(x)).chunk(2, dim=-1)
        return x + self.inner(functional.silu(gate) * value)


@dataclass(frozen=True, slots=True)
class Gpt2:
    """A block of GPT-2: positions were added to the embeddings, and the MLP is a plain one.

    Attributes:
        layer: Its number.
        heads: Heads of queries, keys and values.
        first_norm: Before attention.
        joined: Queries, keys and values.
        attended: Output of attention.
        second_norm: Before the MLP.
        input: The MLP's input.
        inner: The MLP's output.
    """

    layer: int
    heads: int
    first_norm: LayerNorm
    joined: Linear
    attended: Linear
    second_norm: LayerNorm
    input: Linear
    inner: Linear

    def __call__(self, x: torch.Tensor, at: Pass) -> torch.Tensor:
        """Run it; see `Block`."""
        joined = self.joined(self.first_norm(x)).view(*x.shape[:-1], 3, self.heads, -1)
        mixed = at.attend(self.layer, *joined.unbind(2))
        x = at.keep(x) + self.attended(at.keep(mixed))
        return x + self.inner(gelu_of(self.input, self.second_norm(x)))
