"""Signals of a whole text, pooled from its tokens' readings.

Sums are exact (`math.fsum`): the order of tokens changes no bit, and whoever recomputes a summary
from a record gets the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    count = len(trace)
    if not count:
        return SignalSummary(0, *[None] * (len(SignalSummary.__slots__) - 1))
    surprisals = sorted(0.0 - logprob for logprob in trace.logprobs)
    surprising = [0.0 - one for one in trace.logprobs if one < SURPRISE_LOGPROB]
    nll = math.fsum(surprisals)
    mean_nll = nll / count
    return SignalSummary(
        tokens=count,
        nll=nll,
        mean_nll=mean_nll,
        perplexity=perplexity_of(mean_nll),
        mean_entropy=math.fsum(trace.entropies) / count,
        max_entropy=max(trace.entropies),
        mean_top_k_entropy=math.fsum(trace.top_k_entropies) / count,
        max_surprisal=surprisals[-1],
        median_surprisal=quantile(surprisals, 0.5),
        p90_surprisal=quantile(surprisals, 0.9),
        p99_surprisal=quantile(surprisals, 0.99),
        cumulative_surprise=math.fsum(surprising),
        surprising_tokens=len(surprising),
        min_logit_margin=min(trace.logit_margins),
        min_probability_margin=min(trace.probability_margins),
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
    """Type-7 quantile of ascending numbers (one at least), `share` in [0, 1].

    Interpolating towards an infinite neighbour gives inf, never NaN.

    >>> quantile([0.0, 10.0], 0.25)
    2.5
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    weight = place - below
    if weight == 0.0:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    return high if math.isinf(high) else low + (high - low) * weight
