"""Verdicts: each one and each doubt reached, Holm by hand, and few false ones without an effect."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.statistics import CoordinationVerdict, Doubt, StrategyVerdict, VerdictRule, judge
from cert.statistics.verdict import holm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cert.statistics import Trial

Rows = list[list[float | None]]
RULE = VerdictRule()
NAN = math.nan


def around(level: float, count: int, seed: int, spread: float = 0.1) -> Rows:
    rng = np.random.default_rng(seed)
    values = level + spread * (rng.random(count) - 0.5)
    return [[float(v)] for v in np.clip(values, 0, 1)]


def judged(trial: Trial, rule: VerdictRule = RULE) -> StrategyVerdict:
    (verdict,) = judge(trial, rule)
    return verdict


def test_better_and_as_good_for_the_money_is_beneficial(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(around(0.5, 30, 1), around(0.7, 30, 2), around(0.7, 30, 3)))
    assert found.verdict is CoordinationVerdict.BENEFICIAL
    assert found.doubts == ()
    assert found.gamma.lower is not None
    assert found.gamma.lower > 1.0
    assert found.gamma_budget is not None
    assert found.gamma_budget.lower is not None
    assert found.gamma_budget.lower >= 0.95
    assert found.strategy == "S0"
    fields = asdict(found)
    restored = json.loads(json.dumps(fields, allow_nan=False))
    assert restored["verdict"] == "beneficial"


def test_worse_than_the_model_alone_is_harmful(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(around(0.7, 30, 1), around(0.5, 30, 2), around(0.5, 30, 3)))
    assert found.verdict is CoordinationVerdict.HARMFUL
    assert Doubt.WORSE in found.doubts
    assert Doubt.WORSE_FOR_THE_BUDGET not in found.doubts


def test_better_but_worse_for_the_money_is_harmful(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(around(0.5, 30, 1), around(0.6, 30, 2), around(0.8, 30, 3)))
    assert found.verdict is CoordinationVerdict.HARMFUL
    assert found.doubts == (Doubt.NOT_AS_GOOD_FOR_THE_BUDGET, Doubt.WORSE_FOR_THE_BUDGET)


def test_harm_needs_neither_a_budget_arm_nor_ten_tasks(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(around(0.8, 5, 1), around(0.3, 5, 2)))
    assert found.verdict is CoordinationVerdict.HARMFUL
    assert found.p_worse_for_the_budget is None
    assert found.doubts == (
        Doubt.NO_BUDGET_ARM,
        Doubt.TOO_FEW_TASKS,
        Doubt.NOT_BETTER,
        Doubt.WORSE,
    )


def test_without_a_budget_arm_nothing_is_beneficial(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(around(0.5, 30, 1), around(0.9, 30, 2)))
    assert found.verdict is CoordinationVerdict.INCONCLUSIVE
    assert found.doubts == (Doubt.NO_BUDGET_ARM,)
    assert found.gamma_budget is None
    assert found.p_beneficial == 1.0


@pytest.mark.parametrize(("count", "verdict"), [(9, "inconclusive"), (10, "beneficial")])
def test_fewer_than_ten_tasks_are_never_beneficial(
    make_trial: Callable[..., Trial], count: int, verdict: str
) -> None:
    trial = make_trial(around(0.4, count, 1), around(0.9, count, 2), around(0.8, count, 3))
    found = judged(trial)
    assert found.verdict == verdict
    assert (Doubt.TOO_FEW_TASKS in found.doubts) == (count < 10)


def test_tasks_are_counted_where_all_three_arms_have_them(make_trial: Callable[..., Trial]) -> None:
    c: Rows = [*around(0.8, 19, 3), [None]]
    trial = make_trial(around(0.4, 20, 1), around(0.9, 20, 2), c)
    assert judged(trial).verdict is CoordinationVerdict.BENEFICIAL
    assert judged(trial, VerdictRule(min_tasks=20)).doubts == (Doubt.TOO_FEW_TASKS,)


def test_no_effect_is_inconclusive(make_trial: Callable[..., Trial]) -> None:
    found = judged(make_trial(*(around(0.5, 30, seed) for seed in (1, 2, 3))))
    assert found.verdict is CoordinationVerdict.INCONCLUSIVE
    assert Doubt.NOT_BETTER in found.doubts


@pytest.mark.parametrize(
    ("a", "b", "c", "verdict", "doubt"),
    [
        ([1.0] * 30, [1.0] * 30, [1.0] * 30, "inconclusive", Doubt.NO_VARIATION),
        ([0.0] * 30, [0.0] * 30, [0.0] * 30, "undefined", Doubt.GAMMA_UNDEFINED),
        ([0.0] * 30, [1.0] * 30, [1.0] * 30, "undefined", Doubt.GAMMA_UNDEFINED),
        ([0.5, 0.6] * 15, [0.9, 0.8] * 15, [0.0] * 30, "undefined", Doubt.BUDGET_UNDEFINED),
        ([0.0, 1.0] * 2, [1.0] * 4, [1.0] * 4, "undefined", Doubt.GAMMA_UNDEFINED),
        ([0.5], [0.9], [0.9], "inconclusive", Doubt.TOO_FEW_GROUPS),
        ([None] * 30, [0.9] * 30, [0.9] * 30, "inconclusive", Doubt.NO_DATA),
        ([0.5] * 30, [None] * 30, [0.9] * 30, "inconclusive", Doubt.NO_DATA),
        ([0.4, 0.5] * 15, [0.8, 1.0] * 15, [0.8, 1.0] * 15, "inconclusive", Doubt.NO_VARIATION),
    ],
)
def test_edges_are_never_beneficial(  # noqa: PLR0917 - cases
    make_trial: Callable[..., Trial],
    a: Sequence[float | None],
    b: Sequence[float | None],
    c: Sequence[float | None],
    verdict: str,
    doubt: Doubt,
) -> None:
    found = judged(make_trial(*([[score] for score in arm] for arm in (a, b, c))))
    assert found.verdict == verdict
    assert doubt in found.doubts
    assert not math.isnan(found.p_beneficial)
    assert not math.isnan(found.p_worse)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_ratio_that_never_varies_can_be_harm(
    make_trial: Callable[..., Trial], share: float
) -> None:
    a = [[0.25], [0.5], [0.75], [1.0]] * 5
    b = [[row[0] * share] for row in a]
    found = judged(make_trial(a, b, a))
    assert found.verdict is CoordinationVerdict.HARMFUL
    assert {Doubt.NO_VARIATION, Doubt.WORSE, Doubt.WORSE_FOR_THE_BUDGET} < set(found.doubts)
    # The paired t test by hand: mean m and deviation s of 20 differences.
    differences = [(share - 1) * row[0] for row in a]
    mean = sum(differences) / 20
    deviation = math.sqrt(sum((one - mean) ** 2 for one in differences) / 19)
    expected = stats.t.cdf(mean / (deviation / math.sqrt(20)), 19)
    assert found.p_worse == pytest.approx(2 * expected, rel=1e-9)  # Holm, of two tests of harm
    assert found.gamma.lower is None


def test_missing_scores_stop_every_verdict_but_undefined(make_trial: Callable[..., Trial]) -> None:
    b: Rows = [*around(0.9, 28, 2), [None], [None]]
    found = judged(make_trial(around(0.4, 30, 1), b, around(0.8, 30, 3)))
    assert found.verdict is CoordinationVerdict.INCONCLUSIVE
    assert found.doubts == (Doubt.MISSING_SCORES,)
    worse = judged(make_trial(around(0.95, 30, 1), b, around(0.95, 30, 3)))
    assert worse.verdict is CoordinationVerdict.INCONCLUSIVE
    assert Doubt.WORSE in worse.doubts
    undefined = judged(make_trial([[0.0]] * 30, b, around(0.8, 30, 3)))
    assert undefined.verdict is CoordinationVerdict.UNDEFINED
    allowed = judged(
        make_trial(around(0.4, 30, 1), b, around(0.8, 30, 3)), VerdictRule(max_missing=0.1)
    )
    assert allowed.verdict is CoordinationVerdict.BENEFICIAL


def test_mistrusted_judges_stop_every_verdict_but_undefined(
    make_trial: Callable[..., Trial],
) -> None:
    def verdict(*arms: Rows) -> StrategyVerdict:
        (found,) = judge(make_trial(*arms), RULE, is_judge_trusted=False)
        return found

    good, middle, bad = around(0.8, 30, 1), around(0.5, 30, 2), around(0.2, 30, 3)
    beneficial = verdict(bad, good, middle)
    assert beneficial.verdict is CoordinationVerdict.INCONCLUSIVE
    assert beneficial.doubts == (Doubt.JUDGE_MISTRUSTED,)
    harmful = verdict(good, bad, middle)
    assert harmful.verdict is CoordinationVerdict.INCONCLUSIVE
    assert {Doubt.JUDGE_MISTRUSTED, Doubt.WORSE} <= set(harmful.doubts)
    undefined = verdict([[0.0]] * 30, good, middle)
    assert undefined.verdict is CoordinationVerdict.UNDEFINED
    assert Doubt.JUDGE_MISTRUSTED in undefined.doubts


def test_the_margin_is_what_the_budget_may_cost(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial(around(0.5, 40, 1), around(0.76, 40, 2), around(0.8, 40, 3))
    assert judged(trial, VerdictRule(margin=0.1)).verdict is CoordinationVerdict.BENEFICIAL
    assert judged(trial, VerdictRule(margin=0.0)).verdict is CoordinationVerdict.HARMFUL


def strategies(make_trial: Callable[..., Trial], levels: Sequence[float], count: int = 12) -> Trial:
    arms: list[Rows] = []
    for place, level in enumerate(levels):
        arms += [around(level, count, 10 + place, 0.4), around(0.2, count, 50 + place)]
    return make_trial(around(0.5, count, 1, 0.4), *arms)


def test_holm_across_strategies(make_trial: Callable[..., Trial]) -> None:
    alone = judged(strategies(make_trial, [0.64]))
    assert alone.verdict is CoordinationVerdict.BENEFICIAL
    assert 0.025 / 3 < alone.p_beneficial < 0.025
    among = judge(strategies(make_trial, [0.64, 0.5, 0.5]), RULE)
    assert among[0].verdict is CoordinationVerdict.INCONCLUSIVE
    assert among[0].doubts == (Doubt.NOT_AFTER_ADJUSTMENT,)
    assert among[0].p_beneficial == pytest.approx(3 * alone.p_beneficial, rel=1e-9)
    # Others that stand on their own take less away: the last one is not adjusted at all.
    beside = judge(strategies(make_trial, [0.64, 0.95, 0.95]), RULE)
    assert [v.verdict for v in beside] == [CoordinationVerdict.BENEFICIAL] * 3
    assert beside[0].p_beneficial == pytest.approx(alone.p_beneficial, rel=1e-9)


def test_a_strategy_without_a_verdict_counts_all_the_same(make_trial: Callable[..., Trial]) -> None:
    trial = strategies(make_trial, [0.64])
    second = make_trial([[0.5]] * 12, around(0.5, 12, 1), [[0.5]] * 12, [[None]] * 12)
    (lost,) = second.strategies[1:]
    both = type(trial)(
        tasks=trial.tasks,
        groups=trial.groups,
        single=trial.single,
        strategies=(*trial.strategies, lost),
    )
    one, two = judge(both, RULE)
    assert two.verdict is CoordinationVerdict.INCONCLUSIVE
    assert one.p_beneficial == pytest.approx(2 * judged(trial).p_beneficial, rel=1e-9)


def test_harm_is_adjusted_for_both_ways_to_be_harmful(make_trial: Callable[..., Trial]) -> None:
    a, b = around(0.6, 12, 1, 0.4), around(0.5, 12, 2, 0.4)
    with_c = judged(make_trial(a, b, around(0.5, 12, 3, 0.4)))
    without = judged(make_trial(a, b))
    assert with_c.p_worse == pytest.approx(2 * without.p_worse, rel=1e-9)


def test_p_is_scipys(make_trial: Callable[..., Trial]) -> None:
    a, b, c = (around(level, 15, seed, 0.5) for seed, level in enumerate((0.5, 0.6, 0.62)))
    found = judged(make_trial(a, b, c))
    x, y, z = (np.array(arm, dtype=np.float64)[:, 0] for arm in (a, b, c))
    better = stats.ttest_rel(y, x, alternative="greater").pvalue
    as_good = stats.ttest_rel(y, 0.95 * z, alternative="greater").pvalue
    assert found.p_beneficial == pytest.approx(max(better, as_good), rel=1e-9)


def test_one_more_failure_takes_a_small_benefit_away(make_trial: Callable[..., Trial]) -> None:
    a, b, c = around(0.5, 12, 1, 0.2), around(0.6, 12, 2, 0.2), around(0.5, 12, 3, 0.2)
    found = judged(make_trial(a, b, c))
    assert found.verdict is CoordinationVerdict.BENEFICIAL
    x, y = (np.array(arm, dtype=np.float64)[:, 0] for arm in (a, b))
    expected = stats.ttest_rel([*y, 0.0], [*x, x.mean()], alternative="greater").pvalue
    assert found.p_with_failure == pytest.approx(expected, rel=1e-9)
    assert expected > 0.025
    sturdy = judged(make_trial(around(0.4, 30, 1), around(0.8, 30, 2), around(0.5, 30, 3)))
    assert sturdy.p_with_failure is not None
    assert sturdy.p_with_failure < 0.001


def test_one_more_failure_at_the_edges(make_trial: Callable[..., Trial]) -> None:
    assert judged(make_trial([[0.5]], [[0.9]])).p_with_failure is None
    assert judged(make_trial([[0.0]] * 3, [[0.0]] * 3)).p_with_failure == 1.0
    assert judged(make_trial([[0.5]] * 3, [[0.5]] * 3)).p_with_failure == pytest.approx(
        0.804, abs=1e-3
    )


def test_a_trial_without_strategies_has_no_verdicts(make_trial: Callable[..., Trial]) -> None:
    assert judge(make_trial([[0.5]]), RULE) == ()


@given(p=st.lists(st.floats(0.0, 1.0), max_size=7))
def test_holm_by_its_definition(p: list[float]) -> None:
    adjusted = holm(dict(enumerate(p)))
    ordered = sorted(p)
    for place, value in enumerate(p):
        expected = max(
            min(1.0, (len(p) - rank) * ordered[rank])
            for rank in range(len(p))
            if ordered[rank] <= value
        )
        assert adjusted[place] == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"margin": -0.1},
        {"margin": 1.0},
        {"margin": NAN},
        {"confidence": 1.0},
        {"confidence": NAN},
        {"missing_alpha": 0.0},
        {"min_tasks": 0},
        {"max_missing": -0.1},
        {"max_missing": NAN},
    ],
)
def test_a_rule_refuses_values_outside_their_domain(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        VerdictRule(**fields)


def test_the_same_difference_on_every_task_is_what_the_interval_shows(
    make_trial: Callable[..., Trial],
) -> None:
    a = [[0.25], [0.5], [0.75], [0.5]] * 3
    less, more = ([[row[0] + by] for row in a] for by in (-0.125, 0.125))
    as_c = judged(make_trial(a, less, less))
    assert as_c.verdict is CoordinationVerdict.HARMFUL
    assert as_c.doubts == (
        Doubt.NO_VARIATION,
        Doubt.NOT_BETTER,
        Doubt.NOT_AS_GOOD_FOR_THE_BUDGET,
        Doubt.WORSE,
    )
    harmed = judged(make_trial(a, less))
    assert harmed.verdict is CoordinationVerdict.HARMFUL
    assert (harmed.p_worse, harmed.gamma.status) == (0.0, "bounded")
    assert judged(make_trial(a, more, a)).verdict is CoordinationVerdict.BENEFICIAL


@pytest.mark.parametrize("seed", range(3))
def test_a_verdict_says_what_its_intervals_show(
    make_trial: Callable[..., Trial], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(40):
        count = int(rng.integers(10, 25))
        rate = rng.beta(3, 2, count)
        lift = rng.uniform(0.7, 1.4)
        arms = [
            (rng.binomial(3, np.clip(rate * factor, 0, 1)) / 3)[:, np.newaxis].tolist()
            for factor in (1.0, lift, lift * rng.uniform(0.6, 1.2))
        ]
        found = judged(make_trial(*arms, groups=[f"g{n // 2}" for n in range(count)]))
        gamma, budget = found.gamma, found.gamma_budget
        assert budget is not None
        seen.add(found.verdict)
        shows = (
            gamma.lower is not None
            and gamma.lower > 1.0
            and budget.lower is not None
            and budget.lower >= 0.95
        )
        assert (found.verdict is CoordinationVerdict.BENEFICIAL) == shows
        if found.verdict is CoordinationVerdict.HARMFUL:
            uppers = [(gamma.upper, 1.0), (budget.upper, 0.95)]
            assert any(upper is not None and upper < limit for upper, limit in uppers)
    assert len(seen) >= 3


def test_few_false_verdicts_without_an_effect(make_trial: Callable[..., Trial]) -> None:
    rng = np.random.default_rng(12)
    runs, tasks = 400, 12
    rates = rng.beta(3, 2, (runs, tasks, 1))
    counts = dict.fromkeys(CoordinationVerdict, 0)
    for rate in rates:
        arms = [rng.binomial(1, np.repeat(rate, 3, axis=1)).astype(float).tolist() for _ in "ABC"]
        counts[judged(make_trial(*arms)).verdict] += 1
    limit = stats.binom.ppf(1 - 1e-6, runs, 0.025)
    assert counts[CoordinationVerdict.BENEFICIAL] <= limit
    assert counts[CoordinationVerdict.HARMFUL] <= limit
    assert counts[CoordinationVerdict.INCONCLUSIVE] > 0.9 * runs
