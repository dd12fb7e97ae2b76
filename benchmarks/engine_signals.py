"""Logits to what is measured of one token, as users of the peers would write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK_ELEMENTS = 8 * 1024 * 1024


def measure(logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob and entropy over the whole vocabulary, in nats.

    Args:
        logits: Raw, shape (rows, V).
        chosen: The token of each row, int64, shape (rows,).

    Returns:
        Two of shape (rows,), float32.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    own = logprobs.gather(1, chosen[:, None])[:, 0]
    return own, -(logprobs.exp() * logprobs).sum(dim=-1)


def measure_in_chunks(
    logits: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure the same of many rows with less memory."""
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    parts = [
        measure(some, own) for some, own in zip(logits.split(rows), chosen.split(rows), strict=True)
    ]
    return torch.cat([own for own, _ in parts]), torch.cat([entropy for _, entropy in parts])


def padded(
    texts: Sequence[Sequence[int]], *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both of shape (texts, longest), padded by 0."""
    width = max(map(len, texts))
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        place = slice(width - len(text), width) if left else slice(len(text))
        ids[row, place] = torch.tensor(text)
        mask[row, place] = 1
    return ids, mask


def batches(texts: Sequence[Sequence[int]], rows: int) -> list[list[int]]:
    """Indexes of texts in groups of `rows`, near to each other in length: the least padding."""
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    return [order[start : start + rows] for start in range(0, len(order), rows)]
