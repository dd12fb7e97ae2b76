"""The JSON Schema: it is one, every record follows it, every broken record does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import jsonschema_rs
import pytest

from cert.backends.protocol import FinishReason
from cert.evidence.record import encode_record
from cert.evidence.schema import KINDS, record_schema
from cert.evidence.schema_measured import FINISH_REASONS
from tests.evidence.builders import ALL
from tests.evidence.compared import compared

if TYPE_CHECKING:
    from collections.abc import Iterator

VALIDATOR = jsonschema.Draft202012Validator(record_schema())
PUBLISHED = Path(__file__).parents[2] / "docs" / "record.schema.json"


def test_it_is_a_schema_and_the_published_file_is_it() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    # To renew: cert schema > docs/record.schema.json
    assert PUBLISHED.read_text() == (json.dumps(record_schema(), indent=2, sort_keys=True) + "\n")


def test_finish_reasons_are_those_of_the_backends() -> None:
    assert set(FINISH_REASONS) == {reason.value for reason in FinishReason}


@pytest.mark.parametrize("name", ALL)
def test_every_record_follows_it(name: str) -> None:
    VALIDATOR.validate(ALL[name])
    VALIDATOR.validate(json.loads(encode_record(ALL[name])))


@pytest.mark.parametrize("name", ALL)
def test_more_fields_may_stand_at_the_top(name: str) -> None:
    VALIDATOR.validate(ALL[name] | {"_prev": "0" * 64, "_seq": 41, "more": {"x": 1}})


@pytest.mark.parametrize(
    "links", [{"_prev": "0" * 63}, {"_prev": "0" * 64 + "\n"}, {"_seq": -1}, {"_seq": "1"}]
)
def test_links_have_their_form(links: dict[str, object]) -> None:
    for record in ALL.values():
        assert not VALIDATOR.is_valid(record | links)


@pytest.mark.parametrize("name", ["full", "error, committed", "policy", "begin", "end", "genesis"])
def test_the_fast_validator_says_the_same(name: str) -> None:
    fast = jsonschema_rs.Draft202012Validator(record_schema())
    assert fast.is_valid(ALL[name])
    for path in places(ALL[name]):
        for other in ([{"x": 1}], "\x00?", True, None, 0.5):
            broken = copy.deepcopy(ALL[name])
            parent_of(broken, path)[path[-1]] = other
            assert fast.is_valid(broken) == VALIDATOR.is_valid(broken), (path, other)


OPTIONAL = {("prompt", "group"), ("prompt", "label"), ("prompt", "response")}


def places(
    value: dict[str, Any] | list[Any], path: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """Every member and item below a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def parent_of(record: dict[str, Any], path: tuple[Any, ...]) -> Any:  # noqa: ANN401 - of a record
    value: Any = record
    for key in path[:-1]:
        value = value[key]
    return value


@pytest.mark.parametrize("name", ALL)
def test_no_member_can_be_missing(name: str) -> None:
    missed = []
    for path in places(ALL[name]):
        broken = copy.deepcopy(ALL[name])
        parent = parent_of(broken, path)
        if isinstance(parent, list) or path in OPTIONAL or path[-2:-1] == ("versions",):
            continue
        del parent[path[-1]]
        if VALIDATOR.is_valid(broken):
            missed.append(path)
    assert missed == []


@pytest.mark.parametrize("name", ALL)
def test_no_value_can_be_of_another_type(name: str) -> None:
    missed = []
    for path in places(ALL[name]):
        for other in ({"x": 1}, [{"x": 1}], "\x00?", True, None):
            broken = copy.deepcopy(ALL[name])
            parent = parent_of(broken, path)
            was = parent[path[-1]]
            free_text = isinstance(was, str) and isinstance(other, str)
            names = NULLABLE_IN_RUNS if path[0] == "run" else NULLABLE
            nullable = other is None and path[-1] in names
            if (type(was) is type(other) and (free_text or other is True)) or nullable:
                continue
            if isinstance(other, str) and path[-1] in OPTIONAL_TEXTS:
                continue
            parent[path[-1]] = other
            if VALIDATOR.is_valid(broken):
                missed.append((path, other))
    assert missed == []


