"""The largest logits of each row, exactly, and where the largest one stands.

On a CPU the maxima of chunks come first: the k largest entries are in the k chunks whose maxima
are largest, whichever of equal ones are taken. What is left to look at is a few chunks a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

TOP_K = 10

_FEW_ELEMENTS = 32_768
"""Up to there torch's topk of everything is faster than looking for chunks."""

_MANY_COLUMNS = 32_768
"""From here on wide chunks are faster."""


class TopLogits(NamedTuple):
    """What is largest in each row of logits.

    Attributes:
        values: The k largest, falling, shape (rows, k); float32, or float64 of float64. The first
            is NaN where a row holds NaN.
        first: The id of the largest, int64, shape (rows,); of equal ones the smallest, of a row
            with NaN that of the first NaN.
    """

    values: torch.Tensor
    first: torch.Tensor


def top_logits(logits: torch.Tensor) -> TopLogits:
    """Find the k = min(TOP_K, V) largest of each row.

    Args:
        logits: Shape (rows, V), floating-point; not changed.
    """
    rows, size = logits.shape
    width = 128 if size >= _MANY_COLUMNS else 64
    if logits.device.type != "cpu" or rows * size <= _FEW_ELEMENTS or size < TOP_K * width:
        values, first = torch.topk(logits, min(TOP_K, size)).values, logits.argmax(dim=-1)
    else:
        values, first = _by_chunks(logits, width)
    return TopLogits(values.to(wide(logits.dtype)), first)


def wide(dtype: torch.dtype) -> torch.dtype:
    """What logits of some type are computed in: float32 or float64."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _by_chunks(logits: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = logits.shape[1] // width
    chunks = torch.unflatten(logits[:, : count * width], 1, (count, width))
    rest = logits[:, count * width :]
    peaks = chunks.amax(dim=-1)
    highest = torch.topk(peaks, TOP_K).indices
    candidates = torch.cat([_pick(chunks, highest).flatten(1), rest], dim=1)
    values = torch.topk(candidates, TOP_K).values

    # argmax takes the first of equal ones, and NaN for the largest.
    place = torch.cat([peaks, rest], dim=1).argmax(dim=-1)
    chunk = place.clamp(max=count - 1)
    inside = _pick(chunks, chunk[:, None])[:, 0].argmax(dim=-1)
    first = torch.where(place < count, chunk * width + inside, place + count * (width - 1))
    return values, first


def _pick(chunks: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Chunks of each row; shape (rows, chosen, width)."""
    return chunks.gather(1, which[:, :, None].expand(-1, -1, chunks.shape[2]))
