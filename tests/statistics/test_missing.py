"""Missing scores: shares, worst cases, and the sign test against scipy's binomial test."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from cert.statistics import bound_ratio, measure_missing
from cert.statistics.missing import sign_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.statistics import Arm, Missingness, Trial


def measured(trial: Trial, **options: float) -> Missingness:
    return measure_missing(trial, trial.arms(), **options)


def test_shares_reasons_and_worst_cases_by_hand(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial([[1.0, 0.5], [None, 0.5]], [[None, None], [1.0, 1.0]])
    found = measured(trial)
    a, b = found.arms
    assert (a.arm, a.replicates, a.unscored, a.share) == ("A", 4, 1, 0.25)
    assert a.reasons == {"timeout": 1}
    assert (a.lowest_mean, a.highest_mean) == (0.5, 0.75)
    assert (b.unscored, b.lowest_mean, b.highest_mean) == (2, 0.5, 1.0)
    assert not found.is_acceptable
    fields = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert fields["arms"][0]["reasons"] == {"timeout": 1}


def test_nothing_missing_is_acceptable(make_trial: Callable[..., Trial]) -> None:
    found = measured(make_trial([[1.0]] * 3, [[0.0]] * 3, [[0.5]] * 3))
    assert found.is_acceptable
    assert [pair.p for pair in found.pairs] == [1.0] * 3
    assert [pair.arms for pair in found.pairs] == [("A", "B0"), ("A", "C0"), ("B0", "C0")]
    assert found.arms[0].lowest_mean == found.arms[0].highest_mean == 1.0


def test_a_share_at_the_limit_is_acceptable_and_above_it_not(
    make_trial: Callable[..., Trial],
) -> None:
    one_of_20 = make_trial([[1.0]] * 20, [[None]] + [[1.0]] * 19)
    assert measured(one_of_20).is_acceptable
    one_of_19 = make_trial([[1.0]] * 19, [[None]] + [[1.0]] * 18)
    assert not measured(one_of_19).is_acceptable
    assert measured(one_of_19, max_share=0.06).is_acceptable


def test_few_but_one_sided_gaps_are_not_acceptable(make_trial: Callable[..., Trial]) -> None:
    def rows(missing: int) -> list[list[float | None]]:
        return [[None, 1.0]] * missing + [[1.0, 1.0]] * (200 - missing)

    assert measured(make_trial(rows(0), rows(5))).is_acceptable  # p = 1/16
    found = measured(make_trial(rows(0), rows(6)))
    assert found.arms[1].share < 0.05
    assert found.pairs[0].p == 0.03125
    assert not found.is_acceptable
    assert measured(make_trial(rows(6), rows(6))).is_acceptable


def test_gaps_of_one_group_count_once(make_trial: Callable[..., Trial]) -> None:
    b = [[None]] * 8 + [[1.0]] * 192
    groups = ["g"] * 8 + [f"t{n}" for n in range(192)]
    pair = measured(make_trial([[1.0]] * 200, b, groups=groups)).pairs[0]
    assert (pair.more_in_first, pair.more_in_second, pair.p) == (0, 1, 1.0)


def test_replicates_of_different_number_compare_by_share(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial([[None, 1.0, 1.0, 1.0]] * 3, [[None, 1.0]] * 2 + [[1.0, 1.0]])
    pair = measured(trial).pairs[0]
    assert (pair.more_in_first, pair.more_in_second) == (1, 2)
    even = measured(make_trial([[None, 1.0, None, 1.0]], [[None, 1.0]])).pairs[0]
    assert (even.more_in_first, even.more_in_second) == (0, 0)


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("second", range(8))
def test_the_sign_test_is_scipys(first: int, second: int) -> None:
    n = first + second
    expected = stats.binomtest(first, n, 0.5).pvalue if n else 1.0
    assert sign_test(first, second) == pytest.approx(expected, rel=1e-12)


def test_the_sign_test_of_many_is_exact() -> None:
    assert sign_test(5000, 5200) == pytest.approx(stats.binomtest(5000, 10200).pvalue, rel=1e-9)


def test_unequal_gaps_by_chance_are_rarely_called_unequal() -> None:
    # Two arms that lose 3 % of 100 tasks each: exact, so at most 5 %, counted over all outcomes.
    p_one = 0.03 * 0.97
    total = 0.0
    for wins in range(25):
        for losses in range(25):
            if sign_test(wins, losses) < 0.05:
                total += stats.multinomial.pmf(
                    [wins, losses, 100 - wins - losses], 100, [p_one, p_one, 1 - 2 * p_one]
                )
    assert 0.0 < total < 0.05


def test_bounds_of_a_ratio(make_arm: Callable[..., Arm]) -> None:
    top = make_arm("B", [[1.0, None], [0.5, 0.5]])
    bottom = make_arm("A", [[0.5, 0.5], [None, 0.0]])
    found = bound_ratio(top, bottom)
    assert found.lowest == pytest.approx((2.0 / 4) / (2.0 / 4))
    assert found.highest == pytest.approx((3.0 / 4) / (1.0 / 4))


def test_bounds_without_a_denominator(make_arm: Callable[..., Arm]) -> None:
    zeros, gaps = make_arm("A", [[0.0, 0.0]]), make_arm("A", [[None, None]])
    top = make_arm("B", [[0.5, 1.0]])
    assert bound_ratio(top, zeros) == type(bound_ratio(top, zeros))(lowest=None, highest=None)
    assert bound_ratio(top, gaps).lowest == pytest.approx(0.75)
    assert bound_ratio(top, gaps).highest is None
    assert bound_ratio(gaps, top).lowest == 0.0
