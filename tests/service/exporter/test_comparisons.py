"""What the exporter counts of comparisons of agents, and of records that only look like one."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from cert.service.exporter.totals import Comparisons, Counter, Gamma, Totals
from tests.evidence.compared import compared

if TYPE_CHECKING:
    from collections.abc import Iterable


def count(records: Iterable[dict[str, Any]]) -> Totals:
    counter = Counter(Totals())
    for record in records:
        counter.count(json.dumps(record).encode())
    return counter.totals


def test_calls_tokens_cost_and_verdicts_are_those_of_the_records() -> None:
    records = compared()
    totals = count(records)
    calls = [one["call"] for one in records if one["kind"] == "call"]
    answered = [call for call in calls if call["usage"] is not None]
    found = totals.comparisons
    assert found.calls == {"ok": len(answered), "transient": 1}
    assert found.tokens == {
        "input": sum(call["usage"]["input_tokens"] for call in answered),
        "output": 50 * len(answered),
        "cache_read": 0,
        "cache_write": 0,
    }
    assert found.cost_usd == pytest.approx(sum(call["cost_usd"] for call in answered))
    assert found.verdicts == {"undefined": 2}
    result = next(one["coordination"] for one in records if one["kind"] == "coordination")
    for strategy in result["strategies"]:
        gamma = strategy["gamma"]
        assert found.gammas[strategy["name"]] == Gamma(
            gamma["estimate"], gamma["lower"], gamma["upper"]
        )
    assert totals.kinds["call"] == len(calls)
    assert totals.kinds["replicate"] == sum(one["kind"] == "replicate" for one in records)
    assert "other" not in totals.kinds
    assert totals.statuses == {}


def test_a_call_of_an_earlier_run_is_not_counted_again() -> None:
    (record, *_) = (one for one in compared() if one["kind"] == "call")
    record["call"]["is_reused"] = True
    totals = count([record])
    assert totals.comparisons == Comparisons()
    assert totals.kinds == {"call": 1}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("call", ("usage", "input_tokens"), -1),
        ("call", ("usage", "input_tokens"), 10**15),
        ("call", ("cost_usd",), -0.5),
        ("call", ("cost_usd",), 1e300),
        ("call", ("failure",), {"kind": "whim"}),
        ("call", ("failure",), "fatal"),
        ("call", ("is_reused",), None),
        ("coordination", ("strategies",), None),
        ("coordination", ("strategies", 0, "verdict"), "good"),
        ("coordination", ("strategies", 0, "gamma", "estimate"), -1),
        ("coordination", ("strategies", 0, "gamma", "upper"), 1e300),
        ("coordination", ("strategies", 0, "gamma"), None),
    ],
)
def test_what_no_comparison_says_is_counted_as_other(
    kind: str, path: tuple[Any, ...], value: object
) -> None:
    record = copy.deepcopy(next(one for one in compared() if one["kind"] == kind))
    part = record[kind]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    totals = count([record])
    assert totals.kinds == {"other": 1}
    assert totals.comparisons == Comparisons()


@pytest.mark.parametrize("kind", ["call", "coordination"])
def test_a_kind_without_its_member_is_none(kind: str) -> None:
    assert count([{"kind": kind}]).kinds == {"other": 1}


def test_names_of_strategies_are_an_enumeration() -> None:
    record = next(one for one in compared() if one["kind"] == "coordination")
    record["coordination"]["strategies"][0]["name"] = 'x"} 1\ncert_forged 1'
    assert set(count([record]).comparisons.gammas) == {"other", "parallel"}
