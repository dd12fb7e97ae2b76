"""The schema of comparisons' records: nothing is missing, misspelt or of another type."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from cert.evidence.schema import record_schema
from tests.evidence.compared import compared
from tests.evidence.test_schema import parent_of, places

if TYPE_CHECKING:
    from collections.abc import Iterator

VALIDATOR = jsonschema_rs.validator_for(record_schema())
KINDS = {"policy", "call", "replicate", "coordination"}
RECORDS = {
    f"{one['kind']}, {content}": one
    for content in ("full", "omitted")
    for one in compared(content)
    if one["kind"] in KINDS
}
MAPS = {"prompts", "evidence", "unscored", "reasons", "rate_limits", "schema"}
"""Members whose names are not the format's."""


def fixed(name: str) -> Iterator[tuple[Any, ...]]:
    """Every place whose name the format gives, below the member that is the kind's own."""
    kind = name.split(",", maxsplit=1)[0]
    for path in places(RECORDS[name][kind], (kind,)):
        if not MAPS & set(path[:-1]):
            yield path


@pytest.mark.parametrize("name", RECORDS)
def test_they_follow_it(name: str) -> None:
    assert VALIDATOR.is_valid(RECORDS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_no_member_can_be_missing(name: str) -> None:
    missed = []
    for path in fixed(name):
        broken = copy.deepcopy(RECORDS[name])
        parent = parent_of(broken, path)
        if isinstance(parent, dict):
            del parent[path[-1]]
            missed += [path] if VALIDATOR.is_valid(broken) else []
    assert missed == []


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("other", [{"x": 1}, [{"x": 1}], True])
def test_no_value_can_be_of_another_type(name: str, other: object) -> None:
    missed = []
    for path in fixed(name):
        broken = copy.deepcopy(RECORDS[name])
        parent = parent_of(broken, path)
        if type(parent[path[-1]]) is type(other) and (path[-1] in MAPS or other is True):
            continue
        parent[path[-1]] = other
        if VALIDATOR.is_valid(broken):
            missed.append(path)
    assert [path for path in missed if path[-1] not in MAPS] == []


@pytest.mark.parametrize("name", RECORDS)
def test_inner_objects_hold_nothing_else(name: str) -> None:
    missed = []
    for path in fixed(name):
        broken = copy.deepcopy(RECORDS[name])
        value = parent_of(broken, (*path, None))
        if isinstance(value, dict) and path[-1] not in MAPS:
            value["misspelt"] = 1
            missed += [path] if VALIDATOR.is_valid(broken) else []
    assert missed == []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("policy, full", ("policy", "id"), "other"),
        ("policy, full", ("policy", "version"), 2),
        ("policy, full", ("policy", "plan", "tasks"), []),
        ("policy, full", ("policy", "endpoints"), []),
        ("policy, full", ("policy", "endpoints", 0, "kind"), "oracle"),
        ("policy, full", ("policy", "rule", "margin"), -0.1),
        ("call, full", ("content",), "committed"),
        ("call, full", ("content",), "omitted"),
        ("call, omitted", ("content",), "full"),
        ("call, full", ("call", "purpose"), "fun"),
        ("call, full", ("call", "usage", "input_tokens"), -1),
        ("call, full", ("call", "failure"), {"kind": "fatal", "message": "and a reply"}),
        ("replicate, full", ("replicate", "score"), 1.5),
        ("replicate, full", ("replicate", "unscored"), {"reason": "refusal", "detail": ""}),
        ("coordination, full", ("coordination", "strategies", 0, "verdict"), "good"),
    ],
)
def test_values_outside_their_domain(name: str, path: tuple[Any, ...], value: object) -> None:
    broken = copy.deepcopy(RECORDS[name])
    parent_of(broken, path)[path[-1]] = value
    assert not VALIDATOR.is_valid(broken)
