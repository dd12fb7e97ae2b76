"""The tensors of a decoder: their names and shapes in a file, and their way into its blocks.

Matrices that read the same states are joined into one (queries, keys and values; gate and input of
the MLP), so that a step makes one product of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from cert.backends.config_values import NotHandledError
from cert.backends.decoder_blocks import Gated, Gpt2, LayerNorm, RMSNorm
from cert.backends.linear import PlainLinear, layer_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.backends.decoder_blocks import Block
    from cert.backends.decoder_config import DecoderConfig
    from cert.backends.folder import ModelFolder
    from cert.backends.linear import Linear
    from cert.backends.quantize import Quantization

_HEAD = "lm_head.weight"
_GPT2_PREFIX = "transformer."
"""GPT-2's files on the hub leave it out."""

_FLOATING = frozenset({"F16", "BF16", "F32", "F64"})

Shapes = dict[str, tuple[int, ...]]


def tensor_names(folder: ModelFolder, config: DecoderConfig) -> dict[str, str]:
    """Where the tensors of a decoder lie in a folder, by the names that are used here.

    Raises:
        NotHandledError: The folder does not hold exactly these, in their shapes.
    """
    found = {
        entry.name: entry
        for entries in folder.weights.values()
        for entry in entries
        if not _is_buffer(entry.name, config)
    }
    prefix = _GPT2_PREFIX if config.family == "gpt2" and "wte.weight" in found else ""
    names = {name if name == _HEAD else prefix + name: name for name in found}
    if {name: found[stored].shape for name, stored in names.items()} != shapes(config):
        raise NotHandledError("tensors")
    if any(entry.dtype not in _FLOATING for entry in found.values()):
        raise NotHandledError("dtype")
    return names


def _is_buffer(name: str, config: DecoderConfig) -> bool:
    """Whether it is a causal mask, which GPT-2's older files keep beside the weights."""
    return config.family == "gpt2" and name.endswith(".attn.bias")


def shapes(config: DecoderConfig) -> Shapes:
    """Every tensor's shape by its name, as transformers saves the model."""
    return _gpt2_shapes(config) if config.family == "gpt2" else _gated_shapes(config)


def _gated_shapes(config: DecoderConfig) -> Shapes:
    width, inner, vocab = config.hidden_size, config.inner_size, config.vocab_size
    queries = config.heads * config.head_size
    shared = config.key_value_heads * config.head_size
    linear = {
        "self_attn.q_proj": (queries, width, config.input_bias),
        "self_attn.k_proj": (shared, width, config.input_bias),
        "self_attn.v_proj": (shared, width, config.input_bias),
        "self_attn.o_proj": (width, queries, config.output_bias),
        "mlp.gate_proj": (inner, width, config.inner_bias),
        "mlp.up_proj": (inner, width, config.inner_bias),
        "mlp.down_proj": (width, inner, config.inner_bias),
    }
    names: Shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not config.is_tied:
        names[_HEAD] = (vocab, width)
    for layer in range(config.layers):
        block = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            names[f"{block}{norm}.weight"] = (width,)
        for name, (rows, columns, has_bias) in linear.items():
            names[f"{block}{name}.weight"] = (rows, columns)
            if has_bias:
                names[f"{block}{name}.bias"] = (rows,)
        if config.has_head_norms:
            for norm in ("q_norm", "k_norm"):
                names[f"{block}self_attn.{norm}.weight"] = (config.head_size,)
    return names


