"""Comparisons that go on, were cut, are newer, have judges or no prices; and what they cost."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from typing import Any

import pytest

from cert.evidence.deep import DeepCheck
from cert.evidence.deep_coordination import Comparison
from tests.evidence.builders import error, refused, stop
from tests.evidence.compared import RUN_ID, compared
from tests.evidence.coordination_members import call, planned_arm, policy, replicate
from tests.evidence.test_deep import line_of, look
from tests.evidence.test_deep_coordination import Records, faults, place

DIGEST = "sha256:" + "0" * 64
ZERO = dict.fromkeys(("passed", "failed", "inconclusive", "errors", "refused"), 0)


def resumed(records: Records) -> dict[str, Any]:
    begin = copy.deepcopy(records[1])
    begin["run"]["phase"] = "resumed"
    return begin


def test_a_run_that_was_interrupted_goes_on() -> None:
    records = compared()
    at = place(records, "replicate", 3)
    records[at:at] = [stop("interrupted", run_id=RUN_ID), resumed(records)]
    assert faults(records) == []


def test_a_run_that_was_killed_before_its_end_is_resumed_behind_its_result() -> None:
    records = compared()
    records.insert(-1, resumed(records))
    assert faults(records) == []


def test_of_a_removed_part_nothing_is_derived_that_rested_on_it() -> None:
    records = compared()
    for cut in range(2, len(records)):
        deep = DeepCheck()
        deep.preload(0, line_of(0, records[0]))
        deep.preload(1, line_of(1, records[1]))
        found = [one for _, one in look(records[cut:], deep, first=cut) if one.is_fault]
        assert found == [], cut


def test_a_removed_part_leaves_what_can_be_seen() -> None:
    records = compared()
    cut = place(records, "call", 1)
    edits: list[tuple[int, dict[str, Any]]] = [
        (place(records, "call", 2), {"call": {"model": "m9"}}),
        (place(records, "replicate", 5), {"replicate": {"tokens": 1}}),
        (place(records, "coordination"), {"coordination": {"policy": {"id": "other"}}}),
    ]
    for seq, edit in edits:
        changed = compared()
        for kind, members in edit.items():
            changed[seq][kind] |= members
        deep = DeepCheck()
        deep.preload(0, line_of(0, changed[0]))
        deep.preload(1, line_of(1, changed[1]))
        found = [at for at, one in look(changed[cut:], deep, first=cut) if one.is_fault]
        assert seq in found, edit


def test_a_newer_record_is_passed_over_and_no_result_follows_any_more() -> None:
    for kind in ("call", "replicate"):
        records = compared()
        seq = place(records, kind)
        records[seq] |= {"schema": "1.7"}
        records[seq][kind]["colour"] = "red"
        seq = place(records, "coordination")
        records[seq]["coordination"]["spend"]["calls"] += 1
        assert faults(records) == [], kind


def test_a_newer_result_counts_and_ends_the_comparison() -> None:
    records = compared()
    seq = place(records, "coordination")
    records[seq] |= {"schema": "1.7"}
    assert faults(records) == []
    records.insert(seq + 1, copy.deepcopy(records[place(records, "call")]))
    assert faults(records) == [(seq + 1, "run")]


def test_what_belongs_to_no_comparison() -> None:
    records = compared()
    records.insert(-1, error() | {"run_id": RUN_ID})
    assert (len(records) - 2, "run") in faults(records)
    # A line that is no task is refused, and counted as everywhere.
    records[-2] = refused() | {"run_id": RUN_ID}
    records[-1]["run"]["counts"]["refused"] = 1
    assert faults(records) == []


def test_memory_is_freed_at_the_end_of_a_run() -> None:
    lines = []
    for number in range(30):
        records = compared()[1:]
        for one in records:
            one["run_id"] = f"run-{number}"
        lines.append([line_of(1, one) for one in records])
    deep = DeepCheck()
    deep.check(0, line_of(0, compared()[0]))
    tracemalloc.start()
    for run in lines[:5]:
        assert not any(deep.check(1, line) for line in run)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for run in lines[5:]:
        assert not any(deep.check(1, line) for line in run)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # One run that is not forgotten takes more.
    assert grown < 20_000


# Small comparisons by hand, record by record.

PROMPTS = {"solve@1": DIGEST, "judge@1": DIGEST}
PANEL = {"models": ["j0"], "repeats": 1, "max_tokens": 100, "timeout_s": 60}
CANARY = {"id": "c0", "kind": "good", "digest": DIGEST, "least": 0.5, "most": 1}


def comparison(*arms: dict[str, Any], is_whole: bool = True, **more: object) -> Comparison:
    given = policy(*arms, prompts=PROMPTS, panel=PANEL, canaries=[CANARY])
    return Comparison(given | more, is_whole=is_whole)


def asked(**given: object) -> dict[str, Any]:
    """A call without content: arm `single`, task `t0`."""
    members = call(
        task="t0",
        arm="single",
        replicate=0,
        round="0",
        agent="0",
        model="m0",
        max_tokens=100,
        timeout_s=60.0,
        template={"name": "solve@1", "digest": DIGEST},
    )
    members |= given
    parts = (members[name] for name in ("task", "arm", "replicate", "round", "agent"))
    return {"key": "/".join(map(str, parts)), **members}


def failed(kind: str, **given: object) -> dict[str, Any]:
    said = {"failure": {"kind": kind, "message": "x"}, "usage": None}
    return asked(**said | given)


def done(*calls: dict[str, Any], **given: object) -> dict[str, Any]:
    keys = [one["key"] for one in calls]
    return replicate("t0", "single", 1.0, **({"calls": keys, "tokens": 4} | given))


def codes(one: Comparison, *records: tuple[str, dict[str, Any]]) -> list[str]:
    return [problem.code for kind, members in records for problem in one.take(kind, members)]


def test_a_call_and_its_replicate() -> None:
    assert codes(comparison(), ("call", asked()), ("replicate", done(asked()))) == []


def test_judges_are_of_the_panel() -> None:
    judge = {"purpose": "judge", "model": "j0", "round": "judge.0"}
    good = asked(**judge)
    assert codes(comparison(), ("call", good)) == []
    assert codes(comparison(), ("call", asked(**judge | {"model": "m0"}))) == ["call"]
    assert codes(comparison(), ("call", asked(model="j0"))) == ["call"]
    assert codes(comparison(panel=None), ("call", asked())) == []
    nobody = policy(prompts=PROMPTS)
    assert codes(Comparison(nobody, is_whole=True), ("call", good)) == ["call"]


def test_judges_are_not_on_the_arms_account() -> None:
    calls = asked(), asked(purpose="judge", model="j0", round="judge.0")
    records = [("call", one) for one in calls]
    assert codes(comparison(), *records, ("replicate", done(*calls, tokens=4))) == []
    assert codes(comparison(), *records, ("replicate", done(*calls, tokens=8))) == ["replicate"]


def test_the_best_of_n_pays_for_the_judges_that_select() -> None:
    best = planned_arm("best", "best_of_n", reference="single")
    select = asked(arm="best", round="select.0.judge.0", model="j0")
    assert codes(comparison(best), ("call", select)) == []
    assert codes(comparison(best), ("call", select | {"model": "m0"})) == ["call"]
    other = planned_arm("best", "self_consistency", reference="single")
    assert codes(comparison(other), ("call", select)) == ["call"]


def test_canaries_are_asked_of_judges_alone_and_once() -> None:
    canary = {"task": "c0", "arm": "canary", "round": "judge.0"}
    judge = {"purpose": "judge", "model": "j0"}
    assert codes(comparison(), ("call", asked(**canary, **judge))) == []
    assert codes(comparison(), ("call", asked(**canary))) == ["call"]
    for other in ({"task": "t0"}, {"replicate": 1}):
        assert codes(comparison(), ("call", asked(**canary | judge | other))) == ["call"]


@pytest.mark.parametrize("kind", ["fatal", "later", "budget"])
def test_what_stopped_the_run_is_no_answer(kind: str) -> None:
    stopped, again = failed(kind), asked()
    records = ("call", stopped), ("call", again)
    assert codes(comparison(), *records, ("replicate", done(again))) == []
    assert codes(comparison(), records[0], ("replicate", done(stopped))) == ["replicate"]


@pytest.mark.parametrize("kind", ["transient", "invalid", "rejected"])
def test_what_failed_is_an_answer(kind: str) -> None:
    other = failed(kind)
    assert codes(comparison(), ("call", other), ("replicate", done(other, tokens=0))) == []
    assert codes(comparison(), ("call", other), ("call", asked())) == ["call"]


def test_tokens_that_nobody_knows() -> None:
    other = failed("transient", is_unknown_billed=True)
    assert codes(comparison(), ("call", other), ("replicate", done(other, tokens=None))) == []
    assert codes(comparison(), ("call", other), ("replicate", done(other, tokens=0))) == [
        "replicate"
    ]
    said = other | {"usage": asked()["usage"]}
    assert codes(comparison(), ("call", said), ("replicate", done(said, tokens=4))) == []


def test_costs_are_those_of_the_calls() -> None:
    calls = asked(cost_usd=0.1), asked(agent="1", cost_usd=0.2, round="1")
    records = [("call", one) for one in calls]

    def found(cost_usd: float | None) -> list[str]:
        last = done(*calls, tokens=8, cost_usd=cost_usd)
        return codes(comparison(prices=DIGEST), *records, ("replicate", last))

    assert found(0.3) == []
    assert found(0.3 * (1 + 1e-10)) == []
    assert found(0.3 * (1 + 1e-8)) == ["replicate"]
    assert found(None) == ["replicate"]


def test_costs_are_there_exactly_where_prices_and_usage_are() -> None:
    assert codes(comparison(), ("call", asked(cost_usd=0.1))) == ["call"]
    assert codes(comparison(prices=DIGEST), ("call", asked())) == ["call"]
    assert codes(comparison(prices=DIGEST), ("call", failed("transient"))) == []
    assert codes(comparison(prices=DIGEST), ("call", failed("transient", cost_usd=0))) == ["call"]


def test_a_call_behind_its_replicate() -> None:
    late = asked(round="1")
    records = ("call", asked()), ("replicate", done(asked())), ("call", late)
    assert codes(comparison(), *records) == ["call"]


def test_calls_that_are_named_twice_left_out_or_unknown() -> None:
    one, other = asked(), asked(round="1")
    both = ("call", one), ("call", other)
    assert codes(comparison(), *both, ("replicate", done(one, one, other, tokens=8))) == [
        "replicate"
    ]
    assert codes(comparison(), *both, ("replicate", done(one))) == ["replicate"]
    first, second = asked(round="8"), asked(round="9")
    unknown = ("replicate", done(one, first, second))
    found = [*comparison().take("call", one), *comparison().take(*unknown)]
    assert [(problem.code, problem.found) for problem in found] == [("replicate", one["key"])]
    whole = comparison()
    assert whole.take("call", one) == []
    # The first in the order of asking, the same in every process.
    assert [problem.found for problem in whole.take(*unknown)] == [first["key"]]
    assert codes(comparison(is_whole=False), ("call", one), unknown) == []


def test_a_plan_that_nobody_could_have_run_has_no_result() -> None:
    given = policy(prompts=PROMPTS)
    given["plan"]["tasks"] *= 2
    result = {"judges": None, "policy": {}}
    (problem,) = Comparison(given, is_whole=True).take("coordination", result)
    assert problem.code == "result"
    assert problem.message.startswith("nothing follows from its records: ValueError")
