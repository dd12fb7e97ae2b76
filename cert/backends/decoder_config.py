"""Which config.json our own decoder runs, and what it reads there.

Only fields whose meaning is known are taken: one that is not listed here, a value of another type,
or an option that is not implemented leaves the folder to transformers. So a configuration is never
half understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.backends.config_values import NotHandledError, flag, number, only, same, size
from cert.backends.rotary import read_rotary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.backends.folder import ModelFolder
    from cert.backends.rotary import Rotary

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

_IDLE = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "_attn_implementation",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "model_type",
        "pad_token_id",
        "pretraining_tp",
        "rope_interleaved",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields without any effect on a forward pass in inference."""

_GATED = _IDLE | {
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
}
_BIASES = frozenset({"attention_bias", "mlp_bias"})
_WINDOWS = frozenset({"layer_types", "max_window_layers", "use_sliding_window"})
_KNOWN: dict[str, frozenset[str]] = {
    "llama": _GATED - _WINDOWS - {"sliding_window"},
    "mistral": _GATED - _WINDOWS - _BIASES,
    "qwen2": _GATED - _BIASES,
    "qwen3": _GATED - {"mlp_bias"},
    "gpt2": _IDLE
    | {
        "activation_function",
        "add_cross_attention",
        "attn_pdrop",
        "embd_pdrop",
        "gradient_checkpointing",
        "layer_norm_epsilon",
        "n_ctx",
        "n_embd",
        "n_head",
        "n_inner",
        "n_layer",
        "n_positions",
        "reorder_and_upcast_attn",
        "resid_pdrop",
        "scale_attn_by_inverse_layer_idx",
        "scale_attn_weights",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "tie_word_embeddings",
        "vocab_size",
    },
}


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder of one of the families.

    Attributes:
        family: The model type.
        vocab_size: V.
        hidden_size: Width of the hidden states.
        inner_size: Width inside the MLP.
        layers: Number of blocks.
        heads: Query heads.
        key_value_heads: Heads of keys and values.
        head_size: Width of a head.
        max_positions: Tokens of the longest text.
        epsilon: Of the norms.
        is_tied: Whether the head is the embedding.
        input_bias: Whether queries, keys and values have one.
        output_bias: Whether the attention's output has one.
        inner_bias: Whether the MLP has them.
        has_head_norms: Whether queries and keys are normalised.
        window: The attention window, where there is one.
        rotary: None where positions are learned.
    """

    family: str
    vocab_size: int
    hidden_size: int
    inner_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    max_positions: int
    epsilon: float
    is_tied: bool
    input_bias: bool
    output_bias: bool
    inner_bias: bool
    has_head_norms: bool
    window: int | None
    rotary: Rotary | None


def read_config(folder: ModelFolder) -> DecoderConfig:
    """Read a folder's config.json.

    Raises:
        NotHandledError: Our decoder does not run such a model.
    """
    family, config = folder.model_type, folder.config
    if family not in ARCHITECTURES or folder.architecture not in {None, ARCHITECTURES[family]}:
        raise NotHandledError(family)
    only(config, _KNOWN[family])
    return _gpt2(config) if family == "gpt2" else _gated(family, config)


def _gated(family: str, config: Mapping[str, object]) -> DecoderConfig:
    same(config, "hidden_act", "silu")
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    shared = heads
    if config.get("num_key_value_heads") is not None or family != "llama":
        shared = size(config, "num_key_value_heads")
    if config.get("head_dim") is not None or family == "qwen3":
        head_size = size(config, "head_dim")
    else:
        if family == "qwen2" and "head_dim" in config:
            raise NotHandledError("head_dim")
        head_size = width // heads
    if width % heads or heads % shared:
        raise NotHandledError("num_attention_heads")
    max_positions = size(config, "max_position_embeddings")
    layers = size(config, "num_hidden_layers")
    bias = flag(config, "attention_bias", default=False)
    return DecoderConfig(
        family=family,
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        inner_size=size(config, "intermediate_size"),
        layers=layers,
        heads=heads,
        key_value_heads=shared,
        head_size=head_size,
        max_positions=max_positions,
        epsilon=number(config, "rms_norm_eps", above=0.0),
        is_tied=flag(config, "tie_word_embeddings", default=False),
        input_bias=bias or family == "qwen2",
        output_bias=bias,
        inner_bias=flag(config, "mlp_bias", default=False),
        has_head_norms=family == "qwen3",
        window=_window(family, config, layers),
        rotary=read_rotary(config, head_size, max_positions),
    )


def _window(family: str, config: Mapping[str, object], layers: int) -> int | None:
    if family == "llama":
        return None
    if family == "mistral":
        if "sliding_window" not in config:
            raise NotHandledError("sliding_window")
        return None if config["sliding_window"] is None else size(config, "sliding_window")
    kinds = config.get("layer_types")
    if kinds is not None and (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or not all(kind in {"full_attention", "sliding_attention"} for kind in kinds)
    ):
        raise NotHandledError("layer_types")
    is_used = flag(config, "use_sliding_window", default=False)
    if not is_used:
        if kinds is not None and "sliding_attention" in kinds:
            raise NotHandledError("layer_types")
        return None
    width = size(config, "sliding_window")
    if kinds is None:
        return width if size(config, "max_window_layers") < layers else None
    return width if "sliding_attention" in kinds else None


def _gpt2(config: Mapping[str, object]) -> DecoderConfig:
    same(config, "activation_function", "gelu_new")
    same(config, "add_cross_attention", wanted=False)
    same(config, "scale_attn_weights", wanted=True)
    same(config, "scale_attn_by_inverse_layer_idx", wanted=False)
    heads, width = size(config, "n_head"), size(config, "n_embd")
    if width % heads:
        raise NotHandledError("n_head")
    return DecoderConfig(
        family="gpt2",
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        inner_size=4 * width if config.get("n_inner") is None else size(config, "n_inner"),
        layers=size(config, "n_layer"),
        heads=heads,
        key_value_heads=heads,
        head_size=width // heads,
        max_positions=size(config, "n_positions"),
        epsilon=number(config, "layer_norm_epsilon", above=0.0),
        is_tied=flag(config, "tie_word_embeddings", default=True),
        input_bias=True,
        output_bias=True,
        inner_bias=True,
        has_head_norms=False,
        window=None,
        rotary=None,
    )
