"""Texts of different lengths as one block, padded on the right; padding is never measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def pad(texts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Token ids padded with 0; int64, shape (texts, longest)."""
    ids = torch.zeros((len(texts), max(map(len, texts))), dtype=torch.int64)
    for place, text in enumerate(texts):
        ids[place, : len(text)] = torch.tensor(text)
    return ids.to(device)


def unpad(states: torch.Tensor, lengths: Sequence[int], starts: Sequence[int]) -> torch.Tensor:
    """Keep each text from its start on, without padding: (texts, longest, size) to (kept, size)."""
    places = torch.arange(states.shape[1])[None, :]
    kept = (places >= torch.tensor(starts)[:, None]) & (places < torch.tensor(lengths)[:, None])
    return states[kept.to(states.device)]
