"""Signals of a block of raw logits, on whatever device they are.

The fast form of `cert.signals.rows.row_signals`, which is the definition; a contract test holds
the two together. Logits come before temperature, top-k, top-p and penalties.

In two parts: what needs the logits is measured step by step (`measure`, `measure_tensor`), and the
signals are computed from that for a whole text at once (`signals_of`). A step so runs few
operations; at a step's end each finds its code and data out of the processor's cache.

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
)
"""Of `signals_of`."""

_OWN, _RANK, _TOTAL, _WEIGHTED, LARGEST = range(5)
"""Columns of what is measured: the token's own logit, how many are larger, the two sums of `_sums`,
and from there on the k largest logits, falling."""

_LOG2_E = math.log2(math.e)

_PIECE_ELEMENTS = {"cpu": 2**18, "cuda": 2**23}
"""Logits whose exponentials exist at any time: 2 MiB on a CPU, 64 MiB on a GPU."""

_PIECE_COLUMNS = 8192
"""Of a row at least, where there are many rows."""

_IMPOSSIBLE = -1100.0
"""exp(-1100) is 0 in float64, so raising -inf to it changes nothing but 0 * -inf, which is NaN."""


def measure(
    logits: torch.Tensor, chosen: torch.Tensor, top: TopLogits | None = None
) -> NDArray[Any]:
    """Measure one token a row: what its signals are computed from.

    Args:
        logits: Raw logits, shape (rows, V); not changed.
        chosen: The scored token of each row, int64, shape (rows,).
        top: `top_logits(logits)`, where the caller has it already. If its `first` is `chosen`, the
            same tensor, nothing is looked up.

    Returns:
        For `signals_of` and `is_finite`; shape (rows, LARGEST + k), float32, or float64 where the
        logits are float64.
    """
    if logits.device.type != "cpu":
        measured: NDArray[Any] = measure_tensor(logits, chosen, top).cpu().numpy()
        return measured
    if top is None:
        top = top_logits(logits)
    values = top.values.numpy()
    measured = np.empty((len(values), LARGEST + values.shape[1]), values.dtype)
    if chosen is top.first:
        measured[:, _OWN], measured[:, _RANK] = values[:, 0], 0
    else:
        own = logits.gather(1, chosen[:, None]).to(top.values.dtype).numpy()
        measured[:, _OWN] = own[:, 0]
        measured[:, _RANK] = np.count_nonzero(values > own, axis=1)
        # Ranks below the k-th place; up to there every larger logit is among the k.
        for row in np.flatnonzero(own[:, 0] < values[:, -1]):
            measured[row, _RANK] = _count_larger(logits[row], own[row])
    total, weighted = _sums(logits, top.values[:, :1])
    measured[:, _TOTAL], measured[:, _WEIGHTED] = total.numpy(), weighted.numpy()
    measured[:, LARGEST:] = values
    return measured


def measure_tensor(
    logits: torch.Tensor, chosen: torch.Tensor, top: TopLogits | None = None
) -> torch.Tensor:
    """Measure as `measure` does, without leaving the device or waiting for it.

    Which operations run depends on the shapes alone, so a CUDA graph can hold them.
    """
    if top is None:
        top = top_logits(logits)
    own = logits.gather(1, chosen[:, None])
    rank = (logits > own).sum(dim=-1, keepdim=True)
    total, weighted = _sums(logits, top.values[:, :1])
    kind = top.values.dtype
    parts = own.to(kind), rank.to(kind), total[:, None], weighted[:, None], top.values
    return torch.cat(parts, dim=1)


def is_finite(measured: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each row was a distribution: no NaN, no +inf, not all -inf; shape (rows,)."""
    finite: NDArray[np.bool_] = np.isfinite(measured[:, LARGEST])
    return finite


def signals_of(measured: NDArray[Any]) -> NDArray[Any]:
    """Compute the signals of measured tokens.

    With lse = ln sum exp z: logprob = z[y] - lse, entropy = lse - sum(p z), both over the whole
    vocabulary.

    Args:
        measured: From `measure`, shape (tokens, LARGEST + k).

    Returns:
        Shape (len(COLUMNS), tokens), float64. Of a row that is not finite they mean nothing.
    """
    measured = measured.astype(np.float64)
    own, rank, total, weighted = measured[:, :LARGEST].T
    peak = measured[:, LARGEST]
    with np.errstate(all="ignore"):
        top = measured[:, LARGEST:] - peak[:, None]
        weights = np.exp(top)
        top_total = weights.sum(axis=1)
        weighted_top = (weights * top.clip(_IMPOSSIBLE)).sum(axis=1)
        second = top[:, 1] if top.shape[1] > 1 else np.full_like(peak, -np.inf)
        log_total = np.log(total)
        signals: NDArray[Any] = np.stack(
            [
                own - peak - log_total,
                (log_total - math.log(2.0) * weighted / total).clip(0.0),
                (np.log(top_total) - weighted_top / top_total).clip(0.0),
                -second,
                (1.0 - np.exp(second)) / total,
                rank,
            ]
        )
    return signals


def _sums(logits: torch.Tensor, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of 2^t and of 2^t t over each row, t = (z - peak) / ln 2; each of shape (rows,).

    Args:
        logits: Shape (rows, V).
        peak: The largest of each row in the type of the computation, shape (rows, 1).
    """
    rows, size = logits.shape
    elements = _PIECE_ELEMENTS[logits.device.type]
    if rows * size <= elements:
        return _piece_sums(logits, peak)
    width = min(size, max(_PIECE_COLUMNS, elements // rows))
    group = max(1, elements // width)
    sums = [
        torch.stack(
            [torch.stack(_piece_sums(piece, of_part)) for piece in torch.split(part, width, dim=1)]
        ).sum(dim=0)
        for part, of_part in zip(torch.split(logits, group), torch.split(peak, group), strict=True)
    ]
    total, weighted = torch.cat(sums, dim=1)
    return total, weighted


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
