"""Intervals for a rate: so many of so many."""

from __future__ import annotations

from cert.statistics.distributions import beta_quantile, normal_quantile


def wilson_interval(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval: covers about `confidence` on average over rates.

    Source: Wilson, Probable Inference, JASA 22, 1927.

    Args:
        hits: 0 to trials.
        trials: Independent ones; 0 gives (0, 1).
        confidence: In (0, 1), two-sided.
    """
    _check(hits, trials, confidence)
    if not trials:
        return 0.0, 1.0
    z2 = float(normal_quantile(0.5 + confidence / 2.0)) ** 2
    rate = hits / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = (z2 / trials * (rate * (1 - rate) + z2 / (4 * trials))) ** 0.5 / (1 + z2 / trials)
    lower = 0.0 if hits == 0 else centre - reach
    upper = 1.0 if hits == trials else centre + reach
    return lower, upper


def clopper_pearson_interval(
    hits: int, trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Exact interval: covers at least `confidence` whatever the rate, and often more.

    Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits, Biometrika 26, 1934.

    Args:
        hits: 0 to trials.
        trials: Independent ones; 0 gives (0, 1).
        confidence: In (0, 1), two-sided.
    """
    _check(hits, trials, confidence)
    tail = (1.0 - confidence) / 2.0
    lower = beta_quantile(hits, trials - hits + 1, tail) if hits else 0.0
    upper = beta_quantile(hits + 1, trials - hits, 1.0 - tail) if hits < trials else 1.0
    return lower, upper


def _check(hits: int, trials: int, confidence: float) -> None:
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits!r} of {trials!r}; expected 0 to as many as there are")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence!r}; expected more than 0 and less than 1")
