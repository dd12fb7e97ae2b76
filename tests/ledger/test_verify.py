"""Verification of whole ledgers that were made from the page; every state and every finding."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.findings import Finding, Problem, Report, State
from cert.ledger.keys import PublicKey
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.reader import FolderReader
from cert.ledger.verify import RecordCheck, verify_ledger
from tests.ledger.ledgers import (
    ORIGIN,
    Made,
    b64,
    begin,
    control,
    leaf_of,
    line_of,
    make,
    mth,
    note_of,
    private,
    raw,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Check = Callable[..., Report]
    Change = Callable[[Path], object]

FIRST, SECOND = private("first"), private("second")


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(raw(key))


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Write a ledger, have it changed, verify it."""

    def run(
        made: Made,
        change: Change = lambda _: None,
        *,
        key: Ed25519PrivateKey = FIRST,
        head: bytes | None = None,
        deep: RecordCheck | None = None,
    ) -> Report:
        folder = made.write(tmp_path / f"ledger{len(list(tmp_path.iterdir()))}")
        change(folder)
        return verify_ledger(FolderReader(folder), public(key), head=head, deep=deep)

    return run


def faults(report: Report) -> list[tuple[str, str, int | None, int | None]]:
    return [
        (one.state.value, one.code, one.line, one.offset)
        for one in report.findings
        if one.state is not None
    ]


def remarks(report: Report) -> list[tuple[str, int | None]]:
    return [(one.code, one.line) for one in report.findings if one.state is None]


def segment(folder: Path, first: int = 0) -> Path:
    return folder / "segments" / f"{first:012d}.jsonl"


def note(folder: Path, size: int) -> Path:
    return folder / "checkpoints" / f"{size:012d}.note"


def offset_of(made: Made, number: int, start: int = 0) -> int:
    return sum(len(line) + 1 for line in made.lines[start:number])


def test_a_sealed_ledger_is_unanchored_without_a_head_and_valid_with_one(check: Check) -> None:
    made = make(25, seals=[10, 25], cuts=[12])
    report = check(made)
    assert report == Report(
        state=State.UNANCHORED,
        mode="fast",
        origin=ORIGIN,
        records=25,
        sealed=25,
        root=b64(mth(made.leaves)),
        key=public(FIRST).text,
    )
    for size in (1, 9, 10, 24, 25):
        head = note_of(ORIGIN, size, mth(made.leaves[:size]), FIRST)
        assert check(made, head=head).state is State.VALID


def test_records_behind_the_last_checkpoint_are_unsealed(check: Check) -> None:
    made = make(25, seals=[10], cuts=[12])
    report = check(made)
    assert faults(report) == [("unsealed", "unsealed", 11, offset_of(made, 10))]
    assert (report.sealed, report.records) == (10, 25)
    # They begin where the next segment does, if the checkpoint is of the end of one.
    made = make(25, seals=[12], cuts=[12])
    report = check(made)
    assert report.first is not None
    assert (report.first.segment, report.first.offset) == ("000000000012.jsonl", 0)
    assert faults(check(make(3))) == [("unsealed", "unsealed", 1, 0)]


def test_an_empty_open_segment_is_as_good_as_none(check: Check) -> None:
    assert check(make(5, seals=[5], cuts=[5])).state is State.UNANCHORED


def test_a_key_that_was_not_pinned(check: Check) -> None:
    report = check(make(5, seals=[5]), key=SECOND)
    assert faults(report) == [("invalid", "key", 1, 0)]
    assert report.first is not None
    assert (report.first.expected, report.first.found) == (public(SECOND).text, public(FIRST).text)


def test_rotated_keys_are_all_good_pins(check: Check) -> None:
    made = make(4, seals=[4])
    made.rotate(SECOND)
    made.seal()
    made.grow(3)
    made.seal()
    for key in (FIRST, SECOND):
        report = check(made, key=key)
        assert (report.state, report.key) == (State.UNANCHORED, public(SECOND).text)
    # The old key signs no more.
    made.turns[1:] = []
    report = check(made)
    assert faults(report) == [
        ("invalid", "checkpoint", 5, offset_of(made, 4)),
        ("unsealed", "unsealed", 5, offset_of(made, 4)),
        ("invalid", "checkpoint", 8, offset_of(made, 7)),
    ]


