"""Clustered variances against scipy's t tests, leaving groups out by hand, and the whole matrix."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.statistics.clusters import build_clusters
from cert.statistics.moments import paired_moments

RNG = np.random.default_rng(5)
SIZES = st.lists(st.integers(1, 7), min_size=2, max_size=9)


def variance_of(values: np.ndarray, groups: list[str]) -> float:
    return float(paired_moments(build_clusters(groups), values, values).top_variance)


def test_every_task_its_own_group_is_the_paired_t_test() -> None:
    x, y = RNG.random(17), RNG.random(17)
    clusters = build_clusters([f"{n}" for n in range(17)])
    moments = paired_moments(clusters, x, y)
    expected = stats.ttest_rel(x, y)
    variance = moments.variance_at(1.0)
    assert clusters.degrees == pytest.approx(16.0, rel=1e-12)
    assert (moments.top - moments.bottom) / math.sqrt(variance) == pytest.approx(
        expected.statistic, rel=1e-12
    )
    assert moments.p_above(1.0) == pytest.approx(
        stats.ttest_rel(x, y, alternative="greater").pvalue, rel=1e-10
    )
    assert moments.p_below(1.0) == pytest.approx(
        stats.ttest_rel(x, y, alternative="less").pvalue, rel=1e-10
    )


def test_groups_of_one_size_are_the_t_test_of_their_means() -> None:
    x = RNG.random(20)
    groups = [f"g{n % 5}" for n in range(20)]
    means = [x[n::5].mean() for n in range(5)]
    clusters = build_clusters(groups)
    assert clusters.degrees == pytest.approx(4.0, rel=1e-12)
    assert variance_of(x, groups) == pytest.approx(np.var(means, ddof=1) / 5, rel=1e-12)


def test_a_known_answer_by_hand() -> None:
    # Groups {1}, {0, 0}, mean 1/3: E = (2/3, -2/3), V = 1/2 (4/9 / 4 + 4/9 / 1) = 5/18.
    assert variance_of(np.array([1.0, 0.0, 0.0]), ["x", "y", "y"]) == pytest.approx(5 / 18)


@given(sizes=SIZES, seed=st.integers(0, 10_000))
def test_the_variance_is_that_of_leaving_each_group_out(sizes: list[int], seed: int) -> None:
    index = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    values = rng.random(len(index))
    order = rng.permutation(len(index))
    without = [values[index != g].mean() for g in range(len(sizes))]
    count = len(sizes)
    expected = (count - 1) / count * sum((w - values.mean()) ** 2 for w in without)
    groups = [f"g{g}" for g in index[order]]
    assert variance_of(values[order], groups) == pytest.approx(expected, rel=1e-9, abs=1e-18)


@given(sizes=SIZES)
def test_degrees_are_those_of_the_whole_matrix_in_fractions(sizes: list[int]) -> None:
    count, total = len(sizes), sum(sizes)
    weights = [Fraction(count - 1, count) / (total - m) ** 2 for m in sizes]
    eye = [
        [Fraction(g == h) - Fraction(sizes[g], total) for h in range(count)] for g in range(count)
    ]
    form = [
        [
            sum(eye[k][g] * weights[k] * eye[k][h] for k in range(count)) * sizes[h]
            for h in range(count)
        ]
        for g in range(count)
    ]
    trace = sum(form[g][g] for g in range(count))
    squared = sum(form[g][h] * form[h][g] for g in range(count) for h in range(count))
    clusters = build_clusters([f"{g}" for g, m in enumerate(sizes) for _ in range(m)])
    assert clusters.degrees == pytest.approx(float(trace**2 / squared), rel=1e-9)
    assert 0.9999 < (clusters.degrees or 0.0) < count - 1 + 1e-9


def test_a_large_group_counts_for_few_degrees() -> None:
    groups = ["large"] * 10 + [f"{n}" for n in range(20)]
    assert build_clusters(groups).degrees == pytest.approx(4.9, abs=0.05)


def test_one_group_has_no_degrees() -> None:
    clusters = build_clusters(["x", "x"])
    assert clusters.degrees is None
    assert clusters.groups == 1
    moments = paired_moments(clusters, np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert math.isnan(moments.degrees)
    assert np.isnan(moments.p_above(0.5))


def test_many_data_sets_at_once_are_each_on_its_own() -> None:
    groups = ["a", "b", "a", "c", "b", "b"]
    clusters = build_clusters(groups)
    x, y = RNG.random((4, 6)), RNG.random((4, 6))
    together = paired_moments(clusters, x, y)
    for row in range(4):
        alone = paired_moments(clusters, x[row], y[row])
        assert together.covariance[row] == alone.covariance
        assert together.p_above(1.1)[row] == alone.p_above(1.1)


@pytest.mark.parametrize("level", [0.1, 0.3, 1 / 3, 1.0])
def test_rounding_leaves_no_variation(level: float) -> None:
    values = np.full(7, level) + np.array([0, 1, 0, -1, 0, 1, 0]) * np.spacing(level)
    moments = paired_moments(build_clusters([*"abcdefg"]), values, values * 0.7)
    assert moments.variance_at(1.0) == 0.0
    assert np.isnan(moments.p_above(0.7**-1))
    assert (moments.p_above(1.0), moments.p_below(1.0)) == (0.0, 1.0)
