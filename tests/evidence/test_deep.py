"""What a deep check finds in ledgers that are right, wrong, hostile, cut and pruned."""

from __future__ import annotations

import copy
import gc
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.assessment.policy import Policy, Threshold, load_policy
from cert.evidence.commitment import commit
from cert.evidence.deep import DeepCheck
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import encode_record
from cert.evidence.schema import KINDS
from cert.evidence.validation import Validation
from tests.evidence.builders import (
    ALL,
    analysis,
    bare,
    begin,
    error,
    refused,
    stop,
)
from tests.evidence.test_recompute import BREAKS, EDITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.ledger.findings import Problem

Found = list[tuple[int, str, bool]]
DEFAULT = load_policy("default")
MILD = Policy("mild", 1, (Threshold("perplexity", "<", 1e6),))


def line_of(seq: int, record: dict[str, Any]) -> bytes:
    return encode_record({"_prev": "0" * 64, "_seq": seq, **record})


def look(
    records: Iterable[dict[str, Any] | bytes], deep: DeepCheck | None = None, first: int = 0
) -> list[tuple[int, Problem]]:
    deep = deep or DeepCheck()
    found: list[tuple[int, Problem]] = []
    for seq, record in enumerate(records, start=first):
        line = record if isinstance(record, bytes) else line_of(seq, record)
        found.extend((seq if one.seq is None else one.seq, one) for one in deep.check(seq, line))
    found.extend((-1 if one.seq is None else one.seq, one) for one in deep.finish())
    return found


def codes(
    records: Iterable[dict[str, Any] | bytes], deep: DeepCheck | None = None, first: int = 0
) -> Found:
    return [(seq, one.code, one.is_fault) for seq, one in look(records, deep, first)]


def registered(policy: Policy = DEFAULT) -> dict[str, Any]:
    return build_policy_record(policy)


def run_of(*records: dict[str, Any] | bytes, **counts: int) -> list[dict[str, Any] | bytes]:
    return [registered(), begin(), *records, stop(**counts)]


GOOD: dict[str, list[dict[str, Any] | bytes]] = {
    "nothing": [],
    "an empty run": run_of(),
    "every outcome": run_of(
        *(analysis() for _ in range(3)),
        ALL["impossible token"],
        ALL["timeout"],
        error(),
        error(identity=None),
        refused(),
        ALL["no token"],
        passed=3,
        failed=1,
        inconclusive=2,
        errors=2,
        refused=1,
    ),
    "omitted": [
        registered(),
        begin(content="omitted"),
        analysis(content="omitted"),
        error(content="omitted"),
        refused(),
        stop(passed=1, errors=1, refused=1),
    ],
    "committed": [
        registered(),
        begin(content="committed"),
        commit(analysis())[0],
        commit(error())[0],
        stop(passed=1, errors=1),
    ],
    "interrupted and resumed": [
        registered(),
        begin(),
        analysis(),
        stop("interrupted", passed=1),
        begin(phase="resumed"),
        analysis(),
        stop(passed=2),
    ],
    "killed and resumed": [
        registered(),
        begin(),
        analysis(),
        begin(phase="resumed"),
        analysis(),
        stop(passed=2),
    ],
    "two runs at once, two policies": [
        registered(),
        registered(MILD),
        begin(run_id="a"),
        begin(run_id="b", policy=MILD),
        analysis(run_id="b", policy=MILD),
        analysis(run_id="a"),
        error(run_id="b"),
        stop(run_id="a", passed=1),
        stop(run_id="b", passed=1, errors=1),
    ],
    "a policy registered twice": [registered(), registered(), begin(), analysis(), stop(passed=1)],
    "an id again after its run ended": [*run_of(), begin(), stop()],
    "other kinds": [ALL[name] for name in ("genesis", "note", "key", "recovered", "pruned")],
}


def in_order(records: list[dict[str, Any] | bytes]) -> list[dict[str, Any] | bytes]:
    """Records built at import, with times that don't go back."""
    return [
        one if isinstance(one, bytes) else one | {"time": "2026-11-23T10:30:45.123Z"}
        for one in records
    ]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right(name: str) -> None:
    deep = DeepCheck()
    assert look(in_order(GOOD[name]), deep) == []
    assert deep.kinds.total() == len(GOOD[name])


