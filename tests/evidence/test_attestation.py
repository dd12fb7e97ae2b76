"""Attestations: what a run's records fold into, and what in-toto's own types read."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from cert.assessment.policy import load_policy
from cert.evidence.attestation import (
    MAX_LISTED,
    PAYLOAD_TYPE,
    Artifact,
    RunOutcome,
    build_test_result,
    collect_test_result,
    sign_dsse,
    verify_dsse,
)
from cert.evidence.commitment import commit
from cert.evidence.run_record import RunCounts
from cert.inputs.case import PromptCase
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import LedgerError
from cert.ledger.keys import Signer
from tests.evidence.builders import ALL, analysis, begin, error, refused, stop
from tests.evidence.compared import compared
from tests.fakes import fake_identity

ROOT = bytes(range(32))
ORIGIN = "example.org/audit"
OUTCOME = RunOutcome(
    run_id="run-1",
    model=Artifact("gpt-x", "sha256:" + "a" * 64),
    policy=Artifact("default@1", "sha256:" + "b" * 64),
    inputs=(Artifact("prompts.txt", "sha256:" + "c" * 64),),
    passed=("p-1", "p-2"),
    warned=("p-3",),
    failed=(),
    counts=RunCounts(passed=2, inconclusive=1),
)


def statement(outcome: RunOutcome = OUTCOME) -> dict[str, Any]:
    return build_test_result(outcome, origin=ORIGIN, tree_size=17, root=ROOT)


def judged(prompt_id: str, verdict: str) -> dict[str, Any]:
    record = copy.deepcopy(analysis())
    record["prompt"]["id"] = prompt_id
    record["assessment"]["verdict"] = verdict
    return record


def run_of(*records: dict[str, Any], **counts: int) -> list[dict[str, Any]]:
    return [begin(), *records, stop(**counts)]


def test_the_statement_word_for_word() -> None:
    assert statement() == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "gpt-x", "digest": {"sha256": "a" * 64}},
            {
                "name": "example.org/audit",
                "digest": {
                    "sha256": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
                },
                "annotations": {"treeSize": 17},
            },
        ],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "WARNED",
            "configuration": [
                {"name": "default@1", "digest": {"sha256": "b" * 64}},
                {"name": "prompts.txt", "digest": {"sha256": "c" * 64}},
            ],
            "passedTests": ["p-1", "p-2"],
            "warnedTests": ["p-3"],
            "failedTests": [],
            "certRun": {
                "id": "run-1",
                "passed": 2,
                "inconclusive": 1,
                "failed": 0,
                "errors": 0,
                "refused": 0,
            },
        },
    }


def test_in_toto_reads_the_statement() -> None:
    text = canonical_bytes(statement()).decode()
    read = Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement()))
    read.validate()
    predicate = json_format.ParseDict(
        statement()["predicate"], test_result_pb2.TestResult(), ignore_unknown_fields=True
    )
    assert predicate.result == "WARNED"
    assert list(predicate.passed_tests) == ["p-1", "p-2"]
    assert list(predicate.warned_tests) == ["p-3"]
    assert [one.name for one in predicate.configuration] == ["default@1", "prompts.txt"]
    assert predicate.configuration[1].digest["sha256"] == "c" * 64
    known = set(json_format.MessageToDict(predicate))
    assert set(statement()["predicate"]) - known - {"failedTests"} == {"certRun"}


def test_in_toto_refuses_what_has_no_subject() -> None:
    broken = statement() | {"subject": []}
    read = Statement.copy_from_pb(json_format.ParseDict(broken, statement_pb2.Statement()))
    with pytest.raises(ValueError, match="At least one subject"):
        read.validate()


@pytest.mark.parametrize(
    ("counts", "result"),
    [
        ({"passed": 3}, "PASSED"),
        ({"passed": 3, "inconclusive": 1}, "WARNED"),
        ({"inconclusive": 1}, "WARNED"),
        ({"passed": 3, "inconclusive": 1, "failed": 1}, "FAILED"),
        ({"passed": 3, "errors": 1}, "FAILED"),
        ({"passed": 3, "refused": 1}, "FAILED"),
    ],
)
def test_results(counts: dict[str, int], result: str) -> None:
    records = [judged(f"p-{n}", "pass") for n in range(counts.get("passed", 0))]
    records += [judged("w", "inconclusive")] * counts.get("inconclusive", 0)
    records += [judged("f", "fail")] * counts.get("failed", 0)
    records += [error()] * counts.get("errors", 0)
    records += [refused()] * counts.get("refused", 0)
    outcome = collect_test_result(run_of(*records, **counts))
    assert outcome.result == result
    assert statement(outcome)["predicate"]["result"] == result


@pytest.mark.parametrize("root", [b"", bytes(31), bytes(33)])
def test_roots_of_another_length(root: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        build_test_result(OUTCOME, origin=ORIGIN, tree_size=1, root=root)


@pytest.mark.parametrize(
    "digest", ["", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_what_is_no_digest(digest: str) -> None:
    with pytest.raises(ValueError, match="no sha256: digest"):
        Artifact("x", digest)


def test_a_run_is_collected() -> None:
    policy = load_policy("default")
    mine = fake_identity()
    records = run_of(
        judged("good", "pass"),
        judged("so-so", "inconclusive"),
        error(case=PromptCase(id="lost", text="x")),
        judged("bad", "fail"),
        refused(),
        {"kind": "health", "run_id": "run-1"},
        passed=1,
        inconclusive=1,
        failed=1,
        errors=1,
        refused=1,
    )
    assert collect_test_result(iter(records)) == RunOutcome(
        run_id="run-1",
        model=Artifact(mine.name, mine.digest),
        policy=Artifact(f"default@{policy.version}", policy.digest),
        inputs=(Artifact("prompts.txt", "sha256:" + "2" * 64),),  # stdin has no digest
        passed=("good",),
        warned=("so-so",),
        failed=("lost", "bad"),
        counts=RunCounts(passed=1, inconclusive=1, failed=1, errors=1, refused=1),
    )


def test_a_run_in_two_parts_names_its_inputs_once() -> None:
    records = [
        begin(identity=None),
        judged("p", "pass"),
        stop("interrupted", passed=1),
        begin(phase="resumed"),
        judged("q", "pass"),
        stop(passed=2),
    ]
    outcome = collect_test_result(records)
    assert len(outcome.inputs) == 1
    assert outcome.passed == ("p", "q")


@pytest.mark.parametrize("content", ["omitted", "committed"])
def test_content_is_not_needed(content: str) -> None:
    record = analysis(content="omitted") if content == "omitted" else commit(analysis())[0]
    verdict = {"pass": "passed", "fail": "failed"}.get(
        record["assessment"]["verdict"], "inconclusive"
    )
    outcome = collect_test_result(run_of(record, **{verdict: 1}))
    assert outcome.passed + outcome.warned + outcome.failed == ("p-1",)


def test_errors_alone_are_a_failed_run() -> None:
    outcome = collect_test_result(run_of(error(identity=None), errors=1))
    assert (outcome.result, outcome.failed) == ("FAILED", ("p-1",))
    assert outcome.model.digest == fake_identity().digest


def test_lists_are_bounded_and_counts_are_not() -> None:
    one = judged("p", "pass")
    many = MAX_LISTED + 5
    outcome = collect_test_result([begin(), *([one] * many), stop(passed=many)])
    assert len(outcome.passed) == MAX_LISTED
    assert outcome.counts.passed == many


def other_run(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"run_id": "run-2"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "of one run, and there are 0"),
        (run_of(other_run(analysis()), passed=1), "of one run, and there are 2"),
        (run_of(error(identity=fake_identity("b")), errors=1), "of one model, and there are 2"),
        (run_of(analysis(identity=fake_identity("b")), passed=1), "one model, and there are 2"),
        ([begin(identity=None), stop()], "of one model, and there are 0"),
        (run_of(analysis(policy=load_policy("strict")), failed=1), "one policy, and there are 2"),
        ([error(), stop(errors=1)], "of one policy, and there are 0"),
        ([begin(), analysis()], "has not ended"),
        ([begin(), analysis(), stop("interrupted", passed=1)], "has not ended"),
        (run_of(judged("p", "pass"), passed=2), "the run counted"),
        (run_of(judged("p", "fail"), passed=1), "the run counted"),
        (run_of(refused(), refused=1), "nothing to attest"),
        (run_of(), "nothing to attest"),
    ],
)
def test_runs_that_cannot_be_attested(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        collect_test_result(records)


def broken(path: str, value: object) -> dict[str, Any]:
    record = copy.deepcopy(analysis())
    *parts, last = path.split(".")
    inner = record
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return record


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "analysis"},
        {"run_id": "run-1"},
        {"kind": "analysis", "run_id": "run-1"},
        {"kind": "run", "run_id": "run-1", "run": None},
        {"kind": "run", "run_id": "run-1", "run": {"phase": "begin", "inputs": [{}]}},
        ALL["policy"],
        broken("assessment.verdict", "splendid"),
        broken("assessment.policy", None),
        broken("provenance.model.digest", "md5:00"),
        broken("provenance.model.digest", 7),
        broken("prompt", []),
        broken("run_id", []),
    ],
)
def test_records_of_another_shape(record: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="not as its schema says"):
        collect_test_result(run_of(record, passed=1))


@pytest.mark.parametrize("model", [None, {"name": "m", "digest": "sha256:" + "1" * 64}])
def test_a_comparison_is_not_attested(model: dict[str, str] | None) -> None:
    records = [one for one in compared() if one["kind"] != "policy"]
    records[0]["run"]["model"] = model
    with pytest.raises(LedgerError, match="compares arrangements of agents") as caught:
        collect_test_result(records)
    assert caught.value.hint is not None
    assert "cert bundle" in caught.value.hint


def test_from_records_to_a_verified_statement() -> None:
    signer = Signer.generate()
    outcome = collect_test_result(run_of(judged("p", "pass"), passed=1))
    payload = canonical_bytes(build_test_result(outcome, origin=ORIGIN, tree_size=3, root=ROOT))
    envelope = sign_dsse(payload, PAYLOAD_TYPE, signer.sign, signer.public.fingerprint)
    assert json.loads(verify_dsse(envelope, signer.public.raw))["predicate"]["result"] == "PASSED"
