"""A decoder of our own for Llama, Mistral, Qwen2, Qwen3 and GPT-2, on plain torch.

It takes over exactly those folders whose configuration and tensors it knows to the last field
(`decoder_config`, `decoder_weights`); all others run through transformers. Contract tests hold it
to transformers' forward pass.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from cert.backends.attention import PackedTexts, PaddedTexts, Step, runs_of
from cert.backends.decoder_blocks import LayerNorm, Pass, RMSNorm
from cert.backends.decoder_config import ARCHITECTURES
from cert.backends.decoder_weights import Weights, gated_block, gpt2_block, layer_norm
from cert.backends.padding import pad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.backends.attention import Attention
    from cert.backends.decoder_config import DecoderConfig
    from cert.backends.kv_cache import SlotCache
    from cert.backends.quantize import Quantization

ATTENTION = "cert-sdpa"
"""As a record names it: torch's `scaled_dot_product_attention`, called from here."""


class Decoder:
    """A loaded model; implements `CausalLM`."""

    def __init__(
        self,
        config: DecoderConfig,
        tensors: Mapping[str, torch.Tensor],
        quantization: Quantization,
    ) -> None:
        """Build it.

        Args:
            config: By `read_config`.
            tensors: Of `shapes(config)`, on the CPU.
            quantization: How linear layers are made, in which type, and where everything goes.
        """
        self.config = config
        self.parameter_count = sum(tensor.numel() for tensor in tensors.values())
        self._tensors = tensors
        self._quantization = quantization
        self._build(quantization)

    def _build(self, quantization: Quantization) -> None:
        config = self.config
        weights = Weights(self._tensors, quantization)
        is_gpt2 = config.family == "gpt2"
        name = "transformer.wte.weight" if is_gpt2 else "model.embed_tokens.weight"
        self._embedding = weights.table(name)
        self._positions: torch.Tensor | None = None
        self._norm: RMSNorm | LayerNorm
        if is_gpt2:
            self._positions = weights.table("transformer.wpe.weight")
            self._norm = layer_norm(weights, "transformer.ln_f", config.epsilon)
        else:
            self._norm = RMSNorm(weights.one("model.norm.weight"), config.epsilon)
        build = partial(gpt2_block if is_gpt2 else gated_block, config, weights)
        # Laying a weight out keeps one thread busy; a GPU takes them one by one.
        threads = 1 if quantization.device.type == "cuda" else torch.get_num_threads()
        with ThreadPoolExecutor(threads, thread_name_prefix="cert-weights") as pool:
            # The largest layer first, while there is most room for what laying it out takes.
            head = (
                pool.submit(weights.head, name, self._embedding)
                if config.is_tied
                else pool.submit(weights.head, "lm_head.weight", None)
            )
            self._blocks = list(pool.map(build, range(config.layers)))
            self._head = head.result()
        self._rotary = None if config.rotary is None else config.rotary.to(quantization.device)
        self._weights = weights

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
        """Where the weights are."""
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

    @property
    def has_fixed_steps(self) -> bool:
        """It does."""
        return True

    def prefill(
        self, texts: Sequence[Sequence[int]], first_slot: int, cache: SlotCache
    ) -> torch.Tensor:
        """See `CausalLM.prefill`."""
        cache.begin_prefill(first_slot, max(map(len, texts)))
        states = self._run_texts(texts, [len(text) - 1 for text in texts], cache)
        return self.head(self._norm(states))

    def step(self, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """See `CausalLM.step`."""
        mask, parts = None, None
        # A row alone looks at all of a width that ends with it.
        if len(ids) > 1 or self.device.type == "cuda":
            hidden = ~cache.visible()[:, None, None, :]
            mask = torch.zeros(hidden.shape, dtype=self._weights.computed, device=self.device)
            mask.masked_fill_(hidden, -torch.inf)
        if len(ids) > 1 and self.device.type == "cpu":
            runs = runs_of((positions + 1).tolist())
            parts = runs if len(runs) > 1 else None
        states = self._run(ids[:, None], positions[:, None], Step(cache, mask, parts))
        return self.head(self._norm(states[:, 0]))

    def hidden(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> torch.Tensor:
        """See `CausalLM.hidden`."""
        return self._norm(self._run_texts(texts, starts, None))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `CausalLM.head`."""
        return self._head(hidden)

    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.nbytes

    def to_cpu(self) -> None:
        """Build it again on the CPU, of the file's tensors."""
        self._build(self._quantization.on_cpu())

    def _run_texts(
        self, texts: Sequence[Sequence[int]], starts: Sequence[int], cache: SlotCache | None
    ) -> torch.Tensor:
        """States of each text from its start on, one behind the other; shape (wanted, size)."""
        lengths = [len(text) for text in texts]
        attention: Attention
        if self.device.type == "cpu" and len(set(lengths)) > 1:
            ids = torch.tensor([[token for text in texts for token in text]])
            positions = torch.cat([torch.arange(length) for length in lengths])[None]
            begins = [0, *accumulate(lengths[:-1])]
            attention = PackedTexts(lengths, cache)
        else:
            ids = pad(texts, self.device)
            positions = torch.arange(ids.shape[1], device=self.device)[None]
            begins = [row * ids.shape[1] for row in range(len(texts))]
            attention = PaddedTexts(cache)
        kept = [
            torch.arange(begin + start, begin + length)
            for begin, start, length in zip(begins, starts, lengths, strict=True)
        ]
        states = self._run(ids, positions, attention, torch.cat(kept).to(self.device))
        return states.flatten(0, -2)

    def _run(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        states = self._weights.look_up(self._embedding, ids)
        if self._positions is not None:
            states = states + self._weights.look_up(self._positions, positions)
        rotation = None
        if self._rotary is not None:
            rotation = self._rotary.rotation(positions, states.dtype)
        at = Pass(attention, rotation, None)
        for block in self._blocks[:-1]:
            states = block(states, at)
        if wanted is not None and len(wanted) == ids.numel():
            wanted = None
        return self._blocks[-1](states, replace(at, wanted=wanted))