NULLABLE = {
    "correlation_id",
    "observed",
    "provenance",
    "quantization",
    "retry_after_s",
    "sampling",
    "seed",
    *record_schema()["$defs"]["signals"]["properties"],
} - {"tokens"}
NULLABLE_IN_RUNS = {"sha256", "bytes", "sampling", "seed", "limit", "model", "device", "exit_code"}
OPTIONAL_TEXTS = {"correlation_id", "quantization", "device"}


@pytest.mark.parametrize("name", ALL)
def test_inner_objects_hold_nothing_else(name: str) -> None:
    missed = []
    for path in [(), *places(ALL[name])]:
        broken = copy.deepcopy(ALL[name])
        value = parent_of(broken, (*path, None))
        if not isinstance(value, dict) or path in {(), ("provenance", "versions")}:
            continue
        value["misspelt"] = 1
        if VALIDATOR.is_valid(broken):
            missed.append(path)
    assert missed == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "analyses"),
        (("kind",), "error"),
        (("kind",), "refused"),
        (("schema",), "2.0"),
        (("schema",), 1.0),
        (("id",), "41"),
        (("time",), "2026-11-23T10:30:45Z"),
        (("time",), "2026-11-23T10:30:45.123+01:00"),
        (("time",), "2026-11-23T10:30:45.123Z\n"),
        (("clock",), "sundial"),
        (("run_id",), ""),
        (("content",), "committed"),
        (("content",), "omitted"),
        (("content",), "some"),
        (("input", "line"), 0),
        (("input", "line"), 1.5),
        (("prompt", "id"), ""),
        (("prompt", "token_ids"), [-1]),
        (("prompt", "token_ids"), [2**53]),
        (("generation", "finish_reason"), "tired"),
        (("generation", "logprobs"), [0.1]),
        (("generation", "logprobs"), ["inf"]),
        (("generation", "logprobs"), [None]),
        (("generation", "entropies"), [-0.1]),
        (("generation", "entropies"), ["inf"]),
        (("generation", "logit_margins"), ["-inf"]),
        (("generation", "probability_margins"), [1.1]),
        (("generation", "ranks"), [0.5]),
        (("signals", "perplexity"), 0.9),
        (("signals", "perplexity"), "-inf"),
        (("signals", "perplexity"), "NaN"),
        (("signals", "tokens"), None),
        (("signals", "mean_entropy"), -1),
        (("assessment", "verdict"), "passed"),
        (("assessment", "checks"), []),
        (("assessment", "checks", 0, "signal"), "cleverness"),
        (("assessment", "checks", 0, "op"), "=="),
        (("assessment", "checks", 0, "threshold"), "inf"),
        (("assessment", "checks", 0, "outcome"), "ok"),
        (("assessment", "policy", "digest"), "sha256:abc"),
        (("assessment", "policy", "digest"), "sha256:" + "0" * 64 + "\n"),
        (("assessment", "policy", "version"), 0),
        (("assessment", "policy", "min_tokens"), 0),
        (("assessment", "policy", "incomplete"), "maybe"),
        (("provenance", "model", "digest"), "0" * 64),
        (("provenance", "versions", "fake"), 1),
        (("provenance", "sampling", "max_new_tokens"), 0),
        (("provenance", "sampling", "temperature"), -1),
        (("provenance", "sampling", "top_p"), 1.5),
        (("timing", "total_s"), -0.1),
    ],
)
def test_values_outside_their_domain(path: tuple[Any, ...], value: object) -> None:
    broken = copy.deepcopy(ALL["full"])
    parent_of(broken, path)[path[-1]] = value
    assert not VALIDATOR.is_valid(broken)


