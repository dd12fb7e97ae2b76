"""What the JSON files of a model folder may ask for.

A configuration is data. Some of its fields make transformers import code that lies beside it or
fetch code from a hub; those are refused by name, wherever they stand. So are sizes that no model
has: they would exhaust memory before the first weight is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cert.backends.model_files import printable
from cert.core.errors import ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CODE_FIELDS = frozenset(
    {
        "auto_map",
        "custom_generate",
        "custom_pipelines",
        "fusion_config",
        "kernel_config",
        "trust_remote_code",
        "use_kernels",
    }
)
_IMPLEMENTATION = re.compile(r"attn|attention|implementation|kernel", re.IGNORECASE)

_LIMITS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"(num_|n_|decoder_|encoder_)?(hidden_)?layers?"), 512),
    (re.compile(r"vocab_size"), 4_000_000),
    (re.compile(r"(num|n)_.*experts.*|moe_num_experts"), 4_096),
    (re.compile(r"(num_|n_).*heads?.*"), 4_096),
    (re.compile(r"n_embd|d_model|hidden_size|head_dim"), 262_144),
    (re.compile(r"n_inner|d_ff|ffn_dim|intermediate_size"), 2_097_152),
    (re.compile(r"n_positions|n_ctx|max_position_embeddings"), 2**31 - 1),
    (re.compile(r"(num|n)_.*"), 1_000_000),
)
"""The first pattern that matches a whole field name says its largest value."""


def check_document(document: Mapping[str, object], source: str) -> None:
    """Refuse a JSON document that asks for code.

    Refused at any depth: `auto_map`, `trust_remote_code` and other fields that name code, unless
    empty or false; and a `/` in the value of a field about attention or kernels, which
    transformers takes for a repository to fetch compiled code from.

    Args:
        document: config.json, generation_config.json or tokenizer_config.json.
        source: Its path, for the message.

    Raises:
        ModelRefusedError: With the field's place.
    """
    for place, name, value in _fields(document):
        if name in _CODE_FIELDS and value not in (None, False, [], {}):
            message = f"{source}: {place} asks for code to be loaded, which is never done"
            raise ModelRefusedError(
                message,
                hint="where this version of transformers has the architecture built in, a copy of "
                "the folder without that field loads",
            )
        if _IMPLEMENTATION.search(name) and any("/" in text for text in _texts(value)):
            message = f"{source}: {place} names a repository of compiled code, which is refused"
            raise ModelRefusedError(message)


def check_config(config: Mapping[str, object], source: str) -> None:
    """Refuse a config.json that asks for code or that no model can have.

    Raises:
        ModelRefusedError: See `check_document`; or a size is out of bounds.
        ModelUnavailableError: The weights are stored in a way that is not supported.
    """
    check_document(config, source)
    for place, name, value in _fields(config):
        if name in {"quantization_config", "compression_config"} and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            message = f"{source}: the weights are stored quantized ({printable(str(method))})"
            raise ModelUnavailableError(
                message, hint="use the unquantized model, with --quantize 8bit or 4bit"
            )
        if type(value) is int:
            _check_size(source, place, name, value)


def _check_size(source: str, place: str, name: str, value: int) -> None:
    limit = next((limit for pattern, limit in _LIMITS if pattern.fullmatch(name)), 2**53)
    if abs(value) > limit:
        shown = value if value.bit_length() < 64 else f"a number of {value.bit_length()} bits"  # noqa: PLR2004 - no subject of its own
        message = f"{source}: {place} is {shown}; at most {limit} is taken"
        raise ModelRefusedError(message)


def _fields(value: object, place: str = "") -> Iterator[tuple[str, str, object]]:
    """Walk through every named value: its place, its name, itself."""
    if isinstance(value, dict):
        for name, item in value.items():
            shown = name if name.isprintable() else printable(name)
            here = f"{place}.{shown}" if place else shown
            yield here, name, item
            yield from _fields(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _fields(item, f"{place}[{index}]")


def _texts(value: object) -> Iterator[str]:
    """Every text in a value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
