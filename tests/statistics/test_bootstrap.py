"""Bootstrap intervals against scipy's, and against a plain loop over the same draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

import cert.statistics.bootstrap as module
from cert.statistics import bootstrap_gamma, estimate_gamma

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.statistics import Trial


def scores(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bottom = rng.beta(4, 2, count)
    return np.clip(bottom + rng.normal(0.05, 0.15, count), 0, 1), bottom


def trial_of(make_trial: Callable[..., Trial], top: np.ndarray, bottom: np.ndarray) -> Trial:
    return make_trial([[float(x)] for x in bottom], [[float(x)] for x in top])


def bootstrap(trial: Trial, **options: float) -> module.BootstrapIntervals | None:
    arms = trial.strategies[0].coordinated, trial.single
    return bootstrap_gamma(trial, *arms, **({"seed": 1} | options))  # type: ignore[arg-type]


def test_it_agrees_with_scipy(make_trial: Callable[..., Trial]) -> None:
    top, bottom = scores(2, 40)
    found = bootstrap(trial_of(make_trial, top, bottom), resamples=40_000)
    assert found is not None
    assert found.percentile is not None
    assert found.bca is not None
    for method, bounds in (("percentile", found.percentile), ("BCa", found.bca)):
        expected = stats.bootstrap(
            (top, bottom),
            lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
            paired=True,
            n_resamples=40_000,
            method=method,
            rng=np.random.default_rng(9),
        )
        # Bounds at 2.5 % of 40,000 resamples scatter by about .01 of the interval's width.
        interval = expected.confidence_interval
        width = interval.high - interval.low
        assert bounds[0] == pytest.approx(interval.low, abs=0.05 * width)
        assert bounds[1] == pytest.approx(interval.high, abs=0.05 * width)


def test_the_draws_are_raw_words_of_the_seed(make_trial: Callable[..., Trial]) -> None:
    top, bottom = scores(3, 30)
    found = bootstrap(trial_of(make_trial, top, bottom), seed=11, resamples=99)
    words = np.random.PCG64(11)
    ratios = []
    for _ in range(99):
        drawn = [int((int(words.random_raw()) >> 11) * 2.0**-53 * 30) for _ in range(30)]
        ratios.append(sum(top[i] for i in drawn) / sum(bottom[i] for i in drawn))
    assert found is not None
    assert found.percentile == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), rel=1e-12)


def test_blocks_change_nothing(
    make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trial_of(make_trial, *scores(4, 35))
    whole = bootstrap(trial, resamples=500)
    monkeypatch.setattr(module, "_BLOCK", 35 * 7)
    assert bootstrap(trial, resamples=500) == whole


def test_order_of_tasks_changes_nothing_and_the_seed_something(
    make_trial: Callable[..., Trial],
) -> None:
    top, bottom = scores(5, 30)
    names = [f"g{n:02d}" for n in range(30)]
    order = np.random.default_rng(1).permutation(30)
    rows = [[[float(v)] for v in values] for values in (bottom, top)]
    plain = make_trial(*rows, groups=names)
    moved = make_trial(
        *([values[i] for i in order] for values in rows), groups=[names[i] for i in order]
    )
    one, two = bootstrap(plain), bootstrap(moved)
    assert one is not None
    assert two is not None
    assert one.bca == pytest.approx(two.bca, rel=1e-12)
    assert one != bootstrap(plain, seed=2)


def test_fewer_than_thirty_groups_get_none(make_trial: Callable[..., Trial]) -> None:
    assert bootstrap(trial_of(make_trial, *scores(6, 29))) is None
    top, bottom = scores(6, 60)
    rows = [[[float(v)] for v in values] for values in (bottom, top)]
    assert bootstrap(make_trial(*rows, groups=[f"g{n // 3}" for n in range(60)])) is None


def test_groups_are_drawn_whole(make_trial: Callable[..., Trial]) -> None:
    # Tasks twice over in groups of two say no more than once over.
    top, bottom = scores(7, 30)
    once = bootstrap(trial_of(make_trial, top, bottom))
    rows = [[[float(v)] for v in values for _ in range(2)] for values in (bottom, top)]
    twice = bootstrap(make_trial(*rows, groups=[f"t{n // 2:04d}" for n in range(60)]))
    assert once is not None
    assert twice is not None
    assert twice.groups == 30
    assert twice.percentile == pytest.approx(once.percentile, rel=1e-12)
    assert twice.bca == pytest.approx(once.bca, rel=1e-12)


def test_resamples_without_a_denominator_give_no_interval(
    make_trial: Callable[..., Trial],
) -> None:
    bottom = np.zeros(30)
    bottom[0] = 1.0
    found = bootstrap(trial_of(make_trial, np.full(30, 0.5), bottom), resamples=999)
    assert found is not None
    assert (found.percentile, found.bca) == (None, None)
    assert 0.2 < found.undefined / 999 < 0.55  # (29/30)^30 = .36


def test_scores_that_never_differ_have_no_bca(make_trial: Callable[..., Trial]) -> None:
    found = bootstrap(trial_of(make_trial, np.full(30, 1.0), np.full(30, 0.5)), resamples=99)
    assert found is not None
    assert found.percentile == (2.0, 2.0)
    assert found.bca is None


def test_it_is_near_fieller_at_a_hundred_tasks(make_trial: Callable[..., Trial]) -> None:
    trial = trial_of(make_trial, *scores(8, 100))
    fieller = estimate_gamma(trial, trial.strategies[0].coordinated, trial.single)
    found = bootstrap(trial)
    assert found is not None
    assert found.bca is not None
    assert fieller.lower is not None
    assert fieller.upper is not None
    width = fieller.upper - fieller.lower
    assert found.bca[0] == pytest.approx(fieller.lower, abs=0.15 * width)
    assert found.bca[1] == pytest.approx(fieller.upper, abs=0.15 * width)


def test_resamples_on_one_side_of_the_estimate_have_no_bca(
    make_trial: Callable[..., Trial],
) -> None:
    found = bootstrap(trial_of(make_trial, *scores(9, 30)), resamples=1)
    assert found is not None
    assert found.percentile is not None
    assert found.bca is None


@pytest.mark.parametrize(
    ("options", "message"), [({"resamples": 0}, "resamples is 0"), ({"confidence": 1.0}, "conf")]
)
def test_a_plan_outside_its_domain_is_refused(
    make_trial: Callable[..., Trial], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(trial_of(make_trial, *scores(9, 30)), **options)
