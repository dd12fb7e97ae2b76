"""Builders of the records of comparisons: heads, content, what does not go together."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from cert.evidence.coordination_plan import read_plan_policy
from cert.evidence.coordination_records import (
    OUTCOMES,
    build_call_record,
    build_coordination_record,
    build_replicate_record,
)
from cert.statistics.verdict import CoordinationVerdict
from tests.evidence.compared import RUN_ID, compared

if TYPE_CHECKING:
    from collections.abc import Callable

TIME = "2026-11-23T10:30:45.123Z"
BUILDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "call": build_call_record,
    "replicate": build_replicate_record,
}


def recorded(kind: str, content: str = "full") -> dict[str, Any]:
    return next(one for one in compared(content) if one["kind"] == kind)


@pytest.mark.parametrize("content", ["full", "omitted"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_record_is_its_head_and_its_members(kind: str, content: str) -> None:
    members = recorded(kind, content)[kind]
    built = BUILDERS[kind](
        members, run_id=RUN_ID, content=content, correlation_id="req-1\ud800", time=TIME
    )
    expected = {"run_id": RUN_ID, "correlation_id": "req-1\ufffd", "time": TIME, "kind": kind}
    assert built.items() >= (expected | {"content": content, kind: members}).items()


def test_a_result_names_the_plan() -> None:
    policy = read_plan_policy(compared()[0]["policy"])
    stated = recorded("coordination")["coordination"]
    result = {name: value for name, value in stated.items() if name != "policy"}
    built: dict[str, Any] = build_coordination_record(
        result, policy, run_id=RUN_ID, content="full", time=TIME
    )
    assert built["coordination"] == stated
    assert stated["policy"] == {"id": "coordination", "version": 1, "digest": policy.digest}
    with pytest.raises(ValueError, match="content is 'committed'"):
        build_coordination_record(result, policy, run_id=RUN_ID, content="committed")


@pytest.mark.parametrize("kind", BUILDERS)
def test_there_is_no_other_content_mode(kind: str) -> None:
    with pytest.raises(ValueError, match="content is 'committed'; expected full or omitted"):
        BUILDERS[kind](recorded(kind)[kind], run_id=RUN_ID, content="committed")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("call", ("request",)),
        ("call", ("request_digest",)),
        ("call", ("reply", "text")),
        ("replicate", ("evidence",)),
        ("replicate", ("labels",)),
        ("replicate", ("text",)),
    ],
)
def test_content_cannot_slip_in_or_be_lost(kind: str, path: tuple[str, ...]) -> None:
    def part_of(members: dict[str, Any]) -> dict[str, Any]:
        return members[path[0]] if len(path) > 1 else members

    full = copy.deepcopy(recorded(kind)[kind])
    omitted = copy.deepcopy(recorded(kind, "omitted")[kind])
    part_of(omitted)[path[-1]] = part_of(full).pop(path[-1])
    for members, content in ((full, "full"), (omitted, "omitted")):
        with pytest.raises(ValueError, match=f"{path[-1]} stands there exactly where"):
            BUILDERS[kind](members, run_id=RUN_ID, content=content)


def test_a_call_without_a_reply_has_no_text_to_ask_for() -> None:
    call = next(
        one["call"] for one in compared() if one["kind"] == "call" and one["call"]["failure"]
    )
    assert call["reply"] is None
    assert build_call_record(call, run_id=RUN_ID, content="full")["call"] == call


def test_every_verdict_counts_as_something() -> None:
    assert set(OUTCOMES) == {one.value for one in CoordinationVerdict}
    assert set(OUTCOMES.values()) == {"pass", "fail", "inconclusive"}
