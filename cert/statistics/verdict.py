"""Is coordination worth it: one verdict for each strategy of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from cert.statistics.effects import estimate_gamma, p_with_failure, trial_moments
from cert.statistics.estimates import CONFIDENCE, IntervalStatus
from cert.statistics.missing import ALPHA, MAX_SHARE, measure_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.statistics.estimates import RatioEstimate
    from cert.statistics.missing import Missingness
    from cert.statistics.trial import Arm, Trial

K = TypeVar("K")


class CoordinationVerdict(StrEnum):
    """What the evidence says of a strategy."""

    BENEFICIAL = "beneficial"
    """Better than the model alone, and as good as the model alone given the same tokens."""
    HARMFUL = "harmful"
    """Worse than the model alone, or than the model alone given the same tokens."""
    INCONCLUSIVE = "inconclusive"
    """The evidence carries neither."""
    UNDEFINED = "undefined"
    """A ratio has no denominator, or none that is distinguishable from 0."""


class Doubt(StrEnum):
    """What stands against a verdict `beneficial`, or any verdict at all."""

    GAMMA_UNDEFINED = "gamma_undefined"
    BUDGET_UNDEFINED = "budget_undefined"
    NO_BUDGET_ARM = "no_budget_arm"
    NO_DATA = "no_data"
    TOO_FEW_GROUPS = "too_few_groups"
    TOO_FEW_TASKS = "too_few_tasks"
    NO_VARIATION = "no_variation"
    MISSING_SCORES = "missing_scores"
    JUDGE_MISTRUSTED = "judge_mistrusted"
    """The judges failed on answers of known worth, so nobody knows what the scores are worth."""
    NOT_BETTER = "not_better"
    """Not shown to be better than the model alone."""
    NOT_AS_GOOD_FOR_THE_BUDGET = "not_as_good_for_the_budget"
    """Not shown to be as good as the model alone given the same tokens."""
    NOT_AFTER_ADJUSTMENT = "not_after_adjustment"
    """Both shown on their own, but not among so many strategies."""
    WORSE = "worse"
    """Shown to be worse than the model alone."""
    WORSE_FOR_THE_BUDGET = "worse_for_the_budget"
    """Shown to be worse, by more than the margin, than the model alone given the same tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRule:
    """The rule, fixed before the run.

    Attributes:
        margin: By how much gamma_budget may fall short of 1, in [0, 1).
        confidence: Two-sided level of the intervals, in (0, 1).
        min_tasks: Fewer paired tasks than this are never beneficial.
        max_missing: Largest share of scores that an arm may lack, in [0, 1].
        missing_alpha: Level at which unequal missingness counts as shown, in (0, 1).

    Raises:
        ValueError: A value outside its domain.
    """

    margin: float = 0.05
    confidence: float = CONFIDENCE
    min_tasks: int = 10
    max_missing: float = MAX_SHARE
    missing_alpha: float = ALPHA

    def __post_init__(self) -> None:
        """Refuse a rule that no trial, or every trial, would pass."""
        if not 0.0 <= self.margin < 1.0:
            raise ValueError(f"margin is {self.margin!r}; expected 0 or more and less than 1")
        for name in ("confidence", "missing_alpha"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected 0 to 1, exclusive")
        if self.min_tasks < 1:
            raise ValueError(f"min_tasks is {self.min_tasks!r}; expected 1 or more")
        if not 0.0 <= self.max_missing <= 1.0:
            raise ValueError(f"max_missing is {self.max_missing!r}; expected 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyVerdict:
    """The verdict on one strategy, and what it follows from.

    Attributes:
        strategy: Its name.
        verdict: What the evidence says.
        doubts: Why it says no better, or why harm; empty for beneficial.
        gamma: B / A.
        gamma_budget: B / C; None where C was not run.
        missing: Of A, B and, if it was run, C.
        p_beneficial: One-sided p-value for gamma > 1 and gamma_budget > 1 - margin together (the
            larger of both), adjusted by Holm across the strategies, in [0, 1].
        p_worse: One-sided p-value for gamma < 1, adjusted by Holm across everything that could be
            harm.
        p_worse_for_the_budget: The same for gamma_budget < 1 - margin; None where C was not run.
        p_with_failure: One-sided p-value for gamma > 1, not adjusted, if B had failed on one more
            task (`cert.statistics.effects.p_with_failure`). A benefit that this takes away is
            fragile; the verdict doesn't depend on it.
    """

    strategy: str
    verdict: CoordinationVerdict
    doubts: tuple[Doubt, ...]
    gamma: RatioEstimate
    gamma_budget: RatioEstimate | None
    missing: Missingness
    p_beneficial: float
    p_worse: float
    p_worse_for_the_budget: float | None
    p_with_failure: float | None


def judge(
    trial: Trial, rule: VerdictRule, *, is_judge_trusted: bool = True
) -> tuple[StrategyVerdict, ...]:
    """Judge every strategy of a trial.

    `beneficial`: the lower bound of gamma is above 1 and that of gamma_budget at or above
    1 - margin. `harmful`: the upper bound of gamma is below 1, or that of gamma_budget below
    1 - margin. A bounded Fieller interval lies on one side of a number exactly where the one-sided
    t test at (1 - confidence)/2 rejects it, so both are decided by p-values, and these adjusted
    (Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
    Statistics 6, 1979): across strategies for benefit, which takes both tests and so costs no
    adjustment within a strategy (Berger, Technometrics 24, 1982); across all tests of harm, of
    which one suffices. With one strategy, benefit is exactly what its two intervals show.

    `undefined` goes before missing scores and mistrusted judges, these before everything else. A
    strategy that is not decided counts for the adjustment all the same.

    Args:
        trial: All arms.
        rule: Fixed before the run.
        is_judge_trusted: False where models judged, and failed on answers of known worth: nothing
            is beneficial or harmful then.

    Returns:
        One verdict a strategy, in the trial's order.
    """
    strategies = trial.strategies
    against_a = [_weigh(trial, s.coordinated, trial.single, 1.0, rule) for s in strategies]
    against_c = [
        None
        if s.matched is None
        else _weigh(trial, s.coordinated, s.matched, 1 - rule.margin, rule)
        for s in strategies
    ]
    benefit = holm(
        {
            place: 1.0 if budget is None else max(alone.p_above, budget.p_above)
            for place, (alone, budget) in enumerate(zip(against_a, against_c, strict=True))
        }
    )
    harm = holm(
        {(place, "alone"): alone.p_below for place, alone in enumerate(against_a)}
        | {(p, "budget"): budget.p_below for p, budget in enumerate(against_c) if budget}
    )
    verdicts = []
    for place, strategy in enumerate(strategies):
        budget = against_c[place]
        arms = [trial.single, strategy.coordinated]
        arms += [] if strategy.matched is None else [strategy.matched]
        evidence = _Evidence(
            gamma=against_a[place].ratio,
            budget=None if budget is None else budget.ratio,
            missing=measure_missing(
                trial, arms, max_share=rule.max_missing, alpha=rule.missing_alpha
            ),
            p_beneficial=benefit[place],
            p_worse=harm[place, "alone"],
            p_worse_for_the_budget=harm.get((place, "budget")),
            is_judge_trusted=is_judge_trusted,
        )
        verdict, doubts = _decide(evidence, rule)
        verdicts.append(
            StrategyVerdict(
                strategy=strategy.name,
                verdict=verdict,
                doubts=doubts,
                gamma=evidence.gamma,
                gamma_budget=evidence.budget,
                missing=evidence.missing,
                p_beneficial=evidence.p_beneficial,
                p_worse=evidence.p_worse,
                p_worse_for_the_budget=evidence.p_worse_for_the_budget,
                p_with_failure=p_with_failure(trial, strategy.coordinated, trial.single),
            )
        )
    return tuple(verdicts)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjust p-values so that all below alpha hold together at level alpha.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted: dict[K, float] = {}
    least = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = least
    return adjusted


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A ratio, and the p-values of its two sides; 1 for both where no test can be made.

    A ratio that is the same on every task has no interval, and yet differences that vary: where B
    scores 0 throughout, say, that it is worse than A can be tested all the same.
    """

    ratio: RatioEstimate
    p_above: float
    p_below: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    gamma: RatioEstimate
    budget: RatioEstimate | None
    missing: Missingness
    p_beneficial: float
    p_worse: float
    p_worse_for_the_budget: float | None
    is_judge_trusted: bool


def _weigh(trial: Trial, top: Arm, bottom: Arm, threshold: float, rule: VerdictRule) -> _Weighed:
    ratio = estimate_gamma(trial, top, bottom, confidence=rule.confidence)
    moments = trial_moments(trial, top, bottom)
    is_testable = ratio.status is IntervalStatus.BOUNDED or (
        ratio.status is IntervalStatus.NO_VARIATION
        and moments is not None
        and bool(moments.variance_at(threshold) > 0.0)
    )
    if not is_testable or moments is None:
        return _Weighed(ratio, 1.0, 1.0)
    return _Weighed(ratio, float(moments.p_above(threshold)), float(moments.p_below(threshold)))


def _decide(
    evidence: _Evidence, rule: VerdictRule
) -> tuple[CoordinationVerdict, tuple[Doubt, ...]]:
    alpha = (1.0 - rule.confidence) / 2.0
    doubts = _doubts(evidence, rule)
    if evidence.p_worse < alpha:
        doubts.append(Doubt.WORSE)
    if evidence.p_worse_for_the_budget is not None and evidence.p_worse_for_the_budget < alpha:
        doubts.append(Doubt.WORSE_FOR_THE_BUDGET)
    if Doubt.GAMMA_UNDEFINED in doubts or Doubt.BUDGET_UNDEFINED in doubts:
        verdict = CoordinationVerdict.UNDEFINED
    elif Doubt.MISSING_SCORES in doubts or Doubt.JUDGE_MISTRUSTED in doubts:
        verdict = CoordinationVerdict.INCONCLUSIVE
    elif Doubt.WORSE in doubts or Doubt.WORSE_FOR_THE_BUDGET in doubts:
        verdict = CoordinationVerdict.HARMFUL
    elif doubts:
        verdict = CoordinationVerdict.INCONCLUSIVE
    elif evidence.p_beneficial < alpha:
        verdict = CoordinationVerdict.BENEFICIAL
    else:
        doubts.append(Doubt.NOT_AFTER_ADJUSTMENT)
        verdict = CoordinationVerdict.INCONCLUSIVE
    return verdict, tuple(doubts)


def _doubts(evidence: _Evidence, rule: VerdictRule) -> list[Doubt]:
    """Collect what stands against `beneficial`, adjustment and harm left aside."""
    gamma, budget = evidence.gamma, evidence.budget
    undefined = (IntervalStatus.UNBOUNDED, IntervalStatus.NO_DENOMINATOR)
    ratios = [gamma] if budget is None else [gamma, budget]
    statuses = {ratio.status for ratio in ratios}
    tests = [
        (Doubt.GAMMA_UNDEFINED, gamma.status in undefined),
        (Doubt.BUDGET_UNDEFINED, budget is not None and budget.status in undefined),
        (Doubt.NO_BUDGET_ARM, budget is None),
        (Doubt.NO_DATA, IntervalStatus.NO_DATA in statuses),
        (Doubt.TOO_FEW_GROUPS, IntervalStatus.TOO_FEW in statuses),
        (Doubt.NO_VARIATION, IntervalStatus.NO_VARIATION in statuses),
        (Doubt.MISSING_SCORES, not evidence.missing.is_acceptable),
        (Doubt.JUDGE_MISTRUSTED, not evidence.is_judge_trusted),
        (Doubt.TOO_FEW_TASKS, min(ratio.tasks for ratio in ratios) < rule.min_tasks),
        (Doubt.NOT_BETTER, not _is_at_least(gamma, 1.0, strictly=True)),
        (
            Doubt.NOT_AS_GOOD_FOR_THE_BUDGET,
            budget is not None and not _is_at_least(budget, 1.0 - rule.margin, strictly=False),
        ),
    ]
    return [doubt for doubt, applies in tests if applies]


def _is_at_least(ratio: RatioEstimate, threshold: float, *, strictly: bool) -> bool:
    if ratio.lower is None:
        return False
    return ratio.lower > threshold if strictly else ratio.lower >= threshold
