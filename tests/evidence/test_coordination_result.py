"""The result of a comparison from plain records, against sums that were done by hand."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from cert.evidence.coordination_result import SpendTally, build_result
from cert.ledger.canonical import canonical_bytes
from cert.statistics.verdict import VerdictRule
from tests.evidence.coordination_members import (
    Members,
    call,
    member,
    planned_arm,
    policy,
    replicate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPEND = SpendTally().members()


def result(
    chosen: Members, replicates: Iterable[Members], earlier: Sequence[Members] = ()
) -> dict[str, Any]:
    return build_result(chosen, replicates, SPEND, earlier=earlier)


DEBATE = planned_arm("debate", agents=2)
MATCHED = planned_arm("debate.c", "self_consistency", reference="debate")


def scored(arms: dict[str, list[float]], **given: object) -> list[Members]:
    return [
        replicate(task, name, score, **given)
        for name, scores in arms.items()
        for task, score in enumerate(scores)
    ]


def test_ratios_and_differences_are_those_of_sums() -> None:
    chosen = policy(
        DEBATE,
        MATCHED,
        planned_arm("debate.d", "self_refine", reference="debate"),
        planned_arm("debate.e", "placebo", agents=2, reference="debate"),
        tasks=2,
    )
    replicates = [
        *scored({"single": [0.25, 0.25]}, tokens=100, cost_usd=0.5),
        *scored({"debate": [0.5, 0.75]}, tokens=400, cost_usd=2),
        *scored({"debate.c": [0.5, 0.5], "debate.d": [1, 1], "debate.e": [0.5, 0]}),
    ]
    found = result(chosen, replicates)
    [strategy] = found["strategies"]
    assert strategy["name"] == "debate"
    assert strategy["gamma"]["estimate"] == 2.5
    assert strategy["gamma_budget"]["estimate"] == 1.25
    assert strategy["gamma_refine"]["estimate"] == 0.625
    assert strategy["gamma_placebo"]["estimate"] == 2.5
    assert strategy["delta"]["estimate"] == 0.375
    # Of the tokens of the model alone.
    assert strategy["token_ratio"]["estimate"] == 4.0
    assert strategy["bounds"] == {
        "gamma": {"lowest": 2.5, "highest": 2.5},
        "gamma_budget": {"lowest": 1.25, "highest": 1.25},
    }
    assert strategy["bootstrap"] is None
    single, debate = found["arms"][:2]
    assert (single["name"], single["kind"]) == ("single", "single")
    assert single["score"]["estimate"] == 0.25
    assert (single["tokens_per_task"], single["cost_per_task_usd"]) == (100.0, 0.5)
    assert (debate["tokens_per_task"], debate["cost_per_task_usd"]) == (400.0, 2.0)
    # 1,000 * (0.5 + 0.75) / (400 + 400).
    assert debate["quality_per_1k_tokens"]["estimate"] == 1.5625
    assert [arm["name"] for arm in found["arms"]] == [
        "single",
        "debate",
        "debate.c",
        "debate.d",
        "debate.e",
    ]
    assert found["arms"][2]["cost_per_task_usd"] is None
    assert found["replicates"] == {"planned": 10, "run": 10, "scored": 10}
    assert found["judges"] is None
    assert found["spend"] == SPEND


def test_a_strategy_without_other_arms_has_no_ratios_to_them() -> None:
    found = result(policy(DEBATE), scored({"single": [1.0], "debate": [1.0]}))
    [strategy] = found["strategies"]
    names = ("gamma_budget", "gamma_refine", "gamma_placebo", "p_worse_for_the_budget")
    assert [strategy[name] for name in names] == [None] * 4
    assert strategy["bounds"]["gamma_budget"] is None


def test_what_is_missing_is_missing() -> None:
    chosen = policy(planned_arm("debate", agents=2, replicates=2), tasks=2)
    replicates = [
        *scored({"single": [0.5, 0.5]}),
        replicate(0, "debate", 1.0, 0),
        replicate(0, "debate", None, 1, tokens=None),
        replicate(1, "debate", None, 0, unscored={"reason": "judge_invalid", "detail": "j: ?"}),
    ]
    found = result(chosen, replicates)
    assert found["replicates"] == {"planned": 6, "run": 5, "scored": 3}
    debate = found["arms"][1]
    assert debate["missing"] == 0.75
    assert debate["unscored"] == {"call_failed": 1, "judge_invalid": 1, "not_run": 1}
    # Known for two of four replicates.
    assert debate["tokens_per_task"] == 100.0
    [strategy] = found["strategies"]
    assert strategy["gamma"]["tasks"] == 1
    assert strategy["bounds"]["gamma"] == {"lowest": 0.5, "highest": 2.0}
    assert [arm["unscored"] for arm in strategy["missing"]["arms"]] == [0, 3]
    assert not strategy["missing"]["is_acceptable"]
    assert strategy["verdict"] == "inconclusive"
    assert "missing_scores" in strategy["doubts"]


def test_nothing_that_was_run_is_a_result_too() -> None:
    found = result(policy(DEBATE, MATCHED, tasks=3), [])
    assert found["replicates"] == {"planned": 9, "run": 0, "scored": 0}
    assert [arm["tokens_per_task"] for arm in found["arms"]] == [None] * 3
    [strategy] = found["strategies"]
    assert strategy["gamma"]["status"] == "no_data"
    assert strategy["omega"] is None
    assert strategy["consensus"]["status"] == "not_measured"


def planted(tasks: int = 40, seed: int = 7) -> tuple[Members, list[Members]]:
    """A debate that helps, with agents and everything else that a result can have."""
    draw = random.Random(seed)
    arms = [planned_arm("debate", agents=2, replicates=2), MATCHED]
    replicates = []
    for task in range(tasks):
        replicates.append(replicate(task, "single", draw.choice([0.0, 0.5, 0.5])))
        replicates.append(replicate(task, "debate.c", draw.choice([0.5, 0.5, 1.0])))
        for number in range(2):
            firsts = [draw.randrange(2) for _ in range(2)]
            members = [
                member(at, (label, float(label)), (1, 1.0)) for at, label in enumerate(firsts)
            ]
            score = draw.choice([0.5, 1.0, 1.0])
            replicates.append(
                replicate(task, "debate", score, number, members=members, cost_usd=0.1)
            )
    return policy(*arms, tasks=tasks, labels=["no", "yes"]), replicates


def test_the_order_of_the_replicates_changes_no_byte() -> None:
    chosen, replicates = planted()
    wanted = canonical_bytes(result(chosen, replicates))
    for seed in range(3):
        shuffled = list(replicates)
        random.Random(seed).shuffle(shuffled)
        assert canonical_bytes(result(chosen, shuffled)) == wanted
        # As they come from records: whole numbers without a fraction.
        read = json.loads(b"[" + b",".join(map(canonical_bytes, shuffled)) + b"]")
        assert canonical_bytes(result(json.loads(canonical_bytes(chosen)), read)) == wanted


def is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(name) is str and is_json(one) for name, one in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return type(value) in {str, int, float, bool, type(None)} and (
        not isinstance(value, float) or math.isfinite(value)
    )


def test_a_result_is_json_and_nothing_else() -> None:
    chosen, replicates = planted()
    found = result(chosen, replicates)
    assert is_json(found)
    [strategy] = found["strategies"]
    assert strategy["verdict"] == "beneficial"
    assert strategy["doubts"] == []
    assert strategy["bootstrap"]["seed"] == 1
    assert len(strategy["bootstrap"]["percentile"]) == 2
    assert strategy["omega"]["splits"] == 50
    assert strategy["omega"]["individuals"] == 2
    assert strategy["consensus"]["alpha"]["units"] == 80
    assert is_json(result(policy(DEBATE), []))


def test_a_bootstrap_needs_30_groups() -> None:
    chosen, replicates = planted(29)
    assert result(chosen, replicates)["strategies"][0]["bootstrap"] is None
    chosen, replicates = planted(30)
    assert result(chosen, replicates)["strategies"][0]["bootstrap"]["groups"] == 30


def test_omega_is_over_what_the_agents_knew_alone() -> None:
    """Agent n is right where task and n have the same parity; together they are always right."""
    chosen = policy(planned_arm("debate", agents=3, replicates=2), tasks=4)
    replicates = scored({"single": [1, 0, 1, 0]})
    for task in range(4):
        rights = [float((task + agent) % 2 == 0) for agent in range(3)]
        for number in range(2):
            members = [member(agent, (0, right)) for agent, right in enumerate(rights)]
            replicates.append(replicate(task, "debate", 1.0, number, members=members))
    omega = result(chosen, replicates)["strategies"][0]["omega"]
    assert (omega["individuals"], omega["seed"]) == (3, 1)
    # One of them is always right, though nobody knows which.
    assert omega["oracle_gap"] == 0.0
    assert omega["omega"]["estimate"] > 0.0


def test_an_agents_own_score_is_the_mean_over_the_replicates_that_have_one() -> None:
    chosen = policy(planned_arm("debate", agents=2, replicates=3), tasks=2)
    replicates = scored({"single": [1, 1]})
    for task in range(2):
        replicates += [
            replicate(task, "debate", 1.0, 0, members=[member(0, (0, 1.0)), member(1, (0, 0.0))]),
            replicate(task, "debate", 1.0, 1, members=[member(0, (0, 0.5)), member(1, (0, None))]),
            replicate(task, "debate", None, 2),
        ]
    omega = result(chosen, replicates)["strategies"][0]["omega"]
    # The first agent has .75, and is the better one on either half.
    assert omega["omega"]["estimate"] == 0.25
    assert omega["oracle_gap"] == 0.25


def test_a_chain_has_neither_omega_nor_consensus() -> None:
    chosen = policy(planned_arm("sequential", agents=2), tasks=2)
    members = [member(0, (0, 1.0)), member(1, (None, None), (0, 1.0))]
    replicates = scored({"single": [1, 1]}) + scored({"sequential": [1, 1]}, members=members)
    [strategy] = result(chosen, replicates)["strategies"]
    assert strategy["omega"] is None
    assert strategy["consensus"] == {
        "status": "not_measured",
        "before": None,
        "after": None,
        "flips": None,
        "alpha": None,
    }


def test_free_text_has_neither_omega_nor_consensus() -> None:
    members = [member(0, (None, None)), member(1, (None, None))]
    replicates = [*scored({"single": [0.5]}), replicate(0, "debate", 0.5, members=members)]
    [strategy] = result(policy(DEBATE), replicates)["strategies"]
    assert strategy["omega"] is None
    assert strategy["consensus"]["status"] == "not_measured"


def test_agreement_and_flips_are_counted() -> None:
    chosen = policy(planned_arm("debate", agents=3, replicates=2), tasks=2)
    turned = [
        member(0, (0, 1.0), (0, 1.0)),
        member(1, (1, 0.0), (0, 1.0)),
        member(2, (0, 1.0), (1, 0.0)),
    ]
    replicates = [
        replicate(0, "debate", 1.0, 0, members=turned),
        replicate(0, "debate", 1.0, 1, members=turned),
        replicate(1, "debate", 1.0, 0, members=[member(at, (0, 1.0)) for at in range(3)]),
        # Its calls failed.
        replicate(1, "debate", None, 1),
    ]
    consensus = result(chosen, replicates)["strategies"][0]["consensus"]
    assert consensus["status"] == "measured"
    assert consensus["before"]["tasks"] == 3
    # One pair of three agrees in two entries, all three pairs in the third.
    assert consensus["before"]["agreement"] == pytest.approx(5 / 9)
    assert (consensus["before"]["split_right"], consensus["before"]["unanimous_right"]) == (2, 1)
    flips = consensus["flips"]
    assert (flips["wrong_to_right"], flips["right_to_wrong"]) == (2, 2)
    assert (flips["stayed_right"], flips["changed"], flips["compared"]) == (5, 4, 9)
    assert consensus["alpha"] is None


def test_alpha_is_over_the_labels_of_the_plan() -> None:
    chosen = policy(planned_arm("parallel", agents=2), tasks=5, labels=["a", "b"])
    firsts = [(0, 0), (1, 1), (0, 1), (1, 1), (1, 2)]
    replicates = [
        replicate(task, "parallel", 1.0, members=[member(at, (n, 1.0)) for at, n in enumerate(two)])
        for task, two in enumerate(firsts)
    ]
    alpha = result(chosen, replicates)["strategies"][0]["consensus"]["alpha"]
    # The fifth has one label only, for 2 is none of the plan's; the others are worth .5333.
    assert (alpha["units"], alpha["values"], alpha["labels"]) == (4, 8, 2)
    assert alpha["alpha"] == pytest.approx(0.5333, abs=1e-4)


def test_the_rule_is_the_policys() -> None:
    replicates = scored({"single": [0.4, 0.5] * 15, "debate": [0.8, 0.7] * 15})
    chosen = policy(DEBATE, tasks=30, rule=VerdictRule(confidence=0.9, max_missing=0.5))
    [strategy] = result(chosen, replicates)["strategies"]
    assert strategy["gamma"]["confidence"] == 0.9
    assert strategy["delta"]["confidence"] == 0.9
    assert strategy["bootstrap"]["confidence"] == 0.9
    assert strategy["missing"]["max_share"] == 0.5


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([replicate(1, "single", 1.0)], "no replicate t1/single/0"),
        ([replicate(0, "single", 1.0, 1)], "no replicate t0/single/1"),
        ([replicate(0, "other", 1.0)], "no replicate t0/other/0"),
        ([replicate("c", "canary", 1.0)], "no replicate c/canary/0"),
        ([replicate(0, "single", 1.0)] * 2, "stands there twice"),
        ([replicate(0, "single", 1.5)], "score is 1.5"),
    ],
)
def test_what_the_plan_does_not_ask_for_is_an_error(given: list[Members], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        result(policy(DEBATE), given)


def test_a_plan_that_nobody_could_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="too many values"):
        result(policy(planned_arm("other", "single")), [])


def test_a_ratio_beyond_all_numbers_is_an_error() -> None:
    tiny = scored({"single": [5e-324], "debate": [1.0]})
    with (
        pytest.raises(ValueError, match="as small as these"),
        pytest.warns(RuntimeWarning, match="overflow"),
    ):
        result(policy(DEBATE), tiny)


PANEL = {"models": ["j"], "repeats": 3, "max_tokens": 9, "timeout_s": 9.0}
CANARY = {"id": "c", "kind": "good", "digest": "sha256:0", "least": 0.5, "most": 1.0}


def judged(value: float, answered_by: str = "j-1") -> Members:
    verdict = {"judge": "j", "answered_by": answered_by, "value": value}
    return replicate("c", "canary", value, verdicts=[verdict] * 3)


def test_judges_that_fail_on_canaries_take_every_verdict_away() -> None:
    chosen, replicates = planted()
    chosen["plan"] |= {"panel": PANEL, "canaries": [CANARY]}
    trusted = result(chosen, [*replicates, judged(1.0)])
    assert trusted["strategies"][0]["verdict"] == "beneficial"
    assert trusted["judges"] == {
        "earlier": [],
        "readings": [
            {"canary": "c", "judge": "j", "values": [1.0, 1.0, 1.0], "answered_by": ["j-1"]}
        ],
        "findings": [],
    }
    # Canaries are no part of what is compared.
    assert trusted["replicates"]["run"] == len(replicates)
    mistrusted = result(chosen, [*replicates, judged(0.0)])
    assert mistrusted["strategies"][0]["verdict"] == "inconclusive"
    assert mistrusted["strategies"][0]["doubts"] == ["judge_mistrusted"]
    assert mistrusted["judges"]["findings"] == [
        {
            "canary": "c",
            "judge": "j",
            "fault": "misjudged",
            "detail": "0.000; expected 0.5 to 1",
        }
    ]
    unread = result(chosen, replicates)
    assert unread["judges"]["findings"][0]["fault"] == "unscored"
    earlier = [{"canary": "c", "judge": "j", "values": [1.0], "answered_by": ["j-0"]}]
    changed = result(chosen, [*replicates, judged(1.0)], earlier=earlier)
    assert changed["judges"]["earlier"] == earlier
    assert changed["judges"]["findings"][0]["fault"] == "model_changed"
    assert is_json(changed)


def test_spend_is_added_up() -> None:
    tally = SpendTally()
    assert tally.members() == SPEND
    assert SPEND["cost_usd"] is None
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_tokens": 30,
        "cache_write_tokens": 40,
    }
    tally.add(call(usage=usage, cost_usd=0.1))
    tally.add(call(usage=usage, cost_usd=0.2, purpose="judge"))
    tally.add(call(usage=None, failure={"kind": "transient", "message": ""}))
    tally.add(call(usage=None, failure={"kind": "later", "message": ""}, is_unknown_billed=True))
    tally.add(call(usage=usage, cost_usd=5.0, is_reused=True, purpose="judge"))
    assert tally.members() == {
        "calls": 4,
        "judge_calls": 1,
        "reused_calls": 1,
        "failed_calls": 2,
        "unknown_billed_calls": 1,
        "input_tokens": 20,
        "output_tokens": 40,
        "cache_read_tokens": 60,
        "cache_write_tokens": 80,
        "cost_usd": pytest.approx(0.3),
    }


def test_spend_does_not_depend_on_the_order_of_calls() -> None:
    costs = [0.1 * number for number in range(1, 200)] + [1e9, 1e-9]
    forward, backward = SpendTally(), SpendTally()
    for cost_usd in costs:
        forward.add(call(cost_usd=cost_usd))
    for cost_usd in reversed(costs):
        backward.add(call(cost_usd=cost_usd))
    assert forward.members() == backward.members()
    assert forward.members()["cost_usd"] == math.fsum(costs)