def test_a_rotation_that_does_not_hold(check: Check) -> None:
    made = make(4)
    made.rotate(SECOND)
    member = json.loads(made.lines[4])["key"]
    made.lines[4] = line_of(leaf_of(made.lines[3]), 4, control("key", key={**member, "proof": ""}))
    made.turns[1:] = []
    made.seal()
    assert faults(check(made)) == [("invalid", "key-record", 5, offset_of(made, 4))]


def test_a_second_genesis(check: Check) -> None:
    made = make(4)
    made.add({key: one for key, one in json.loads(made.lines[0]).items() if key[0] != "_"})
    made.seal()
    assert faults(check(made)) == [("invalid", "genesis", 5, offset_of(made, 4))]


def test_remarks_leave_the_state_as_it_is(check: Check) -> None:
    made = begin()
    for kind in ("recovered", "erased", "pruned", "note"):
        made.add(control(kind))
    made.seal()
    report = check(made)
    assert report.state is State.UNANCHORED
    assert remarks(report) == [("recovered", 2), ("erased", 3), ("pruned", 4)]


@pytest.mark.parametrize("content", [None, b"", b"\n", b"{}\n", b'{"_prev":"', b"\x00" * 300])
def test_a_beginning_that_is_none(check: Check, content: bytes | None) -> None:
    def change(folder: Path) -> None:
        if content is None:
            segment(folder).unlink()
        else:
            segment(folder).write_bytes(content)

    report = check(make(4, seals=[4]), change)
    assert report.state is State.INVALID
    assert report.first is not None
    assert (report.first.code, report.first.line, report.first.offset) == (
        "genesis",
        1,
        None if content is None else 0,
    )
    assert (report.origin, report.key, report.sealed) == (None, None, 0)


def test_a_genesis_that_is_none_lets_the_links_be_followed(check: Check) -> None:
    made = make(9, seals=[9], cuts=[5])
    report = check(made, lambda folder: segment(folder).unlink())
    # The rest is followed from what its first line says: nothing else is wrong with it.
    assert [one[1] for one in faults(report)] == ["genesis", "unsealed"]
    assert (report.records, report.sealed, report.origin) == (4, 0, None)


def test_bytes_behind_the_last_line(check: Check) -> None:
    made = make(9, seals=[9], cuts=[5])

    def tear(first: int) -> Change:
        return lambda folder: segment(folder, first).open("ab").write(b'{"_prev":"00')

    report = check(made, tear(5))
    assert faults(report) == [("torn", "torn", 10, offset_of(made, 9, 5))]
    assert report.records == 9
    assert "12 bytes without a newline" in report.findings[0].message
    # In a closed segment they are a line of no form.
    report = check(made, tear(0))
    assert report.state is State.INVALID
    assert report.first is not None
    assert (report.first.code, report.first.line) == ("form", 6)
    assert report.first.offset == offset_of(made, 5)
    assert report.records == 10


def test_a_segment_of_another_name(check: Check) -> None:
    made = make(9, seals=[9], cuts=[5])
    report = check(made, lambda folder: segment(folder, 5).rename(segment(folder, 6)))
    assert faults(report) == [("invalid", "segment", 6, 0)]
    first = report.first
    assert first is not None
    assert (first.segment, first.expected, first.found) == ("000000000006.jsonl", "5", "6")