def test_kinds_are_counted() -> None:
    deep = DeepCheck()
    look([*run_of(analysis(), error(), passed=1, errors=1), b"{}", b"\xff"], deep)
    assert deep.kinds == {"policy": 1, "run": 2, "analysis": 1, "error": 1, "other": 2}


WRONG: dict[str, tuple[list[dict[str, Any] | bytes], Found]] = {
    "no policy": (
        [begin(), analysis(), stop(passed=1)],
        [(0, "policy", True), (1, "policy", True)],
    ),
    "a policy afterwards": (
        [begin(), registered(), analysis(), stop(passed=1)],
        [(0, "policy", True)],
    ),
    "another policy than the run's": (
        [registered(), registered(MILD), begin(), analysis(policy=MILD), stop(passed=1)],
        [(3, "policy", True)],
    ),
    "the run names a policy of another version": (
        [registered(), begin() | {"run": begin()["run"] | {"policy": {
            "id": "default", "version": 2, "digest": DEFAULT.digest}}}, stop()],
        [(1, "policy", True)],
    ),
    "no run": ([registered(), analysis()], [(1, "run", True)]),
    "an error of no run": ([error()], [(0, "run", True)]),
    "a refused line of no run": ([refused()], [(0, "run", True)]),
    "another run": (run_of(analysis(run_id="other")), [(2, "run", True)]),
    "after the end": ([*run_of(), analysis()], [(3, "run", True)]),
    "before the begin": (
        [registered(), analysis(), begin(), stop()],
        [(1, "run", True)],
    ),
    "begun twice": ([registered(), begin(), begin(), stop()], [(2, "run", True)]),
    "ended twice": ([*run_of(), stop()], [(3, "run", True)]),
    "ended, and never begun": ([stop()], [(0, "run", True)]),
    "resumed, and never begun": ([registered(), begin(phase="resumed")], [(1, "run", True)]),
    "resumed after its end": ([*run_of(), begin(phase="resumed")], [(3, "run", True)]),
    "a record after an interruption": (
        [registered(), begin(), stop("interrupted"), analysis()],
        [(3, "run", True), (2, "run", False)],
    ),
    "an end after an interruption": (
        [registered(), begin(), stop("interrupted"), stop()],
        [(3, "run", True)],
    ),
    "resumed with another policy": (
        [registered(), registered(MILD), begin(), begin(phase="resumed", policy=MILD), stop()],
        [(3, "run", True)],
    ),
    "resumed with another content mode": (
        [registered(), begin(), begin(phase="resumed", content="omitted"), stop()],
        [(2, "run", True)],
    ),
    "another content mode": (
        run_of(analysis(content="omitted"), error(content="omitted"), passed=1, errors=1),
        [(2, "run", True), (3, "run", True)],
    ),
    "a pass more": (run_of(analysis(), passed=2), [(3, "counts", True)]),
    "a record less": (run_of(analysis(), passed=1, errors=1), [(3, "counts", True)]),
    "counts of an interruption": (
        [registered(), begin(), analysis(), stop("interrupted"), begin(phase="resumed"),
         stop(passed=1)],
        [(3, "counts", True)],
    ),
    "unfinished runs": (
        [registered(), begin(run_id="a"), begin(run_id="b"), stop("interrupted", run_id="b")],
        [(1, "run", False), (3, "run", False)],
    ),
    "a policy with another digest": (
        [registered() | {"policy": registered()["policy"] | {"min_tokens": 9}}],
        [(0, "policy", True)],
    ),
    "a policy that is none": (
        [registered() | {"policy": registered()["policy"] | {
            "checks": registered()["policy"]["checks"] * 2}}],
        [(0, "policy", True)],
    ),
    "not canonical": ([json.dumps(ALL["note"]).encode()], [(0, "canonical", True)]),
    "no JSON": ([b"\x00" * 40], [(0, "canonical", True), (0, "schema", True)]),
    "an unknown kind": ([ALL["note"] | {"kind": "dream"}], [(0, "schema", True)]),
    "no kind": ([ALL["note"] | {"kind": [1]}], [(0, "schema", True)]),
    "a misspelt member": (
        [ALL["note"] | {"note": {"text": "x", "txet": "y"}}],
        [(0, "schema", True)],
    ),
    "an unknown major version": ([ALL["note"] | {"schema": "2.0"}], [(0, "schema", True)]),
    "a version that is none": ([ALL["note"] | {"schema": 1}], [(0, "schema", True)]),
    "a version like 1": ([ALL["note"] | {"schema": "1.07"}], [(0, "schema", True)]),
    "no version": (
        [{k: v for k, v in ALL["note"].items() if k != "schema"}],
        [(0, "schema", True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(name: str) -> None:
    records, found = WRONG[name]
    assert codes(in_order(records)) == found


def test_problems_say_what_was_expected_and_found() -> None:
    records = [registered(), registered(MILD), begin(), analysis(policy=MILD), stop(failed=1)]
    (_, policy), (_, counts) = look(records)
    assert (policy.expected, policy.found) == (DEFAULT.digest, MILD.digest)
    assert counts.expected == "1 passed, 0 failed, 0 inconclusive, 0 errors, 0 refused"
    assert counts.found == "0 passed, 1 failed, 0 inconclusive, 0 errors, 0 refused"
    assert "does not count" in counts.message


CODES = {"signals": "signals", "assessment.policy": "policy", "assessment": "verdict"}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_of_a_measurement_is_found(edit: str) -> None:
    record = copy.deepcopy(ALL["full"])
    change, _ = EDITS[edit]
    change(record)
    deep = DeepCheck()
    for seq, one in enumerate([registered(), begin(), analysis()]):
        assert deep.check(seq, line_of(seq, one)) == []
    problems = deep.check(3, line_of(3, record))
    assert problems
    assert all(one.is_fault for one in problems)
    assert {one.code for one in problems} <= {"schema", "signals", "policy", "verdict"}


@pytest.mark.parametrize("broken", BREAKS)
def test_every_broken_measurement_is_found(broken: str) -> None:
    record = copy.deepcopy(ALL["full"])
    change, _ = BREAKS[broken]
    change(record)
    assert any(fault for _, _, fault in codes(run_of(record, passed=1)))


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("signals", "perplexity"), 2.5, "signals"),
        (("signals", "tokens"), 2, "signals"),
        (("assessment", "reasons"), ["tired"], "verdict"),
        (("assessment", "verdict"), "fail", "verdict"),
        (("assessment", "checks", 0, "outcome"), "fail", "verdict"),
        (("assessment", "policy", "digest"), MILD.digest, "policy"),
    ],
)
def test_a_difference_has_the_code_of_what_differs(
    path: tuple[Any, ...], value: object, code: str
) -> None:
    record = copy.deepcopy(ALL["full"])
    place: Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = look(in_order([registered(), begin(), record]))
    shown = [one for seq, one in found if seq == 2 and one.code == code and one.expected]
    assert shown
    assert {code} == {one.code for seq, one in found if seq == 2}
    if isinstance(value, float | int):
        assert shown[0].found == repr(value)


def test_the_clock_may_go_back_and_that_is_said_once() -> None:
    times = ["2026-01-01T00:00:00.00%dZ" % n for n in (5, 4, 4, 6, 1)]  # noqa: UP031 - short
    found = look([ALL["note"] | {"time": time} for time in times])
    ((seq, one),) = found
    assert (seq, one.code, one.is_fault) == (1, "clock", False)
    assert one.message.startswith("2 records are earlier")


def test_a_newer_minor_version_is_read_and_said_once() -> None:
    def newer(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"schema": "1.7", "colour": {"x": 1}}

    measured = newer(copy.deepcopy(ALL["full"]))
    measured["signals"]["beauty"] = 3
    measured["assessment"]["checks"][0]["note"] = "x"
    ended = newer(stop(passed=1))
    ended["run"]["watts"] = 40
    policy = newer(registered(MILD))
    policy["policy"]["weights"] = [1]
    records = [
        registered(),
        begin(),
        policy,
        measured,
        ended,
        newer(bare("dream", {})),
        ALL["note"],
    ]
    found = look(in_order(records))
    ((seq, one),) = found
    assert (seq, one.code, one.is_fault) == (2, "schema", False)
    assert one.message.startswith("4 records follow a newer schema than 1.0")


def test_a_newer_minor_version_has_no_licence_for_the_rest() -> None:
    wrong = ALL["note"] | {"schema": "1.7", "note": {}}
    missing = analysis(run_id="other") | {"schema": "1.7"}
    assert codes(in_order([wrong, missing])) == [
        (0, "schema", True),
        (1, "run", True),
        (1, "schema", False),
    ]


# Content that is kept apart.


def committed(**more: object) -> tuple[list[dict[str, Any]], dict[str, tuple[bytes, bytes]]]:
    made = [commit(analysis(**more)) for _ in range(3)]
    kept = {sealed.record_id: (sealed.salt, sealed.content) for _, sealed in made}
    return [record for record, _ in made], kept


def erased(record: dict[str, Any], at: int, **more: object) -> dict[str, Any]:
    said = {"record_id": record["id"], "seq": at, "commitment": record["commitment"]}
    return bare("erased", said | {"reason": "asked for"} | more)


def ledger_of(records: list[dict[str, Any]], *after: dict[str, Any]) -> list[Any]:
    return in_order([registered(), begin(content="committed"), *records, stop(passed=3), *after])


def test_content_that_is_there_and_right() -> None:
    records, kept = committed()
    assert look(ledger_of(records), DeepCheck(content_of=kept.get)) == []
    assert look(ledger_of(records)) == []


def test_content_that_was_changed() -> None:
    records, kept = committed()
    salt, content = kept[records[1]["id"]]
    for changed in ((salt, content + b" "), (bytes(32), content), (salt[1:], content)):
        now = kept | {records[1]["id"]: changed}
        assert codes(ledger_of(records), DeepCheck(content_of=now.get)) == [(3, "content", True)]
    swapped = kept | {records[0]["id"]: kept[records[1]["id"]]}
    assert codes(ledger_of(records), DeepCheck(content_of=swapped.get)) == [(2, "content", True)]


def test_content_that_is_not_there() -> None:
    records, kept = committed()
    del kept[records[1]["id"]]
    assert codes(ledger_of(records), DeepCheck(content_of=kept.get)) == [(3, "content", True)]
    whole = ledger_of(records, erased(records[1], 3))
    assert look(whole, DeepCheck(content_of=kept.get)) == []
    twice = ledger_of(records, erased(records[1], 3), erased(records[1], 3))
    assert look(twice, DeepCheck(content_of=kept.get)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"seq": 2},
        {"commitment": "sha256:" + "0" * 64},
        {"record_id": "0b4f2a56-6ea0-4f0b-8a5b-3a1f0e5c7d21"},
    ],
)
def test_an_erasure_that_names_something_else(more: dict[str, Any]) -> None:
    records, kept = committed()
    del kept[records[1]["id"]]
    wrong = ledger_of(records, erased(records[1], 3, **more))
    found = codes(wrong, DeepCheck(content_of=kept.get))
    assert found == [(6, "erased", True), (3, "content", True)]
    # Without the content, nothing is known of it.
    assert look(wrong) == []


