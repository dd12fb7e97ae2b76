"""A decoder of our own for Llama, Mistral, Qwen2, Qwen3 and GPT-2, on plain torch.

It takes over exactly those folders whose configuration and tensors it knows to the last field
(`decoder_config`, `decoder_weights`); all others run through transformers. Contract tests hold it
to transformers' forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from cert.backends.decoder_blocks import LayerNorm, Pass, RMSNorm
from cert.backends.decoder_config import ARCHITECTURES
from cert.backends.decoder_weights import Weights, gated_block, gpt2_block, layer_norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.backends.decoder_config import DecoderConfig
    from cert.backends.kv_cache import SlotCache

ATTENTION = "cert-sdpa"
"""As a record names it: torch's `scaled_dot_product_attention`, called from here."""


class Decoder:
    """A loaded model; implements `CausalLM`."""

    def __init__(
        self, config: DecoderConfig, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
    ) -> None:
        """Build it.

        Args:
            config: By `read_config`.
            tensors: Of `shapes(config)`, on the CPU.
            dtype: Of the computation.
        """
        weights = Weights(tensors, dtype)
        self.config = config
        self._positions: torch.Tensor | None = None
        if config.family == "gpt2":
            self._embedding = weights.one("transformer.wte.weight")
            self._positions = weights.one("transformer.wpe.weight")
            build = gpt2_block
            self._norm: RMSNorm | LayerNorm = layer_norm(
                weights, "transformer.ln_f", config.epsilon
            )
        else:
            self._embedding = weights.one("model.embed_tokens.weight")
            build = gated_block
            self._norm = RMSNorm(weights.one("model.norm.weight"), config.epsilon)
        self._blocks = [build(config, weights, layer) for layer in range(config.layers)]
        self._head = self._embedding if config.is_tied else weights.one("lm_head.weight")
        self.parameter_count = sum(tensor.numel() for tensor in tensors.values())
        self._bytes = self.parameter_count * dtype.itemsize

    @property
    def family(self) -> str:
        """The configuration's model type."""
        return self.config.family

    @property
    def architecture(self) -> str:
        """The class that the same weights have in transformers."""
        return ARCHITECTURES[self.config.family]

    @property
    def attention(self) -> str:
        """Ours."""
        return ATTENTION

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return self._embedding.device

    @property
    def layers(self) -> int:
        """Number of layers that keep keys and values."""
        return self.config.layers

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        return self.config.vocab_size

    @property
    def max_context_tokens(self) -> int:
        """Prompt and output together."""
        return self.config.max_positions

    @property
    def window(self) -> int | None:
        """The attention window, where there is one."""
        return self.config.window

    def prefill(self, ids: torch.Tensor, last: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """See `CausalLM.prefill`."""
        states = self._run_texts(ids, cache)
        return self.head(self._norm(states[torch.arange(len(last)), last]))

    def step(self, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """See `CausalLM.step`."""
        # The width is that of the longest text: a row alone looks at all of it.
        visible = cache.visible()[:, None, None, :] if len(ids) > 1 else None
        states = self._run(ids[:, None], positions[:, None], cache, visible, is_causal=False)
        return self.head(self._norm(states[:, 0]))

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """See `CausalLM.hidden`."""
        return self._norm(self._run_texts(ids, None))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `CausalLM.head`."""
        return functional.linear(hidden, self._head)

    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._bytes

    def to_cpu(self) -> None:
        """It is there already."""

    def _run_texts(self, ids: torch.Tensor, cache: SlotCache | None) -> torch.Tensor:
        positions = torch.arange(ids.shape[1])[None]
        return self._run(ids, positions, cache, None, is_causal=True)

    def _run(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: SlotCache | None,
        visible: torch.Tensor | None,
        *,
        is_causal: bool,
    ) -> torch.Tensor:
        states = functional.embedding(ids, self._embedding)
        rotation = None
        if self._positions is not None:
            states = states + functional.embedding(positions, self._positions)
        if self.config.rotary is not None:
            rotation = self.config.rotary.rotation(positions, states.dtype)
        at = Pass(cache, visible, is_causal, rotation)
        for block in self._blocks:
            states = block(states, at)
        return states