def test_lines_behind_a_line_that_is_too_long_have_their_places(check: Check) -> None:
    made = make(4)
    made.add(record(4, text="x" * (MAX_LINE_BYTES + 1_000_000)))
    made.grow(3)
    made.lines[7] = made.lines[7].replace(b'"n":7', b'"n":8')
    made.seals = [9]

    def change(folder: Path) -> None:
        note(folder, 9).write_bytes(note_of(ORIGIN, 9, bytes(32), FIRST))

    report = check(made, change)
    lost = faults(report)
    assert ("invalid", "form", 5, offset_of(made, 4)) in lost
    # A checkpoint of more lines than there are: where the ninth would begin.
    assert ("invalid", "checkpoint", 9, offset_of(made, 8)) in lost


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no blank line"),
        (note_of(ORIGIN, 3, bytes(32), FIRST), "of 3 records, not of 4"),
        (note_of("other", 4, bytes(32), FIRST), "of 'other', not of"),
        (note_of(ORIGIN, 4, bytes(32), SECOND), "is not by"),
    ],
)
def test_a_checkpoint_that_does_not_hold(check: Check, content: bytes, why: str) -> None:
    made = make(6, seals=[4, 6])
    report = check(made, lambda folder: note(folder, 4).write_bytes(content))
    assert faults(report) == [("invalid", "checkpoint", 4, offset_of(made, 3))]
    assert why in report.findings[0].message
    assert report.sealed == 6


def test_a_checkpoint_of_no_records_is_never_written(check: Check) -> None:
    made = make(6, seals=[0, 6])
    report = check(made)
    assert [one[:3] for one in faults(report)] == [("invalid", "checkpoint", 1)]
    assert "one of no records is never written" in report.findings[0].message


def test_a_checkpoint_of_more_records_than_there_are(check: Check) -> None:
    made = make(6, seals=[4])

    def change(folder: Path) -> None:
        for size in (8, 9):
            note(folder, size).write_bytes(note_of(ORIGIN, size, bytes(32), FIRST))

    report = check(made, change)
    end = offset_of(made, 6)
    assert faults(report) == [
        ("unsealed", "unsealed", 5, offset_of(made, 4)),
        ("invalid", "checkpoint", 7, end),
        ("invalid", "checkpoint", 7, end),
    ]
    assert [(one.expected, one.found) for one in report.findings][1:] == [("8", "6"), ("9", "6")]


def forge(made: Made, number: int) -> None:
    """Change a record and chain all that follow it anew."""
    for at in range(number, len(made.lines)):
        text = "forged" if at == number else "x"
        made.lines[at] = line_of(leaf_of(made.lines[at - 1]), at, record(at, text=text))


def forged(size: int, number: int, seals: Sequence[int]) -> tuple[Made, Made, Change]:
    """A ledger, the same forged after it was signed, and what lays the true notes over it."""
    true, made = make(size, seals=seals), make(size, seals=seals)
    forge(made, number)

    def change(folder: Path) -> None:
        for one in seals:
            note(folder, one).write_bytes(true.note(one))

    return true, made, change


def test_a_rewritten_chain_is_at_fault_from_behind_the_last_good_checkpoint(check: Check) -> None:
    true, made, change = forged(12, 6, [4, 8, 12])
    report = check(made, change)
    first = report.first
    assert first is not None
    assert (first.code, first.line, first.offset) == ("root", 5, offset_of(made, 4))
    assert first.expected == b64(mth(true.leaves[:8]))
    assert first.found == b64(mth(made.leaves[:8]))
    assert report.sealed == 4


def test_a_tail_that_leads_to_the_signed_root_names_the_last_line(check: Check) -> None:
    true, made, change = forged(8, 7, [4, 8])

    def with_tail(tail: dict[str, object]) -> Change:
        def both(folder: Path) -> None:
            change(folder)
            (folder / "tail.json").write_text(json.dumps(tail))

        return both

    # The frontier is the writer's own, and leads a verifier nowhere.
    for tail in (true.tail(8), true.tail(8, frontier=["0" * 64])):
        assert faults(check(made, with_tail(tail))) == [
            ("unsealed", "unsealed", 5, offset_of(made, 4)),
            ("invalid", "root", 8, offset_of(made, 7)),
        ]
    # One that does not lead there says nothing.
    for tail in (true.tail(4), made.tail(8), {"size": 8}):
        report = check(made, with_tail(tail))
        assert report.first is not None
        assert (report.first.code, report.first.line) == ("root", 5)


