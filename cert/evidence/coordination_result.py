"""What a comparison found: one result from its plan, its replicates and what was spent.

Whoever runs a comparison and whoever checks it compute the result here, from the same records.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from cert.evidence.coordination_trial import (
    CANARY_ARM,
    CHAIN,
    build_answers,
    build_individuals,
    build_trial,
    place_replicates,
)
from cert.evidence.judge_canaries import find_faults, read_canaries
from cert.statistics.bootstrap import bootstrap_gamma
from cert.statistics.consensus import compare_debate
from cert.statistics.crossfit import estimate_omega
from cert.statistics.effects import (
    estimate_delta,
    estimate_gamma,
    estimate_token_ratio,
    summarize_arm,
)
from cert.statistics.krippendorff import nominal_alpha
from cert.statistics.missing import bound_ratio, measure_missing
from cert.statistics.verdict import VerdictRule, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cert.evidence.coordination_trial import Members, Places
    from cert.statistics.consensus import TaskAnswers
    from cert.statistics.trial import Arm, Strategy, Trial
    from cert.statistics.verdict import StrategyVerdict

_USAGE: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def build_result(
    policy: Mapping[str, Any],
    replicates: Iterable[Mapping[str, Any]],
    spend: Mapping[str, Any],
    *,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> dict[str, object]:
    """Compute the result of a comparison.

    Args:
        policy: Member `policy` of the plan's record.
        replicates: Members `replicate` of their records, in any order, each once; what the plan
            asks for and is not there counts as missing.
        spend: Of `SpendTally`.
        earlier: What judges said to the same canaries in earlier comparisons.

    Returns:
        The members of a coordination record beside `policy`; JSON without infinite numbers.

    Raises:
        ValueError: A replicate that the plan has not, or one that stands there twice, or a plan
            that nobody could have run.
        LookupError: A part is missing; likewise TypeError.
    """
    plan, rule = policy["plan"], VerdictRule(**policy["rule"])
    places = place_replicates(plan, replicates)
    trial = build_trial(plan, places)
    judges = _describe_judges(plan, places, earlier)
    verdicts = judge(trial, rule, is_judge_trusted=judges is None or not judges["findings"])
    arms = {arm.name: arm for arm in trial.arms()}
    asked = {arm["name"]: arm for arm in plan["arms"]}
    own = [one for place, one in places.items() if place[1] != CANARY_ARM]
    result: dict[str, object] = _plain(
        {
            "replicates": {
                "planned": len(plan["tasks"]) * sum(arm["replicates"] for arm in plan["arms"]),
                "run": len(own),
                "scored": sum(one["score"] is not None for one in own),
            },
            "arms": [
                {
                    "name": arm["name"],
                    "kind": arm["kind"],
                    **_describe_arm(trial, arms[arm["name"]], rule),
                }
                for arm in plan["arms"]
            ],
            "strategies": [
                _describe_verdict(verdict)
                | _describe_effects(trial, strategy, rule, seed=plan["seed"])
                | {
                    "omega": _describe_omega(plan, places, trial, strategy, rule),
                    "consensus": _describe_consensus(plan, places, asked[strategy.name]),
                }
                for verdict, strategy in zip(verdicts, trial.strategies, strict=True)
            ],
            "judges": judges,
            "spend": dict(spend),
        }
    )
    return result


class SpendTally:
    """Adds up what calls cost; exact, so that their order doesn't matter."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._cost_usd: Fraction | None = None

    def add(self, call: Mapping[str, Any]) -> None:
        """Add the member `call` of a record; one that an earlier run paid for costs nothing."""
        counts = self._counts
        if call["is_reused"]:
            counts["reused_calls"] += 1
            return
        counts["calls"] += 1
        counts["judge_calls"] += call["purpose"] == "judge"
        counts["failed_calls"] += call["failure"] is not None
        counts["unknown_billed_calls"] += call["is_unknown_billed"]
        for name in _USAGE if call["usage"] is not None else ():
            counts[name] += call["usage"][name]
        if call["cost_usd"] is not None:
            self._cost_usd = (self._cost_usd or Fraction(0)) + Fraction(call["cost_usd"])

    def members(self) -> dict[str, object]:
        """The `spend` of a result; its cost is null where that of no call is known."""
        calls = (
            "calls",
            "judge_calls",
            "reused_calls",
            "failed_calls",
            "unknown_billed_calls",
        )
        return {name: self._counts[name] for name in (*calls, *_USAGE)} | {
            "cost_usd": None if self._cost_usd is None else float(self._cost_usd)
        }


