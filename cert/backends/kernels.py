"""Signals of a block of raw logits, on whatever device they are.

The fast form of `cert.signals.rows.row_signals`, which is the definition; a contract test holds
the two together. Logits come before temperature, top-k, top-p and penalties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP_K = 10
COLUMNS = (
    "logprob",
    "entropy",
    "top_k_entropy",
    "logit_margin",
    "probability_margin",
    "rank",
    "finite",
)
_UNDERFLOW = -200.0
"""exp(-200) is 0 in float32, so clamping there changes no sum and keeps 0 * -inf from being NaN."""


def _entropy(shifted: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """ln(total) - sum(exp(shifted) * shifted) / total, in place; shifted <= 0 with maximum 0."""
    weighted = torch.exp(shifted)
    weighted.mul_(shifted.clamp_(min=_UNDERFLOW))
    return torch.log(total) - weighted.sum(dim=-1) / total


def signal_block(logits: torch.Tensor, chosen: torch.Tensor) -> NDArray[Any]:
    """`signal_tensor` as an array on the host."""
    return signal_tensor(logits, chosen).cpu().numpy()


def signal_tensor(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Measure one token a row.

    With lse = ln sum exp z: logprob = z[y] - lse, entropy = lse - sum(p z), both over the whole
    vocabulary; computed in float32, or in float64 where the logits are float64.

    Args:
        logits: Raw logits, shape (rows, V); not changed.
        chosen: The scored token of each row, int64, shape (rows,).

    Returns:
        Shape (len(COLUMNS), rows), float32 or float64. Where `finite` is 0 the row held NaN or
        +inf, or nothing finite, and its other values mean nothing.
    """
    scratch = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    largest = torch.topk(scratch, min(TOP_K, scratch.shape[-1]), dim=-1).values
    peak = largest[:, :1]
    own = scratch.gather(1, chosen[:, None])
    rank = (scratch > own).sum(dim=-1)
    scratch.sub_(peak)
    total = torch.exp(scratch).sum(dim=-1)
    entropy = _entropy(scratch, total)
    top = largest - peak
    top_total = torch.exp(top).sum(dim=-1)
    second = top[:, 1] if top.shape[-1] > 1 else torch.full_like(total, -torch.inf)
    return torch.stack(
        [
            (own - peak)[:, 0] - torch.log(total),
            entropy.clamp_(min=0.0),
            _entropy(top.clone(), top_total).clamp_(min=0.0),
            -second,
            (1.0 - torch.exp(second)) / total,
            rank.to(total.dtype),
            torch.isfinite(peak[:, 0]).to(total.dtype),
        ]
    )