def test_the_tail_says_which_side_of_the_last_link_was_changed(check: Check) -> None:
    made = make(6, seals=[6])
    tail = made.tail(6)

    def change(number: int) -> Change:
        old, new = f'"n":{number}'.encode(), b'"n":0'

        def edit(folder: Path) -> None:
            data = segment(folder).read_bytes().replace(old, new)
            segment(folder).write_bytes(data)
            (folder / "tail.json").write_text(json.dumps(tail))

        return edit

    # Line 5 was changed; line 6 no longer links to it, and is the one that was signed.
    assert faults(check(made, change(4)))[1:] == [("invalid", "link", 5, offset_of(made, 4))]
    # Without the tail it could have been either.
    edit = change(4)

    def edit_without(folder: Path) -> None:
        edit(folder)
        (folder / "tail.json").unlink()

    assert faults(check(made, edit_without))[1:] == [("invalid", "link", 6, offset_of(made, 5))]


def test_a_root_that_follows_from_a_fault_is_not_reported_again(check: Check) -> None:
    made = make(9, seals=[4, 9])

    def change(folder: Path) -> None:
        segment(folder).write_bytes(segment(folder).read_bytes().replace(b'"n":6', b'"n":5'))

    assert [one[1:3] for one in faults(check(made, change))] == [("link", 7), ("unsealed", 5)][::-1]


def head_of(made: Made, size: int, *keys: Ed25519PrivateKey) -> bytes:
    return note_of(made.origin, size, mth(made.leaves[:size]), *(keys or (FIRST,)))


def test_a_ledger_shorter_than_its_head(check: Check) -> None:
    long, short = make(9), make(6, seals=[6])
    report = check(short, head=head_of(long, 9))
    assert faults(report) == [("rolled-back", "head", 7, offset_of(short, 6))]
    assert report.first is not None
    assert (report.first.expected, report.first.found) == ("9", "6")


def test_a_ledger_that_is_another_than_its_head(check: Check) -> None:
    true, made, _ = forged(9, 6, [4, 9])
    report = check(made, head=head_of(true, 9))
    assert faults(report) == [("rolled-back", "head", 5, offset_of(made, 4))]
    assert check(made, head=head_of(true, 6)).state is State.VALID


def test_a_head_of_another_ledger(check: Check) -> None:
    other = begin(origin="example.com/other")
    report = check(make(4, seals=[4]), head=head_of(other, 1))
    assert faults(report) == [("invalid", "head", 1, 0)]


def test_heads_that_prove_nothing(check: Check) -> None:
    made = make(4, seals=[4])
    with pytest.raises(ProofError, match="not signed by the pinned key") as caught:
        check(made, head=head_of(made, 4, SECOND))
    assert "cert ledger head" in str(caught.value.hint)
    with pytest.raises(ProofError, match="no signed note"):
        check(made, head=b"")
    with pytest.raises(ProofError, match="a head of size 0 pins nothing"):
        check(made, head=head_of(made, 0))


def test_a_head_that_proves_nothing_does_not_hide_what_is_invalid(check: Check) -> None:
    made = make(4, seals=[4])
    made.lines[2] = b"{}"
    report = check(made, head=head_of(made, 4, SECOND))
    assert report.state is State.INVALID
    assert ("head", 1) in remarks(report)


def test_a_head_by_an_earlier_key_of_the_lineage(check: Check) -> None:
    made = make(4, seals=[4])
    head = head_of(made, 4)
    made.rotate(SECOND)
    made.seal()
    assert check(made, key=SECOND, head=head).state is State.VALID


def test_a_head_of_a_ledger_without_a_beginning(check: Check) -> None:
    made = make(4)
    report = check(made, lambda folder: segment(folder).write_bytes(b""), head=head_of(made, 4))
    assert [one[:3] for one in faults(report)] == [
        ("invalid", "genesis", 1),
        ("rolled-back", "head", 1),
    ]


# Removed parts.


