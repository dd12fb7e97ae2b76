"""Two means over the same tasks, their variances, and the tests and sets that follow.

All functions work on arrays of many data sets at once (simulation) as on scalars (a trial).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cert.statistics.distributions import t_probability, t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cert.statistics.clusters import Clusters

    Floats: TypeAlias = NDArray[np.float64]

_RELATIVE_NOISE = 1e-12
"""A variance below this share of its parts is what rounding left of a zero."""
_ABSOLUTE_NOISE = 1e-28
"""The same, as a share of the squared means: (1e-14)^2, about 50 ulp."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Means of `top` and `bottom` and the covariance matrix of the two means.

    Attributes:
        top: Mean of the numerator.
        bottom: Mean of the denominator.
        top_variance: Of the mean, clustered (`cert.statistics.clusters`).
        covariance: Of the two means.
        bottom_variance: Of the mean.
        degrees: Degrees of freedom; NaN where there is one group only.
    """

    top: Floats
    bottom: Floats
    top_variance: Floats
    covariance: Floats
    bottom_variance: Floats
    degrees: float

    def variance_at(self, ratio: Floats | float) -> Floats:
        """Variance of top - ratio * bottom; exactly 0 where only rounding errors are left."""
        parts = self.top_variance + np.square(ratio) * self.bottom_variance
        variance = parts - 2.0 * ratio * self.covariance
        means = np.square(self.top) + np.square(ratio * self.bottom)
        noise = _RELATIVE_NOISE * parts + _ABSOLUTE_NOISE * means
        return np.where(variance > noise, variance, 0.0)

    def p_above(self, ratio: float) -> Floats:
        """One-sided p-value against top <= ratio * bottom, from t.

        Below (1 - confidence)/2 exactly where a bounded Fieller interval lies above `ratio`. Where
        the difference is the same on every task, 0 or 1; NaN where it is 0 on every task.
        """
        return t_probability(self.degrees, -self._t(ratio))

    def p_below(self, ratio: float) -> Floats:
        """One-sided p-value against top >= ratio * bottom, likewise."""
        return t_probability(self.degrees, self._t(ratio))

    def _t(self, ratio: float) -> Floats:
        other = ratio * self.bottom
        difference = self.top - other
        is_noise = np.abs(difference) <= _ABSOLUTE_NOISE**0.5 * (self.top + other)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(is_noise, 0.0, difference) / np.sqrt(self.variance_at(ratio))
        return np.asarray(t, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FiellerSet:
    """Confidence set of top / bottom.

    Attributes:
        estimate: top / bottom; NaN where bottom is 0.
        lower: Least ratio of the set; NaN unless it is an interval.
        upper: Largest ratio of the set; NaN unless it is an interval.
        is_unbounded: The denominator is not distinguishable from 0: no interval.
        is_constant: top - estimate * bottom doesn't vary: nothing to estimate an error from.
    """

    estimate: Floats
    lower: Floats
    upper: Floats
    is_unbounded: NDArray[np.bool_]
    is_constant: NDArray[np.bool_]


def paired_moments(clusters: Clusters, top: Floats, bottom: Floats) -> Moments:
    """Moments of values without gaps, tasks along the last axis."""
    e_top, e_bottom = clusters.residuals(top), clusters.residuals(bottom)
    w = clusters.weights
    return Moments(
        top=top.mean(axis=-1),
        bottom=bottom.mean(axis=-1),
        top_variance=(w * e_top * e_top).sum(axis=-1),
        covariance=(w * e_top * e_bottom).sum(axis=-1),
        bottom_variance=(w * e_bottom * e_bottom).sum(axis=-1),
        degrees=np.nan if clusters.degrees is None else clusters.degrees,
    )


def fieller_set(moments: Moments, confidence: float) -> FiellerSet:
    """All ratios r that a t test of top - r * bottom doesn't reject.

        (top - r bottom)^2 <= t^2 (Vtt - 2 r Vtb + r^2 Vbb)

    An interval exactly where bottom^2 > t^2 Vbb. Numerator and denominator are >= 0, so the
    interval ends at 0.

    Source: Fieller, Some Problems in Interval Estimation, JRSS B 16, 1954; for sums over groups,
    Cochran, Sampling Techniques, 1977, chapter 6.

    Args:
        moments: Of values >= 0.
        confidence: In (0, 1), two-sided.
    """
    m = moments
    t2 = t_quantile(m.degrees, confidence) ** 2
    a = np.square(m.bottom) - t2 * m.bottom_variance
    b = m.top * m.bottom - t2 * m.covariance
    c = np.square(m.top) - t2 * m.top_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.where(m.bottom > 0.0, m.top / m.bottom, np.nan)
        varying = m.variance_at(estimate) > 0.0
        bounded = varying & (a > 0.0)
        root = np.sqrt(np.maximum(b * b - a * c, 0.0))
        lower = np.where(bounded, np.maximum((b - root) / a, 0.0), np.nan)
        upper = np.where(bounded, (b + root) / a, np.nan)
    known = ~np.isnan(estimate)
    return FiellerSet(estimate, lower, upper, known & varying & ~bounded, known & ~varying)