def test_an_erasure_of_what_comes_later() -> None:
    records, _ = committed()
    for seq in (6, 7):
        assert codes(ledger_of(records, erased(records[1], seq))) == [(6, "erased", True)]


def test_an_erasure_that_left_the_content() -> None:
    records, kept = committed()
    found = codes(ledger_of(records, erased(records[1], 3)), DeepCheck(content_of=kept.get))
    assert found == [(6, "erased", False)]


def test_an_erasure_within_a_removed_part() -> None:
    records, kept = committed()
    later = [erased(records[1], 3)]
    assert codes(later, DeepCheck(content_of=kept.get), first=9) == []


# Removed parts, and files of some lines.


def test_what_was_kept_of_a_removed_part_counts_as_known() -> None:
    deep = DeepCheck()
    kept = [registered(), begin(), stop("interrupted", passed=7), begin(phase="resumed")]
    for seq, record in enumerate(in_order([*kept, ALL["genesis"], b"\xff", b"{}", b'{"kind":[]}'])):
        deep.preload(seq, record if isinstance(record, bytes) else line_of(seq, record))
    rest = in_order([analysis(), stop(passed=8), analysis()])
    # Of the seven there is nothing left to count, so the eight stand.
    assert codes(rest, deep, first=100) == [(102, "run", True)]
    assert deep.kinds == {"analysis": 2, "run": 1}


