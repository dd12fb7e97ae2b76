"""Whether transformers' AutoTokenizer makes of a folder just what its tokenizer.json says.

Some classes of transformers build the tokenizer anew from the vocabulary and a pipeline of their
own, and some settings beside tokenizer.json change it. The families and classes known here are
those that need no such thing; of any other folder the answer is no.

Source: transformers 5.23, `AutoTokenizer.from_pretrained`, `TokenizersBackend`, `Qwen2Tokenizer`,
`GPT2Tokenizer`; held to them by tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers.models import BPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer

SPECIAL_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The roles a special token may have, in transformers' order."""

_GENERIC = frozenset({"PreTrainedTokenizer", "TokenizersBackend"})
_ALTERING = ("fast_tokenizer_files", "split_special_tokens", "init_inputs", "add_prefix_space")
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_MODEL_OPTIONS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
_PATCHED_VOCABULARY = 100_000
"""From this size on, transformers may give Mistral's tokenizers another splitting pattern."""


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """What a class of transformers does with tokenizer.json.

    Attributes:
        pipeline: Sections it replaces by its own, whatever the file says; empty where it takes
            the file as it is.
        defaults: Special tokens it has where the settings name none.
        plain_specials: Whether it turns special tokens into ones without any flag.
    """

    pipeline: Mapping[str, object]
    defaults: Mapping[str, str]
    plain_specials: bool = False


_BACKEND = TokenizerClass({}, {})
_GPT2 = TokenizerClass(
    {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
    },
    dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
)
_QWEN2 = TokenizerClass(
    {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {
                        "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                    },
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        },
        "decoder": {"type": "ByteLevel"},
    },
    dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
    plain_specials=True,
)


def find_class(
    model_type: str, class_name: str | None, tokenizer: Tokenizer
) -> TokenizerClass | None:
    """Find the class that AutoTokenizer takes.

    Args:
        model_type: Of config.json.
        class_name: `tokenizer_class` of tokenizer_config.json, else of config.json; None where
            neither names one.
        tokenizer: As tokenizer.json has it.

    Returns:
        None where the class is not one of those known here.
    """
    name = class_name.removesuffix("Fast") if class_name else None
    if model_type == "llama":
        generic = name is None or name in _GENERIC
        as_it_is = generic or (name == "LlamaTokenizer" and _splits_bytes(tokenizer))
        return _BACKEND if as_it_is else None
    if model_type == "mistral":
        return _BACKEND if tokenizer.get_vocab_size() < _PATCHED_VOCABULARY else None
    if model_type == "qwen2":
        return _QWEN2
    own = {"qwen3": ("Qwen2Tokenizer", _QWEN2), "gpt2": ("GPT2Tokenizer", _GPT2)}.get(model_type)
    if own is None:
        return None
    if name in _GENERIC:
        return _BACKEND
    return own[1] if name is None or name == own[0] else None


def reads_as_it_is(
    found: TokenizerClass,
    settings: Mapping[str, object],
    tokenizer: Tokenizer,
    special_tokens: Mapping[str, str],
) -> bool:
    """Whether the class makes nothing else of tokenizer.json than the tokenizers library does.

    Args:
        found: By `find_class`.
        settings: tokenizer_config.json, special_tokens_map.json merged into it.
        tokenizer: As tokenizer.json has it.
        special_tokens: Text by role.
    """
    altered = any(settings.get(name) for name in _ALTERING) or not _knows_roles(settings)
    if altered or tokenizer.padding is not None:  # padding names a special token, too
        return False
    tokens = tokenizer.get_added_tokens_decoder().values()
    added = {tuple(getattr(token, name) for name in _FLAGS) for token in tokens}
    written = _dicts(settings.get("added_tokens_decoder"))
    listed = {tuple(token.get(name) for name in _FLAGS) for token in written}
    specials = {*special_tokens.values(), *_extra_tokens(settings)}
    if not (listed <= added and specials <= {token[0] for token in added}):
        return False
    if not found.pipeline:
        return True
    if "added_tokens_decoder" in settings and listed != added:
        return False
    if found.plain_specials and not {(token, *_NO_FLAGS) for token in specials} <= added:
        return False
    return _has_pipeline(tokenizer, found.pipeline)


_NO_FLAGS = (False, False, False, False, True)
"""As `_FLAGS` without the content: an ordinary special token."""


def _knows_roles(settings: Mapping[str, object]) -> bool:
    if isinstance(settings.get("extra_special_tokens"), dict):
        return False
    texts = {name for name, value in settings.items() if isinstance(value, str | dict)}
    return {name for name in texts if name.endswith("_token")} <= set(SPECIAL_NAMES)


def _has_pipeline(tokenizer: Tokenizer, pipeline: Mapping[str, object]) -> bool:
    model = tokenizer.model
    if not isinstance(model, BPE) or any(getattr(model, name) for name in _MODEL_OPTIONS):
        return False
    return all(
        _includes(_section(getattr(tokenizer, name)), wanted) for name, wanted in pipeline.items()
    )


def _section(part: object) -> object:
    """A part of a tokenizer as tokenizer.json writes it."""
    state = part.__getstate__()
    return json.loads(state) if isinstance(state, bytes) else None


def _includes(value: object, wanted: object) -> bool:
    """Whether a section says what is wanted; options that don't matter for ids may stand beside."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            _includes(value.get(name, True), item) for name, item in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(_includes(*pair) for pair in zip(value, wanted, strict=True))
        )
    return value == wanted


def _splits_bytes(tokenizer: Tokenizer) -> bool:
    section = _section(tokenizer.pre_tokenizer)
    if not isinstance(section, dict):
        return False
    parts = [section, *_dicts(section.get("pretokenizers"))]
    return any(part.get("type") == "ByteLevel" for part in parts)


def _extra_tokens(settings: Mapping[str, object]) -> set[object]:
    values = [settings.get(name) for name in ("additional_special_tokens", "extra_special_tokens")]
    tokens = [token for value in values if isinstance(value, list) for token in value]
    return {token.get("content") if isinstance(token, dict) else token for token in tokens}


def _dicts(value: object) -> list[dict[str, object]]:
    if isinstance(value, dict):
        value = list(value.values())
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
