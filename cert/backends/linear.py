"""Linear layers for CPUs, with weights laid out once for the product that is fastest.

| weights | product |
|---|---|
| that float16 holds exactly, times a power of two | `HalfLinear`: kept as float16 |
| any other, float32 | `PackedLinear`: in oneDNN's layout |
| in bfloat16, on processors that multiply it | `PackedLinear` in bfloat16 |
| where torch has neither library | `PlainLinear` |

All take float32 and return it. The third alone rounds, its input and its output, to bfloat16; the
others give what `torch.nn.functional.linear` gives but for the order of summation. What most files
hold, float16 and bfloat16, float16 holds.

Sources: FBGEMM's `cblas_gemm_compute` over float16 weights; oneDNN's inner product with a weight in
a layout of its choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

_PACKING_ROWS = 16
"""What oneDNN is told to expect; a layout for 16 rows is the best for 1 and for 64 as well."""

_LARGEST_EXPONENT = 15
"""Weights are scaled to below 2^15, half of float16's range."""

_LARGEST_SHIFT = 60
"""Scaling by more would leave float32's range for inputs of any usual size."""

_PACKED_OUTPUTS, _PACKED_INPUTS = 16, 512
"""FBGEMM's blocks; it keeps room for whole ones."""

_CHECKED_ROWS = 256


class Linear(Protocol):
    """x @ weight.T + bias: (..., inputs) to (..., outputs), in float32 on a CPU."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        ...


@dataclass(frozen=True, slots=True)
class PlainLinear:
    """A weight of shape (outputs, inputs) as it is."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @property
    def weight_bytes(self) -> int:
        """Memory of the weight."""
        return self.weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return functional.linear(x, self.weight, self.bias)


class PackedLinear:
    """A weight in oneDNN's layout; a row's result does not depend on its neighbours."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Pack a weight.

        Args:
            weight: Shape (outputs, inputs); float32, or bfloat16 where `multiplies_bfloat16`:
                the type of the products, which are summed in float32.
            bias: Shape (outputs,), of the same type, or None.
        """
        self._dtype = weight.dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001 - torch's own packing for inference
            weight.contiguous(), _PACKING_ROWS
        )
        self._bias = bias
        self.weight_bytes = weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return self._product(x, "none", "")

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, and take the GELU of what comes out before it is rounded."""
        return self._product(x, "gelu", "tanh")

    def _product(self, x: torch.Tensor, activation: str, form: str) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            x.to(self._dtype), self._packed, self._bias, activation, [], form
        )
        return product.float()


class HalfLinear:
    """A weight kept as float16, multiplied in float32.

    y = (x / s) @ (s * weight).T + bias, where s is a power of two: so scaling rounds nothing.
    """

    def __init__(self, weight: torch.Tensor, scale: float, bias: torch.Tensor | None) -> None:
        """Pack a weight.

        Args:
            weight: s * weight, float32, shape (outputs, inputs); float16 holds it exactly.
            scale: s.
            bias: Float32, shape (outputs,), or None.
        """
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)
        self._inverse = 1.0 / scale
        outputs, inputs = weight.shape
        self.weight_bytes = 2 * _up(outputs, _PACKED_OUTPUTS) * _up(inputs, _PACKED_INPUTS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        if self._inverse != 1.0:
            x = x * self._inverse
        product: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return product


def build_linear(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Linear:
    """Lay a weight out for this processor.

    Args:
        weight: Shape (outputs, inputs), on the CPU, of any floating-point type.
        bias: Shape (outputs,), or None.
        dtype: What both are rounded to.
    """
    rounded = weight.to(dtype)
    if bias is not None:
        bias = bias.to(dtype)
    if dtype is torch.bfloat16 and multiplies_bfloat16():
        return PackedLinear(rounded, bias)
    if bias is not None:
        bias = bias.float()
    exact = rounded.float()
    scale = _half_scale(rounded) if has_fbgemm() else None
    if scale is not None:
        is_copy = exact is not rounded
        scaled = exact.mul_(scale) if is_copy else exact * scale
        return HalfLinear(scaled, scale, bias)
    if _has_onednn():
        return PackedLinear(exact, bias)
    return PlainLinear(exact, bias)


def gelu_of(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """GELU, in its tanh form, of a product; without another pass over memory where that is had."""
    if isinstance(layer, PackedLinear):
        return layer.gelu(x)
    return functional.gelu(layer(x), approximate="tanh")


def layer_bytes(layer: Linear) -> int:
    """Memory of a layer's weight; of a module without `weight_bytes`, of its parameters."""
    found: Any = layer
    if hasattr(found, "weight_bytes"):
        return int(found.weight_bytes)
    return sum(parameter.nbytes for parameter in found.parameters())


def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16 (AVX-512 BF16 or AMX) and torch uses them."""
    found: Any = torch.cpu
    has = any(
        getattr(found, name, bool)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return has and _has_onednn()


def _half_scale(weight: torch.Tensor) -> float | None:
    """The power of two by which float16 holds every weight exactly; None without one."""
    least, most = (float(end) for end in torch.aminmax(weight))
    largest = max(-least, most)
    if not largest < math.inf:  # FBGEMM would make a number of it
        return None
    for scale in (1.0, _scale_for(largest)):
        # Part by part: weights that don't fit are found out by the first.
        if all(_fits(part.float() * scale) for part in torch.split(weight, _CHECKED_ROWS)):
            return scale
    return None


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _fits(weight: torch.Tensor) -> bool:
    return torch.equal(weight.half().float(), weight)


def _scale_for(largest: float) -> float:
    """The power of two that brings the largest weight near the end of float16's range."""
    exponent = _LARGEST_EXPONENT - math.frexp(largest)[1]
    return 2.0 ** max(-_LARGEST_SHIFT, min(exponent, _LARGEST_SHIFT))


def has_fbgemm() -> bool:
    """Whether this torch has the library for weights of 16 and 8 bits."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
