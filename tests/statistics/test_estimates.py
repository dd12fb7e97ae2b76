"""Ratios and means: by hand, by scipy's tests, at their edges, and in small simulations."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize, stats

from cert.statistics import estimate_delta, estimate_gamma, summarize_arm
from cert.statistics.clusters import build_clusters
from cert.statistics.effects import trial_moments
from cert.statistics.estimates import IntervalStatus, estimate_mean, estimate_ratio
from cert.statistics.moments import fieller_set, paired_moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.statistics import Arm, RatioEstimate, Trial

NAN = math.nan
TABLE = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from("uvwxyz")),
    min_size=2,
    max_size=14,
)


def ids(count: int) -> tuple[str, ...]:
    return tuple(f"g{n}" for n in range(count))


def of_table(table: list[tuple[int, int, str]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    top, bottom, groups = zip(*table, strict=True)
    return np.array(top) / 8, np.array(bottom) / 8, groups


def test_gamma_is_a_ratio_of_means_and_not_a_mean_of_ratios() -> None:
    found = estimate_ratio(np.array([0.2, 1.0]), np.array([0.1, 1.0]), ids(2))
    assert found.estimate == pytest.approx(1.2 / 1.1, rel=1e-15)  # the mean of ratios is 1.5
    assert found.top == pytest.approx(0.6, rel=1e-15)
    assert found.bottom == pytest.approx(0.55, rel=1e-15)


def test_a_constant_denominator_leaves_the_t_interval() -> None:
    # Mean .6, sd .1, t(2) = 4.302653: .6 -+ 4.302653 * .1 / sqrt 3, by .5.
    found = estimate_ratio(np.array([0.5, 0.6, 0.7]), np.full(3, 0.5), ids(3))
    assert found.status is IntervalStatus.BOUNDED
    assert found.lower == pytest.approx((0.6 - 0.24841377) / 0.5, rel=1e-7)
    assert found.upper == pytest.approx((0.6 + 0.24841377) / 0.5, rel=1e-7)
    assert (found.tasks, found.groups, found.confidence, found.scale) == (3, 3, 0.95, 1.0)
    assert found.degrees == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_bounds_are_where_scipys_paired_t_test_turns(seed: int, confidence: float) -> None:
    rng = np.random.default_rng(seed)
    bottom = rng.uniform(0.4, 0.9, 9)
    top = bottom * rng.uniform(0.6, 1.1, 9)
    found = estimate_ratio(top, bottom, ids(9), confidence=confidence)

    def excess(ratio: float) -> float:
        return float(stats.ttest_rel(top, ratio * bottom).pvalue) - (1.0 - confidence)

    assert found.estimate is not None
    assert found.lower == pytest.approx(optimize.brentq(excess, 0.0, found.estimate), rel=1e-8)
    assert found.upper == pytest.approx(optimize.brentq(excess, found.estimate, 5.0), rel=1e-8)


@pytest.mark.parametrize(
    ("top", "bottom", "status", "estimate"),
    [
        ([], [], IntervalStatus.NO_DATA, None),
        ([NAN, 0.5], [0.5, NAN], IntervalStatus.NO_DATA, None),
        ([NAN, NAN], [NAN, NAN], IntervalStatus.NO_DATA, None),
        ([0.5], [0.25], IntervalStatus.TOO_FEW, 2.0),
        ([0.5], [0.0], IntervalStatus.NO_DENOMINATOR, None),
        ([0.5, 1.0], [0.0, 0.0], IntervalStatus.NO_DENOMINATOR, None),
        ([0.0, 0.0], [0.0, 0.0], IntervalStatus.NO_DENOMINATOR, None),
        ([1.0] * 30, [1.0] * 30, IntervalStatus.NO_VARIATION, 1.0),
        ([0.0] * 4, [0.5, 1.0, 0.5, 1.0], IntervalStatus.NO_VARIATION, 0.0),
        ([0.1, 0.2, 0.3], [0.2, 0.4, 0.6], IntervalStatus.NO_VARIATION, 0.5),
        ([0.3] * 3, [0.1] * 3, IntervalStatus.NO_VARIATION, 3.0),
        ([1.0, 0.0, 1.0], [0.0, 0.0, 1.0], IntervalStatus.UNBOUNDED, 2.0),
    ],
)
def test_edges_have_a_status_and_no_bounds(
    top: list[float], bottom: list[float], status: IntervalStatus, estimate: float | None
) -> None:
    found = estimate_ratio(np.array(top), np.array(bottom), ids(len(top)))
    assert found.status is status
    assert found.estimate == (None if estimate is None else pytest.approx(estimate, rel=1e-12))
    assert (found.lower, found.upper) == (None, None)


def test_one_group_is_too_few_however_many_its_tasks() -> None:
    rng = np.random.default_rng(1)
    found = estimate_ratio(rng.random(50), rng.random(50), ("g",) * 50)
    assert (found.status, found.lower, found.degrees) == (IntervalStatus.TOO_FEW, None, None)
    assert (found.tasks, found.groups) == (50, 1)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, NAN])
def test_a_confidence_outside_its_domain_is_refused(confidence: float) -> None:
    values = np.array([0.1, 0.5])
    with pytest.raises(ValueError, match="confidence"):
        estimate_ratio(values, values, ids(2), confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        estimate_mean(values, ids(2), confidence=confidence)


@given(table=TABLE)
@example(table=[(2, 3, "v"), (2, 6, "x"), (4, 7, "u"), (5, 6, "x")])
@example(table=[(0, 3, "u"), (0, 3, "v"), (3, 6, "u"), (4, 7, "v")])  # B = A - 3/8 everywhere
def test_an_interval_excludes_a_ratio_exactly_where_the_test_rejects_it(
    table: list[tuple[int, int, str]],
) -> None:
    top, bottom, groups = of_table(table)
    found = estimate_ratio(top, bottom, groups)
    if found.lower is None or found.upper is None or found.estimate is None:
        return
    assert 0.0 <= found.lower <= found.estimate <= found.upper
    moments = paired_moments(build_clusters(groups), top, bottom)
    for ratio in (0.5, 0.95, 1.0, 1.7):
        if min(abs(found.lower - ratio), abs(found.upper - ratio)) > 1e-9:
            assert (moments.p_above(ratio) < 0.025) == (found.lower > ratio)
            assert (moments.p_below(ratio) < 0.025) == (found.upper < ratio)


@given(table=TABLE, factor=st.sampled_from([0.25, 0.3, 1.0, 3.7]), seed=st.integers(0, 99))
def test_scale_and_order_of_tasks_change_nothing(
    table: list[tuple[int, int, str]], factor: float, seed: int
) -> None:
    top, bottom, groups = of_table(table)
    found = estimate_ratio(top, bottom, groups)
    order = np.random.default_rng(seed).permutation(len(table))
    moved = estimate_ratio(
        top[order] * factor, bottom[order] * factor, tuple(groups[place] for place in order)
    )
    assert moved.status is found.status
    for name in ("estimate", "lower", "upper", "degrees"):
        value = getattr(found, name)
        expected = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)
        assert getattr(moved, name) == expected


@given(table=TABLE)
def test_swapping_the_arms_turns_the_interval_over(table: list[tuple[int, int, str]]) -> None:
    top, bottom, groups = of_table(table)
    found, swapped = estimate_ratio(top, bottom, groups), estimate_ratio(bottom, top, groups)
    if found.lower and found.upper and swapped.lower and swapped.upper:
        assert swapped.lower == pytest.approx(1.0 / found.upper, rel=1e-6)
        assert swapped.upper == pytest.approx(1.0 / found.lower, rel=1e-6)


@given(table=TABLE, place=st.integers(0, 13))
def test_a_better_answer_never_lowers_gamma_or_delta(
    table: list[tuple[int, int, str]], place: int
) -> None:
    top, bottom, groups = of_table(table)
    better = top.copy()
    better[place % len(top)] = 1.0
    before, after = (estimate_ratio(x, bottom, groups).estimate for x in (top, better))
    if before is not None and after is not None:
        assert after >= before
    deltas = [estimate_mean(x - bottom, groups, least=-1.0).estimate for x in (top, better)]
    assert deltas[1] is not None
    assert deltas[0] is not None
    assert deltas[1] >= deltas[0]


def test_more_confidence_is_a_wider_interval_until_it_is_unbounded() -> None:
    rng = np.random.default_rng(4)
    top, bottom = rng.random(6), rng.random(6)
    found = [estimate_ratio(top, bottom, ids(6), confidence=c) for c in (0.5, 0.9, 0.95, 0.9999)]
    widths = [f.upper - f.lower for f in found if f.upper is not None and f.lower is not None]
    assert len(widths) == 3
    assert widths == sorted(widths)
    assert found[-1].status is IntervalStatus.UNBOUNDED


def test_delta_is_scipys_paired_t(make_trial: Callable[..., Trial]) -> None:
    a = [[0.5, 0.0], [1.0, 0.5], [0.25, 0.25], [0.0, 0.0], [0.75, 1.0]]
    b = [[1.0, 0.0, 0.5], [1.0, 1.0, 0.5], [0.25, 0.5, 0.5], [0.5, 0.0, 0.0], [0.25, 1.0, 1.0]]
    trial = make_trial(a, b)
    found = estimate_delta(trial, trial.strategies[0].coordinated, trial.single)
    x, y = ([sum(row) / len(row) for row in rows] for rows in (b, a))
    test = stats.ttest_rel(x, y)
    interval = test.confidence_interval()
    assert found.estimate == pytest.approx(np.mean(x) - np.mean(y), rel=1e-12)
    assert found.lower == pytest.approx(interval.low, rel=1e-9)
    assert found.upper == pytest.approx(interval.high, rel=1e-9)
    assert found.standard_deviation == pytest.approx(np.std(np.subtract(x, y), ddof=1), rel=1e-12)
    assert found.standard_error == pytest.approx(found.estimate / test.statistic, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "status", "estimate"),
    [
        ([], IntervalStatus.NO_DATA, None),
        ([NAN], IntervalStatus.NO_DATA, None),
        ([0.5], IntervalStatus.TOO_FEW, 0.5),
        ([1.0, 1.0, 1.0], IntervalStatus.NO_VARIATION, 1.0),
        ([0.0, 0.0], IntervalStatus.NO_VARIATION, 0.0),
        ([0.1, 0.1, NAN, 0.1], IntervalStatus.NO_VARIATION, 0.1),
    ],
)
def test_edges_of_a_mean(
    values: list[float], status: IntervalStatus, estimate: float | None
) -> None:
    found = estimate_mean(np.array(values), ids(len(values)))
    assert found.status is status
    assert found.estimate == (None if estimate is None else pytest.approx(estimate, rel=1e-12))
    assert (found.lower, found.upper) == (None, None)
    assert (found.standard_error == 0.0) == (status is IntervalStatus.NO_VARIATION)


def test_a_mean_of_scores_ends_where_scores_end() -> None:
    found = estimate_mean(np.array([0.0, 1.0, 1.0]), ids(3))
    assert (found.lower, found.upper) == (0.0, 1.0)
    found = estimate_mean(np.array([-1.0, 1.0, 1.0]), ids(3), least=-1.0)
    assert (found.lower, found.upper) == (-1.0, 1.0)


def test_only_tasks_that_both_arms_have_count(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial(
        [[0.5], [None], [1.0], [0.25]],
        [[1.0], [1.0], [None], [0.75]],
        groups=["x", "y", "y", "z"],
    )
    found = estimate_gamma(trial, trial.strategies[0].coordinated, trial.single)
    assert (found.tasks, found.groups) == (2, 2)
    assert found.estimate == pytest.approx(1.75 / 0.75)
    moments = trial_moments(trial, trial.strategies[0].coordinated, trial.single)
    assert moments is not None
    assert moments.top == pytest.approx(0.875)


def test_moments_need_two_groups(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial([[0.5], [0.25]], [[1.0], [0.5]], groups=["x", "x"])
    assert trial_moments(trial, trial.strategies[0].coordinated, trial.single) is None
    nothing = make_trial([[None]], [[1.0]])
    assert trial_moments(nothing, nothing.strategies[0].coordinated, nothing.single) is None


def test_an_arms_summary_by_hand(make_arm: Callable[..., Arm]) -> None:
    from cert.statistics import Replicate, Trial

    rows = (
        (Replicate(score=1.0, tokens=500, cost_usd=0.1), Replicate(score=0.0, tokens=1500)),
        (Replicate(score=0.5, tokens=900, cost_usd=0.2), Replicate(unscored="timeout", tokens=7)),
        (Replicate(score=1.0, tokens=100, cost_usd=0.3), Replicate(score=1.0)),
    )
    from cert.statistics import Arm

    arm = Arm("A", rows)
    found = summarize_arm(Trial(tasks=ids(3), groups=ids(3), single=arm), arm)
    assert found.quality.estimate == pytest.approx(2 / 3)
    # The third task's tokens are not known in full: (.5 + .5) / (1000 + 900).
    assert found.quality_per_1000_tokens.estimate == pytest.approx(1000 * 1.0 / 1900)
    assert (found.quality_per_1000_tokens.tasks, found.quality_per_1000_tokens.scale) == (2, 1000.0)
    assert (found.tokens, found.tokens_unknown) == (3007, 1)
    assert found.cost_usd == pytest.approx(0.6)
    assert found.cost_unknown == 3


def test_unknown_tokens_and_costs_are_no_zeros(make_trial: Callable[..., Trial]) -> None:
    from cert.statistics import Arm, Replicate, Trial

    arm = Arm("A", ((Replicate(score=1.0),), (Replicate(score=0.5),)))
    found = summarize_arm(Trial(tasks=ids(2), groups=ids(2), single=arm), arm)
    assert (found.tokens, found.tokens_unknown) == (0, 2)
    assert (found.cost_usd, found.cost_unknown) == (None, 2)
    assert found.quality_per_1000_tokens.status is IntervalStatus.NO_DATA


def test_tokens_of_two_arms_are_compared_over_tasks(make_arm: Callable[..., Arm]) -> None:
    from cert.statistics import Strategy, Trial, estimate_token_ratio

    b, c = make_arm("B", [[1.0], [0.5], [None]], 300), make_arm("C", [[1.0], [1.0], [1.0]], 240)
    trial = Trial(
        tasks=ids(3),
        groups=ids(3),
        single=make_arm("A", [[0.5]] * 3),
        strategies=(Strategy(name="S", coordinated=b, matched=c),),
    )
    found = estimate_token_ratio(trial, b, c)
    assert (found.estimate, found.tasks) == (pytest.approx(1.25), 2)
    assert found.status is IntervalStatus.NO_VARIATION


def test_results_are_plain_json(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial([[0.5], [0.25], [0.1]], [[1.0], [0.5], [0.9]])
    results = [
        estimate_gamma(trial, trial.strategies[0].coordinated, trial.single),
        estimate_delta(trial, trial.strategies[0].coordinated, trial.single),
        summarize_arm(trial, trial.single),
    ]
    for result in results:
        fields = asdict(result)
        assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def coverage(found: RatioEstimate, truth: float) -> bool:
    assert found.lower is not None
    assert found.upper is not None
    return found.lower <= truth <= found.upper


@pytest.mark.parametrize(
    ("sizes", "levels"),
    [((1,) * 10, 1), ((1,) * 20, 4), ((3,) * 8, 1), ((6, 1, 2, 3, 1, 2, 5, 4), 4)],
)
def test_coverage_of_gamma_in_a_small_simulation(sizes: tuple[int, ...], levels: int) -> None:
    # 93 to 97 %, give or take what 4,000 trials leave open at one in a million.
    rng = np.random.default_rng([8, *sizes])
    runs, tasks = 4000, sum(sizes)
    index = np.repeat(np.arange(len(sizes)), sizes)
    rate = rng.beta(3.0, 2.0, (runs, len(sizes)))[:, index]
    bottom = rng.binomial(3 * levels, rate) / (3 * levels)
    top = rng.binomial(3 * levels, 0.8 * rate) / (3 * levels)
    assert bottom.shape == (runs, tasks)
    clusters = build_clusters([f"{g}" for g in index])
    moments = paired_moments(clusters, top, bottom)
    reach = float(stats.t.ppf(0.975, clusters.degrees)) ** 2 * moments.variance_at(0.8)
    covered = int((np.square(moments.top - 0.8 * moments.bottom) <= reach).sum())
    assert stats.binom.ppf(1e-6, runs, 0.93) <= covered <= stats.binom.ppf(1 - 1e-6, runs, 0.97)
    found = fieller_set(moments, 0.95)
    bounded = ~np.isnan(found.lower)
    assert bounded.mean() > 0.9
    inside = (found.lower <= 0.8) & (found.upper >= 0.8)
    assert stats.binom.ppf(1e-6, int(bounded.sum()), 0.93) <= inside[bounded].sum()
    first = int(np.flatnonzero(bounded)[0])
    alone = estimate_ratio(top[first], bottom[first], [f"{g}" for g in index])
    assert coverage(alone, 0.8) == inside[first]
