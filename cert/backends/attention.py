"""Attention of our own decoder, in the three forms that a forward pass takes.

| | queries | keys and values |
|---|---|---|
| `PackedTexts` | whole texts one behind the other, (1, tokens, ...) | their own |
| `PaddedTexts` | whole texts padded on the right, (texts, length, ...) | their own |
| `Step` | one token a text, (texts, 1, ...) | those of the cache |

Each takes queries of shape (rows, tokens, heads, head size), keys and values of shape
(rows, tokens, key-value heads, head size), and returns (rows, tokens, heads * head size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.backends.kv_cache import SlotCache


_ROWS_AT_LEAST = 4
"""Texts of a step that are looked at together, whatever their lengths."""

_SPARE = 1 / 8
"""Of the places that more of them look at, so many may be none of theirs."""


class Attention(Protocol):
    """One form."""

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend in a layer of this number."""
        ...


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Texts of any lengths without padding.

    Attributes:
        lengths: Tokens of each text.
        cache: Where keys and values go; None where nothing is kept.
    """

    lengths: Sequence[int]
    cache: SlotCache | None

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend text by text."""
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        mixed = torch.empty_like(queries)
        begin = 0
        for place, length in enumerate(self.lengths):
            part = slice(begin, begin + length)
            seen = keys[:, :, part], values[:, :, part]
            if self.cache is not None:
                self.cache.store_texts(layer, place, *seen)
            mixed[:, part] = _causal(queries[:, part], *seen)
            begin += length
        return mixed.flatten(2)


@dataclass(frozen=True, slots=True)
class PaddedTexts:
    """Texts of one length. Padding comes last and attention looks back, so it needs no mask.

    Attributes:
        cache: Where keys and values go; None where nothing is kept.
    """

    cache: SlotCache | None

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend in all texts at once."""
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        if self.cache is not None:
            self.cache.store_texts(layer, 0, keys, values)
        return _causal(queries, keys, values).flatten(2)


@dataclass(frozen=True, slots=True)
class Step:
    """One new token a text, which sees all earlier ones of its text and itself.

    Attributes:
        cache: Told by `begin_step` where the tokens stand.
        mask: Added to the scores, shape (texts, 1, 1, width); None where all places are seen.
        parts: Texts that are looked at together and the places that any of them sees, by
            `runs_of`; None to let all of them look at the whole width.
    """

    cache: SlotCache
    mask: torch.Tensor | None
    parts: Sequence[tuple[slice, int]] | None

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend. Query heads that share keys stand side by side, as if they were tokens."""
        rows, _, heads, size = queries.shape
        shared = keys.shape[2]
        keys, values = self.cache.store_step(layer, keys[:, 0], values[:, 0])
        queries = queries.view(rows, shared, heads // shared, size)
        if self.parts is None:
            mixed = functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=self.mask
            )
            return mixed.reshape(rows, 1, heads * size)
        mixed = torch.empty_like(queries)
        for part, width in self.parts:
            mixed[part] = functional.scaled_dot_product_attention(
                queries[part],
                keys[part, :, :width],
                values[part, :, :width],
                attn_mask=None if self.mask is None else self.mask[part, :, :, :width],
            )
        return mixed.view(rows, 1, heads * size)


def runs_of(lengths: Sequence[int]) -> list[tuple[slice, int]]:
    """Cut the texts of a step into runs that are worth looking at together, and their widths.

    Each run costs a call, and the more texts it has the better threads share it; but all of them
    look at as many places as the longest.
    """
    runs: list[tuple[slice, int]] = []
    seen = 0
    for begin in range(0, len(lengths), _ROWS_AT_LEAST):
        here = slice(begin, min(begin + _ROWS_AT_LEAST, len(lengths)))
        width = max(lengths[here])
        places = sum(lengths[here])
        if runs:
            first, wide = runs[-1][0].start, max(width, runs[-1][1])
            if seen + places >= (1 - _SPARE) * wide * (here.stop - first):
                runs[-1] = slice(first, here.stop), wide
                seen += places
                continue
        runs.append((here, width))
        seen = places
    return runs


def _causal(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    mixed: torch.Tensor = functional.scaled_dot_product_attention(
        queries.transpose(1, 2),
        keys,
        values,
        is_causal=True,
        enable_gqa=queries.shape[2] != keys.shape[1],
    )
    return mixed.transpose(1, 2)
