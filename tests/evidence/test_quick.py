"""The quick way says yes only where the general way does, and does say it for ordinary records."""

from __future__ import annotations

import copy
import math
import re
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.assessment.policy import SIGNALS, Policy, Threshold, load_policy
from cert.backends.protocol import FinishReason
from cert.evidence import quick
from cert.evidence.commitment import commit
from cert.evidence.deep import DeepCheck
from cert.evidence.policy_record import build_policy_record
from cert.evidence.quick import QuickReader
from cert.evidence.record import encode_record
from cert.evidence.schema import record_schema
from cert.evidence.schema_measured import FINISH_REASONS
from cert.inputs.case import PromptCase
from cert.signals.trace import build_trace
from tests.evidence.builders import ALL, EMPTY, analysis, generation

# Every kind of number that an ordinary measurement has: small, integral, usual.
TRACE = build_trace(
    [5, 9, 4095, 7],
    [-0.1, -2.5, -0.0, -3.1e-6],
    [0.3, 2.0, 1.0, 1e-6],
    [0.2, 1.5, 1.0, 1e-8],
    [3.0, 0.7, 14.0, 1e-5],
    [0.9, 0.25, 1.0, 0.5],
    [0, 1, 0, 0],
)
DEFAULT = load_policy("default")
ORDINARY: dict[str, dict[str, Any]] = {
    **{
        name: record
        for name, record in ALL.items()
        if record["kind"] == "analysis" and name != "strict policy"
    },
    "finite": analysis(generation(TRACE)),
    "finite, omitted": analysis(generation(TRACE), content="omitted"),
    "finite, committed": commit(analysis(generation(TRACE)))[0],
    "no token": analysis(generation(EMPTY, text="")),
    "cancelled": analysis(generation(EMPTY, FinishReason.CANCELLED, text="")),
    "scored": analysis(generation(TRACE, FinishReason.SCORED), correlation_id=None),
    "no group": analysis(generation(TRACE), case=PromptCase("p", 'x \U0001f600 \u00e4\n"\\\x01')),
    "a seed of its own": analysis(generation(TRACE, generate_s=1.0, device="cuda:0")),
    "failed": analysis(generation(build_trace([1], [-9.0], [9.0], [1.0], [1.0], [0.1], [0]))),
}


def knowing(policy: Policy = DEFAULT) -> QuickReader:
    reader = QuickReader()
    reader.learn_policy(policy)
    reader.learn_instrument(encode_record(ORDINARY["full"]))
    return reader


@cache
def general() -> DeepCheck:
    """A check by the general way alone, which knows the policy."""
    deep = DeepCheck(is_part=True)
    deep.check(0, encode_record(build_policy_record(DEFAULT)))
    return deep


def general_faults(line: bytes) -> list[str]:
    """What the general way finds in a line, runs aside."""
    deep = general()
    deep._quick = QuickReader()  # knows nothing, so says nothing
    return [one.message for one in deep.check(1, line) if one.is_fault]


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("links", [{}, {"_prev": "0a" * 32, "_seq": 41}])
def test_ordinary_records_are_read(name: str, links: dict[str, Any]) -> None:
    line = encode_record(links | ORDINARY[name])
    read = knowing().read(line)
    assert read is not None
    record, digest = read
    assert digest == DEFAULT.digest
    assert record.run_id == "run-1"
    assert msgspec.json.encode(record) != b""
    assert general_faults(line) == []


def test_a_perplexity_beyond_float64_is_left_to_the_general_way() -> None:
    beyond = build_trace([1], [-2e4], [9.0], [1.0], [1.0], [0.1], [0])
    line = encode_record(analysis(generation(beyond)))
    assert knowing().read(line) is None
    assert general_faults(line) == []


def test_unknown_models_and_policies_are_left_to_the_general_way() -> None:
    line = encode_record(ORDINARY["full"])
    reader = QuickReader()
    assert reader.read(line) is None
    reader.learn_instrument(line)
    assert reader.read(line) is None
    reader.learn_policy(DEFAULT)
    assert reader.read(line) is not None
    other = copy.deepcopy(ORDINARY["full"])
    other["provenance"]["versions"]["torch"] = "3.0"
    assert reader.read(encode_record(other)) is None
    reader.learn_instrument(b"{}")
    reader.learn_instrument(encode_record(other))
    assert reader.read(encode_record(other)) is not None


