"""Estimates of a trial: gamma, gamma_budget, delta, quality for tokens, cost.

Every function pairs arms by task: a task counts where both arms have a score for it, with the mean
over its scored replicates. Intervals are clustered by group (`cert.statistics.clusters`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cert.statistics.clusters import build_clusters
from cert.statistics.estimates import CONFIDENCE, estimate_mean, estimate_ratio, paired
from cert.statistics.moments import paired_moments

if TYPE_CHECKING:
    from cert.statistics.estimates import MeanEstimate, RatioEstimate
    from cert.statistics.moments import Moments
    from cert.statistics.trial import Arm, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """One arm on its own.

    Attributes:
        arm: Its name.
        quality: Mean score over tasks.
        quality_per_1000_tokens: Sum of scores / sum of tokens, over the tasks where the tokens of
            every scored replicate are known, times 1,000.
        tokens: Sum over all replicates, scored or not, whose tokens are known.
        tokens_unknown: Replicates whose tokens are not.
        cost_usd: Sum over all replicates whose cost is known; None where none is.
        cost_unknown: Replicates whose cost is not.
    """

    arm: str
    quality: MeanEstimate
    quality_per_1000_tokens: RatioEstimate
    tokens: int
    tokens_unknown: int
    cost_usd: float | None
    cost_unknown: int


def estimate_gamma(
    trial: Trial, top: Arm, bottom: Arm, *, confidence: float = CONFIDENCE
) -> RatioEstimate:
    """Estimate sum top / sum bottom of scores: gamma for B / A, gamma_budget for B / C.

    >>> from cert.statistics.trial import Arm, Replicate, Trial
    >>> def arm(name, *scores):
    ...     return Arm(name, tuple((Replicate(score=s),) for s in scores))
    >>> a, b = arm("A", 0.5, 0.4, 0.6), arm("B", 0.5, 0.6, 0.7)
    >>> trial = Trial(tasks=("x", "y", "z"), groups=("x", "y", "z"), single=a)
    >>> estimate_gamma(trial, b, a).estimate
    1.2
    """
    return estimate_ratio(
        top.task_scores(), bottom.task_scores(), trial.groups, confidence=confidence
    )


def estimate_token_ratio(
    trial: Trial, top: Arm, bottom: Arm, *, confidence: float = CONFIDENCE
) -> RatioEstimate:
    """Estimate sum top / sum bottom of tokens: near 1 for B / C, or C had not B's budget."""
    return estimate_ratio(
        top.task_tokens(), bottom.task_tokens(), trial.groups, confidence=confidence
    )


def estimate_delta(
    trial: Trial, top: Arm, bottom: Arm, *, confidence: float = CONFIDENCE
) -> MeanEstimate:
    """Estimate the mean over tasks of top - bottom, with the paired t interval."""
    difference = top.task_scores() - bottom.task_scores()
    return estimate_mean(difference, trial.groups, confidence=confidence, least=-1.0)


def summarize_arm(trial: Trial, arm: Arm, *, confidence: float = CONFIDENCE) -> ArmSummary:
    """Summarise an arm's quality, and what it cost."""
    replicates = [replicate for row in arm.rows for replicate in row]
    tokens = [r.tokens for r in replicates if r.tokens is not None]
    costs = [r.cost_usd for r in replicates if r.cost_usd is not None]
    scores = arm.task_scores()
    return ArmSummary(
        arm=arm.name,
        quality=estimate_mean(scores, trial.groups, confidence=confidence),
        quality_per_1000_tokens=estimate_ratio(
            scores, arm.task_tokens(), trial.groups, confidence=confidence, scale=1000.0
        ),
        tokens=sum(tokens),
        tokens_unknown=len(replicates) - len(tokens),
        cost_usd=math.fsum(costs) if costs else None,
        cost_unknown=len(replicates) - len(costs),
    )


def p_with_failure(trial: Trial, top: Arm, bottom: Arm) -> float | None:
    """One-sided p-value for gamma > 1 if there were one more task, a group of its own, that fails.

    On it `top` scores 0 and `bottom` its mean. The t test takes rare failures that it has not seen
    for impossible, and finds benefit too often where many tasks gain a little and few lose all;
    with one failure added it doesn't (docs/statistics.md). Not adjusted for several strategies.

    Returns:
        In [0, 1]; None for fewer than two groups.
    """
    x, y, groups = paired(top.task_scores(), bottom.task_scores(), trial.groups)
    if len(set(groups)) <= 1:
        return None
    clusters = build_clusters((*groups, max(groups) + "+"))
    moments = paired_moments(clusters, np.append(x, 0.0), np.append(y, y.mean()))
    p = float(moments.p_above(1.0))
    return 1.0 if math.isnan(p) else p


def trial_moments(trial: Trial, top: Arm, bottom: Arm) -> Moments | None:
    """Moments of two arms over the tasks with both; None for fewer than two groups."""
    x, y, groups = paired(top.task_scores(), bottom.task_scores(), trial.groups)
    if len(set(groups)) <= 1:
        return None
    return paired_moments(build_clusters(groups), x, y)
