"""Means over tasks that come in groups, and how far they may be off.

Tasks of one group may be alike; groups are independent. For per-task values d with mean D over N
tasks, a group's sum of residuals is E_g = sum (d - D), and with m_g tasks in group g

    V = (G - 1)/G sum_g E_g^2 / (N - m_g)^2

is the delete-one-group jackknife variance of the mean (CV3 of MacKinnon, Nielsen and Webb,
Cluster-Robust Inference: A Guide to Empirical Practice, Journal of Econometrics 232, 2023). Every
task its own group: the variance of the paired t test. Groups of one size: that of the t test of the
groups' means, with G - 1 degrees of freedom.

Otherwise degrees of freedom are Satterthwaite's, tr(PS)^2 / tr(PSPS) for V = D'PD and S the
variances of group sums D_g if tasks were independent (Bell and McCaffrey, Bias Reduction in
Standard Errors for Linear Regression with Multi-Stage Samples, Survey Methodology 28, 2002). They
count the groups that matter: 5 where one group has 10 tasks of 30 and the others one. There G - 1
degrees, or the smaller variance CR2, make intervals that are too short (docs/statistics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which tasks belong together, and what follows from that alone.

    Attributes:
        order: Permutation of the tasks that puts groups, in order of their ids, side by side.
        starts: Where each group begins in that order.
        sizes: Tasks of each group, m_g.
        weights: Of E_g^2 in V; zeros for a single group.
        degrees: Degrees of freedom, > 0 and at most groups - 1; None for a single group.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    sizes: Floats
    weights: Floats
    degrees: float | None

    @property
    def groups(self) -> int:
        """Number of groups, G."""
        return len(self.sizes)

    @property
    def tasks(self) -> int:
        """Number of tasks, N."""
        return len(self.order)

    def sums(self, values: Floats) -> Floats:
        """Sums of each group along the last axis (tasks become groups)."""
        ordered = values[..., self.order]
        if self.groups == self.tasks:
            return ordered
        return np.add.reduceat(ordered, self.starts, axis=-1)

    def residuals(self, values: Floats) -> Floats:
        """E_g: each group's sum of differences from the mean over all tasks."""
        return self.sums(values - values.mean(axis=-1, keepdims=True))


def build_clusters(groups: Sequence[str]) -> Clusters:
    """Sort tasks into groups by their ids.

    Args:
        groups: The group of each task; at least one task.
    """
    names, index = np.unique(np.array(groups, dtype=object), return_inverse=True)
    order = np.argsort(index, kind="stable")
    sizes = np.bincount(index, minlength=len(names)).astype(np.float64)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.intp)
    if len(names) == 1:
        return Clusters(order, starts, sizes, np.zeros(1), None)
    weights = (1.0 - 1.0 / len(names)) / (sizes.sum() - sizes) ** 2
    return Clusters(order, starts, sizes, weights, _degrees(sizes, weights))


def _degrees(sizes: Floats, weights: Floats) -> float:
    """Satterthwaite's degrees for S = diag(m_g), without the G x G matrix P.

    P_gh = w_g [g = h] - (u_g + u_h)/N + c with u = w m and c = sum w m^2 / N^2.
    """
    total = sizes.sum()
    u = weights * sizes
    c = float((u * sizes).sum() / total**2)
    corner = c - 2.0 * u / total
    s0, s1, s2 = (float((sizes * u**power).sum()) for power in (0, 1, 2))
    trace = float((sizes * (weights + corner)).sum())
    everything = c * c * s0 * s0 - 4.0 * c * s0 * s1 / total
    everything += 2.0 * (s0 * s2 + s1 * s1) / total**2
    diagonal = float((sizes**2 * (weights**2 + 2.0 * weights * corner)).sum())
    return float(trace * trace / (everything + diagonal))