def _describe_judges(
    plan: Members, places: Places, earlier: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What the canaries show; None where nothing tested the judges."""
    if not plan["canaries"]:
        return None
    readings = read_canaries(plan, places)
    return {
        "earlier": list(earlier),
        "readings": readings,
        "findings": find_faults(plan["canaries"], readings, earlier),
    }


def _describe_arm(trial: Trial, arm: Arm, rule: VerdictRule) -> dict[str, object]:
    """One arm; tokens and cost per task are means over its replicates where they are known."""
    summary = summarize_arm(trial, arm, confidence=rule.confidence)
    [missing] = measure_missing(trial, [arm]).arms
    with_tokens = missing.replicates - summary.tokens_unknown
    with_cost = missing.replicates - summary.cost_unknown
    return {
        "score": summary.quality,
        "tokens_per_task": summary.tokens / with_tokens if with_tokens else None,
        "cost_per_task_usd": None if summary.cost_usd is None else summary.cost_usd / with_cost,
        "quality_per_1k_tokens": summary.quality_per_1000_tokens,
        "missing": missing.share,
        "unscored": missing.reasons,
    }


def _describe_verdict(verdict: StrategyVerdict) -> dict[str, object]:
    members = asdict(verdict)
    return {"name": members.pop("strategy"), **members}


def _describe_effects(
    trial: Trial, strategy: Strategy, rule: VerdictRule, *, seed: int
) -> dict[str, object]:
    """How a strategy compares with each of its arms; tokens with the single arm's."""
    top, single, confidence = strategy.coordinated, trial.single, rule.confidence

    def gamma(bottom: Arm | None) -> object:
        if bottom is None:
            return None
        return estimate_gamma(trial, top, bottom, confidence=confidence)

    matched = strategy.matched
    return {
        "gamma_refine": gamma(strategy.refine),
        "gamma_placebo": gamma(strategy.placebo),
        "delta": estimate_delta(trial, top, single, confidence=confidence),
        "token_ratio": estimate_token_ratio(trial, top, single, confidence=confidence),
        "bounds": {
            "gamma": bound_ratio(top, single),
            "gamma_budget": None if matched is None else bound_ratio(top, matched),
        },
        "bootstrap": bootstrap_gamma(trial, top, single, seed=seed, confidence=confidence),
    }


def _describe_omega(
    plan: Members, places: Places, trial: Trial, strategy: Strategy, rule: VerdictRule
) -> object:
    """Omega; None where agents have no scores of their own to choose the best one by."""
    [arm] = [arm for arm in plan["arms"] if arm["name"] == strategy.name]
    if arm["kind"] == CHAIN or len(arm["agents"]) == 1:
        return None
    individuals = build_individuals(plan, places, arm)
    if all(one.score is None for row in individuals.rows for one in row):
        return None
    return estimate_omega(
        trial,
        strategy.coordinated,
        individuals,
        seed=plan["seed"],
        splits=plan["splits"],
        confidence=rule.confidence,
    )


def _describe_consensus(plan: Members, places: Places, arm: Members) -> dict[str, object]:
    """How far agents agree; not measured in a chain, and where answers are no labels."""
    before = build_answers(plan, places, arm, "first")
    after = build_answers(plan, places, arm, "last")
    labels = (label for answers in (*before, *after) for label in answers.labels)
    if arm["kind"] == CHAIN or all(label is None for label in labels):
        parts = dict.fromkeys(("before", "after", "flips", "alpha"))
        return {"status": "not_measured", **parts}
    alpha = None if plan["labels"] is None else nominal_alpha(_units(before, plan["labels"]))
    return {"status": "measured", **asdict(compare_debate(before, after)), "alpha": alpha}


def _units(answers: Iterable[TaskAnswers], labels: Sequence[str]) -> list[list[str | None]]:
    """First answers, a unit for each task and replicate; None for one outside of the labels."""
    known = {str(number) for number in range(len(labels))}
    return [[label if label in known else None for label in one.labels] for one in answers]


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON, and dataclasses of it
    """The same as JSON.

    Raises:
        ValueError: A number that is infinite or NaN.
    """
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a result of {value}: scores as small as these have no ratio")
        return float(value)
    return value
