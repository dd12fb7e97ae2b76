"""A ratio of sums and a mean over tasks, each with its interval or the reason why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from cert.statistics.clusters import build_clusters
from cert.statistics.distributions import t_quantile
from cert.statistics.moments import fieller_set, paired_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95


class IntervalStatus(StrEnum):
    """Why there is an interval, or why there is none."""

    BOUNDED = "bounded"
    UNBOUNDED = "unbounded"
    """The denominator is not distinguishable from 0, so the ratio may be anything."""
    NO_DENOMINATOR = "no_denominator"
    """The denominator is 0: no ratio."""
    NO_VARIATION = "no_variation"
    """All tasks say exactly the same (all scores 1, say): nothing to estimate an error from."""
    TOO_FEW = "too_few"
    """Fewer than two groups of tasks."""
    NO_DATA = "no_data"
    """No task has what is needed in both arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioEstimate:
    """A ratio of sums over tasks, which is a ratio of means and never a mean of ratios.

    Attributes:
        estimate: sum top / sum bottom, >= 0, times `scale`; None without a denominator.
        lower: Fieller's lower bound, >= 0; None unless `status` is bounded.
        upper: Fieller's upper bound; None unless `status` is bounded.
        status: What became of the interval.
        confidence: Two-sided level of the interval.
        top: Mean of the numerator over the tasks; None without a task.
        bottom: Mean of the denominator over the tasks; None without a task.
        scale: 1, or 1,000 where `bottom` is in tokens.
        tasks: Tasks with both.
        groups: Groups that they belong to.
        degrees: Degrees of freedom of t; None with fewer than two groups.
    """

    estimate: float | None
    lower: float | None
    upper: float | None
    status: IntervalStatus
    confidence: float
    top: float | None
    bottom: float | None
    scale: float
    tasks: int
    groups: int
    degrees: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """A mean over tasks, of a score or of a difference of scores.

    Attributes:
        estimate: The mean; in [0, 1] for a score, [-1, 1] for a difference. None without a task.
        lower: Lower bound from t, not below that range; None unless `status` is bounded.
        upper: Upper bound from t, not above that range; None unless `status` is bounded.
        status: What became of the interval; never unbounded or no_denominator.
        confidence: Two-sided level of the interval.
        standard_error: Of the mean, clustered; None with fewer than two groups.
        standard_deviation: Between tasks, as `cert.statistics.plan` wants it; None with fewer than
            two tasks.
        tasks: Tasks that have the value.
        groups: Groups that they belong to.
        degrees: Degrees of freedom of t; None with fewer than two groups.
    """

    estimate: float | None
    lower: float | None
    upper: float | None
    status: IntervalStatus
    confidence: float
    standard_error: float | None
    standard_deviation: float | None
    tasks: int
    groups: int
    degrees: float | None


def paired(
    top: NDArray[np.float64], bottom: NDArray[np.float64], groups: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Keep the tasks that have both values (no NaN)."""
    keep = ~(np.isnan(top) | np.isnan(bottom))
    return top[keep], bottom[keep], tuple(g for g, k in zip(groups, keep, strict=True) if k)


def estimate_ratio(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    groups: Sequence[str],
    *,
    confidence: float = CONFIDENCE,
    scale: float = 1.0,
) -> RatioEstimate:
    """Estimate a ratio of sums with Fieller's interval.

    Args:
        top: Numerator of each task, >= 0; NaN where missing.
        bottom: Denominator of each task, >= 0; NaN where missing.
        groups: Group of each task.
        confidence: In (0, 1).
        scale: Multiplies the ratio and its bounds.
    """
    check_confidence(confidence)
    x, y, kept = paired(top, bottom, groups)
    if not kept:
        return RatioEstimate(
            estimate=None,
            lower=None,
            upper=None,
            status=IntervalStatus.NO_DATA,
            confidence=confidence,
            top=None,
            bottom=None,
            scale=scale,
            tasks=0,
            groups=0,
            degrees=None,
        )
    clusters = build_clusters(kept)
    moments = paired_moments(clusters, x, y)
    found = fieller_set(moments, confidence)
    if np.isnan(found.estimate):
        status = IntervalStatus.NO_DENOMINATOR
    elif clusters.degrees is None:
        status = IntervalStatus.TOO_FEW
    elif found.is_constant:
        status = IntervalStatus.NO_VARIATION
    elif found.is_unbounded:
        status = IntervalStatus.UNBOUNDED
    else:
        status = IntervalStatus.BOUNDED
    is_bounded = status is IntervalStatus.BOUNDED
    return RatioEstimate(
        estimate=_plain(found.estimate * scale),
        lower=_plain(found.lower * scale) if is_bounded else None,
        upper=_plain(found.upper * scale) if is_bounded else None,
        status=status,
        confidence=confidence,
        top=float(moments.top),
        bottom=float(moments.bottom),
        scale=scale,
        tasks=clusters.tasks,
        groups=clusters.groups,
        degrees=clusters.degrees,
    )


def estimate_mean(
    values: NDArray[np.float64],
    groups: Sequence[str],
    *,
    confidence: float = CONFIDENCE,
    least: float = 0.0,
    variance: float | None = None,
) -> MeanEstimate:
    """Estimate a mean over tasks with the t interval, cut at `least` and at 1.

    Args:
        values: One of each task, in [least, 1]; NaN where missing.
        groups: Group of each task.
        confidence: In (0, 1).
        least: 0 for scores, -1 for differences of scores.
        variance: Of the mean, where it is not that of `values` alone.
    """
    check_confidence(confidence)
    x, _, kept = paired(values, values, groups)
    if not kept:
        return MeanEstimate(
            estimate=None,
            lower=None,
            upper=None,
            status=IntervalStatus.NO_DATA,
            confidence=confidence,
            standard_error=None,
            standard_deviation=None,
            tasks=0,
            groups=0,
            degrees=None,
        )
    clusters = build_clusters(kept)
    moments = paired_moments(clusters, x, np.zeros_like(x))
    mean, degrees = float(moments.top), clusters.degrees
    error = lower = upper = None
    status = IntervalStatus.TOO_FEW
    if degrees is not None:
        if variance is None:
            variance = float(moments.variance_at(0.0))
        error = math.sqrt(variance)
        status = IntervalStatus.BOUNDED if error else IntervalStatus.NO_VARIATION
    if degrees is not None and error:
        reach = t_quantile(degrees, confidence) * error
        lower, upper = max(mean - reach, least), min(mean + reach, 1.0)
    return MeanEstimate(
        estimate=mean,
        lower=lower,
        upper=upper,
        status=status,
        confidence=confidence,
        standard_error=error,
        standard_deviation=float(x.std(ddof=1)) if clusters.tasks > 1 else None,
        tasks=clusters.tasks,
        groups=clusters.groups,
        degrees=degrees,
    )


def check_confidence(confidence: float) -> None:
    """Raise a ValueError unless it is in (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence!r}; expected more than 0 and less than 1")


def _plain(value: np.float64 | NDArray[np.float64]) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
