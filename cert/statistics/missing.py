"""What a missing score may hide, and when it may hide too much."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.statistics.trial import Arm, Trial

MAX_SHARE = 0.05
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmMissing:
    """Scores that an arm lacks.

    Attributes:
        arm: Its name.
        replicates: Tasks x replicates.
        unscored: How many of them have no score.
        share: unscored / replicates, in [0, 1].
        reasons: How often each reason was given.
        lowest_mean: Mean score if every missing one were 0.
        highest_mean: Mean score if every missing one were 1.
    """

    arm: str
    replicates: int
    unscored: int
    share: float
    reasons: dict[str, int]
    lowest_mean: float
    highest_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnequalMissing:
    """Whether two arms lack scores equally often.

    Attributes:
        arms: Their names.
        more_in_first: Groups of tasks where the first lacks the larger share.
        more_in_second: The other way round.
        p: Two-sided p-value of the sign test, in (0, 1].
    """

    arms: tuple[str, str]
    more_in_first: int
    more_in_second: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioBounds:
    """The ratio of two arms' mean scores over all tasks, at worst and at best.

    Attributes:
        lowest: Missing scores of the numerator 0, of the denominator 1; None if that leaves 0 / 0.
        highest: The other way round; None if that leaves no denominator.
    """

    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missingness:
    """What arms lack together.

    Attributes:
        arms: Each arm.
        pairs: Each two arms.
        max_share: Largest share that an arm may lack.
        alpha: Level of each sign test.
        is_acceptable: No share is above `max_share`, and no p below `alpha`.
    """

    arms: tuple[ArmMissing, ...]
    pairs: tuple[UnequalMissing, ...]
    max_share: float
    alpha: float
    is_acceptable: bool


def measure_missing(
    trial: Trial, arms: Sequence[Arm], *, max_share: float = MAX_SHARE, alpha: float = ALPHA
) -> Missingness:
    """Measure what the arms lack, and test whether they lack it equally often.

    The test is the sign test over groups of tasks (Dixon and Mood, The Statistical Sign Test, JASA
    41, 1946): in how many groups does one arm lack the larger share, in how many the other. It is
    exact however alike the faults within a group are; with one replicate and no groups it is
    McNemar's exact test. Pairs are not adjusted for each other: doubt is cheaper than bias.
    """
    found = tuple(_measure_arm(arm) for arm in arms)
    pairs = tuple(_compare(trial, one, other) for one, other in combinations(arms, 2))
    return Missingness(
        arms=found,
        pairs=pairs,
        max_share=max_share,
        alpha=alpha,
        is_acceptable=all(arm.share <= max_share for arm in found)
        and all(pair.p >= alpha for pair in pairs),
    )


def bound_ratio(top: Arm, bottom: Arm) -> RatioBounds:
    """Bound the ratio of mean scores by the worst that missing scores can be.

    Source: Manski, Nonparametric Bounds on Treatment Effects, AER 80, 1990.
    """
    above, below = _measure_arm(top), _measure_arm(bottom)
    return RatioBounds(
        lowest=above.lowest_mean / below.highest_mean if below.highest_mean else None,
        highest=above.highest_mean / below.lowest_mean if below.lowest_mean else None,
    )


def _measure_arm(arm: Arm) -> ArmMissing:
    replicates = [replicate for row in arm.rows for replicate in row]
    scored = [r.score for r in replicates if r.score is not None]
    unscored = len(replicates) - len(scored)
    total = math.fsum(scored)
    reasons = Counter(r.unscored for r in replicates if r.unscored is not None)
    return ArmMissing(
        arm=arm.name,
        replicates=len(replicates),
        unscored=unscored,
        share=unscored / len(replicates),
        reasons=dict(sorted(reasons.items())),
        lowest_mean=total / len(replicates),
        highest_mean=(total + unscored) / len(replicates),
    )


def _compare(trial: Trial, one: Arm, other: Arm) -> UnequalMissing:
    excess: Counter[str] = Counter()
    for group, row, counterpart in zip(trial.groups, one.rows, other.rows, strict=True):
        # Shares of a group compare as these products do, in integers.
        excess[group] += other.replicates * sum(r.score is None for r in row)
        excess[group] -= one.replicates * sum(r.score is None for r in counterpart)
    first = sum(count > 0 for count in excess.values())
    second = sum(count < 0 for count in excess.values())
    return UnequalMissing(
        arms=(one.name, other.name),
        more_in_first=first,
        more_in_second=second,
        p=sign_test(first, second),
    )


def sign_test(first: int, second: int) -> float:
    """Two-sided exact p-value of `first` against `second` wins, ties left out; 1.0 without any.

    >>> sign_test(6, 0)
    0.03125
    """
    n, fewer = first + second, min(first, second)
    if not n:
        return 1.0
    tail = ways = 1
    for wins in range(fewer):
        ways = ways * (n - wins) // (wins + 1)
        tail += ways
    return min(1.0, tail / (1 << (n - 1)))
