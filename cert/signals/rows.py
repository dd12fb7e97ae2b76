"""The definition of every per-token signal: float64, one row of raw logits at a time.

Backends compute the same on their device and faster; a contract test holds them to this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cert.core.errors import NumericalError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """What a row of logits says about one token; nats throughout.

    Attributes:
        logprob: ln p of the token, <= 0; -inf where its logit is -inf.
        entropy: Of the whole vocabulary, in [0, ln V].
        top_k_entropy: Of the k largest probabilities, renormalised, in [0, ln k].
        logit_margin: Largest minus second largest logit, >= 0; inf where only one is finite.
        probability_margin: Largest minus second largest probability, in [0, 1].
        rank: Number of tokens with a strictly larger logit; tied tokens share a rank.
    """

    logprob: float
    entropy: float
    top_k_entropy: float
    logit_margin: float
    probability_margin: float
    rank: int

    @property
    def surprisal(self) -> float:
        """-ln p, in nats, in [0, inf]."""
        return 0.0 - self.logprob


def row_signals(logits: ArrayLike, token_id: int, *, top_k: int = 10) -> TokenSignals:
    """Measure one token against the distribution it was drawn from.

    With m = max z and Z = sum exp(z - m):

        logprob  = (z[y] - m) - ln Z          entropy = ln Z - sum(exp(z - m) (z - m)) / Z
        rank     = #{v : z[v] > z[y]}         margins = of the two largest entries

    ln Z is log1p of the sum without the largest term, so that a probability of 1 - 1e-20 has a
    surprisal of 1e-20 rather than 0. A logit of -inf is a token that cannot come: it adds nothing
    to the entropy (0 ln 0 = 0). Give raw logits: after temperature, top-k or top-p the same text
    has other numbers, and thresholds mean something else at every setting.

    Args:
        logits: Raw logits, shape (V,), V >= 1, real; converted to float64.
        token_id: The scored token y, in [0, V).
        top_k: Entries that the top-k entropy covers, >= 1; V where V is smaller.

    Returns:
        For uniform logits: logprob -ln V, entropy ln V, both margins 0, rank 0.

    Raises:
        NumericalError: NaN or +inf among the logits, or none that is finite.
        ValueError: Shape, token id or k outside their domain.

    >>> row_signals([0.0, 0.0, 0.0, 0.0], 2).entropy == math.log(4)
    True
    """
    row = _finite_row(logits)
    size = len(row)
    if not 0 <= token_id < size:
        raise ValueError(f"token id {token_id} is outside the vocabulary of {size}")
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")

    largest = np.sort(np.partition(row, size - min(top_k, size))[size - min(top_k, size) :])[::-1]
    second = _second_largest(row)
    with np.errstate(over="ignore"):
        # Logits further apart than float64 reaches: the difference is infinite, exp() of it is 0.
        shifted = row - largest[0]
        top = largest - largest[0]
        gap = float(second - largest[0])
    log_total, entropy = _log_total_and_entropy(shifted)
    return TokenSignals(
        logprob=min(0.0, float(shifted[token_id]) - log_total),
        entropy=entropy,
        top_k_entropy=_log_total_and_entropy(top)[1],
        logit_margin=0.0 - gap,
        # p1 - p2 = (1 - exp(z2 - z1)) / Z, without cancellation where the two are close.
        probability_margin=-math.expm1(gap) * math.exp(-log_total) + 0.0,
        rank=int(np.count_nonzero(row > row[token_id])),
    )


def _finite_row(logits: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(logits)
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"logits have the shape {given.shape}; expected (V,) with V >= 1")
    if given.dtype.kind not in "fiu":
        raise ValueError(f"logits are of type {given.dtype}; expected real numbers")
    row = given.astype(np.float64)
    if np.isnan(row).any():
        raise NumericalError("logits hold NaN")
    peak = row.max()
    if peak == math.inf:
        raise NumericalError("logits hold +inf")
    if peak == -math.inf:
        raise NumericalError("no logit is finite")
    return row


def _second_largest(row: NDArray[np.float64]) -> np.float64:
    if len(row) == 1:
        return np.float64(-math.inf)
    return np.float64(np.partition(row, len(row) - 2)[-2])


def _log_total_and_entropy(shifted: NDArray[np.float64]) -> tuple[float, float]:
    """Ln sum exp and entropy of logits whose largest is 0."""
    weights = np.exp(shifted)
    others = weights.copy()
    others[np.argmax(shifted)] = 0.0
    log_total = math.log1p(float(others.sum()))
    terms = np.zeros_like(weights)
    np.multiply(weights, shifted, out=terms, where=weights > 0.0)
    entropy = log_total - float(terms.sum()) * math.exp(-log_total)
    # Rounding may step out of the interval by some ulps.
    return log_total, min(max(0.0, entropy), math.log(len(shifted)))
