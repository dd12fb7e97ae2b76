"""Records of runs, policies and notes."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

import pytest

import cert
from cert.assessment.policy import Policy, Threshold, load_policy
from cert.evidence.note_record import build_note_record
from cert.evidence.policy_record import build_policy_record, read_policy
from cert.evidence.record import encode_record
from cert.evidence.run_record import RunCounts, build_run_record, load_host
from tests.evidence.builders import begin, stop
from tests.fakes import fake_identity

TIME = "2026-11-23T10:30:45.123Z"


def test_a_policy_record_word_for_word() -> None:
    policy = Policy("mild", 3, (Threshold("nll", "<=", 50.0), Threshold("tokens", ">", 2.5)), 4)
    record = build_policy_record(policy, time=TIME)
    assert record.pop("id")
    assert record == {
        "kind": "policy",
        "schema": "1.0",
        "time": TIME,
        "clock": "system",
        "policy": {
            "id": "mild",
            "version": 3,
            "checks": [
                {"signal": "nll", "op": "<=", "threshold": 50.0},
                {"signal": "tokens", "op": ">", "threshold": 2.5},
            ],
            "min_tokens": 4,
            "incomplete": "inconclusive",
            "digest": policy.digest,
        },
    }


@pytest.mark.parametrize("name", ["default", "strict"])
def test_a_policy_reads_back_from_its_line(name: str) -> None:
    line = encode_record(build_policy_record(load_policy(name)))
    assert read_policy(json.loads(line)["policy"]) == load_policy(name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "other"}, "its digest is sha256:"),
        ({"min_tokens": 7}, "its digest is sha256:"),
        ({"digest": None}, "not None"),
        ({"version": "1"}, "version"),
        ({"id": "?"}, "expected 1 to 64 letters"),
        ({"checks": []}, "0 checks"),
        ({"more": 1}, "more"),
        ({"incomplete": "maybe"}, "maybe"),
    ],
)
def test_what_is_no_policy(change: dict[str, Any], says: str) -> None:
    record: Any = build_policy_record(load_policy("default"))
    with pytest.raises(ValueError, match=says):
        read_policy(record["policy"] | change)


def test_a_begin_record_word_for_word() -> None:
    record = begin(time=TIME)
    assert record.pop("id")
    identity = fake_identity()
    assert record == {
        "kind": "run",
        "schema": "1.0",
        "time": TIME,
        "clock": "system",
        "run_id": "run-1",
        "correlation_id": "req-123",
        "run": {
            "phase": "begin",
            "command": "batch",
            "job": "sha256:" + "1" * 64,
            "inputs": [
                {"source": "prompts.txt", "sha256": "2" * 64, "bytes": 120},
                {"source": "-", "sha256": None, "bytes": None},
            ],
            "policy": {"id": "default", "version": 1, "digest": load_policy("default").digest},
            "content": "full",
            "sampling": {
                "max_new_tokens": 8,
                "temperature": 0.0,
                "top_k": 0,
                "top_p": 1.0,
                "seed": None,
                "stop": [],
            },
            "limit": None,
            "model": {
                "name": "fake",
                "digest": identity.digest,
                "architecture": "FakeForCausalLM",
                "parameters": 1000,
                "vocab_size": 65536,
                "max_context_tokens": 512,
            },
            "device": "cpu",
            "versions": {"fake": "1.0", "cert": "4.0", "python": "3.11.7"},
            "host": {"platform": "linux", "arch": "x86_64"},
        },
    }


def test_a_run_may_begin_before_anything_is_known() -> None:
    run = begin(identity=None, sampling=None)["run"]
    assert (run["model"], run["device"], run["sampling"]) == (None, None, None)
    assert run["versions"] == {"cert": "4.0", "python": "3.11.7"}


def test_interrupted_and_end() -> None:
    counts = {"passed": 1, "failed": 2, "inconclusive": 3, "errors": 4, "refused": 5}
    assert stop("interrupted", **counts)["run"] == {"phase": "interrupted", "counts": counts}
    assert stop(exit_code=3, **counts)["run"] == {"phase": "end", "counts": counts, "exit_code": 3}
    assert stop()["run"]["exit_code"] is None
    assert stop()["correlation_id"] is None


@pytest.mark.parametrize(
    ("phase", "more"),
    [
        ("begin", {}),
        ("resumed", {}),
        ("interrupted", {"exit_code": 1}),
        ("begun", {}),
    ],
)
def test_details_are_those_of_the_phase(phase: Any, more: dict[str, Any]) -> None:  # noqa: ANN401 - wrong ones
    with pytest.raises(ValueError, match="begin and resumed take RunBegin"):
        build_run_record(run_id="r", phase=phase, details=RunCounts(), **more)


def test_a_run_does_not_end_with_what_it_began() -> None:
    for phase in ("interrupted", "end"):
        with pytest.raises(ValueError, match="with RunBegin"):
            begin(phase=phase)


def test_other_content_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of full, committed, omitted"):
        begin(content="some")


def test_sources_that_cannot_be_encoded_are_marked() -> None:
    from cert.evidence.run_record import RunInput

    record = begin(inputs=(RunInput("f\udce9.txt"),))
    assert json.loads(encode_record(record))["run"]["inputs"][0]["source"] == "f\ufffd.txt"


def test_the_host_says_what_results_may_depend_on_and_no_name() -> None:
    host = load_host()
    assert host.versions == {"cert": cert.__version__, "python": platform.python_version()}
    assert begin(host=host)["run"]["host"] == {"platform": sys.platform, "arch": host.arch}


def test_a_note() -> None:
    record = build_note_record("model \ud800", time=TIME)
    assert record.pop("id")
    assert record == {
        "kind": "note",
        "schema": "1.0",
        "time": TIME,
        "clock": "system",
        "note": {"text": "model \ufffd"},
    }
    assert build_note_record("x" * 2000)


@pytest.mark.parametrize("text", ["", "x" * 2001])
def test_notes_that_are_too_long_or_empty(text: str) -> None:
    with pytest.raises(ValueError, match=f"not {len(text)}"):
        build_note_record(text)