def prune(
    folder: Path,
    made: Made,
    size: int,
    kept: Sequence[int] = (0,),
    /,
    **changed: object,
) -> None:
    for first in [0, *made.cuts]:
        if first < size:
            segment(folder, first).unlink()
    data = json.dumps({**made.pruned(size, kept), **changed}, sort_keys=True, separators=(",", ":"))
    (folder / "pruned.json").write_text(data)


def make_pruned(count: int, *, seals: Sequence[int] = (), cuts: Sequence[int] = ()) -> Made:
    """A ledger whose last record says that the first 15 were to be removed."""
    made = make(count - 1, cuts=cuts)
    made.say_pruned(15)
    made.seals = list(seals)
    return made


def test_a_removed_part_is_a_remark(check: Check) -> None:
    made = make_pruned(25, seals=[10, 15, 25], cuts=[10, 15])
    report = check(made, lambda folder: prune(folder, made, 15))
    assert report.state is State.UNANCHORED
    assert (report.records, report.pruned, report.sealed) == (10, 15, 25)
    assert remarks(report) == [("pruned", 1), ("pruned", 25)]
    assert report.root == b64(mth(made.leaves))


def test_records_behind_a_removed_part(check: Check) -> None:
    made = make_pruned(16, seals=[15, 16], cuts=[15])
    report = check(made, lambda folder: prune(folder, made, 15))
    assert (report.state, report.records, report.pruned) == (State.UNANCHORED, 1, 15)
    made.grow(9)
    report = check(made, lambda folder: prune(folder, made, 15))
    assert faults(report) == [
        ("unsealed", "unsealed", 17, offset_of(made, 16, 15)),
    ]


def unaccounted(report: Report) -> bool:
    """Whether nothing is wrong but that nobody signed for what was removed."""
    return (report.state, report.first and report.first.message) == (
        State.INVALID,
        "no signed `pruned` record says that the first records were to be removed",
    ) and [one for one in faults(report) if one[0] == "invalid"] == [("invalid", "pruned", 1, None)]


@pytest.mark.parametrize(
    "said",
    [
        {"size": 14},
        {"size": "15"},
        {"size": None},
        {"root": b64(bytes(32))},
        {"root": None},
        {"root": mth(make(15).leaves).hex()},
    ],
)
def test_a_record_of_another_pruning_accounts_for_nothing(
    check: Check, said: dict[str, object]
) -> None:
    made = make(20, cuts=[10, 15])
    made.say_pruned(15, **said)
    made.seals = [10, 15, 21]
    assert unaccounted(check(made, lambda folder: prune(folder, made, 15)))
    made.say_pruned(15)
    made.seals.append(22)
    assert check(made, lambda folder: prune(folder, made, 15)).state is State.UNANCHORED


def test_a_removal_must_be_signed_for(check: Check) -> None:
    """Lines can be chained, and `pruned.json` can be written, by whoever can write the folder."""
    for seals in ([10, 15], [10, 15, 20]):
        made = make(20, seals=seals, cuts=[10, 15])
        assert unaccounted(check(made, lambda folder: prune(folder, made, 15)))  # noqa: B023 - called here
        made.say_pruned(15)
        assert unaccounted(check(made, lambda folder: prune(folder, made, 15)))  # noqa: B023 - as above
        made.seals.append(21)
        report = check(made, lambda folder: prune(folder, made, 15))  # noqa: B023 - as above
        assert report.state is State.UNANCHORED
        # What is said again later, and is not signed yet, takes nothing from that.
        made.say_pruned(15)
        report = check(made, lambda folder: prune(folder, made, 15))  # noqa: B023 - as above
        assert report.state is State.UNSEALED


def test_nothing_is_left_of_a_ledger_that_nobody_signed_away(check: Check) -> None:
    made = make(15, seals=[15], cuts=[15])
    assert unaccounted(check(made, lambda folder: prune(folder, made, 15)))