def test_a_run_that_ended_in_the_removed_part_is_not_open() -> None:
    deep = DeepCheck()
    for seq, record in enumerate([registered(), begin(), stop()]):
        deep.preload(seq, line_of(seq, record))
    assert codes([analysis()], deep, first=100) == [(100, "run", True)]


def test_a_run_that_was_interrupted_in_the_removed_part() -> None:
    deep = DeepCheck()
    for seq, record in enumerate([registered(), begin(), stop("interrupted")]):
        deep.preload(seq, line_of(seq, record))
    assert codes([analysis()], deep, first=100) == [(100, "run", True), (2, "run", False)]


def test_policies_of_the_removed_part_must_be_kept() -> None:
    deep = DeepCheck()
    deep.preload(1, line_of(1, begin()))
    assert codes([analysis(), stop(passed=1)], deep, first=100) == [(100, "policy", True)]


def test_a_part_of_a_ledger_need_not_hold_runs_and_policies() -> None:
    records = in_order([analysis(), error(), refused(), stop(passed=9)])
    assert look(records, DeepCheck(is_part=True)) == []
    resumed = in_order([begin(phase="resumed"), analysis(), stop(passed=9)])
    assert look(resumed, DeepCheck(is_part=True)) == []
    wrong = copy.deepcopy(ALL["full"])
    wrong["assessment"]["verdict"] = "fail"
    assert codes([wrong], DeepCheck(is_part=True)) == [(0, "verdict", True)]


