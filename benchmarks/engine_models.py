"""Models with random weights, their tokenizers, and the texts that `benchmarks/engine.py` uses.

Weights are drawn so that every block adds as much as the ones before it and logits have a standard
deviation of about 3 nats: a greedy text then depends on all that came before it, and the tied
embedding does not repeat its own token for ever. The end token's embedding is zero, so that no
text ends early.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 7
END = "<|end|>"
LOGIT_DEVIATION = 3.0
GAIN = 1.5
"""Of every matrix; below 1.2 texts begin to repeat themselves."""
CONTEXT = "A"
"""What stands before every scored text; one token of every model here."""

TEXT = (
    "the a of and to in is that it was for on with as by at from they we his not but have an "
    "model river language numbers light measure paper window morning engine history city water "
    "explain compare why how every small certain often"
)
WORDS = TEXT.split()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked about one model.

    Attributes:
        architecture: None for the embedded reference model.
        shape: Fields of config.json.
        texts: Prompts of a batched contestant in one round.
        single_texts: Prompts of one that runs them one at a time; spread over the same lengths.
        words: Of the shortest and the longest prompt.
        new_tokens: Tokens written for every prompt.
        scored_texts: Texts scored in one round.
        scored_words: Of the shortest and the longest.
    """

    architecture: str | None
    shape: dict[str, Any]
    texts: int
    single_texts: int
    words: tuple[int, int]
    new_tokens: int
    scored_texts: int = 200
    scored_words: tuple[int, int] = (4, 40)


PLANS = {
    "reference": Plan(None, {}, 64, 8, (6, 120), 64),
    "llama": Plan(
        "llama",
        {
            "vocab_size": 32_000,
            "hidden_size": 288,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "intermediate_size": 768,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        64,
        8,
        (4, 80),
        64,
    ),
    "gpt2": Plan(
        "gpt2",
        {"vocab_size": 50_257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        64,
        4,
        (4, 80),
        64,
    ),
    "qwen2": Plan(
        "qwen2",
        {
            "vocab_size": 151_936,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        64,
        2,
        (2, 12),
        16,
        40,
        (4, 20),
    ),
}


def quick(plan: Plan) -> Plan:
    """Make the same plan with a handful of short texts."""
    return Plan(plan.architecture, plan.shape, 4, 2, (3, 9), 6, 6, (3, 9))


def make_texts(count: int, words: tuple[int, int]) -> list[str]:
    """Texts of all lengths from the shortest to the longest, the same every time, shuffled."""
    rng = random.Random(SEED)  # noqa: S311 - inputs, not secrets
    shortest, longest = words
    lengths = [shortest + (longest - shortest) * n // max(1, count - 1) for n in range(count)]
    rng.shuffle(lengths)
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


def ensure_model(name: str, folder: Path) -> Path:
    """The folder of a model; made in `folder` if need be, since peers write files beside it."""
    plan = PLANS[name]
    target = folder / name
    if not target.exists():
        unfinished = folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        if plan.architecture is None:
            from cert.backends.folder import resolve_model  # noqa: PLC0415 - peers lack it

            shutil.copytree(resolve_model(name, aliases={}, allow_download=False), unfinished)
        else:
            unfinished.mkdir(parents=True)
            _write_model(plan.architecture, plan.shape, unfinished)
            _write_tokenizer(plan.shape["vocab_size"], unfinished)
        unfinished.rename(target)
    return target


def _write_model(architecture: str, shape: dict[str, Any], folder: Path) -> None:
    import torch  # noqa: PLC0415 - building alone needs it
    import transformers  # noqa: PLC0415 - the same

    end = shape["vocab_size"] - 1
    config = transformers.AutoConfig.for_model(
        architecture, **shape, bos_token_id=end, eos_token_id=end
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(SEED)
    embedding = model.get_input_embeddings().weight
    width = embedding.shape[1]
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                is_scale = name.endswith("weight")
                parameter.normal_(float(is_scale), 0.1, generator=generator)
                continue
            fan_in = parameter.shape[0 if architecture == "gpt2" else 1]
            is_table = parameter is embedding or "wpe" in name
            deviation = LOGIT_DEVIATION / width**0.5 if is_table else GAIN * fan_in**-0.5
            parameter.normal_(0.0, deviation, generator=generator)
        embedding[end] = 0.0
    model.tie_weights()
    model.save_pretrained(folder)


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    """Byte-level BPE that knows `vocab_size` tokens: bytes, then all pieces of 2, 3, 4 letters."""
    from tokenizers import (  # noqa: PLC0415 - building alone needs it
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )

    vocabulary = {one: n for n, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = list(itertools.islice(_merges(), vocab_size - 1 - len(vocabulary)))
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _merges() -> Iterator[tuple[str, str]]:
    letters = string.ascii_lowercase
    pairs = [a + b for a, b in itertools.product(letters, repeat=2)]
    yield from itertools.product(letters, repeat=2)
    yield from itertools.product(pairs, letters)
    yield from itertools.product(pairs, repeat=2)
