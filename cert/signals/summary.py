"""Signals of a whole text, pooled from its tokens' readings.

Sums are exact (`math.fsum`): the order of tokens changes no bit, and whoever recomputes a summary
from a record gets the same one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.signals.trace import SignalTrace

SURPRISE_LOGPROB = -2.3025851
"""ln 0.1 in float32, the precision of the readings: a token of exactly p = 0.1 is not below it."""


@dataclass(frozen=True, slots=True)
class SignalSummary:
    """What a text's tokens say together; None wherever no token was measured. Nats throughout.

    Attributes:
        tokens: Measured tokens, T.
        nll: Sum of surprisals, in [0, inf].
        mean_nll: nll / T.
        perplexity: exp(mean_nll), in [1, inf].
        mean_entropy: Mean full-vocabulary entropy.
        max_entropy: Largest full-vocabulary entropy.
        mean_top_k_entropy: Mean entropy of the 10 largest probabilities, renormalised.
        max_surprisal: Largest surprisal; inf where the model held a token to be impossible.
        median_surprisal: 0.5-quantile of the surprisals (linear interpolation, type 7).
        p90_surprisal: 0.9-quantile, likewise.
        p99_surprisal: 0.99-quantile, likewise.
        cumulative_surprise: Sum of the surprisals of tokens with p < 0.1; 0 where there are none.
        surprising_tokens: How many tokens that sum is over.
        min_logit_margin: Smallest distance of the two largest logits; inf is possible.
        min_probability_margin: Smallest distance of the two largest probabilities.
    """

    tokens: int
    nll: float | None
    mean_nll: float | None
    perplexity: float | None
    mean_entropy: float | None
    max_entropy: float | None
    mean_top_k_entropy: float | None
    max_surprisal: float | None
    median_surprisal: float | None
    p90_surprisal: float | None
    p99_surprisal: float | None
    cumulative_surprise: float | None
    surprising_tokens: int | None
    min_logit_margin: float | None
    min_probability_margin: float | None


def summarize(trace: SignalTrace) -> SignalSummary:
    """Pool a trace.

        perplexity = exp(sum of surprisals / T)

    It is pooled over tokens. The mean of 1/p is another number, which a single rare token rules
    and from which an impossible one can only be left out; a mean of several texts' perplexities
    is not the perplexity of the texts together. An impossible token makes nll, mean_nll and
    perplexity infinite, and they stay so.

    Quantiles interpolate linearly between order statistics (type 7 of Hyndman and Fan, Sample
    Quantiles in Statistical Packages, 1996; numpy's default).

    Args:
        trace: T tokens; T may be 0.

    Returns:
        The summary. For T tokens of uniform logits: perplexity V, mean and max entropy ln V.
    """
    return SignalSummary(
        *pool(
            trace.logprobs,
            trace.entropies,
            trace.top_k_entropies,
            trace.logit_margins,
            trace.probability_margins,
        )
    )


def pool(
    logprobs: Sequence[float],
    entropies: Sequence[float],
    top_k_entropies: Sequence[float],
    logit_margins: Sequence[float],
    probability_margins: Sequence[float],
) -> tuple[Any, ...]:
    """Pool bare sequences of equal lengths; the fields of a summary, in their order.

    For whoever holds a million records against their numbers and needs no objects for that.
    Logprobs are sorted and summed as they are: negation is exact, so -sum(ln p) is sum(-ln p) to
    the last bit.
    """
    count = len(logprobs)
    if not count:
        return (0, *[None] * (len(SignalSummary.__slots__) - 1))
    ordered = sorted(logprobs)
    surprising = bisect_left(ordered, SURPRISE_LOGPROB)
    cumulative = 0.0 - math.fsum(ordered[:surprising])
    nll = 0.0 - math.fsum(ordered)
    mean_nll = nll / count
    ordered.reverse()
    return (
        count,
        nll,
        mean_nll,
        perplexity_of(mean_nll),
        math.fsum(entropies) / count,
        max(entropies),
        math.fsum(top_k_entropies) / count,
        0.0 - ordered[-1],
        0.0 - quantile(ordered, 0.5),
        0.0 - quantile(ordered, 0.9),
        0.0 - quantile(ordered, 0.99),
        cumulative,
        surprising,
        min(logit_margins),
        min(probability_margins),
    )


def perplexity_of(mean_nll: float) -> float:
    """Exp of a mean NLL in nats; inf from about 709.8 on, where float64 ends.

    >>> perplexity_of(0.0)
    1.0
    """
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def quantile(ordered: Sequence[float], share: float) -> float:
    """Type-7 quantile of ordered numbers (one at least), `share` of the way from the first.

    They may ascend or descend. Interpolating towards an infinite neighbour gives it, never NaN.

    >>> quantile([0.0, 10.0], 0.25)
    2.5
    """
    place = share * (len(ordered) - 1)
    below = int(place)
    weight = place - below
    if weight == 0.0:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    return high if math.isinf(high) else low + (high - low) * weight
