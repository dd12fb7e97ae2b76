"""Signals of a block of raw logits, on whatever device they are.

The fast form of `cert.signals.rows.row_signals`, which is the definition; a contract test holds
the two together. Logits come before temperature, top-k, top-p and penalties.

Exponentials are powers of two: torch's `exp2` takes half the time of its `exp` on a CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cert.backends.top_logits import top_logits, wide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cert.backends.top_logits import TopLogits

COLUMNS = (
    "logprob",
    "entropy",
    "top_k_entropy",
    "logit_margin",
    "probability_margin",
    "rank",
    "finite",
)

_LOG2_E = math.log2(math.e)

_PIECE_ELEMENTS = {"cpu": 2**18, "cuda": 2**23}
"""Logits whose exponentials exist at any time: 2 MiB on a CPU, 64 MiB on a GPU."""

_PIECE_COLUMNS = 8192
"""Of a row at least, where there are many rows."""

_IMPOSSIBLE = -1100.0
"""exp(-1100) is 0 in float64, so raising -inf to it changes nothing but 0 * -inf, which is NaN."""


def signal_block(
    logits: torch.Tensor, chosen: torch.Tensor, top: TopLogits | None = None
) -> NDArray[Any]:
    """Measure one token a row.

    With lse = ln sum exp z: logprob = z[y] - lse, entropy = lse - sum(p z), both over the whole
    vocabulary; computed in float32, or in float64 where the logits are float64.

    Args:
        logits: Raw logits, shape (rows, V); not changed.
        chosen: The scored token of each row, int64, shape (rows,).
        top: `top_logits(logits)`, where the caller has it already.

    Returns:
        Shape (len(COLUMNS), rows), float32 or float64. Where `finite` is 0 the row held NaN or
        +inf, or nothing finite, and its other values mean nothing.
    """
    if logits.device.type != "cpu":
        block: NDArray[Any] = signal_tensor(logits, chosen, top).cpu().numpy()
        return block
    if top is None:
        top = top_logits(logits)
    sums = _sums(logits, top.values[:, :1]).numpy()
    values = top.values.numpy()
    own = logits.gather(1, chosen[:, None]).to(top.values.dtype).numpy()
    rank = np.count_nonzero(values > own, axis=1)
    # Ranks below the k-th place; up to there every larger logit is among the k.
    for row in np.flatnonzero(own[:, 0] < values[:, -1]):
        rank[row] = _count_larger(logits[row], own[row])
    with np.errstate(all="ignore"):
        found: NDArray[Any] = _columns(np, values.astype(np.float64), own, rank, sums)
    return found.astype(values.dtype, copy=False)


def signal_tensor(
    logits: torch.Tensor, chosen: torch.Tensor, top: TopLogits | None = None
) -> torch.Tensor:
    """Measure as `signal_block` does, without leaving the device or waiting for it.

    Which operations run depends on the shapes alone, so a CUDA graph can hold them.
    """
    if top is None:
        top = top_logits(logits)
    sums = _sums(logits, top.values[:, :1])
    own = logits.gather(1, chosen[:, None])
    rank = (logits > own).sum(dim=-1)
    block: torch.Tensor = _columns(torch, top.values.double(), own, rank, sums)
    return block.to(top.values.dtype)


def _sums(logits: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """With t = (z - peak) / ln 2: the sums of 2^t and of 2^t t over each row; shape (2, rows).

    Args:
        logits: Shape (rows, V).
        peak: The largest of each row in the type of the computation, shape (rows, 1).
    """
    rows, size = logits.shape
    elements = _PIECE_ELEMENTS[logits.device.type]
    if rows * size <= elements:
        return torch.stack(_piece_sums(logits, peak))
    width = min(size, max(_PIECE_COLUMNS, elements // rows))
    group = max(1, elements // width)
    sums = [
        torch.stack(
            [torch.stack(_piece_sums(piece, of_part)) for piece in torch.split(part, width, dim=1)]
        ).sum(dim=0)
        for part, of_part in zip(torch.split(logits, group), torch.split(peak, group), strict=True)
    ]
    return torch.cat(sums, dim=1)


def _piece_sums(piece: torch.Tensor, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    exponents = torch.sub(piece, peak).mul_(_LOG2_E)
    powers = torch.exp2(exponents)
    # Of -inf the power is 0 and the product NaN, which nansum leaves out.
    return powers.sum(dim=-1), powers.mul_(exponents).nansum(dim=-1)


def _count_larger(row: torch.Tensor, own: NDArray[Any]) -> int:
    """How many logits of a row are larger; numpy compares several times faster than torch."""
    if row.dtype is wide(row.dtype):
        return int(np.count_nonzero(row.numpy() > own))
    return int(np.count_nonzero(torch.gt(row, float(own[0])).numpy()))


def _columns(library: Any, largest: Any, own: Any, rank: Any, sums: Any) -> Any:  # noqa: ANN401
    """The signals, from what was found in each row.

    Args:
        library: `numpy` or `torch`, whose arrays the others are; both have all that is used here.
        largest: The k largest logits, falling, float64, shape (rows, k).
        own: The chosen token's, shape (rows, 1).
        rank: Number of larger ones, shape (rows,).
        sums: See `_sums`.
    """
    total, weighted = sums
    peak = largest[:, :1]
    top = largest - peak
    weights = library.exp(top)
    top_total = weights.sum(-1)
    top_entropy = library.log(top_total) - (weights * top.clip(_IMPOSSIBLE)).sum(-1) / top_total
    second = top[:, 1] if top.shape[1] > 1 else top[:, 0] - math.inf
    log_total = library.log(total)
    entropy = log_total - math.log(2.0) * weighted / total
    return library.stack(
        [
            (own - peak)[:, 0] - log_total,
            entropy.clip(0.0),
            top_entropy.clip(0.0),
            -second,
            (1.0 - library.exp(second)) / total,
            rank,
            library.isfinite(peak[:, 0]),
        ]
    )
