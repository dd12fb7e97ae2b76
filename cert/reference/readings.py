"""Readings of the reference model, pinned in float64: what every machine must see again.

A text and what the reference model says of it, computed once in float64 with transformers' own
forward pass (tools/pin_readings.py). A machine whose own readings of it deviate by more than the
tolerance has broken numerics, and must not produce evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cert.signals.trace import SignalTrace


class Readings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pinned readings; `response` is scored after `prompt`, both tokenized on their own.

    Attributes:
        prompt: The text before the measured one.
        response: The measured text.
        prompt_token_ids: Tokens of the prompt as fed, special ones included.
        token_ids: Tokens of the response.
        logprobs: ln p of each token of the response in nats, float64.
        entropies: Full-vocabulary entropy at each of them in nats, float64.
        tolerances: Largest deviation in nats that is still fine, by quantization where the model
            is quantized, by dtype otherwise.
        model_digest: Of the weights that were read: `sha256:` over model.safetensors.
    """

    prompt: str
    response: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    tolerances: dict[str, float]
    model_digest: str


@dataclass(frozen=True, slots=True)
class ReadingsCheck:
    """How far a machine's readings lie from the pinned ones.

    Attributes:
        max_logprob_deviation: Largest absolute difference of logprobs, in nats; inf where they
            cannot be compared.
        max_entropy_deviation: The same of the entropies.
        tolerance: What either may be, in nats; None where none is pinned for this dtype.
        ok: Whether both are within the tolerance.
        reason: Why not; empty where it is.
    """

    max_logprob_deviation: float
    max_entropy_deviation: float
    tolerance: float | None
    ok: bool
    reason: str = ""


def parse_readings(data: bytes) -> Readings:
    """Decode pinned readings.

    Raises:
        ConfigurationError: They are not what this version reads, or their lengths disagree.
    """
    try:
        readings = msgspec.json.decode(data, type=Readings)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"the pinned readings cannot be read: {error}") from error
    counts = {len(readings.token_ids), len(readings.logprobs), len(readings.entropies)}
    if len(counts) != 1 or counts == {0}:
        raise ConfigurationError(f"the pinned readings have {sorted(counts)} values: not one each")
    return readings


def load_readings(path: Path | None = None) -> Readings:
    """Read the pinned readings, those of the embedded model unless a path is given.

    Raises:
        ConfigurationError: There are none, or they cannot be read.
    """
    source = path or files("cert.reference") / "readings.json"
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"no pinned readings at {source}: {error}") from error
    return parse_readings(data)


def compare_readings(trace: SignalTrace, readings: Readings, dtype: str) -> ReadingsCheck:
    """Hold a trace of `readings.response` against the pinned readings.

    The deviation of two equal infinities is 0; of anything else that is not finite it is inf, so
    that NaN never passes.

    Args:
        trace: What this machine measured.
        readings: What it should have measured.
        dtype: Key into `readings.tolerances`, for example `float32`.

    Returns:
        Deviations in nats, each in [0, inf]; (0.0, 0.0, ..., ok=True) for the readings themselves.
    """
    tolerance = readings.tolerances.get(dtype)
    if trace.token_ids != readings.token_ids:
        reason = "the text was tokenized into other tokens than the pinned ones"
        return ReadingsCheck(math.inf, math.inf, tolerance, ok=False, reason=reason)
    logprob = _largest_deviation(trace.logprobs, readings.logprobs)
    entropy = _largest_deviation(trace.entropies, readings.entropies)
    if tolerance is None:
        reason = f"no tolerance is pinned for {dtype}"
        return ReadingsCheck(logprob, entropy, None, ok=False, reason=reason)
    worst = max(logprob, entropy)
    if worst <= tolerance:
        return ReadingsCheck(logprob, entropy, tolerance, ok=True)
    reason = f"readings deviate by {worst:.3g} nats; at most {tolerance:.3g} is fine in {dtype}"
    return ReadingsCheck(logprob, entropy, tolerance, ok=False, reason=reason)


def _largest_deviation(seen: Sequence[float], pinned: Sequence[float]) -> float:
    """Compare value by value; sequences of the same length, at least one value."""
    return max(_deviation(one, other) for one, other in zip(seen, pinned, strict=True))


def _deviation(seen: float, pinned: float) -> float:
    if seen == pinned:
        return 0.0
    difference = abs(seen - pinned)
    return math.inf if math.isnan(difference) else difference
