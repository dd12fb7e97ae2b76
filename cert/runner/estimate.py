"""What a run will take, before it is started: roughly, and with how it was got.

Nothing of the model is loaded: sizes come from the headers of its weights, speeds from a moment's
work of the same kind on this machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cert.backends.folder import ModelFolder

_PROBE_ROWS = 16
_PROBE_WIDTH = 2048
_PROBE_S = 0.05
_COPY_BYTES = 64 * 2**20
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}


@dataclass(frozen=True, slots=True)
class Load:
    """The work of a run.

    Attributes:
        prompt_tokens: Of all prompts.
        scored_tokens: Of all given responses.
        new_tokens: To be generated at most.
        rows: Texts side by side.
    """

    prompt_tokens: int
    scored_tokens: int
    new_tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine did in a moment: with a thin matrix product, and with a copy in memory."""

    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory and time of a run, on a CPU.

    Attributes:
        parameters: Of the model.
        weights_bytes: In the dtype asked for.
        cache_bytes: Keys and values of all rows at the model's full context; None where the
            configuration does not say their shape.
        duration_s: If every text is generated to its full length.
    """

    parameters: int
    weights_bytes: int
    cache_bytes: int | None
    duration_s: float


def estimate(
    folder: ModelFolder, load: Load, machine: Machine, *, dtype: str, quantize: str
) -> Estimate:
    """Estimate a run on a CPU.

    A decode step of r rows reads every weight once and multiplies 2 r P times, whichever takes
    longer; the tokens of prompts and responses are multiplied only. Attention and sampling are left
    out, so long contexts take longer than this says.

    Args:
        folder: The model; its weights' headers were read.
        load: The work.
        machine: From `probe`.
        dtype: `auto` is taken for float32.
        quantize: `none`, `8bit` or `4bit`.
    """
    entries = [entry for tensors in folder.weights.values() for entry in tensors]
    parameters = sum(entry.elements for entry in entries)
    width = float(_DTYPE_BYTES.get(dtype, 4))
    weights = int(parameters * _QUANTIZED_BYTES.get(quantize, width))
    rows = max(1, load.rows)
    step_s = max(weights / machine.bytes_per_s, 2 * rows * parameters / machine.flop_per_s)
    read_s = 2 * parameters * (load.prompt_tokens + load.scored_tokens) / machine.flop_per_s
    cache = _cache_bytes(folder.config, rows, int(width))
    return Estimate(parameters, weights, cache, read_s + step_s * load.new_tokens / rows)


def probe() -> Machine:
    """Measure this machine for about a tenth of a second."""
    weights = np.ones((_PROBE_WIDTH, _PROBE_WIDTH), dtype=np.float32)
    rows = np.ones((_PROBE_ROWS, _PROBE_WIDTH), dtype=np.float32)
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    flop = 2.0 * _PROBE_ROWS * _PROBE_WIDTH**2
    return Machine(
        flop_per_s=flop * _rate(lambda: rows @ weights),
        bytes_per_s=_COPY_BYTES * _rate(lambda: np.copyto(target, source)),
    )


def _rate(work: Callable[[], object]) -> float:
    """How often a second it can be done."""
    work()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _PROBE_S:
        work()
        count += 1
    return count / elapsed


def _cache_bytes(config: Mapping[str, object], rows: int, width: int) -> int | None:
    heads = _number(config, "num_attention_heads", "n_head")
    hidden = _number(config, "hidden_size", "n_embd")
    layers = _number(config, "num_hidden_layers", "n_layer")
    context = _number(config, "max_position_embeddings", "n_positions")
    if not (heads and hidden and layers and context):
        return None
    shared = _number(config, "num_key_value_heads") or heads
    size = _number(config, "head_dim") or hidden // heads
    return 2 * rows * layers * context * shared * size * width


def _number(config: Mapping[str, object], *names: str) -> int | None:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int)), None)
