"""Bootstrap intervals of a ratio of sums: a cross-check of Fieller's, from 30 groups on.

Below that they are not given: at five tasks the percentile and BCa bootstrap covered 81 to 86 %
where Fieller's interval covered 94 to 97 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cert.statistics.clusters import build_clusters
from cert.statistics.distributions import normal_probability, normal_quantile
from cert.statistics.estimates import CONFIDENCE, check_confidence, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cert.statistics.trial import Arm, Trial

MIN_GROUPS = 30
_BLOCK = 1 << 22
"""Drawn indices held at a time (32 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapIntervals:
    """Two bootstrap intervals of one ratio, from the same resamples of groups.

    Attributes:
        percentile: Lower and upper bound; None where a resample has no denominator.
        bca: Bias-corrected and accelerated; None likewise, and where all resamples lie on one side
            of the estimate or leaving a group out never changes it.
        resamples: How many there were.
        undefined: Resamples whose denominator was 0.
        groups: Groups that were drawn from.
        confidence: Two-sided level.
        seed: What the draws follow from.
    """

    percentile: tuple[float, float] | None
    bca: tuple[float, float] | None
    resamples: int
    undefined: int
    groups: int
    confidence: float
    seed: int


def bootstrap_gamma(  # noqa: PLR0913 - a trial, its two arms and the plan of the bootstrap
    trial: Trial,
    top: Arm,
    bottom: Arm,
    *,
    seed: int,
    resamples: int = 9999,
    confidence: float = CONFIDENCE,
) -> BootstrapIntervals | None:
    """Resample groups with replacement.

    The draws follow from the seed alone: raw PCG64 words, whose stream numpy keeps across
    versions, on groups in the order of their ids; the order of tasks doesn't matter.

    Source: Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987; acceleration from the
    jackknife over groups.

    Returns:
        None for fewer than 30 groups with both scores.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected 1 or more")
    check_confidence(confidence)
    x, y, groups = paired(top.task_scores(), bottom.task_scores(), trial.groups)
    if len(set(groups)) < MIN_GROUPS:
        return None
    clusters = build_clusters(groups)
    tops, bottoms = clusters.sums(x), clusters.sums(y)
    ratios = _resample(tops, bottoms, seed=seed, resamples=resamples)
    undefined = int(np.isnan(ratios).sum())
    tails = np.array([(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    percentile = bca = None
    if not undefined:
        percentile = _bounds(ratios, tails)
        shifted = _bca_levels(tops, bottoms, ratios, tails)
        bca = None if shifted is None else _bounds(ratios, shifted)
    return BootstrapIntervals(
        percentile=percentile,
        bca=bca,
        resamples=resamples,
        undefined=undefined,
        groups=clusters.groups,
        confidence=confidence,
        seed=seed,
    )


def _resample(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64], *, seed: int, resamples: int
) -> NDArray[np.float64]:
    """Ratios of resampled sums; NaN where a denominator is 0."""
    groups = len(tops)
    words = np.random.PCG64(seed)
    step = max(1, _BLOCK // groups)
    blocks = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        uniform = (words.random_raw(count * groups) >> 11) * 2.0**-53
        drawn = (uniform * groups).astype(np.intp).reshape(count, groups)
        below = bottoms[drawn].sum(axis=1)
        above = tops[drawn].sum(axis=1)
        blocks.append(np.divide(above, below, out=np.full(count, np.nan), where=below > 0.0))
    return np.concatenate(blocks)


def _bca_levels(
    tops: NDArray[np.float64],
    bottoms: NDArray[np.float64],
    ratios: NDArray[np.float64],
    tails: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    estimate = tops.sum() / bottoms.sum()
    without = bottoms.sum() - bottoms
    share = ((ratios < estimate).mean() + (ratios <= estimate).mean()) / 2.0
    if not 0.0 < share < 1.0 or not (without > 0.0).all():
        return None
    left_out = (tops.sum() - tops) / without
    off = left_out.mean() - left_out
    scale = (off**2).sum()
    if scale == 0.0:
        return None
    acceleration = (off**3).sum() / (6.0 * scale**1.5)
    bias = normal_quantile(share)
    shifted = bias + normal_quantile(tails)
    return normal_probability(bias + shifted / (1.0 - acceleration * shifted))


def _bounds(ratios: NDArray[np.float64], levels: NDArray[np.float64]) -> tuple[float, float]:
    lower, upper = np.quantile(ratios, levels)
    return float(lower), float(upper)
