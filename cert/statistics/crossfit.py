"""Coordinated against the best individual, without choosing that one on the same tasks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cert.statistics.clusters import build_clusters
from cert.statistics.estimates import CONFIDENCE, estimate_mean, paired
from cert.statistics.moments import paired_moments
from cert.statistics.trial import mean_of_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cert.statistics.estimates import MeanEstimate
    from cert.statistics.trial import Arm, Trial

SPLITS = 50
_TIE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class OmegaEstimate:
    """What coordination adds to its best individual.

    Attributes:
        omega: Mean over tasks of (coordinated - score of the individual that was best on the other
            half of the tasks), in [-1, 1]. 0 on average where nothing is to be gained.
        oracle_gap: Mean over tasks of (coordinated - best score that any individual had on that
            very task), in [-1, 1]; None without a task. Negative where nothing is to be gained,
            since it compares with luck: never to be read as omega.
        individuals: How many there were to choose from.
        splits: Halvings that omega is the mean over.
        seed: What they follow from.
    """

    omega: MeanEstimate
    oracle_gap: float | None
    individuals: int
    splits: int
    seed: int


def estimate_omega(  # noqa: PLR0913 - a trial, its two arms and the plan of the halvings
    trial: Trial,
    coordinated: Arm,
    individuals: Arm,
    *,
    seed: int,
    splits: int = SPLITS,
    confidence: float = CONFIDENCE,
) -> OmegaEstimate:
    """Choose the best individual on one half of the groups, score it on the other, and swap.

    Cross-fitting as in Chernozhukov et al., Double/Debiased Machine Learning, Econometrics Journal
    21, 2018. Individuals that tie are averaged. A group is never in both halves. The halves follow
    from seed and group ids alone. With one group there is no omega.

    The interval's variance is the mean over halvings of each one's own. That of the averaged gains
    forgets that tasks of one half share the choice: intervals of 95 % then covered 92 %.

    Args:
        trial: Tasks and groups.
        coordinated: Arm B.
        individuals: An arm whose n-th replicate is the n-th individual's answer.
        seed: Keys the halvings.
        splits: How many halvings.
        confidence: Of omega's interval, in (0, 1).
    """
    if splits < 1:
        raise ValueError(f"splits is {splits}; expected 1 or more")
    scores, together = individuals.scores(), coordinated.task_scores()
    halves = (half_of_groups(trial.groups, seed=seed, split=split) for split in range(splits))
    gains = np.stack([held_out_gains(scores, together, half) for half in halves])
    gaps = mean_of_known(together - _row_max(scores))
    return OmegaEstimate(
        omega=estimate_mean(
            mean_of_known(gains.T),
            trial.groups,
            confidence=confidence,
            least=-1.0,
            variance=split_variance(gains, trial.groups),
        ),
        oracle_gap=None if np.isnan(gaps) else float(gaps),
        individuals=individuals.replicates,
        splits=splits,
        seed=seed,
    )


def half_of_groups(groups: Sequence[str], *, seed: int, split: int) -> NDArray[np.bool_]:
    """Mark the tasks of one half of the groups: those of the smaller digests.

    An odd group goes to the unmarked half; a single group is unmarked, and the marked half empty.
    """

    def digest(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{split}:{group}".encode(errors="surrogatepass")).digest()

    ordered = sorted(set(groups), key=digest)
    half = set(ordered[: len(ordered) // 2])
    return np.array([group in half for group in groups])


def held_out_gains(
    individuals: NDArray[np.float64],
    coordinated: NDArray[np.float64],
    is_first: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Coordinated minus the other half's best individual, for each task; NaN where unknown.

    Args:
        individuals: Scores, (..., tasks, individuals); NaN where missing.
        coordinated: Scores, (..., tasks); NaN where missing.
        is_first: Which tasks are in the first half.
    """
    gains = np.full(coordinated.shape, np.nan)
    for train in (is_first, ~is_first):
        means = mean_of_known(np.swapaxes(individuals[..., train, :], -1, -2))
        best = means >= _row_max(means)[..., np.newaxis] - _TIE
        held_out = individuals[..., ~train, :]
        chosen = mean_of_known(np.where(best[..., np.newaxis, :], held_out, np.nan))
        gains[..., ~train] = coordinated[..., ~train] - chosen
    return gains


def split_variance(gains: NDArray[np.float64], groups: Sequence[str]) -> float | None:
    """Mean over halvings (rows) of the mean gain's variance; None where no two groups have one.

    Which tasks have a gain may differ from halving to halving where scores are missing.
    """
    variances = []
    for row in gains:
        values, _, kept = paired(row, row, groups)
        if len(set(kept)) > 1:
            moments = paired_moments(build_clusters(kept), values, np.zeros_like(values))
            variances.append(float(moments.variance_at(0.0)))
    return math.fsum(variances) / len(variances) if variances else None


def _row_max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest along the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    largest = np.where(known, values, -np.inf).max(axis=-1)
    return np.where(known.any(axis=-1), largest, np.nan)
