"""What a deep check finds in the records of comparisons."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.evidence.coordination_plan import PlanPolicy
from cert.evidence.deep import DeepCheck
from cert.ledger.findings import State
from cert.ledger.keys import Signer
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from tests.evidence.builders import analysis
from tests.evidence.compared import RUN_ID, compared
from tests.evidence.test_deep import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Records = list[dict[str, Any]]


def faults(records: Records, deep: DeepCheck | None = None) -> list[tuple[int, str]]:
    return [(seq, one.code) for seq, one in look(records, deep) if one.is_fault]


def place(records: Records, kind: str, number: int = 0) -> int:
    return [seq for seq, one in enumerate(records) if one["kind"] == kind][number]


def digested(policy: dict[str, Any]) -> dict[str, Any]:
    members = {name: policy[name] for name in ("plan", "rule", "prices", "endpoints")}
    return policy | {"digest": PlanPolicy(**members).digest}


@pytest.mark.parametrize("content", ["full", "omitted"])
def test_a_whole_run_is_right(content: str) -> None:
    records = compared(content)
    assert look(records) == []
    assert {one["kind"] for one in records} >= {"policy", "call", "replicate", "coordination"}


def test_what_is_omitted_is_nowhere() -> None:
    text = str(compared("omitted"))
    assert "ANSWER" not in text
    assert "What is" not in text
    assert "ANSWER" in str(compared())


def change(kind: str, number: int, *path: str | int, to: object) -> Callable[[Records], int]:
    """Set a member; returns the place of the record."""

    def edit(records: Records) -> int:
        seq = place(records, kind, number)
        part: Any = records[seq][kind]
        for name in path[:-1]:
            part = part[name]
        assert part[path[-1]] != to
        part[path[-1]] = to
        return seq

    return edit


def drop(kind: str, number: int) -> Callable[[Records], int]:
    def edit(records: Records) -> int:
        del records[place(records, kind, number)]
        return -1

    return edit


def twice(kind: str, number: int) -> Callable[[Records], int]:
    def edit(records: Records) -> int:
        seq = place(records, kind, number)
        records.insert(seq + 1, copy.deepcopy(records[seq]))
        return seq + 1

    return edit


def after_the_result(kind: str) -> Callable[[Records], int]:
    def edit(records: Records) -> int:
        seq = place(records, "coordination")
        records.insert(seq + 1, copy.deepcopy(records[place(records, kind)]))
        return seq + 1

    return edit


EDITS: dict[str, tuple[Callable[[Records], int], str]] = {
    "a verdict": (change("coordination", 0, "strategies", 0, "verdict", to="harmful"), "verdict"),
    "a gamma": (change("coordination", 0, "strategies", 0, "gamma", "estimate", to=9), "result"),
    "an omega": (
        change("coordination", 0, "strategies", 0, "omega", "oracle_gap", to=0.25),
        "result",
    ),
    "a consensus": (
        change("coordination", 0, "strategies", 0, "consensus", "before", "agreement", to=1),
        "result",
    ),
    "a spend": (change("coordination", 0, "spend", "calls", to=1), "result"),
    "a policy's name": (change("coordination", 0, "policy", "id", to="other"), "policy"),
    "tokens": (change("replicate", 0, "tokens", to=1), "replicate"),
    "a cost": (change("replicate", 0, "cost_usd", to=0.5), "replicate"),
    "a task": (change("replicate", 0, "task", to="t9"), "replicate"),
    "an arm": (change("replicate", 0, "arm", to="chorus"), "replicate"),
    "a replicate's number": (change("replicate", 0, "replicate", to=1), "replicate"),
    "a call less": (change("replicate", 0, "calls", to=[]), "replicate"),
    "a call of another": (change("replicate", 0, "calls", to=["t0/single/0/7/7"]), "replicate"),
    "a replicate twice": (twice("replicate", 0), "replicate"),
    "a key": (change("call", 0, "key", to="t0/single/0/0/9"), "call"),
    "a model": (change("call", 0, "model", to="m9"), "call"),
    "a call's task": (change("call", 0, "task", to="t9"), "call"),
    "a template": (change("call", 0, "template", "name", to="solve@9"), "call"),
    "a template's digest": (
        change("call", 0, "template", "digest", to="sha256:" + "0" * 64),
        "call",
    ),
    "a request": (change("call", 0, "request", "messages", 0, "text", to="another"), "call"),
    "a price that is none": (change("call", 0, "cost_usd", to=None), "call"),
    "a limit": (change("call", 0, "max_tokens", to=5), "call"),
    "a call twice": (twice("call", 0), "call"),
    "a call after the result": (after_the_result("call"), "run"),
    "a replicate after the result": (after_the_result("replicate"), "run"),
    "two results": (after_the_result("coordination"), "run"),
    "a policy that is not its digest's": (change("policy", 0, "rule", "margin", to=0.5), "policy"),
    "counts": (change("run", 1, "counts", "passed", to=1), "counts"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_change_is_found_where_it_is(name: str) -> None:
    edit, code = EDITS[name]
    records = compared()
    seq = edit(records)
    assert (seq, code) in faults(records)


@pytest.mark.parametrize("kind", ["call", "replicate", "coordination"])
def test_a_record_that_is_missing_is_missed(kind: str) -> None:
    records = compared()
    assert drop(kind, 0)(records) == -1
    assert faults(records)


def test_a_run_that_ends_without_its_result_is_found() -> None:
    records = compared()
    assert drop("coordination", 0)(records) == -1
    counts = records[-1]["run"]["counts"]
    records[-1]["run"]["counts"] = dict.fromkeys(counts, 0)
    assert faults(records) == [(len(records) - 1, "run")]


def test_a_plan_that_was_replaced_with_its_digest_is_none_of_the_run() -> None:
    records = compared()
    policy = records[0]["policy"]
    records[0]["policy"] = digested(policy | {"rule": policy["rule"] | {"margin": 0.5}})
    assert (1, "policy") in faults(records)


def test_a_plan_that_was_replaced_everywhere_still_has_another_result() -> None:
    records = compared()
    policy = records[0]["policy"]
    other = digested(policy | {"plan": policy["plan"] | {"splits": 7}})
    records[0]["policy"] = other
    records[1]["run"]["policy"]["digest"] = other["digest"]
    seq = place(records, "coordination")
    records[seq]["coordination"]["policy"]["digest"] = other["digest"]
    assert faults(records) == [(seq, "result")] * len(faults(records))
    assert faults(records)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_score_is_changed_the_result_is_another(data: st.DataObject) -> None:
    records = compared()
    scored = [
        seq
        for seq, one in enumerate(records)
        if one["kind"] == "replicate" and one["replicate"]["score"] is not None
    ]
    seq = data.draw(st.sampled_from(scored))
    score = records[seq]["replicate"]["score"]
    other = data.draw(st.floats(0, 1).filter(lambda one: abs(one - score) > 1e-6))
    records[seq]["replicate"]["score"] = other
    assert any(code in {"result", "verdict"} for _, code in faults(records))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_order_of_replicates_makes_no_difference(data: st.DataObject) -> None:
    records = compared()
    places = [seq for seq, one in enumerate(records) if one["kind"] == "replicate"]
    begin, end = places[0], place(records, "coordination")
    calls = [one for one in records[begin:end] if one["kind"] == "call"]
    replicates = [one for one in records[begin:end] if one["kind"] == "replicate"]
    mixed = [replicates[at] for at in data.draw(st.permutations(range(len(replicates))))]
    assert faults([*records[:begin], *calls, *mixed, *records[end:]]) == []  # clocks aside


def test_a_call_that_stopped_the_run_is_made_again() -> None:
    records = compared()
    seq = place(records, "call")
    stopped = copy.deepcopy(records[seq])
    stopped["call"] |= {
        "reply": None,
        "latency_s": None,
        "usage": None,
        "cost_usd": None,
        "failure": {"kind": "budget", "message": "the budget has 0 left"},
    }
    records.insert(seq, stopped)
    result = records[place(records, "coordination")]["coordination"]
    result["spend"]["calls"] += 1
    result["spend"]["failed_calls"] += 1
    assert faults(records) == []
    stopped["call"]["failure"]["kind"] = "transient"
    assert (seq + 1, "call") in faults(records)


def test_kinds_stay_among_their_own() -> None:
    records = compared()
    seq = place(records, "call")
    records.insert(seq, analysis() | {"run_id": RUN_ID})
    assert (seq, "run") in faults(records)


@pytest.mark.parametrize("kind", ["call", "replicate", "coordination"])
def test_without_a_run_they_are_of_none(kind: str) -> None:
    records = compared()
    assert faults([records[place(records, kind)]]) == [(0, "run")]
    part = DeepCheck(is_part=True)
    assert faults([records[place(records, kind)]], part) == []


def test_a_part_of_a_run_is_taken_as_far_as_it_goes() -> None:
    records = compared()
    middle = records[place(records, "replicate") :]
    assert faults(middle, DeepCheck(is_part=True)) == []


def test_a_record_that_cannot_be_read_is_a_fault_and_no_crash() -> None:
    for kind in ("call", "replicate", "coordination", "policy"):
        for broken in (None, 1, [], {}, {"key": 1}, {"strategies": 1, "policy": None}):
            records = compared()
            seq = place(records, kind)
            records[seq][kind] = broken
            assert any(at == seq for at, _ in faults(records)), (kind, broken)


@pytest.mark.parametrize("run_id", [1, None, [], {}])
def test_a_run_whose_id_is_no_text_is_a_fault_and_no_crash(run_id: object) -> None:
    records = compared()[:2]
    records[1]["run_id"] = run_id
    assert any(at == 1 for at, _ in faults(records))


def test_through_a_real_ledger(tmp_path: Path) -> None:
    from cert.evidence.record import encode_record
    from cert.ledger.appender import open_ledger
    from cert.ledger.key_store import GivenKey

    signer = Signer.generate()
    with open_ledger(tmp_path / "ledger", GivenKey(signer), origin="example.com/t") as ledger:
        ledger.append([encode_record(record) for record in compared()])
    report = verify_ledger(FolderReader(tmp_path / "ledger"), signer.public, deep=DeepCheck())
    assert report.state is State.UNANCHORED, report
