"""What a writer remembers of the lines, kept beside an account that is made in another way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.index import Index
from tests.ledger.ledgers import line_of

PREV = bytes(32)


def begin(run_id: str, job: object = "sha256:x") -> dict[str, Any]:
    return {"kind": "run", "run": {"job": job, "phase": "begin"}, "run_id": run_id}


def end(run_id: str) -> dict[str, Any]:
    return {"kind": "run", "run": {"phase": "end"}, "run_id": run_id}


def policy(digest: str) -> dict[str, Any]:
    return {"kind": "policy", "policy": {"digest": digest, "id": "default"}}


def test_policies_and_unfinished_runs_are_remembered() -> None:
    index = Index()
    records = [
        policy("sha256:a"),
        begin("r1", {"inputs": 3}),
        policy("sha256:b"),
        policy("sha256:a"),
        begin("r2"),
        end("r1"),
        end("r1"),
    ]
    for seq, record in enumerate(records):
        index.add(line_of(PREV, seq, record), seq, 0, 100 * seq)
    # The first record of a policy counts.
    assert index.policies == {"sha256:a": 0, "sha256:b": 2}
    assert index.runs == {"r2": {"seq": 4, "segment": 0, "offset": 400, "job": "sha256:x"}}


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "analysis", "text": "x"},
        {"kind": "analysis", "note": {"kind": "policy", "policy": {"digest": "d"}}},
        {"kind": "policy"},
        {"kind": "policy", "policy": {"digest": 7}},
        {"kind": "policy", "policy": []},
        {"kind": "run", "run": {"phase": "begin"}, "run_id": "r"},
        {"kind": "run", "run": {"phase": "begin", "job": 1}},
        {"kind": "run", "run": {"phase": "pause", "job": 1}, "run_id": "r"},
        {"kind": "run", "run": {"phase": "begin", "job": 1}, "run_id": 7},
    ],
)
def test_other_records_leave_no_trace(record: dict[str, Any]) -> None:
    index = Index()
    index.add(line_of(PREV, 1, record), 1, 0, 0)
    assert index == Index()


@pytest.mark.parametrize("kind", [b'"kind":"policy"', b'"kind":"run"'])
def test_a_line_that_is_no_json_leaves_no_trace(kind: bytes) -> None:
    index = Index()
    for line in (b"{" + kind, b"[" + kind[7:] + b"]", kind, b'{"a":' + kind + b"}"):
        index.add(line, 1, 0, 0)
    assert index == Index()


EVENTS = st.lists(
    st.tuples(st.sampled_from([policy, begin, end]), st.sampled_from(["a", "b", "c"])), max_size=20
)


@given(EVENTS)
def test_the_account_is_that_of_a_second_reading(events: list[tuple[Any, str]]) -> None:
    index = Index()
    lines = [line_of(PREV, seq, make(name)) for seq, (make, name) in enumerate(events)]
    for seq, line in enumerate(lines):
        index.add(line, seq, 7, seq)
    records = [json.loads(line) for line in lines]
    for name in "abc":
        places = [r["_seq"] for r in records if r.get("policy", {}).get("digest") == name]
        assert index.policies.get(name) == (places[0] if places else None)
        own = [r for r in records if r.get("run_id") == name]
        is_open = bool(own) and own[-1]["run"]["phase"] == "begin"
        assert (index.runs[name]["seq"] if name in index.runs else None) == (
            own[-1]["_seq"] if is_open else None
        )
