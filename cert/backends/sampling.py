"""Choosing the next token.

A draw is a pure function of (seed, prompt id, step): there is no stream that neighbours share, so
a prompt's result depends neither on what else is in its batch nor on the order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.backends.protocol import SamplingParams


def uniform(seed: int, prompt_id: str, step: int) -> float:
    """A number in [0, 1): the first 53 bits of SHA-256 over seed, step and prompt id.

    >>> uniform(0, "a", 0) == uniform(0, "a", 0) != uniform(0, "a", 1)
    True
    """
    digest = hashlib.sha256(f"{seed}\0{step}\0{prompt_id}".encode("utf-8", "surrogatepass"))
    return (int.from_bytes(digest.digest()[:8], "big") >> 11) * 2.0**-53


def draw(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, u: float
) -> torch.Tensor:
    """Draw one token by inverting the cumulative distribution at `u`.

    Tokens are ordered by falling probability, equal ones by id. Temperature first, then top-k,
    then top-p over what is left (renormalised); the token that crosses top_p is kept.

    Args:
        logits: Raw logits of one row, shape (V,).
        temperature: > 0.
        top_k: 0 keeps all.
        top_p: In (0, 1].
        u: In [0, 1).

    Returns:
        The token's id, shape ().
    """
    ordered, ids = torch.sort(logits.double(), descending=True, stable=True)
    if top_k:
        ordered = ordered[:top_k]
    mass = torch.cumsum(torch.softmax(ordered / temperature, dim=-1), dim=-1)
    kept = len(mass)
    if top_p < 1.0:
        kept = min(kept, int(torch.searchsorted(mass, top_p * mass[-1])) + 1)
    place = torch.searchsorted(mass[:kept], u * mass[kept - 1], right=True)
    return ids[place.clamp(max=kept - 1)]


def choose(
    logits: torch.Tensor,
    largest: torch.Tensor,
    params: Sequence[SamplingParams],
    ids: Sequence[str],
    steps: Sequence[int],
) -> torch.Tensor:
    """The next token of each row: greedy where temperature is 0, else drawn.

    Args:
        logits: Raw logits, shape (rows, V).
        largest: The id of each row's largest logit, of equal ones the smallest; shape (rows,).
        params: One a row; a row that samples has its seed.
        ids: Prompt ids, one a row.
        steps: Tokens generated before, one a row.

    Returns:
        Token ids, int64, shape (rows,); `largest` itself where nobody samples.
    """
    chosen = largest
    for row, one in enumerate(params):
        if one.temperature > 0.0:
            if chosen is largest:
                chosen = largest.clone()
            u = uniform(one.seed or 0, ids[row], steps[row])
            chosen[row] = draw(logits[row], one.temperature, one.top_k, one.top_p, u)
    return chosen
