"""The largest logits of each row, exactly, and where the largest one stands.

On a CPU the maxima of chunks come first: a chunk whose maximum is below the k-th largest of all
maxima holds none of the k largest entries. What is left is a few chunks a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP_K = 10

_FEW_ELEMENTS = 16_384
"""Below, one partition of everything is faster than looking for chunks."""

_CHUNKS_AT_MOST = 4 * TOP_K
"""A row with more chunks to look at (many equal logits) is partitioned whole."""


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
    k = min(TOP_K, size)
    if logits.device.type != "cpu":
        values = torch.topk(logits, k, dim=-1).values
        return TopLogits(values.to(wide(logits.dtype)), torch.argmax(logits, dim=-1))
    width = _chunk_width(size)
    if rows * size <= _FEW_ELEMENTS or size // width < TOP_K:
        found = _by_partition(logits, k)
    else:
        found = _by_chunks(logits, width)
    return TopLogits(torch.from_numpy(found[0]), torch.from_numpy(found[1]))


def wide(dtype: torch.dtype) -> torch.dtype:
    """What logits of some type are computed in: float32 or float64."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _chunk_width(size: int) -> int:
    return 128 if size >= 2 * _FEW_ELEMENTS else 32


def _by_partition(logits: torch.Tensor, k: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    rows = logits.to(wide(logits.dtype)).numpy()
    start = rows.shape[1] - k
    values = np.partition(rows, start, axis=1)[:, start:]
    values.sort(axis=1)
    return values[:, ::-1].copy(), rows.argmax(axis=1)


def _by_chunks(logits: torch.Tensor, width: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    rows, size = logits.shape
    peaks = _chunk_peaks(logits, width)
    least = np.partition(peaks, peaks.shape[1] - TOP_K, axis=1)[:, -TOP_K]
    is_hit = peaks >= least[:, None]
    # Where fewer chunks than k hold anything finite, those that do are all there is to look at.
    is_hit &= peaks > -np.inf
    hits = np.count_nonzero(is_hit, axis=1)
    is_hard = (hits > _CHUNKS_AT_MOST) | ~np.isfinite(peaks.max(axis=1))
    is_hit[is_hard] = False

    row, chunk = np.divmod(np.flatnonzero(is_hit), peaks.shape[1])
    begin = chunk * width
    # The last chunk may be short: it is read from further left, and what is not its own left out.
    start = np.minimum(begin, size - width)
    windows = (
        logits.unfold(1, width, 1)[torch.from_numpy(row), torch.from_numpy(start)]
        .to(wide(logits.dtype))
        .numpy()
    )
    is_kept = windows >= least[row, None]
    for place in np.flatnonzero(start < begin):
        is_kept[place, : begin[place] - start[place]] = False
    kept = np.flatnonzero(is_kept)
    window, offset = np.divmod(kept, width)

    # By row, then by id: so the first of equal ones is the one with the smallest id.
    owner = row[window]
    count = np.bincount(owner, minlength=rows)
    before = np.cumsum(count) - count
    table = np.full((rows, max(TOP_K, count.max(initial=0))), -np.inf, dtype=windows.dtype)
    table[owner, np.arange(len(owner)) - before[owner]] = windows.ravel()[kept]
    first = np.zeros(rows, dtype=np.int64)
    easy = np.flatnonzero(~is_hard)
    place = before[easy] + table[easy].argmax(axis=1)
    first[easy] = start[window[place]] + offset[place]
    table.sort(axis=1)
    values = table[:, : -TOP_K - 1 : -1].copy()
    for hard in np.flatnonzero(is_hard):
        here = slice(hard, hard + 1)
        values[here], first[here] = _by_partition(logits[here], TOP_K)
    return values, first


def _chunk_peaks(logits: torch.Tensor, width: int) -> NDArray[Any]:
    """The largest logit of each chunk of a row; shape (rows, chunks), the last chunk may be short.

    A chunk with NaN has NaN.
    """
    chunks = logits.shape[1] // width
    whole = chunks * width
    peaks = torch.unflatten(logits[:, :whole], 1, (chunks, width)).amax(dim=-1)
    if whole < logits.shape[1]:
        peaks = torch.cat([peaks, logits[:, whole:].amax(dim=-1, keepdim=True)], dim=1)
    found: NDArray[Any] = peaks.to(wide(logits.dtype)).numpy()
    return found
