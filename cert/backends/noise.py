"""The measured noise floor: how far readings of the same text differ by rounding alone.

Batching changes the last bits of a product, and 16-bit numbers and quantized weights round more of
them. benchmarks/noise.py measures by how much, and writes the table that is read here. Whoever
holds two readings against each other takes the floor times `SAFETY_FACTOR`: another processor
rounds in another order, and a larger model has more to round. A difference beyond that is none of
rounding; one below it says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import msgspec

from cert.core.errors import ConfigurationError

SAFETY_FACTOR: Final = 4.0
"""What a floor is multiplied by before it serves as a tolerance."""

DYNAMIC_INT8: Final = "dynamic-int8"
"""`ModelIdentity.quantization` of a model whose weights are int8."""


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one signal differed, absolutely.

    Attributes:
        largest: The largest difference of all tokens.
        p999: What 99.9 % of them did not exceed.
    """

    largest: float
    p999: float


class NoiseFloor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured of one arithmetic with so many rows side by side.

    Attributes:
        arithmetic: `float32`, `bfloat16`, `float16`, or `int8` (weights quantized to 8 bits).
        device: `cpu` or `cuda`.
        processor: Whose it is: of a CPU the instructions that torch uses, or a GPU's name.
        rows: Texts side by side.
        against: `batching`: the same weights, in a batch or alone, written or scored. `exact`: the
            checkpoint's weights in float64, so that the rounding of weights is part of it.
        tokens: Tokens that were compared.
        logprob: Of the logprob, in nats.
        entropy: Of the entropy, in nats.
        logit_margin: Of the distance of the two largest logits.
    """

    arithmetic: str
    device: str
    processor: str
    rows: int
    against: str
    tokens: int
    logprob: Spread
    entropy: Spread
    logit_margin: Spread

    def tolerance_nats(self) -> float:
        """What two readings of a logprob or an entropy may differ by: the floor, with safety."""
        return SAFETY_FACTOR * max(self.logprob.largest, self.entropy.largest)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    measured: dict[str, object]
    floors: tuple[NoiseFloor, ...]


@dataclass(frozen=True, slots=True)
class _Key:
    arithmetic: str
    device: str
    against: str


def noise_floor(
    dtype: str,
    device: str,
    quantization: str | None = None,
    rows: int = 1,
    *,
    against: Literal["batching", "exact"] = "batching",
) -> NoiseFloor | None:
    """Look up how far readings differ by rounding.

    Args:
        dtype: Of the computation, as `ModelIdentity.dtype`.
        device: As `ModelIdentity.device`; `cuda:1` is a `cuda`.
        quantization: As `ModelIdentity.quantization`.
        rows: Texts side by side; at least 1.
        against: What the readings are held against; see `NoiseFloor`.

    Returns:
        The floor of the smallest measured number of rows that is not smaller, of the processor
        where it is highest: the two readings may come from different ones. None where none was
        measured: then nothing is known, and nothing may be concluded from a difference.

    Raises:
        ValueError: Fewer than one row.

    >>> floor = noise_floor("float32", "cpu", rows=3)
    >>> floor.rows, 0.0 < floor.logprob.largest < 1e-3
    (4, True)
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; expected at least 1")
    if quantization is None:
        arithmetic = dtype
    elif quantization == DYNAMIC_INT8:
        arithmetic = "int8"
    else:
        return None
    by_processor: dict[str, NoiseFloor] = {}
    for one in _floors().get(_Key(arithmetic, device.partition(":")[0], against), ()):
        if one.rows >= rows:
            by_processor.setdefault(one.processor, one)
    return max(by_processor.values(), key=NoiseFloor.tolerance_nats, default=None)


def parse_floors(data: bytes) -> tuple[NoiseFloor, ...]:
    """Read a table as benchmarks/noise.py writes it.

    Raises:
        ConfigurationError: It is another kind of file.
    """
    try:
        return msgspec.json.decode(data, type=_Table).floors
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"the table of noise floors cannot be read: {error}") from error


@cache
def _floors() -> dict[_Key, tuple[NoiseFloor, ...]]:
    """All floors by what they are of, in the order of their rows."""
    data = (files("cert.backends") / "noise_floor.json").read_bytes()
    ordered = sorted(parse_floors(data), key=lambda one: one.rows)
    keys = {_Key(one.arithmetic, one.device, one.against) for one in ordered}
    return {
        key: tuple(o for o in ordered if _Key(o.arithmetic, o.device, o.against) == key)
        for key in keys
    }
