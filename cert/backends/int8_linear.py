"""A linear layer with 8-bit weights for CPUs, quantized per output channel and per input row.

    s_x = max|x| / L        one for each row of the input, when it comes
    s_w = max|w| / 127      one for each output channel, once
    y   = s_x * s_w * (round(x / s_x) . round(w / s_w)) + bias

with L = 127, or 63 on processors without VNNI, where pairs of products are added in 16 bits, of
inputs that are shifted to be unsigned: 2 * (63 + 64) * 127 fits. The inner product is exact in
integers, so a row's result depends on that row alone, to the last bit.

torch's own dynamic quantization (`quantized.linear_dynamic`) takes one scale for the whole batch: a
text's signals would change with its neighbours. So it is given rows that are divided by their
largest entry already, and two more that hold the ends of the range: its scale is then always 1 / L.

Sources: FBGEMM's `fbgemmPacked` with dynamic quantization of inputs; oneDNN, "Nuances of int8
computations".
"""

from __future__ import annotations

import warnings

import torch

# torch 2.13 says at the first weight that quantized tensors will go; FBGEMM takes nothing else.
warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)

_WEIGHT_LEVELS = 127
_VNNI_LEVELS = 127
_PAIRED_LEVELS = 63
_ELEMENTS_AT_ONCE = 2**20
_SMALLEST = 1e-30
"""A row or channel of zeros gets this scale instead of zero."""


def activation_levels() -> int:
    """How many steps an input may take to each side on this processor without overflowing."""
    return _VNNI_LEVELS if torch.cpu._is_vnni_supported() else _PAIRED_LEVELS  # noqa: SLF001


class Int8Linear(torch.nn.Module):
    """Replaces a linear layer for inference; not trainable, not serializable.

    Attributes:
        in_features: K.
        out_features: N.
        weight_bytes: Memory of the packed weights, which are no parameter and no buffer.
    """

    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Quantize a weight.

        Args:
            weight: Shape (N, K), any floating-point type.
            bias: Shape (N,), or None.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        levels = torch.empty(weight.shape, dtype=torch.int8)
        scale = torch.empty(self.out_features)
        # A part at a time, so that no copy of the whole in float32 exists.
        count = max(1, _ELEMENTS_AT_ONCE // self.in_features)
        parts = torch.split(weight.detach(), count)
        for part, its, to in zip(
            parts, torch.split(scale, count), torch.split(levels, count), strict=True
        ):
            exact = part.float()
            torch.div(exact.abs().amax(dim=1), _WEIGHT_LEVELS, out=its).clamp_min_(_SMALLEST)
            to.copy_((exact / its[:, None]).round_())
        quantized = torch._make_per_channel_quantized_tensor(  # noqa: SLF001 - torch has no other
            levels, scale.double(), torch.zeros(self.out_features, dtype=torch.int64), 0
        )
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self._levels = activation_levels()
        self.weight_bytes = levels.nbytes
        kept = None if bias is None else bias.detach().float()
        self.register_buffer("bias", kept, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: shape (..., K) to (..., N), in the input's type. NaN stays NaN, row by row."""
        rows = x.reshape(-1, self.in_features).float()
        # Eight times as fast as the norm of infinity, and twice as fast as both ends at once.
        highest, lowest = rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True)
        largest = torch.maximum(highest, lowest.neg_())
        ranged = rows.new_empty(len(rows) + 2, self.in_features)
        torch.div(rows, largest.clamp_min(_SMALLEST), out=ranged[:-2]).nan_to_num_(0.0)
        ranged[-2] = 1.0
        ranged[-1] = -(self._levels + 1) / self._levels
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(
            ranged, self._packed, self._levels == _PAIRED_LEVELS
        )[:-2]
        if self.bias is None:
            product.mul_(largest)
        else:
            product = torch.addcmul(self.bias, product, largest)
        return product.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"in_features={self.in_features}, out_features={self.out_features}"
