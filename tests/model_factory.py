"""Tiny random models in transformers' folder format, for every test that needs a model.

Weights are drawn wide enough that distributions are far from uniform, and biases and norms are
drawn too, so that a decoder that forgets one of them is found out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2")

_TEXT = (
    "The quick brown fox jumps over the lazy dog. Explain quantum computing in one paragraph. "
    "What is machine learning? Define neural networks and the entropy of a distribution. "
    "It was the best of times, it was the worst of times, and there was nothing else to say. "
) * 4

_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

_CLASSES = {"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer"}

# family: special tokens in id order, the one before every text, the end, its chat template
_SPECIALS: dict[str, tuple[list[str], str | None, str, str]] = {
    "llama": (
        [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ],
        "<|begin_of_text|>",
        "<|end_of_text|>",
        _HEADERS,
    ),
    "mistral": (
        ["<s>", "</s>", "[INST]", "[/INST]"],
        "<s>",
        "</s>",
        "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
    ),
    "qwen2": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>", _CHATML),
    "qwen3": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>", _CHATML),
    "gpt2": (["<|endoftext|>"], None, "<|endoftext|>", _CHATML),
}


def build_tiny_model(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    vocab_size: int = 300,
    hidden_size: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate_size: int = 64,
    max_positions: int = 256,
    tie_embeddings: bool = False,
    dtype: str = "float32",
    chat_template: bool | str = False,
    shard_size: str = "5GB",
    scale: float = 0.25,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a random model with a byte-level BPE tokenizer; the same seed gives the same bytes.

    Args:
        folder: Created if need be.
        family: One of `FAMILIES`.
        seed: Of the weights.
        vocab_size: Of the embedding; the tokenizer fills at most this many ids. At least 264.
        hidden_size: Width; a multiple of `heads`.
        layers: Number of blocks.
        heads: Query heads.
        kv_heads: Key and value heads (ignored by GPT-2).
        intermediate_size: Of the MLP.
        max_positions: Context length.
        tie_embeddings: GPT-2 always ties.
        dtype: Of the checkpoint.
        chat_template: True for the family's usual one, or the template's text.
        shard_size: Maximum size of a weights file; `"20KB"` gives several and an index.
        scale: Standard deviation of the weights.
        config: Further fields of config.json.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _, _, eos, _ = _SPECIALS[family]
    tokenizer = build_tokenizer(family, vocab_size=vocab_size)
    options: dict[str, Any] = {"eos_token_id": tokenizer.token_to_id(eos), **(config or {})}
    model = _build_model(
        family,
        {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": intermediate_size,
            "max_position_embeddings": max_positions,
            "tie_word_embeddings": tie_embeddings or family == "gpt2",
        },
        options,
    )
    _draw(model, seed, scale)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard_size)
    write_tokenizer(folder, family, tokenizer, chat_template=chat_template)
    return folder


def build_tokenizer(family: str, *, vocab_size: int = 300) -> Tokenizer:
    """Train a byte-level BPE tokenizer with the family's special tokens and prefix."""
    specials, bos, _, _ = _SPECIALS[family]
    tokenizer = Tokenizer(models.BPE())
    if family.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [_TEXT],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    return tokenizer


def write_tokenizer(
    folder: Path, family: str, tokenizer: Tokenizer, *, chat_template: bool | str = False
) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
    _, bos, eos, usual = _SPECIALS[family]
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": _CLASSES.get(family, "PreTrainedTokenizerFast"),
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
    }
    if bos is not None:
        settings["bos_token"] = bos
    if chat_template:
        settings["chat_template"] = usual if chat_template is True else chat_template
    text = json.dumps(settings, indent=2, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _build_model(family: str, shape: dict[str, Any], options: dict[str, Any]) -> PreTrainedModel:
    import transformers

    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=shape["vocab_size"],
            n_embd=shape["hidden_size"],
            n_layer=shape["num_hidden_layers"],
            n_head=shape["num_attention_heads"],
            n_inner=shape["intermediate_size"],
            n_positions=shape["max_position_embeddings"],
            **{"bos_token_id": options["eos_token_id"], **options},
        )
        return transformers.GPT2LMHeadModel(config)
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }
    config_class, model_class = classes[family]
    if family == "qwen3":
        shape = {**shape, "head_dim": shape["hidden_size"] // shape["num_attention_heads"]}
    if family in {"llama", "mistral"}:
        options = {"bos_token_id": 0, **options}
    return model_class(config_class(**shape, **options))


def _draw(model: PreTrainedModel, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name or ".ln_" in name
            if is_norm and name.endswith("weight"):
                parameter.copy_(1.0 + 0.1 * values)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * values)
            else:
                parameter.copy_(scale * values)
    model.tie_weights()
