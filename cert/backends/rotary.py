"""Rotary position embeddings: which a configuration asks for, and their angles.

    angle[p, i] = p * f[i],    f[i] = theta^(-2i / d)    for i in 0 .. d/2 - 1

where d is the head size. Scaled kinds change f, and yarn the length of the result:

| kind | f |
|---|---|
| `default` | as above |
| `linear` | f / factor |
| `dynamic` | as above: it departs only beyond `max_position_embeddings`, where no text here goes |
| `llama3` | f where the wavelength is short, f / factor where it is long, between them a blend |
| `yarn` | likewise, blended by the index i |

`longrope` is not here: its frequencies depend on the longest text of a batch.

Source: transformers 5.23, `modeling_rope_utils`; the order of operations is kept, so that the
frequencies are the same to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cert.backends.config_values import NotHandledError, flag, number, only, optional_number

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_THETA = 10_000.0
_COMMON = frozenset({"rope_type", "type", "rope_theta"})
_LLAMA3 = frozenset(
    {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
)
_YARN = frozenset(
    {
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    }
)
_OPTIONS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": _LLAMA3,
    "yarn": _YARN,
}


@dataclass(frozen=True, slots=True)
class Rotary:
    """Frequencies of a model.

    Attributes:
        frequencies: f, float32, shape (head size / 2,).
        length: What sine and cosine are multiplied by.
    """

    frequencies: torch.Tensor
    length: float = 1.0

    def to(self, device: torch.device) -> Rotary:
        """The same on another device."""
        return Rotary(self.frequencies.to(device), self.length)

    def rotation(
        self, positions: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and signed sine for `rotate`.

        Args:
            positions: Shape (rows, tokens).
            dtype: Of the result; the angles are computed in float32.

        Returns:
            Each of shape (rows, tokens, 1, head size).
        """
        angles = positions[..., None].float() * self.frequencies
        cosine, sine = angles.cos() * self.length, angles.sin() * self.length
        both = torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)
        return both[0].to(dtype)[:, :, None], both[1].to(dtype)[:, :, None]


def rotate(states: torch.Tensor, cosine: torch.Tensor, signed_sine: torch.Tensor) -> torch.Tensor:
    """Turn every pair (x[i], x[i + d/2]) by its angle; shape (rows, tokens, heads, head size)."""
    swapped = states.roll(states.shape[-1] // 2, dims=-1)
    return torch.addcmul(states * cosine, swapped, signed_sine)


def read_rotary(config: Mapping[str, object], head_size: int, max_positions: int) -> Rotary:
    """Read the rotary embeddings of a config.json.

    Raises:
        NotHandledError: Of a kind, or with an option, that is not known here.
    """
    scaling, parameters = config.get("rope_scaling"), config.get("rope_parameters")
    if scaling and parameters:
        raise NotHandledError("rope_scaling beside rope_parameters")
    chosen = scaling or parameters or {}
    if not isinstance(chosen, dict) or head_size % 2:
        raise NotHandledError("rotary embeddings of another form")
    options: dict[str, object] = {"rope_theta": config.get("rope_theta", _DEFAULT_THETA), **chosen}
    kind = options.get("rope_type", options.get("type", "default"))
    if not isinstance(kind, str) or kind not in _OPTIONS:
        raise NotHandledError("rope_type")
    only(options, _COMMON | _OPTIONS[kind])
    theta = number(options, "rope_theta", above=1.0)
    if kind == "llama3":
        return Rotary(_llama3(_plain(theta, head_size), options, max_positions))
    if kind == "yarn":
        return _yarn(theta, head_size, options, max_positions)
    frequencies = _plain(theta, head_size)
    if kind != "default":
        factor = number(options, "factor", least=1.0)
        frequencies = frequencies / factor if kind == "linear" else frequencies
    return Rotary(frequencies)


def _plain(theta: float, head_size: int) -> torch.Tensor:
    places = torch.arange(0, head_size, 2, dtype=torch.float32)
    return 1.0 / (theta ** (places / head_size))


def _original(options: Mapping[str, object], max_positions: int) -> float:
    given = optional_number(options, "original_max_position_embeddings", above=0.0)
    return max_positions if given is None else given


def _llama3(
    frequencies: torch.Tensor, options: Mapping[str, object], max_positions: int
) -> torch.Tensor:
    factor = number(options, "factor", least=1.0)
    low = number(options, "low_freq_factor", above=0.0)
    high = number(options, "high_freq_factor", above=low)
    original = _original(options, max_positions)
    lengths = 2 * math.pi / frequencies
    stretched = torch.where(lengths > original / low, frequencies / factor, frequencies)
    blend = (original / lengths - low) / (high - low)
    blended = (1 - blend) * stretched / factor + blend * stretched
    is_between = ~(lengths < original / high) * ~(lengths > original / low)
    return torch.where(is_between, blended, stretched)


def _yarn(
    theta: float, head_size: int, options: Mapping[str, object], max_positions: int
) -> Rotary:
    factor = number(options, "factor", least=1.0)
    original = _original(options, max_positions)
    fast = optional_number(options, "beta_fast", least=0.0) or 32
    slow = optional_number(options, "beta_slow", least=0.0) or 1

    def place(turns: float) -> float:
        """Index of the dimension that turns so often within the original context."""
        return (head_size * math.log(original / (turns * 2 * math.pi))) / (2 * math.log(theta))

    low, high = place(fast), place(slow)
    if flag(options, "truncate", default=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    if low == high:
        high += 0.001
    ramp = (torch.arange(head_size // 2, dtype=torch.float32) - low) / (high - low)
    kept = 1 - torch.clamp(ramp, 0, 1)
    powers = theta ** (torch.arange(0, head_size, 2).float() / head_size)
    frequencies = 1.0 / (factor * powers) * (1 - kept) + 1.0 / powers * kept
    return Rotary(frequencies, _yarn_length(factor, options))


def _yarn_length(factor: float, options: Mapping[str, object]) -> float:
    given = optional_number(options, "attention_factor", least=0.0)
    if given is not None:
        return given
    scale = optional_number(options, "mscale")
    scale_all = optional_number(options, "mscale_all_dim")

    def length(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    return length(scale) / length(scale_all) if scale and scale_all else length(1)