def test_the_models_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "_MAX_INSTRUMENTS", 3)
    reader = QuickReader()
    for number in range(10):
        record = copy.deepcopy(ORDINARY["full"])
        record["provenance"]["versions"]["torch"] = f"{number}.0"
        reader.learn_instrument(encode_record(record))
        assert len(reader._instruments) <= 3


def test_a_deep_check_learns_and_then_reads_quickly() -> None:
    deep = DeepCheck(is_part=True)
    deep.check(0, encode_record(build_policy_record(DEFAULT)))
    line = encode_record(ORDINARY["full"])
    assert deep._quick.read(line) is None
    assert deep.check(1, line) == []
    assert deep._quick.read(line) is not None
    assert deep.check(2, line) == []
    assert deep.kinds == {"policy": 1, "analysis": 2}


def test_a_model_is_not_learned_from_a_record_with_a_fault() -> None:
    deep = DeepCheck(is_part=True)
    deep.check(0, encode_record(build_policy_record(DEFAULT)))
    record = copy.deepcopy(ORDINARY["full"])
    record["provenance"]["model"]["digest"] = "md5:0"
    line = encode_record(record)
    for seq in (1, 2, 3):
        assert [one.code for one in deep.check(seq, line)] == ["schema"]


def structs() -> dict[str, type[msgspec.Struct]]:
    return {
        "analysis": quick.QuickRecord,
        "assessment": quick._Assessment,
        "check": quick._Check,
        "generation": quick._Generation,
        "input": quick._Input,
        "prompt": quick._Prompt,
        "sampling": quick._Sampling,
        "signals": quick._Signals,
        "provenance": quick._Provenance,
        "timing": quick._Timing,
    }


@pytest.mark.parametrize("name", structs())
def test_structs_have_the_members_of_the_schema_in_canonical_order(name: str) -> None:
    definitions = record_schema()["$defs"]
    schema = definitions.get(name) or definitions["analysis"]["properties"][name]
    struct = structs()[name]
    assert list(struct.__struct_encode_fields__) == sorted(struct.__struct_encode_fields__)
    extra = {"commitment"} if name == "analysis" else set()
    assert set(struct.__struct_encode_fields__) == schema["properties"].keys() | extra


def test_names_are_those_of_the_schema() -> None:
    assert set(quick._Signals.__struct_fields__) == set(SIGNALS)
    reason = msgspec.json.schema(quick._Generation)["$defs"]["_Generation"]["properties"]
    assert set(reason["finish_reason"]["enum"]) == set(FINISH_REASONS)


def test_every_character_is_written_as_the_standard_asks() -> None:
    # The structs are written by msgspec; the standard's bytes are made by another writer.
    for first in range(0, 0x3000, 64):
        text = "".join(map(chr, range(first, first + 64)))
        record = analysis(generation(TRACE), case=PromptCase("p", text or "x"))
        assert knowing().read(encode_record(record)) is not None


