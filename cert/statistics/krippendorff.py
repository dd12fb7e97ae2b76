"""Krippendorff's alpha for labels without an order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaEstimate:
    """Agreement beyond chance.

    Attributes:
        alpha: 1 for perfect agreement, 0 for that of labels dealt out at random, down to below 0;
            None where fewer than two different labels can be paired: chance would agree as well.
        units: Tasks with two labels or more; the others say nothing.
        values: Labels in them, n.
        labels: Different labels among those.
    """

    alpha: float | None
    units: int
    values: int
    labels: int


def nominal_alpha(units: Sequence[Sequence[str | None]]) -> AlphaEstimate:
    """Compute alpha over tasks that share one set of labels.

        alpha = 1 - D_o / D_e
        D_o = sum over units of (pairs of unequal labels) / (m_u - 1), by n
        D_e = sum over pairs of unequal labels c, k of n_c n_k / (n (n - 1))

    with m_u labels in unit u (units of one label left out), n_c labels c, n in all. Pairs are
    ordered. Who gave a label doesn't matter.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011; its example C gives
    0.743.

    Args:
        units: For each task, its labels; None where one is missing.

    >>> round(nominal_alpha([["a", "a"], ["b", "b"], ["a", "b"], ["b", "b"]]).alpha, 4)
    0.5333
    """
    rows = [Counter(label for label in unit if label is not None) for unit in units]
    rows = [row for row in rows if row.total() > 1]
    totals: Counter[str] = Counter()
    observed = 0.0
    for row in rows:
        totals.update(row)
        m = row.total()
        observed += (m * m - sum(count * count for count in row.values())) / (m - 1)
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    return AlphaEstimate(
        alpha=1.0 - (n - 1) * observed / expected if expected else None,
        units=len(rows),
        values=n,
        labels=len(totals),
    )