def test_a_part_of_a_ledger_is_held_to_the_runs_and_policies_that_it_has() -> None:
    records = in_order([registered(), begin(), analysis(content="omitted"), stop(passed=2)])
    found = codes(records, DeepCheck(is_part=True))
    assert found == [(2, "run", True), (3, "counts", True)]


# Hostile input.


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes(lines: list[bytes]) -> None:
    found = look(lines)
    assert len({seq for seq, one in found if one.is_fault}) == len(lines)


names = st.sampled_from(
    sorted({name for record in ALL.values() for name in [*record, *record.get("run", {})]})
)
VALIDATION = Validation()
hostile = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**53) | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(ALL)), st.dictionaries(names, hostile, max_size=4), st.data())
def test_any_members(name: str, members: dict[str, Any], data: st.DataObject) -> None:
    record = copy.deepcopy(ALL[name]) | members
    part = data.draw(st.sampled_from(sorted(record)))
    if isinstance(record[part], dict):
        record[part] |= data.draw(st.dictionaries(names, hostile, max_size=3))
    deep = DeepCheck(content_of=lambda _: None)
    deep._validation = VALIDATION  # compiled once
    line = json.dumps(record).encode()
    for seq, one in enumerate([line_of(0, registered()), line_of(1, begin()), line, line]):
        deep.check(seq, one)
        deep.preload(seq, one)
    deep.finish()


@pytest.mark.parametrize("name", ALL)
def test_a_record_without_any_one_member(name: str) -> None:
    for member in ALL[name]:
        record = {key: value for key, value in ALL[name].items() if key != member}
        assert any(fault for _, _, fault in codes([registered(), begin(), record])), member


def test_kinds_by_any_name_take_no_memory() -> None:
    deep = DeepCheck()
    for number in range(50):
        deep.check(number, line_of(number, ALL["note"] | {"kind": f"k{number}"}))
    assert set(deep.kinds) == {"other"}
    assert set(deep.kinds) <= {*KINDS, "other"}


def test_problems_are_short() -> None:
    long = "x" * 100_000
    records = [
        ALL["note"] | {"note": {"text": long}},
        ALL["note"] | {"kind": long},
        analysis(run_id=long),
        stop(run_id=long),
        registered() | {"policy": registered()["policy"] | {"id": long}},
        ALL["full"] | {"assessment": ALL["full"]["assessment"] | {"reasons": [long] * 100}},
    ]
    problems = [one for _, one in look([*records, long.encode()])]
    assert len(problems) < 60
    for one in problems:
        assert all(len(text or "") <= 400 for text in (one.message, one.expected, one.found))


def test_memory_does_not_grow_with_records() -> None:
    lines = []
    for number in range(150):
        run_id = f"run-{number}"
        records = [
            begin(run_id=run_id),
            analysis(run_id=run_id),
            error(run_id=run_id),
            stop(run_id=run_id, passed=1, errors=1),
        ]
        lines.append([line_of(1, record) for record in records])
    deep = DeepCheck()
    deep.check(0, line_of(0, registered()))
    tracemalloc.start()
    for run in lines[:50]:
        assert [deep.check(1, line) for line in run] == [[]] * 4
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for run in lines[50:]:
        assert [deep.check(1, line) for line in run] == [[]] * 4
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # A hundred runs that are not forgotten take four times as much.
    assert grown < 10_000