@pytest.mark.parametrize(
    ("name", "part", "member"),
    [
        ("omitted", "prompt", "text"),
        ("omitted", "prompt", "token_ids"),
        ("omitted", "prompt", "label"),
        ("omitted", "generation", "text"),
        ("omitted", "generation", "token_ids"),
        ("omitted", "generation", "ranks"),
        ("error, omitted", "prompt", "text"),
        ("error, omitted", "prompt", "label"),
        ("error, omitted", "prompt", "response"),
        ("committed", "prompt", "text"),
        ("committed", "prompt", "token_ids"),
        ("committed", "prompt", "label"),
        ("committed", "generation", "text"),
        ("committed", "generation", "token_ids"),
        ("committed", "generation", "ranks"),
        ("error, committed", "prompt", "response"),
    ],
)
def test_omitted_content_cannot_come_back(name: str, part: str, member: str) -> None:
    broken = copy.deepcopy(ALL[name])
    broken[part][member] = [] if member in {"token_ids", "ranks"} else "x"
    assert not VALIDATOR.is_valid(broken)


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("name", ["full", "omitted", "error", "error, omitted"])
def test_only_committed_records_have_a_commitment(name: str) -> None:
    assert not VALIDATOR.is_valid(ALL[name] | {"commitment": DIGEST})


@pytest.mark.parametrize("name", ["committed", "error, committed"])
def test_a_committed_record_needs_its_commitment(name: str) -> None:
    bare = {key: value for key, value in ALL[name].items() if key != "commitment"}
    assert not VALIDATOR.is_valid(bare)
    assert not VALIDATOR.is_valid(bare | {"commitment": None})
    assert not VALIDATOR.is_valid(bare | {"commitment": DIGEST + "0"})
    assert VALIDATOR.is_valid(bare | {"commitment": DIGEST})


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("policy", ("policy", "id"), "-x"),
        ("policy", ("policy", "checks"), []),
        ("policy", ("policy", "checks", 0, "observed"), 1),
        ("policy", ("policy", "min_tokens"), 0),
        ("begin", ("run", "phase"), "end"),
        ("begin", ("run", "phase"), "interrupted"),
        ("begin", ("run", "phase"), "ended"),
        ("begin", ("run", "counts"), {}),
        ("begin", ("run", "job"), "1" * 64),
        ("begin", ("run", "content"), "some"),
        ("begin", ("run", "host", "hostname"), "here"),
        ("begin", ("run", "inputs", 0, "sha256"), "sha256:" + "1" * 64),
        ("begin", ("run", "inputs", 0, "bytes"), -1),
        ("begin", ("run", "limit"), -1),
        ("begin", ("run_id",), ""),
        ("interrupted", ("run", "exit_code"), 0),
        ("interrupted", ("run", "counts", "passed"), -1),
        ("interrupted", ("run", "verdict"), "pass"),
        ("end", ("run", "verdict"), "pass"),
        ("end", ("run", "exit_code"), "0"),
        ("note", ("note", "text"), ""),
        ("note", ("note", "text"), "x" * 2001),
        ("genesis", ("ledger", "format"), 1),
        ("genesis", ("ledger", "format"), "2"),
        ("genesis", ("ledger", "origin"), ""),
        ("genesis", ("ledger", "origin"), "a+b"),
        ("genesis", ("ledger", "origin"), "a b"),
        ("genesis", ("ledger", "origin"), "a\n"),
        ("genesis", ("ledger", "origin"), "\u00e4"),
        ("genesis", ("ledger", "origin"), "x" * 256),
        ("genesis", ("ledger", "public_key"), "A" * 43),
        ("key", ("key", "signature"), "A" * 87 + "="),
        ("key", ("key", "proof"), None),
        ("recovered", ("recovered", "bytes"), 0),
        ("recovered", ("recovered", "offset"), -1),
        ("erased", ("erased", "record_id"), "3"),
        ("erased", ("erased", "commitment"), "0" * 64),
        ("pruned", ("pruned", "size"), 0),
        ("pruned", ("pruned", "export"), {}),
    ],
)
def test_values_outside_their_domain_in_other_kinds(
    name: str, path: tuple[Any, ...], value: object
) -> None:
    broken = copy.deepcopy(ALL[name])
    parent_of(broken, path)[path[-1]] = value
    assert not VALIDATOR.is_valid(broken)


def test_every_kind_is_built_in_these_tests() -> None:
    built = [*ALL.values(), *compared()]
    assert {record["kind"] for record in built} == set(KINDS)


@pytest.mark.parametrize("other", [None, 1, "analysis", [], {}, {"kind": "analysis"}])
def test_what_is_no_record(other: object) -> None:
    assert not VALIDATOR.is_valid(other)
