"""Planning and intervals of rates against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.statistics import (
    clopper_pearson_interval,
    detectable_delta,
    required_tasks,
    widest_deviation,
    wilson_interval,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("deviation", "delta", "tasks"),
    [
        (0.4, 0.2, 32),
        (0.5, 0.1, 196),
        (0.5, 0.14, 100),
        (0.0, 0.1, 2),
        (0.01, 1.0, 2),
        (1, 0.05, 3136),
    ],
)
def test_required_tasks_by_hand(deviation: float, delta: float, tasks: int) -> None:
    assert required_tasks(deviation, delta) == tasks


@given(deviation=st.floats(0.05, 1.0), delta=st.floats(0.02, 0.5))
def test_what_is_required_is_enough_and_one_less_is_not(deviation: float, delta: float) -> None:
    tasks = required_tasks(deviation, delta)
    assert detectable_delta(deviation, tasks) <= delta * (1 + 1e-6)
    if tasks > 2:
        assert detectable_delta(deviation, tasks - 1) > delta * (1 - 1e-6)


def test_the_plan_has_the_power_that_it_says() -> None:
    tasks = required_tasks(0.4, 0.1)
    noncentrality = 0.1 / 0.4 * math.sqrt(tasks)
    power = stats.nct.sf(stats.t.ppf(0.975, tasks - 1), tasks - 1, noncentrality)
    assert power == pytest.approx(0.80, abs=0.005)


def test_the_widest_deviation_is_that_of_binary_scores_on_equal_tasks() -> None:
    rng = np.random.default_rng(3)
    difference = rng.binomial(3, 0.3, 200_000) / 3 - rng.binomial(2, 0.3, 200_000) / 2
    assert widest_deviation(0.3, 3, 2) == pytest.approx(difference.std(), rel=0.01)
    assert widest_deviation(1.0, 1, 1) == 0.0


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (required_tasks, (-0.1, 0.1)),
        (required_tasks, (0.1, 0.0)),
        (required_tasks, (NAN, 0.1)),
        (required_tasks, (0.1, NAN)),
        (detectable_delta, (0.1, 0)),
        (detectable_delta, (NAN, 3)),
        (widest_deviation, (1.1, 1, 1)),
        (widest_deviation, (NAN, 1, 1)),
        (widest_deviation, (0.5, 0, 1)),
        (widest_deviation, (0.5, 1, 0)),
        (wilson_interval, (3, 2)),
        (wilson_interval, (-1, 2)),
        (clopper_pearson_interval, (3, 2)),
    ],
)
def test_values_outside_their_domain_are_refused(
    call: object, arguments: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        call(*arguments)  # type: ignore[operator]


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
def test_a_confidence_outside_its_domain_is_refused(interval: object) -> None:
    for confidence in (0.0, 1.0, NAN):
        with pytest.raises(ValueError, match="confidence"):
            interval(1, 2, confidence=confidence)  # type: ignore[operator]


@given(data=st.data(), trials=st.integers(1, 400), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_are_scipys(data: st.DataObject, trials: int, confidence: float) -> None:
    hits = data.draw(st.integers(0, trials))
    test = stats.binomtest(hits, trials)
    for method, interval in (("wilson", wilson_interval), ("exact", clopper_pearson_interval)):
        lower, upper = interval(hits, trials, confidence=confidence)
        expected = test.proportion_ci(confidence, method=method)
        assert lower == pytest.approx(expected.low, rel=1e-9, abs=1e-12)
        assert upper == pytest.approx(expected.high, rel=1e-9, abs=1e-12)
        assert 0.0 <= lower <= hits / trials <= upper <= 1.0


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
def test_all_none_and_no_trials(interval: object) -> None:
    assert interval(0, 0) == (0.0, 1.0)  # type: ignore[operator]
    assert interval(0, 10)[0] == 0.0  # type: ignore[operator]
    assert interval(10, 10)[1] == 1.0  # type: ignore[operator]


def test_known_answers() -> None:
    # 0 of 10 at 95 %: 1 - .025^(1/10); Wilson: z^2 / (10 + z^2).
    assert clopper_pearson_interval(0, 10)[1] == pytest.approx(1 - 0.025**0.1, rel=1e-12)
    z2 = 1.959963984540054**2
    assert wilson_interval(0, 10)[1] == pytest.approx(z2 / (10 + z2), rel=1e-12)
