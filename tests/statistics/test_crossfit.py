"""Omega and the oracle gap: by hand, with gaps, and without an effect."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from cert.statistics import Trial, estimate_omega
from cert.statistics.crossfit import half_of_groups, held_out_gains, split_variance
from cert.statistics.estimates import IntervalStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cert.statistics import OmegaEstimate

NAN = math.nan


def omega(trial: Trial, **options: int) -> OmegaEstimate:
    return estimate_omega(
        trial, trial.strategies[0].coordinated, trial.single, **({"seed": 1} | options)
    )


def test_one_halving_by_hand() -> None:
    individuals = np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0], [0.5, 1.0]])
    coordinated = np.array([1.0, 0.5, 0.5, 1.0])
    first = np.array([True, True, False, False])
    # First half: the first individual is best, second half: the second.
    expected = [1.0 - 0.0, 0.5 - 0.5, 0.5 - 0.0, 1.0 - 0.5]
    np.testing.assert_allclose(held_out_gains(individuals, coordinated, first), expected)


def test_individuals_that_tie_are_averaged() -> None:
    individuals = np.array([[1.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
    gains = held_out_gains(individuals, np.array([1.0, 1.0]), np.array([True, False]))
    np.testing.assert_allclose(gains, [1.0 - 0.0, 1.0 - 0.25])


def test_who_has_no_score_on_a_half_cannot_be_its_best() -> None:
    individuals = np.array([[NAN, 0.1], [0.9, 0.2]])
    gains = held_out_gains(individuals, np.array([0.5, 0.5]), np.array([True, False]))
    # The other half's best is the first, who has no score on task 1; the second is task 2's.
    np.testing.assert_allclose(gains, [NAN, 0.5 - 0.2])


def test_halves_are_digests_of_groups_and_keep_groups_whole() -> None:
    groups = ["a", "b", "c", "a", "d", "e"]
    marked = half_of_groups(groups, seed=3, split=4)
    ordered = sorted("abcde", key=lambda g: hashlib.sha256(f"3:4:{g}".encode()).digest())
    assert marked.tolist() == [group in ordered[:2] for group in groups]
    assert not half_of_groups(["x", "x"], seed=1, split=0).any()
    assert half_of_groups(["\ud800", "y"], seed=1, split=0).sum() == 1


def test_halvings_differ_by_split_and_by_seed() -> None:
    groups = [f"g{n}" for n in range(20)]
    halves = {
        tuple(half_of_groups(groups, seed=seed, split=split).tolist())
        for seed in range(3)
        for split in range(10)
    }
    assert len(halves) == 30


def test_omega_is_the_mean_over_halvings(make_trial: Callable[..., Trial]) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, (9, 3)) / 4, rng.integers(0, 5, (9, 2)) / 4
    trial = make_trial(a.tolist(), b.tolist())
    found = omega(trial, seed=5, splits=7)
    per_split = []
    for split in range(7):
        half = half_of_groups(trial.groups, seed=5, split=split)
        gains = []
        for task in range(9):
            others = a[half != half[task]].sum(axis=0)
            best = [j for j in range(3) if others[j] == others.max()]
            gains.append(b[task].mean() - a[task, best].mean())
        per_split.append(gains)
    table = np.array(per_split)
    error = math.sqrt((table.var(axis=1, ddof=1) / 9).mean())
    assert found.omega.estimate == pytest.approx(table.mean(), rel=1e-9)
    assert found.omega.standard_error == pytest.approx(error, rel=1e-9)
    reach = float(stats.t.ppf(0.975, 8)) * error
    assert found.omega.lower == pytest.approx(table.mean() - reach, rel=1e-9)
    assert found.oracle_gap == pytest.approx((b.mean(axis=1) - a.max(axis=1)).mean(), rel=1e-9)
    assert (found.individuals, found.splits, found.seed) == (3, 7, 5)


def test_order_of_tasks_and_of_individuals_changes_nothing(
    make_trial: Callable[..., Trial],
) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (12, 3)) / 4, rng.integers(0, 5, (12, 3)) / 4
    names = [f"g{n // 2}" for n in range(12)]
    order = rng.permutation(12)
    plain = omega(make_trial(a.tolist(), b.tolist(), groups=names))
    moved = omega(
        make_trial(
            a[order][:, [2, 0, 1]].tolist(), b[order].tolist(), groups=[names[i] for i in order]
        )
    )
    assert moved.omega.estimate == pytest.approx(plain.omega.estimate, rel=1e-9)
    assert moved.omega.lower == pytest.approx(plain.omega.lower, rel=1e-9)
    assert moved.oracle_gap == pytest.approx(plain.oracle_gap, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "status", "gap"),
    [
        ([[0.5, 1.0]], [[0.75]], IntervalStatus.NO_DATA, -0.25),
        ([[None, None]] * 4, [[0.5]] * 4, IntervalStatus.NO_DATA, None),
        ([[0.5, 1.0]] * 4, [[None]] * 4, IntervalStatus.NO_DATA, None),
        ([[1.0, 1.0]] * 4, [[1.0]] * 4, IntervalStatus.NO_VARIATION, 0.0),
        ([[0.0]] * 4, [[0.0]] * 4, IntervalStatus.NO_VARIATION, 0.0),
    ],
)
def test_edges(
    make_trial: Callable[..., Trial],
    a: Sequence[Sequence[float | None]],
    b: Sequence[Sequence[float | None]],
    status: IntervalStatus,
    gap: float | None,
) -> None:
    found = omega(make_trial(a, b))
    assert found.omega.status is status
    assert found.oracle_gap == gap
    assert found.omega.lower is None


def test_one_group_has_an_oracle_gap_and_no_omega(make_trial: Callable[..., Trial]) -> None:
    found = omega(make_trial([[0.5, 0.0], [1.0, 0.5]], [[1.0], [0.5]], groups=["x", "x"]))
    assert found.omega.status is IntervalStatus.NO_DATA
    assert found.oracle_gap == pytest.approx(0.0)


def test_gaps_leave_what_is_there(make_trial: Callable[..., Trial]) -> None:
    a = [[0.5, None], [None, 1.0], [1.0, 0.0], [None, None], [0.0, 0.25], [0.5, 0.5]]
    b = [[1.0], [0.5], [None], [0.5], [0.5], [0.25]]
    found = omega(make_trial(a, b))
    assert found.omega.tasks == 4
    assert found.omega.status is IntervalStatus.BOUNDED
    assert found.oracle_gap == pytest.approx(((1 - 0.5) + (0.5 - 1) + 0.25 - 0.25) / 4)


def test_variance_needs_two_groups_with_a_gain() -> None:
    assert split_variance(np.array([[0.5, NAN]]), ["a", "b"]) is None
    found = split_variance(np.array([[0.5, NAN, 0.5], [0.0, 1.0, NAN]]), ["a", "b", "c"])
    assert found == pytest.approx((0.0 + 0.25) / 2)


def test_no_splits_are_refused(make_trial: Callable[..., Trial]) -> None:
    with pytest.raises(ValueError, match="splits is 0"):
        omega(make_trial([[0.5]], [[0.5]]), splits=0)


def test_omega_is_unbiased_where_the_plain_difference_is_not() -> None:
    # 3,000 trials of 20 tasks: standard error of the mean omega about .0018, exact zero expected.
    rng = np.random.default_rng(6)
    rate = rng.beta(2.0, 2.0, (3000, 20))
    individuals = rng.binomial(1, rate[..., np.newaxis], (3000, 20, 3)).astype(np.float64)
    coordinated = rng.binomial(1, rate).astype(np.float64)
    groups = [f"g{n}" for n in range(20)]
    gains = held_out_gains(individuals, coordinated, half_of_groups(groups, seed=1, split=0))
    omegas = gains.mean(axis=1)
    error = omegas.std() / math.sqrt(3000)
    assert error < 0.003
    assert abs(omegas.mean()) < 5 * error
    same_tasks = coordinated.mean(axis=1) - individuals.mean(axis=1).max(axis=1)
    assert same_tasks.mean() < -0.05
    assert (coordinated - individuals.max(axis=2)).mean() < -0.2