ALTERNATIVES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1.5, 1e-6, 1e15, 1e16, 1e300, 2**53 - 1),
    *("", "x", "inf", "-inf", "pass", "fail", "full", "omitted", "committed", "eos", "timeout"),
    *("1.1", "2.0", "sha256:" + "0" * 64, "0" * 64, "2026-11-23T10:30:45.123Z", [], {}, [1], ["x"]),
    *([-0.5, -0.5, -0.5, -0.5], {"x": 1}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    if not isinstance(value, dict | list):
        return [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    inner = [place for key, item in pairs for place in places(item, (*path, key))]
    return [path, *inner] if path else inner


def with_value(record: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


LINKED = {
    name: {"_prev": "0a" * 32, "_seq": 41} | ORDINARY[name]
    for name in ("finite", "committed", "impossible token", "no token", "timeout")
}


@pytest.mark.parametrize("name", LINKED)
def test_yes_is_never_wrong_for_changed_values(name: str) -> None:
    reader = knowing()
    said_yes = 0
    for path in places(LINKED[name]):
        for value in ALTERNATIVES:
            line = encode_record(with_value(LINKED[name], path, value))
            if reader.read(line) is not None:
                said_yes += 1
                assert general_faults(line) == [], (path, value)
    assert said_yes > 50  # sources, labels, timings: much of a record follows from nothing else


def test_yes_is_never_wrong_for_members_more_or_less() -> None:
    reader = knowing()
    for record in LINKED.values():
        for path in places(record):
            parent = with_value(record, path, None)
            holder: Any = parent
            for key in path[:-1]:
                holder = holder[key]
            del holder[path[-1]]
            more = with_value(record, (*path[:-1], "more"), 1) if isinstance(path[-1], str) else {}
            for changed in (parent, more):
                line = encode_record(changed)
                if reader.read(line) is not None:
                    assert general_faults(line) == [], path


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(LINKED)), st.data())
def test_yes_is_never_wrong_for_changed_bytes(name: str, data: st.DataObject) -> None:
    line = bytearray(encode_record(LINKED[name]))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from(
            [b"", b" ", b"0", b".0", b"e0", b"e-6", b"1", b"-", b"[", b"}", b'"', b"\\"]
        )
        | st.binary(max_size=2)
    )
    changed = bytes(line)
    if knowing().read(changed) is not None:
        assert general_faults(changed) == []


NUMBERS = [
    "1e16",
    "1e21",
    "1e+21",
    "10000000000000000",
    "1.0",
    "0.50",
    "5e-1",
    "1e0",
    "1e+0",
    "-0",
    "-0.0",
    "0.0",
    "1e-6",
    "0.000001",
    "1E-7",
]


@pytest.mark.parametrize("spelling", NUMBERS)
@pytest.mark.parametrize("member", ["total_s", "queued_s", "temperature", "line", "seed"])
def test_other_spellings_of_numbers(spelling: str, member: str) -> None:
    record = ORDINARY["full"]
    whole = encode_record(record)
    line = re.sub(f'"{member}":[^,}}]*'.encode(), f'"{member}":{spelling}'.encode(), whole)
    assert line != whole
    if knowing().read(line) is not None:
        assert general_faults(line) == []


readings = st.floats(0, 30, width=32) | st.floats(0, 2.0**-17, width=32)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            readings.map(lambda one: -one) | st.just(-math.inf),
            readings,
            readings,
            readings | st.just(math.inf),
            st.floats(0, 1, width=32),
        ),
        max_size=30,
    ),
    st.sampled_from(list(FinishReason)),
    st.sampled_from(["full", "omitted"]),
)
def test_any_measurement_is_read_quickly(
    rows: list[tuple[float, ...]], reason: FinishReason, content: str
) -> None:
    logprobs, entropies, top_k, margins, shares = zip(*rows, strict=True) if rows else [()] * 5
    count = len(rows)
    trace = build_trace(range(count), logprobs, entropies, top_k, margins, shares, [0] * count)
    line = encode_record(analysis(generation(trace, reason), content=content))
    assert knowing().read(line) is not None
    assert general_faults(line) == []


def test_the_last_bits_of_exp_are_forgiven_and_no_more() -> None:
    record = copy.deepcopy(ORDINARY["full"])
    perplexity = record["signals"]["perplexity"]
    for value, is_read in (
        (math.nextafter(perplexity, math.inf), True),
        (perplexity * (1 + 1e-12), False),
    ):
        record["signals"]["perplexity"] = value
        record["assessment"]["checks"][0]["observed"] = value
        line = encode_record(record)
        assert (knowing().read(line) is not None) is is_read
        assert (general_faults(line) == []) is is_read


def test_a_policy_that_only_looks_the_same() -> None:
    loose = Policy(
        DEFAULT.id, DEFAULT.version, (Threshold("perplexity", "<", 1e6),), DEFAULT.min_tokens
    )
    record = analysis(generation(TRACE), policy=loose)
    record["assessment"]["policy"]["digest"] = DEFAULT.digest
    line = encode_record(record)
    assert knowing().read(line) is None
    assert general_faults(line)