def _gpt2_shapes(config: DecoderConfig) -> Shapes:
    width, inner, vocab = config.hidden_size, config.inner_size, config.vocab_size
    names: Shapes = {
        "transformer.wte.weight": (vocab, width),
        "transformer.wpe.weight": (config.max_positions, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }
    if not config.is_tied:
        names[_HEAD] = (vocab, width)
    linear = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    for layer in range(config.layers):
        block = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            names[f"{block}{norm}.weight"] = names[f"{block}{norm}.bias"] = (width,)
        for name, (inputs, outputs) in linear.items():
            names[f"{block}{name}.weight"] = (inputs, outputs)
            names[f"{block}{name}.bias"] = (outputs,)
    return names


class Weights:
    """Tensors by name, made ready for the computation one by one; from several threads.

    Attributes:
        computed: The type of the computation. On a CPU always float32: attention and norms take no
            longer in it than in 16 bits, and most processors have nothing else.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        quantization: Quantization,
    ) -> None:
        """Take tensors as they are in the file.

        Args:
            tensors: By name.
            quantization: How linear layers are made, in which type, and where everything goes.
        """
        self._tensors = tensors
        self._dtype = quantization.dtype
        self._device = quantization.device
        self._quantization = quantization
        self.computed = self._dtype if self._device.type == "cuda" else torch.float32
        self._taken: list[int] = []

    @property
    def nbytes(self) -> int:
        """Memory of what was taken, linear layers included."""
        return sum(self._taken)

    def one(self, name: str) -> torch.Tensor:
        """A tensor in the type of the computation; no copy where the file has it in this type."""
        tensor = self._tensors[name].to(self._device, self._dtype).to(self.computed)
        self._taken.append(tensor.nbytes)
        return tensor

    def table(self, name: str) -> torch.Tensor:
        """Embeddings to look up: on a CPU as they are in the file."""
        if self._device.type == "cuda":
            return self.one(name)
        self._taken.append(self._tensors[name].nbytes)
        return self._tensors[name]

    def look_up(self, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Rows of a table in the type of the computation; shape (*ids.shape, columns)."""
        return functional.embedding(ids, table).to(self._dtype).to(self.computed)

    def linear(self, *names: str) -> Linear:
        """The linear layers of these names as one, the first one's outputs first."""
        weights = [self._tensors[f"{name}.weight"] for name in names]
        biases = [
            self._tensors[f"{name}.bias"] for name in names if f"{name}.bias" in self._tensors
        ]
        return self._layer(
            weights[0] if len(weights) == 1 else torch.cat(weights),
            torch.cat(biases) if biases else None,
        )

    def transposed(self, name: str) -> Linear:
        """A layer whose weight is stored as (inputs, outputs)."""
        return self._layer(self._tensors[f"{name}.weight"].T, self._tensors[f"{name}.bias"])

    def head(self, name: str, table: torch.Tensor | None) -> Linear:
        """The projection to the vocabulary; `table` are the embeddings where they are its weight.

        A head that is laid out, or quantized, is a copy of them.
        """
        if not self._quantization.leaves_head:
            return self._layer(self._tensors[name], None)
        if table is not None and table.dtype is self.computed:
            return PlainLinear(table, None)
        return PlainLinear(self.one(name), None)

    def _layer(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        layer = self._quantization.build(weight, bias)
        self._taken.append(layer_bytes(layer))
        return layer


def gated_block(config: DecoderConfig, weights: Weights, layer: int) -> Block:
    """A block of Llama, Mistral, Qwen2 or Qwen3."""
    name = f"model.layers.{layer}."
    head_norm = None
    if config.has_head_norms:
        by_head = [("q_norm", config.heads), ("k_norm", config.key_value_heads)]
        scale = [
            weights.one(f"{name}self_attn.{norm}.weight").expand(count, -1)
            for norm, count in by_head
        ]
        head_norm = RMSNorm(torch.cat(scale), config.epsilon)
    return Gated(
        layer=layer,
        heads=config.heads,
        key_value_heads=config.key_value_heads,
        first_norm=RMSNorm(weights.one(f"{name}input_layernorm.weight"), config.epsilon),
        joined=weights.linear(*(f"{name}self_attn.{part}_proj" for part in "qkv")),
        head_norm=head_norm,
        attended=weights.linear(f"{name}self_attn.o_proj"),
        second_norm=RMSNorm(weights.one(f"{name}post_attention_layernorm.weight"), config.epsilon),
        gate_and_input=weights.linear(f"{name}mlp.gate_proj", f"{name}mlp.up_proj"),
        inner=weights.linear(f"{name}mlp.down_proj"),
    )


def gpt2_block(config: DecoderConfig, weights: Weights, layer: int) -> Block:
    """A block of GPT-2."""
    name = f"transformer.h.{layer}."
    return Gpt2(
        layer=layer,
        heads=config.heads,
        first_norm=layer_norm(weights, f"{name}ln_1", config.epsilon),
        joined=weights.transposed(f"{name}attn.c_attn"),
        attended=weights.transposed(f"{name}attn.c_proj"),
        second_norm=layer_norm(weights, f"{name}ln_2", config.epsilon),
        input=weights.transposed(f"{name}mlp.c_fc"),
        inner=weights.transposed(f"{name}mlp.c_proj"),
    )


def layer_norm(weights: Weights, name: str, epsilon: float) -> LayerNorm:
    """A norm with weight and bias."""
    return LayerNorm(weights.one(f"{name}.weight"), weights.one(f"{name}.bias"), epsilon)