@pytest.mark.parametrize("kind", ["erased", "note"])
def test_only_a_control_record_accounts_for_a_removal(check: Check, kind: str) -> None:
    made = make(20, cuts=[15])
    said = {"size": 15, "root": b64(mth(made.leaves[:15]))}
    made.add({**control(kind, pruned=said), "text": '"kind":"pruned"'})
    made.add({"assessment": {}, **control("pruned", pruned=said)})  # another first key
    line = line_of(leaf_of(made.lines[-1]), 22, control("pruned", pruned=said))
    made.lines.append(line[:-1] + b" }")
    made.seals = [15, 23]
    assert unaccounted(check(made, lambda folder: prune(folder, made, 15)))


def test_a_record_within_the_removed_part_does_not_account_for_it(check: Check) -> None:
    made = make(9)
    made.say_pruned(9)
    made.grow(5)
    made.seals, made.cuts = [9, 15], [9, 15]
    made.seal()
    assert unaccounted(check(made, lambda folder: prune(folder, made, 15, [0, 9])))


def test_damage_is_said_rather_than_that_it_hides_the_record(check: Check) -> None:
    made = make_pruned(25, seals=[15, 25], cuts=[15])

    def change(folder: Path) -> None:
        prune(folder, made, 15)
        path = segment(folder, 15)
        path.write_bytes(path.read_bytes().replace(b'"size":15', b'"size":16'))

    assert faults(check(made, change))[0][:3] == ("invalid", "root", 16)


def test_what_a_removal_left_behind_is_not_read(check: Check) -> None:
    made = make_pruned(25, seals=[10, 15, 25], cuts=[10, 15])

    def change(folder: Path) -> None:
        left = {first: segment(folder, first).read_bytes() for first in (0, 10)}
        prune(folder, made, 15)
        segment(folder, 0).write_bytes(left[0])
        report = verify_ledger(FolderReader(folder), public(FIRST))
        assert (report.state, faults(report)) == (State.UNANCHORED, [])
        assert remarks(report) == [("pruned", 1), ("pruned", 1), ("pruned", 25)]
        segment(folder, 10).write_bytes(b"anything at all")

    report = check(made, change)
    assert (report.state, report.records, report.pruned) == (State.UNANCHORED, 10, 15)

    def without_last(folder: Path) -> None:
        change(folder)
        segment(folder, 15).unlink()

    report = check(made, without_last)
    assert faults(report)[0] == ("invalid", "checkpoint", 16, None)


def test_heads_within_a_removed_part(check: Check) -> None:
    made = make_pruned(25, seals=[10, 15, 25], cuts=[10, 15])

    def verify(head: bytes) -> Report:
        return check(made, lambda folder: prune(folder, made, 15), head=head)

    for size in (10, 15, 20, 25):
        assert verify(head_of(made, size)).state is State.VALID
    other = note_of(ORIGIN, 10, bytes(32), FIRST)
    report = verify(other)
    assert report.first is not None
    assert (report.state, report.first.code) == (State.ROLLED_BACK, "head")
    assert report.first.found == b64(mth(made.leaves[:10]))
    with pytest.raises(ProofError, match="in a part that was removed"):
        verify(head_of(made, 11))


def test_a_bad_checkpoint_within_a_removed_part(check: Check) -> None:
    made = make_pruned(25, seals=[10, 15, 25], cuts=[15])

    def change(folder: Path) -> None:
        prune(folder, made, 15)
        note(folder, 10).write_bytes(note_of(ORIGIN, 10, bytes(32), SECOND))

    assert faults(check(made, change)) == [("invalid", "checkpoint", 10, None)]


def test_a_removed_part_that_is_not_proven(check: Check) -> None:
    made = make_pruned(25, seals=[15, 25], cuts=[15])
    for changed in ({"size": 14}, {"frontier": []}, {"last_leaf": ""}, {"kept": []}):
        report = check(made, lambda folder, changed=changed: prune(folder, made, 15, **changed))
        assert report.first is not None
        assert (report.first.code, report.first.line) == ("pruned", 1)
        assert (report.state, report.records) == (State.INVALID, 10)

    def without_note(folder: Path) -> None:
        prune(folder, made, 15)
        note(folder, 15).unlink()

    report = check(made, without_note)
    assert report.first is not None
    assert (report.first.code, report.first.line) == ("pruned", 1)
    # The link of the next record follows from the removed part.
    report = check(made, lambda folder: prune(folder, made, 15, last_leaf="0" * 64))
    assert faults(report)[0][:3] == ("invalid", "link", 16)


