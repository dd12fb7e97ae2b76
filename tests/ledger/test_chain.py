"""The walk along a chain: each rule by hand, and many lines at once against one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.ledger.chain import Chain, Place
from cert.ledger.findings import Finding, Problem, State
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.merkle import Frontier
from tests.ledger.ledgers import control, frontier_of, leaf_of, line_of, mth, record

if TYPE_CHECKING:
    from collections.abc import Sequence

START = bytes(32)
SEGMENT = "000000000000.jsonl"


@dataclass
class Watch:
    """Writes down what it is told, in order."""

    wants_all: bool = False
    fault_at: int | None = None
    findings: list[Finding] = field(default_factory=list)
    controls: list[tuple[int, bytes, Place]] = field(default_factory=list)
    seen: list[tuple[int, bytes]] = field(default_factory=list)

    def report(self, finding: Finding) -> None:
        self.findings.append(finding)

    def meet_control(self, seq: int, line: bytes, place: Place) -> None:
        self.controls.append((seq, line, place))

    def look_at(self, seq: int, line: bytes) -> Sequence[Problem]:
        self.seen.append((seq, line))
        if len(self.seen) == self.fault_at:
            return [Problem("x", "a fault"), Problem("y", "a remark", is_fault=False)]
        return []

    @property
    def brief(self) -> list[tuple[str, int | None]]:
        return [(one.code, one.line) for one in self.findings]


def chained(count: int, first: int = 0, *, control_at: Sequence[int] = ()) -> list[bytes]:
    """Lines that follow from each other and from START."""
    lines: list[bytes] = []
    prev = START
    for seq in range(first, first + count):
        made = control("note") if seq in control_at else record(seq)
        lines.append(line_of(prev, seq, made))
        prev = leaf_of(lines[-1])
    return lines


def feed(chain: Chain, lines: Sequence[bytes], *steps: int) -> None:
    at = offset = 0
    for step in (*steps, len(lines)):
        part = lines[at : at + step]
        chain.feed(part, SEGMENT, offset)
        at += len(part)
        offset += sum(len(line) + 1 for line in part)


class Slow(Chain):
    """A chain that looks at each line by itself."""

    def _feed_fast(self, lines: Sequence[bytes], segment: str, offset: int) -> bool:
        return False


def walk(
    lines: Sequence[bytes],
    *steps: int,
    first: int = 0,
    watch: Watch | None = None,
    tail: bytes | None = None,
    may_jump: bool = False,
) -> tuple[Chain, Watch]:
    """Walk in steps of these sizes, and the rest at once."""
    watch = watch or Watch()
    chain = Chain(Frontier(), START, watch, seq=first, may_jump=may_jump)
    feed(chain, lines, *steps)
    chain.settle(tail)
    return chain, watch


def one_by_one(lines: Sequence[bytes]) -> list[int]:
    return [1] * len(lines)


def at_offset(lines: Sequence[bytes], number: int) -> int:
    return sum(len(line) + 1 for line in lines[: number - 1])


# Without a fault.


@pytest.mark.parametrize("first", [0, 1, 8, 9, 10, 95, 99, 100, 996, 10**15 - 3])
def test_a_good_chain_has_no_findings_where_its_numbers_grow_a_digit(first: int) -> None:
    lines = chained(9, first)
    for steps in ([], [1], [2, 3], one_by_one(lines), [0, 4]):
        chain, watch = walk(lines, *steps, first=first)
        assert watch.findings == []
        assert (chain.seq, chain.frontier.size) == (first + 9, 9)
        assert chain.frontier.root() == mth([leaf_of(line) for line in lines])
        assert chain.last_leaf == leaf_of(lines[-1])
        assert chain.here == Place(9, SEGMENT, at_offset(lines, 9))


def test_a_chain_goes_on_behind_a_tree() -> None:
    lines = chained(9)
    leaves = [leaf_of(line) for line in lines]
    watch = Watch()
    chain = Chain(Frontier.from_roots(5, frontier_of(leaves[:5])), leaves[4], watch)
    chain.feed(lines[5:], SEGMENT, 0)
    assert (watch.findings, chain.seq) == ([], 9)
    assert chain.here == Place(9, SEGMENT, sum(len(line) + 1 for line in lines[5:8]))
    assert chain.frontier.root() == mth(leaves)


@pytest.mark.parametrize("steps", [[], [3], [1] * 12])
def test_control_records_are_met_at_their_places(steps: list[int]) -> None:
    lines = chained(12, control_at=[2, 3, 11])
    _, watch = walk(lines, *steps)
    assert watch.controls == [
        (seq, lines[seq], Place(seq + 1, SEGMENT, at_offset(lines, seq + 1))) for seq in (2, 3, 11)
    ]


def test_a_first_key_like_that_of_control_records_is_not_enough() -> None:
    lines = [line_of(START, 0, {"clocks": 1})]
    assert walk(lines)[1].controls == []


@pytest.mark.parametrize("steps", [[], [1] * 12])
def test_who_wants_all_gets_all(steps: list[int]) -> None:
    lines = chained(12)
    watch = Watch(wants_all=True, fault_at=8)
    walk(lines, *steps, watch=watch)
    assert watch.seen == list(enumerate(lines))
    at = 8, SEGMENT, at_offset(lines, 8)
    assert watch.findings == [
        Finding(State.INVALID, "x", "a fault", *at),
        Finding(None, "y", "a remark", *at),
    ]


def test_no_lines_change_nothing() -> None:
    chain, watch = walk([])
    assert (chain.here, chain.seq, chain.last_leaf, watch.findings) == (None, 0, START, [])


# Rule by rule; lines are counted from 1.


def brief(lines: Sequence[bytes], *, tail: bytes | None = None) -> list[tuple[str, int | None]]:
    """Findings, the same at every step."""
    found = [walk(lines, *steps, tail=tail)[1].brief for steps in ([], [2], one_by_one(lines))]
    assert found[0] == found[1] == found[2]
    return found[0]


def changed(line: bytes, seq: int) -> bytes:
    """A record of the same links with another content."""
    return line.replace(b'"n":%d}' % seq, b'"n":%d}' % (seq + 7000))


def test_a_changed_line_is_named_by_the_one_behind_it() -> None:
    lines = chained(9)
    lines[4] = changed(lines[4], 4)
    # Line 6 no longer links to line 5, and line 7 links to line 6: L names the one before.
    assert brief(lines) == [("link", 5)]


def test_a_changed_link_is_named_itself() -> None:
    lines = chained(9)
    lines[4] = lines[4].replace(lines[4][10:74], b"0" * 64)
    # Line 5 does not link to line 4, and line 6 not to line 5 as it is now.
    assert brief(lines) == [("link", 5)]


def test_a_finding_says_what_was_expected() -> None:
    lines = chained(5)
    good = leaf_of(lines[1]).hex()
    lines[1] = changed(lines[1], 1)
    _, watch = walk(lines)
    assert watch.findings == [
        Finding(
            State.INVALID,
            "link",
            "the line, to which the next one no longer links is not as it should be",
            2,
            SEGMENT,
            at_offset(lines, 2),
            good,
            leaf_of(lines[1]).hex(),
        )
    ]


def test_the_last_two_lines_take_a_tail_to_tell() -> None:
    lines = chained(9)
    good = leaf_of(lines[8])
    lines[7] = changed(lines[7], 7)
    # The last line does not link to the one before, and nothing comes after it.
    assert brief(lines) == [("link", 9)]
    assert brief(lines, tail=leaf_of(b"other")) == [("link", 9)]
    assert brief(lines, tail=good) == [("link", 8)]


def test_a_changed_last_line_breaks_no_link() -> None:
    lines = chained(9)
    lines[8] = changed(lines[8], 8)
    assert brief(lines) == []


def test_the_first_line_is_at_fault_for_its_own_link() -> None:
    lines = chained(5)
    lines[0] = lines[0].replace(b"0" * 64, b"1" * 64)
    # Line 2 no longer links to it, which is the same fault.
    assert brief(lines) == [("link", 1)]


def test_lines_that_are_missing_or_twice_or_swapped() -> None:
    lines = chained(12)
    assert brief([*lines[:4], *lines[5:]]) == [("seq", 5)]
    assert brief([*lines[:5], *lines[4:]]) == [("seq", 6)]
    swapped = [*lines[:4], lines[5], lines[4], *lines[6:]]
    assert brief(swapped) == [("seq", 5), ("seq", 6), ("seq", 7)]
    assert brief(lines[1:]) == [("seq", 1)]


@pytest.mark.parametrize("bad", [b"", b"{}", b"\x00" * 80, b" " + chained(9)[4]])
def test_a_line_of_no_form_is_named_and_named_once(bad: bytes) -> None:
    lines = chained(9)
    lines[4] = bad
    # Line 6 does not link to it; L lays that at line 5, where there is a finding.
    assert brief(lines) == [("form", 5)]


def test_a_line_that_is_too_long_has_no_form() -> None:
    lines = chained(4)
    lines[2] = line_of(leaf_of(lines[1]), 2, record(2, text="x" * MAX_LINE_BYTES))
    _, watch = walk(lines[:3])
    assert watch.brief == [("form", 3)]
    assert watch.findings[0].found == "a longer line"


def test_rule_d_names_the_line_that_was_cut_or_joined() -> None:
    lines = chained(9)
    # The newline between lines 4 and 5 is gone: one line that is no canonical object.
    joined = [*lines[:3], lines[3] + lines[4], *lines[5:]]
    assert brief(joined) == [("seq", 4)]
    # Line 4 was cut within its content: line 5 does not link to it, and it is no object.
    cut = [*lines[:3], lines[3][:-5], *lines[4:]]
    assert brief(cut) == [("link", 4)]
    # A part of the middle is gone with a newline: what is left of both begins like line 4.
    merged = [*lines[:3], lines[3][:90] + lines[5][40:], *lines[6:]]
    assert brief(merged) == [("seq", 4)]


def test_rule_d_also_holds_across_calls_and_segments() -> None:
    lines = chained(9)
    lines[3] = lines[3][:-5]
    watch = Watch()
    chain = Chain(Frontier(), START, watch)
    chain.feed(lines[:4], "first", 0)
    chain.feed(lines[4:], "second", 0)
    chain.settle(None)
    (finding,) = watch.findings
    assert (finding.code, finding.line, finding.segment) == ("link", 4, "first")
    assert finding.offset == at_offset(lines, 4)


def test_a_damaged_line_is_named_by_a_line_of_no_form_behind_it() -> None:
    lines = chained(9)
    lines[3], lines[4] = lines[3][:-5], b"{}"
    # D lays it at line 4. Line 6 does not link to line 5, which is an object: L names line 5.
    assert brief(lines) == [("form", 4), ("link", 5)]


def test_two_links_in_a_row() -> None:
    lines = chained(9)
    lines[3], lines[4] = changed(lines[3], 3), changed(lines[4], 4)
    # Line 5 links to another line 4 and is not linked to by line 6: itself. Line 6: line 5 again,
    # which is reported already.
    assert brief(lines) == [("link", 5)]


def test_one_fault_gives_few_findings() -> None:
    lines = chained(200)
    lines[50] = line_of(leaf_of(lines[49]), 77, record(50))
    assert brief(lines) == [("seq", 51), ("seq", 52)]


def test_numbers_may_jump_where_that_is_allowed() -> None:
    lines = chained(30)
    part = [*lines[3:9], *lines[11:12], *lines[20:]]
    for steps in ([], [1] * len(part)):
        chain, watch = walk(part, *steps, first=3, may_jump=True)
        # The first line's link is not known to this chain.
        assert watch.brief == [("link", 1)]
        assert (chain.gaps, chain.seq, chain.frontier.size) == (2, 30, 17)
    # Backwards is no jump.
    _, watch = walk([*lines[:9], *lines[5:]], may_jump=True)
    assert watch.brief == [("seq", 10)]
    _, watch = walk(part, first=3)
    assert watch.brief == [("link", 1), ("seq", 7), ("seq", 8)]


# Many lines at once against one at a time.

FAULTS = st.sampled_from([
    "change", "link", "number", "drop", "twice", "swap", "cut", "join", "empty", "nul", "space",
    "key", "upper", "zero", "digits", "control", "insert",
])  # fmt: skip


def break_at(lines: list[bytes], at: int, fault: str) -> None:  # noqa: C901, PLR0912 - one fault a case
    if not lines:
        return
    at %= len(lines)
    line = lines[at]
    match fault:
        case "change":
            lines[at] = line.replace(b'"kind"', b'"kinds"')
        case "link":
            lines[at] = line[:10] + b"f" * 64 + line[74:]
        case "number":
            lines[at] = line.replace(b'"_seq":', b'"_seq":1')
        case "drop":
            del lines[at]
        case "twice":
            lines.insert(at, line)
        case "swap":
            lines[at - 1], lines[at] = lines[at], lines[at - 1]
        case "cut":
            lines[at] = line[: len(line) // 2]
        case "join":
            lines[at - 1 : at + 1] = [lines[at - 1] + line] if at else [line]
        case "empty":
            lines[at] = b""
        case "nul":
            lines[at] = b"\x00" * len(line)
        case "space":
            lines[at] = line.replace(b",", b", ")
        case "key":
            lines[at] = line.partition(b'"_seq"')[0] + b'"seq":0}'
        case "upper":
            lines[at] = line.replace(b'"assessment"', b'"Assessment"')
        case "zero":
            lines[at] = line.replace(b'"_seq":', b'"_seq":0')
        case "digits":
            lines[at] = line.replace(b'"_seq":', b'"_seq":123456789012345')
        case "control":
            lines[at] = line.replace(b'"assessment":', b'"clock":')
        case "insert":
            lines.insert(at, b'{"a":1}')


@settings(max_examples=250)
@given(
    first=st.sampled_from([0, 3, 8, 9, 94, 99, 10**6]),
    count=st.integers(0, 14),
    controls=st.sets(st.integers(0, 110)),
    faults=st.lists(st.tuples(st.integers(0, 13), FAULTS), max_size=3),
    steps=st.lists(st.integers(1, 6), max_size=8),
    may_jump=st.booleans(),
    wants_all=st.booleans(),
    has_tail=st.booleans(),
)
def test_many_lines_at_once_are_walked_as_one_at_a_time(  # noqa: PLR0917 - what hypothesis draws
    first: int,
    count: int,
    controls: set[int],
    faults: list[tuple[int, str]],
    steps: list[int],
    may_jump: bool,
    wants_all: bool,
    has_tail: bool,
) -> None:
    lines = chained(count, first, control_at=list(controls))
    tail = leaf_of(lines[-1]) if lines and has_tail else None
    for at, fault in faults:
        break_at(lines, at, fault)
    walks = []
    for kind, sizes in ((Slow, []), (Chain, []), (Chain, steps), (Chain, [1] * len(lines))):
        watch = Watch(wants_all=wants_all, fault_at=3)
        chain = kind(Frontier(), START, watch, seq=first, may_jump=may_jump)
        feed(chain, lines, *sizes)
        chain.settle(tail)
        walks.append(
            (
                sorted(watch.findings, key=lambda one: (one.line or 0, one.code)),
                watch.controls,
                watch.seen,
                (chain.seq, chain.gaps, chain.last_leaf, chain.here),
                (chain.frontier.size, chain.frontier.root()),
            )
        )
    assert walks == [walks[0]] * 4
    if not faults:
        assert [one.code for one in walks[0][0] if one.state is not None] == (
            ["x"] if wants_all and count >= 3 else []
        )


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=100).filter(lambda line: b"\n" not in line), max_size=6))
def test_any_lines_can_be_walked(lines: list[bytes]) -> None:
    chain, watch = walk(lines)
    assert chain.frontier.size == len(lines)
    assert bool(watch.findings) == bool(lines)
