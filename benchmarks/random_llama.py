"""Llama models with random weights and a tokenizer that knows every token of their vocabulary.

Weights are drawn so that a greedy text depends on all that came before it, and so that logits
have a standard deviation of about 3 nats, as those of trained models do. The end token is never
the most probable one: no text ends early.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import string
from typing import TYPE_CHECKING

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

SEED = 7
END = "<|end|>"
WORDS = (  # noqa: SIM905 - a list of them would be forty lines
    "the a of and to in is that it was for on with as by at from they we his not but have an "
    "model river language numbers light measure paper window morning engine history city water "
    "explain compare why how every small certain often"
).split()
SHAPES = {
    "15M": (32_000, 288, 6, 6, 768),
    "150M": (32_000, 1024, 8, 16, 2816),
    "tiny": (1024, 64, 2, 4, 128),
}
"""By name: vocabulary, width, blocks, heads, width of the MLP."""

_CONTEXT_TOKENS = 1024
_LOGIT_DEVIATION = 3.0
_GAIN = 1.5
"""Of every matrix; below 1.2 texts begin to repeat themselves."""


def build_model(folder: Path, size: str) -> Path:
    """Write a model as transformers reads it, unless it is there already; returns its folder."""
    target = folder / f"llama-{size}"
    if target.exists():
        return target
    vocabulary, width, blocks, heads, inner = SHAPES[size]
    unfinished = folder / f"llama-{size}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )
    model = transformers.LlamaForCausalLM(config)
    _draw(model, width)
    model.save_pretrained(unfinished)
    _write_tokenizer(unfinished, vocabulary)
    unfinished.rename(target)
    return target


def make_prompts(count: int, shortest: int, longest: int) -> list[str]:
    """Prompts of `shortest` to `longest` words, all different, the same every time."""
    rng = random.Random(SEED)  # noqa: S311 - inputs, not secrets
    return [
        f"{number} " + " ".join(rng.choices(WORDS, k=rng.randint(shortest, longest)))
        for number in range(count)
    ]


def _draw(model: transformers.LlamaForCausalLM, width: int) -> None:
    generator = torch.Generator().manual_seed(SEED)
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.1, generator=generator)
                continue
            is_table = parameter is embedding
            deviation = _LOGIT_DEVIATION / width**0.5 if is_table else _GAIN / width**0.5
            parameter.normal_(0.0, deviation, generator=generator)
        embedding[-1] = 0.0
    model.tie_weights()


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Byte-level BPE: the bytes, then all pieces of two, three and four letters."""
    letters = string.ascii_lowercase
    pairs = [a + b for a, b in itertools.product(letters, repeat=2)]
    every = itertools.chain(
        itertools.product(letters, repeat=2),
        itertools.product(pairs, letters),
        itertools.product(pairs, repeat=2),
    )
    vocabulary = {one: n for n, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = list(itertools.islice(every, vocab_size - 1 - len(vocabulary)))
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