# Deep.


@dataclass
class Deep:
    """Finds something about records of its choice."""

    found: dict[int, list[Problem]] = field(default_factory=dict)
    at_end: list[Problem] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    kept: list[tuple[int, bytes]] = field(default_factory=list)

    def preload(self, seq: int, line: bytes) -> None:
        self.kept.append((seq, line))

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        self.seen.append((seq, line))
        kind = json.loads(line)["kind"]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return self.found.get(seq, [])

    def finish(self) -> Sequence[Problem]:
        return self.at_end


def test_deep_looks_at_every_record_once(check: Check) -> None:
    made = make(120, seals=[50, 120], cuts=[70])
    deep = Deep()
    report = check(made, deep=deep)
    assert (report.state, report.mode) == (State.UNANCHORED, "deep")
    assert deep.seen == list(enumerate(made.lines))
    assert report.kinds == {"genesis": 1, "analysis": 119}


def test_deep_gets_what_was_kept(check: Check) -> None:
    made = make(25, seals=[15, 25], cuts=[15])
    deep = Deep()
    check(made, lambda folder: prune(folder, made, 15, [0, 3]), deep=deep)
    assert deep.kept == [(0, made.lines[0]), (3, made.lines[3])]
    assert [seq for seq, _ in deep.seen] == list(range(15, 25))


def test_what_deep_finds_has_its_place(check: Check) -> None:
    made = make(20, seals=[20], cuts=[12])
    verdict = Problem("verdict", "wrong", None, "pass", "fail")
    deep = Deep(
        {14: [verdict], 3: [Problem("late", "it is", is_fault=False)]},
        [Problem("count", "in all"), Problem("run", "open", 5, is_fault=False)],
    )
    report = check(made, deep=deep)
    assert report.state is State.INVALID
    assert faults(report) == [
        ("invalid", "verdict", 15, offset_of(made, 14, 12)),
        ("invalid", "count", 21, offset_of(made, 20, 12)),
    ]
    assert remarks(report) == [("late", 4), ("run", 6)]
    at = "000000000012.jsonl", offset_of(made, 14, 12)
    assert report.first == Finding(State.INVALID, "verdict", "wrong", 15, *at, "pass", "fail")


def test_progress_adds_up_to_the_bytes_there_are(tmp_path: Path) -> None:
    folder = make(300, cuts=[100]).write(tmp_path / "ledger")
    with segment(folder, 100).open("ab") as file:
        file.write(b"torn")
    told: list[int] = []
    verify_ledger(FolderReader(folder), public(FIRST), progress=told.append)
    assert sum(told) == sum(path.stat().st_size for path in (folder / "segments").iterdir())


def test_a_file_that_cannot_be_read_is_no_finding(tmp_path: Path) -> None:
    folder = make(4, seals=[4]).write(tmp_path / "ledger")
    note(folder, 4).unlink()
    note(folder, 4).symlink_to(tmp_path)
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(FolderReader(folder), public(FIRST))


def test_nothing_is_written(tmp_path: Path) -> None:
    made = make(9, seals=[9], cuts=[5])
    folder = made.write(tmp_path / "ledger")
    with segment(folder, 5).open("ab") as file:
        file.write(b"torn")
    before = {path: path.stat() for path in folder.rglob("*")}
    verify_ledger(FolderReader(folder), public(FIRST))
    after = {path: path.stat() for path in folder.rglob("*")}
    assert {path: (one.st_mtime_ns, one.st_size) for path, one in before.items()} == {
        path: (one.st_mtime_ns, one.st_size) for path, one in after.items()
    }
