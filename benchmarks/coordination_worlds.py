"""Worlds whose truth is known, for `coordination_statistics.py`, and a bootstrap of its own.

Tasks have difficulties from a beta distribution; arm A answers k = 3 times with the task's rate of
success, B likewise with its own. `binary` scores are right or wrong, `graded` ones 0 to 4 quarters.
Effects differ between tasks: B's rate goes up or down by up to 0.6 of what is possible, by a coin
for each task. In groups, half of the tasks (at random) share their group's difficulty and coin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cert.statistics.distributions import normal_probability, normal_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

REPLICATES = 3
CONCENTRATION = 4.0
SWING = 0.6
SHARED = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """What the truth is.

    Attributes:
        scores: `binary` or `graded`.
        rate: Mean score of the model alone.
        gamma: Mean score of B over that.
        sizes: Tasks of each group.
        swing: How far B's effect differs between tasks; 0 for B exactly like A.
    """

    scores: str
    rate: float
    gamma: float
    sizes: tuple[int, ...]
    swing: float = SWING

    @property
    def groups(self) -> tuple[str, ...]:
        """Group ids of the tasks."""
        return tuple(f"{g:04d}" for g, size in enumerate(self.sizes) for _ in range(size))

    def draw_rates(
        self, rng: np.random.Generator, runs: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rates of success of A and of B, runs x tasks, with E[B] = gamma E[A] exactly."""
        tasks = sum(self.sizes)
        a, b = self.rate * CONCENTRATION, (1.0 - self.rate) * CONCENTRATION
        alone = rng.beta(a, b, (runs, tasks))
        coin = rng.choice([-1.0, 1.0], (runs, tasks))
        if len(self.sizes) < tasks:
            index = np.repeat(np.arange(len(self.sizes)), self.sizes)
            shares = rng.random((runs, tasks)) < SHARED
            alone = np.where(shares, rng.beta(a, b, (runs, len(self.sizes)))[:, index], alone)
            coin = np.where(
                shares, rng.choice([-1.0, 1.0], (runs, len(self.sizes)))[:, index], coin
            )
        if self.gamma <= 1.0:
            together = alone * self.gamma
        else:
            kept = 1.0 - (self.gamma - 1.0) * self.rate / (1.0 - self.rate)
            together = 1.0 - (1.0 - alone) * kept
        return alone, together + coin * self.swing * np.minimum(together, 1.0 - together)

    def draw_scores(
        self, rng: np.random.Generator, rates: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Scores, runs x tasks x replicates."""
        levels = 1 if self.scores == "binary" else 4
        return rng.binomial(levels, rates[..., np.newaxis], (*rates.shape, REPLICATES)) / levels

    def draw_means(
        self, rng: np.random.Generator, rates: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Means over the replicates, runs x tasks, from the sum's own distribution."""
        levels = REPLICATES if self.scores == "binary" else 4 * REPLICATES
        return rng.binomial(levels, rates) / levels


def equal_groups(tasks: int) -> tuple[int, ...]:
    """Groups of 2 below 20 tasks, else of 5; what is left over makes a smaller one."""
    size = 2 if tasks < 20 else 5  # noqa: PLR2004 - said above
    left = (tasks % size,) if tasks % size else ()
    return (size,) * (tasks // size) + left


def unequal_groups(tasks: int) -> tuple[int, ...]:
    """Groups of 1, 2, 3, 4 ... tasks; the last one smaller."""
    sizes: list[int] = []
    while sum(sizes) < tasks:
        sizes.append(min(len(sizes) + 1, tasks - sum(sizes)))
    return tuple(sizes)


def one_large_group(tasks: int) -> tuple[int, ...]:
    """One group with a third of the tasks, the others alone."""
    return (tasks // 3,) + (1,) * (tasks - tasks // 3)


GROUPINGS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "none": lambda tasks: (1,) * tasks,
    "equal": equal_groups,
    "unequal": unequal_groups,
    "one large": one_large_group,
}


def bootstrap_bounds(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    resamples: int,
    confidence: float,
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Percentile and BCa bounds; None where a denominator is 0."""
    n = len(top)
    drawn = rng.integers(0, n, (resamples, n))
    below = bottom[drawn].sum(axis=1)
    without = bottom.sum() - bottom
    if (below <= 0.0).any() or (without <= 0.0).any():
        return None
    ratios = top[drawn].sum(axis=1) / below
    tails = np.array([(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    lower, upper = np.quantile(ratios, tails)
    left_out = (top.sum() - top) / without
    off = left_out.mean() - left_out
    share = (ratios < top.sum() / bottom.sum()).mean() + (
        ratios == top.sum() / bottom.sum()
    ).mean() / 2
    if not 0.0 < share < 1.0 or not off.any():
        return None
    speed = (off**3).sum() / (6.0 * (off**2).sum() ** 1.5)
    moved = normal_quantile(share) + normal_quantile(tails)
    levels = normal_probability(normal_quantile(share) + moved / (1.0 - speed * moved))
    bca_lower, bca_upper = np.quantile(ratios, levels)
    return (lower, upper), (bca_lower, bca_upper)
