"""Where a writer goes on: notes that lie, repairs, refusals, and how little is read."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.ledger.end import End, find_end
from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.keys import PublicKey
from cert.ledger.line import MAX_LINE_BYTES
from tests.ledger.ledgers import (
    ORIGIN,
    Made,
    frontier_of,
    leaf_of,
    line_of,
    make,
    mth,
    note_of,
    open_files,
    path_of,
    private,
    raw,
    record,
    sha,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST, SECOND = private("first"), private("second")


def segment(folder: Path, first: int = 0) -> Path:
    return folder / "segments" / f"{first:012d}.jsonl"


def note(folder: Path, size: int) -> Path:
    return folder / "checkpoints" / f"{size:012d}.note"


@contextmanager
def found(folder: Path) -> Iterator[tuple[End, bytes | None]]:
    end, recovered = find_end(folder)
    try:
        yield end, recovered
    finally:
        os.close(end.fd)


def check_end(folder: Path, made: Made) -> None:
    """See that the end of the whole ledger was found, and nothing to repair."""
    with found(folder) as (end, recovered):
        assert recovered is None
        assert end.tree.size == len(made.lines)
        assert end.tree.root() == mth(made.leaves)
        assert end.last_leaf == made.leaves[-1]
        start = made.cuts[-1] if made.cuts else 0
        assert (end.segment, end.offset) == (start, segment(folder, start).stat().st_size)
        assert end.lineage.origin == ORIGIN
        assert end.lineage.current == PublicKey(raw(made.key))


@pytest.mark.parametrize("tail_size", [None, 3, 9, 14])
@pytest.mark.parametrize("cuts", [[], [5], [3, 9], [14]])
def test_the_end_is_the_same_from_the_notes_and_from_the_start(
    tmp_path: Path, tail_size: int | None, cuts: list[int]
) -> None:
    made = make(14, seals=[3, 9, 14], cuts=cuts)
    folder = made.write(tmp_path / "ledger")
    if tail_size is not None:
        (folder / "tail.json").write_text(json.dumps(made.tail(tail_size)))
    check_end(folder, made)


def test_rotations_are_followed(tmp_path: Path) -> None:
    made = make(4, seals=[4])
    made.rotate(SECOND)
    made.grow(2)
    made.seal()
    folder = made.write(tmp_path / "ledger")
    check_end(folder, made)
    # From the notes that are older than the rotation, and from newer ones.
    for size in (4, 7):
        (folder / "tail.json").write_text(json.dumps(made.tail(size)))
        check_end(folder, made)


MADE = make(14, seals=[9, 14], cuts=[5])
LEAVES = MADE.leaves

LIES = {
    "no JSON": None,
    "frontier": {"frontier": [one.hex() for one in frontier_of([*LEAVES[:8], LEAVES[0]])]},
    "fewer roots": {"frontier": []},
    "offset 0": {"offset": 0},
    "offset of an earlier line": {"offset": len(MADE.lines[5]) + 1},
    "offset in a line": {"offset": 17},
    "offset behind the end": {"offset": 10**6},
    "segment": {"segment": 0},
    "segment that is not there": {"segment": 6},
    "key": {"key": PublicKey(raw(SECOND)).base64},
    "no key": {"key": ""},
    "last leaf": {"last_leaf": LEAVES[3].hex()},
    "proof": {"proof": [one.hex() for one in path_of(3, LEAVES[:9])]},
    "size without a checkpoint": {
        "size": 7,
        "last_leaf": LEAVES[6].hex(),
        "proof": [one.hex() for one in path_of(6, LEAVES[:7])],
        "frontier": [one.hex() for one in frontier_of(LEAVES[:7])],
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_notes_that_lie_are_no_notes(tmp_path: Path, lie: str) -> None:
    folder = MADE.write(tmp_path / "ledger")
    changed = LIES[lie]
    text = "{" if changed is None else json.dumps(MADE.tail(9, **changed))
    (folder / "tail.json").write_text(text)
    files = open_files()
    check_end(folder, MADE)
    assert open_files() == files


def test_notes_of_another_ledger_are_no_notes(tmp_path: Path) -> None:
    folder = MADE.write(tmp_path / "ledger")
    other = make(9, seals=[9])
    other.lines[5] = line_of(leaf_of(other.lines[4]), 5, record(77))
    for at in range(6, 9):
        other.lines[at] = line_of(leaf_of(other.lines[at - 1]), at, record(at))
    (folder / "tail.json").write_text(json.dumps(other.tail(9)))
    check_end(folder, MADE)


def test_notes_with_a_checkpoint_by_another_key_are_no_notes(tmp_path: Path) -> None:
    folder = MADE.write(tmp_path / "ledger")
    note(folder, 9).write_bytes(note_of(ORIGIN, 9, mth(LEAVES[:9]), SECOND))
    (folder / "tail.json").write_text(json.dumps(MADE.tail(9)))
    # Only the newest checkpoint is asked when reading from the start.
    check_end(folder, MADE)


def test_policies_and_runs_come_from_the_notes(tmp_path: Path) -> None:
    made = make(3)
    made.add({"kind": "policy", "policy": {"digest": "sha256:a"}})
    run = {"kind": "run", "run": {"job": {"n": 1}, "phase": "begin"}, "run_id": "r"}
    made.add(run)
    made.seal()
    made.add({"kind": "policy", "policy": {"digest": "sha256:b"}})
    folder = made.write(tmp_path / "ledger")
    place = {"seq": 4, "segment": 0, "offset": sum(len(line) + 1 for line in made.lines[:4])}
    with found(folder) as (end, _):
        assert end.index.policies == {"sha256:a": 3, "sha256:b": 5}
        assert end.index.runs == {"r": {**place, "job": {"n": 1}}}
    tail = made.tail(5, policies={"sha256:a": 3}, runs={"r": {**place, "job": {"n": 1}}})
    (folder / "tail.json").write_text(json.dumps(tail))
    with found(folder) as (end, _):
        assert end.index.policies == {"sha256:a": 3, "sha256:b": 5}
        assert end.index.runs == {"r": {**place, "job": {"n": 1}}}


def read_by(function: Callable[[], object]) -> int:
    """Bytes that this process reads by a call; those of the accounts themselves are few."""

    def total() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = total()
    function()
    return total() - before


def large(size_bytes: int) -> Made:
    made = make(3)
    made.add(record(3, text="x" * size_bytes))
    made.grow(2)
    made.seal()
    return made


def test_a_ledger_that_was_closed_opens_without_being_read(tmp_path: Path) -> None:
    made = large(5_000_000)
    folder = made.write(tmp_path / "ledger")
    assert read_by(lambda: check_end(folder, made)) > 5_000_000
    (folder / "tail.json").write_text(json.dumps(made.tail(6)))
    assert read_by(lambda: check_end(folder, made)) < 1_000_000


@pytest.mark.parametrize("size_bytes", [1 << 18, 1 << 20])
def test_a_long_last_line_is_looked_at_whole(tmp_path: Path, size_bytes: int) -> None:
    made = make(3)
    made.add(record(3, text="x" * size_bytes))
    made.seal()
    folder = made.write(tmp_path / "ledger")
    (folder / "tail.json").write_text(json.dumps(made.tail(4)))
    check_end(folder, made)


def test_a_last_line_longer_than_any_is_not_that_of_the_notes(tmp_path: Path) -> None:
    made = make(3, seals=[3])
    folder = made.write(tmp_path / "ledger")
    size = segment(folder).stat().st_size
    with segment(folder).open("ab") as file:
        file.write(b"x" * (MAX_LINE_BYTES + 9) + b"\n")
    tail = made.tail(3, offset=size + MAX_LINE_BYTES + 10)
    (folder / "tail.json").write_text(json.dumps(tail))
    with found(folder) as (end, recovered):
        assert end.offset == size
        assert recovered is not None


# What is there besides records.


@pytest.mark.parametrize("torn", [b"{", b"x" * 300, b"\x00" * 4096, b"a\nb\nc", b"a\n", b"\n"])
@pytest.mark.parametrize("has_tail", [True, False])
def test_an_incomplete_end_is_set_aside(tmp_path: Path, torn: bytes, has_tail: bool) -> None:
    made = make(9, seals=[9], cuts=[5])
    folder = made.write(tmp_path / "ledger")
    if has_tail:
        (folder / "tail.json").write_text(json.dumps(made.tail(9)))
    path = segment(folder, 5)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(torn)
    with found(folder) as (end, recovered):
        assert (end.tree.size, end.offset) == (9, size)
        assert recovered is not None
        digest = hashlib.sha256(torn).hexdigest()
        said = json.loads(recovered)
        assert said["kind"] == "recovered"
        assert said["recovered"] == {
            "segment": "000000000005.jsonl",
            "offset": size,
            "bytes": len(torn),
            "sha256": digest,
            "copy": f"000000000005.jsonl.torn-{size}-{digest}",
        }
        assert (folder / "segments" / said["recovered"]["copy"]).read_bytes() == torn
    assert path.stat().st_size == size
    check_end(folder, made)


def test_a_torn_record_is_set_aside_too(tmp_path: Path) -> None:
    made = make(9)
    whole = line_of(leaf_of(made.lines[-1]), 9, record(9))
    for cut in (1, len(whole) // 2, len(whole)):
        folder = made.write(tmp_path / f"ledger{cut}")
        with segment(folder).open("ab") as file:
            file.write(whole[:cut])
        with found(folder) as (end, recovered):
            assert (end.tree.size, recovered is None) == (9, False)


def refuse(folder: Path, why: str) -> None:
    files, before = open_files(), {path: path.stat().st_size for path in folder.rglob("*")}
    with pytest.raises(LedgerRefusedError, match=why):
        find_end(folder)
    assert open_files() == files
    assert {path: path.stat().st_size for path in folder.rglob("*")} == before


@pytest.mark.parametrize("line", range(1, 9))
@pytest.mark.parametrize("has_tail", [True, False])
def test_a_changed_record_is_a_reason_to_stop(tmp_path: Path, line: int, has_tail: bool) -> None:
    made = make(9, seals=[6, 9])
    folder = made.write(tmp_path / "ledger")
    tail = made.tail(6)
    data = segment(folder).read_bytes()
    old = f'"n":{line}}}'.encode()
    assert data.count(old) == 1
    segment(folder).write_bytes(data.replace(old, b'"n":0}'))
    if has_tail:
        (folder / "tail.json").write_text(json.dumps(tail))
    if has_tail and line < 5:
        # Before the notes nothing is read; verifying finds it.
        check_end(folder, made)
    elif line < 8:
        refuse(folder, f"has {line + 1} records that follow from each other, and a signed .* of 9")
    else:
        refuse(folder, "record 9 of .* the records are not those of the checkpoint")


def test_damage_behind_the_last_checkpoint_is_not_cut_off(tmp_path: Path) -> None:
    folder = make(9, seals=[4]).write(tmp_path / "ledger")
    data = segment(folder).read_bytes()
    segment(folder).write_bytes(data.replace(b'"n":6}', b'"n":0}'))
    refuse(folder, "the record does not follow from the one before it")


def test_a_torn_end_before_other_segments_is_a_reason_to_stop(tmp_path: Path) -> None:
    made = make(9, cuts=[5])
    folder = made.write(tmp_path / "ledger")
    with segment(folder).open("ab") as file:
        file.write(b"torn")
    refuse(folder, "damage in a closed segment")


def test_a_missing_segment_before_another_is_a_reason_to_stop(tmp_path: Path) -> None:
    folder = make(9, cuts=[3, 6]).write(tmp_path / "ledger")
    segment(folder, 3).unlink()
    refuse(folder, "has later segments, and none that begins with record 3")


def test_much_that_is_no_record_is_a_reason_to_stop(tmp_path: Path) -> None:
    folder = make(9).write(tmp_path / "ledger")
    os.truncate(segment(folder), 1 << 27)
    refuse(folder, "bytes are no records")


def test_a_ledger_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    made = make(9)
    folder = made.write(tmp_path / "ledger")
    note(folder, 12).write_bytes(note_of(ORIGIN, 12, bytes(32), FIRST))
    refuse(folder, "has 9 records that follow from each other, and a signed checkpoint of 12")
    # Neither is its torn end cut off.
    with segment(folder).open("ab") as file:
        file.write(b"torn")
    refuse(folder, "a signed checkpoint of 12")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no signed note"),
        (note_of(ORIGIN, 9, mth(LEAVES[:9]), SECOND), "record 9 of .* is not by"),
        (note_of(ORIGIN, 9, bytes(32), FIRST), "not those of the checkpoint"),
        (note_of("other", 9, mth(LEAVES[:9]), FIRST), "a checkpoint of 'other'"),
    ],
)
def test_a_newest_checkpoint_that_does_not_hold_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    folder = make(9).write(tmp_path / "ledger")
    note(folder, 9).write_bytes(content)
    refuse(folder, why)


def test_a_rotation_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    made = make(4)
    made.rotate(SECOND)
    made.lines[4] = made.lines[4].replace(b'"proof":"', b'"proof":"A')
    made.add(record(5))
    folder = made.write(tmp_path / "ledger")
    refuse(folder, "record 4 of ")


def test_what_is_no_beginning_is_refused(tmp_path: Path) -> None:
    folder = make(4).write(tmp_path / "one")
    segment(folder).write_bytes(b"")
    refuse(folder, "there is no record at all")
    folder = make(4).write(tmp_path / "two")
    segment(folder).write_bytes(b"{}\n")
    refuse(folder, "no genesis record")
    folder = make(4, cuts=[2]).write(tmp_path / "three")
    segment(folder).unlink()
    refuse(folder, "no genesis record")
    folder = make(4).write(tmp_path / "four")
    segment(folder).rename(segment(folder, 3))
    refuse(folder, "the first segment begins with record 3, not 0")


def test_hard_links_and_links_are_refused(tmp_path: Path) -> None:
    folder = make(4).write(tmp_path / "one")
    os.link(segment(folder), tmp_path / "copy")
    refuse(folder, "has 2 names")
    folder = make(4).write(tmp_path / "two")
    segment(folder).rename(tmp_path / "elsewhere")
    segment(folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic links"):
        find_end(folder)


# After a pruning.


def prune(folder: Path, made: Made, size: int, kept: list[int]) -> None:
    for first in [0, *made.cuts]:
        if first < size:
            segment(folder, first).unlink()
    data = json.dumps(made.pruned(size, kept), sort_keys=True, separators=(",", ":"))
    (folder / "pruned.json").write_text(data)


def test_the_end_of_a_ledger_whose_beginning_was_removed(tmp_path: Path) -> None:
    made = make(3)
    made.add({"kind": "policy", "policy": {"digest": "sha256:a"}})
    made.rotate(SECOND)
    made.seal()
    made.cut()
    made.grow(4)
    made.seal()
    folder = made.write(tmp_path / "ledger")
    prune(folder, made, 5, [0, 3, 4])
    for size in (None, 9):
        if size is not None:
            (folder / "tail.json").write_text(json.dumps(made.tail(size)))
        check_end(folder, made)
    (folder / "tail.json").unlink()
    with found(folder) as (end, _):
        assert end.index.policies == {"sha256:a": 3}


def test_a_removed_part_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    made = make(9, seals=[5, 9], cuts=[5])
    for number, content in enumerate((b"{}", b"", b'{"kept":[]}')):
        folder = made.write(tmp_path / f"ledger{number}")
        prune(folder, made, 5, [0])
        (folder / "pruned.json").write_bytes(content)
        refuse(folder, r"pruned\.json is not what it should be")
        (folder / "tail.json").write_text(json.dumps(made.tail(9)))
        refuse(folder, r"pruned\.json is not what it should be")
    folder = made.write(tmp_path / "empty")
    prune(folder, made, 5, [])
    (folder / "tail.json").write_text(json.dumps(made.tail(9)))
    refuse(folder, "keeps the genesis")
    folder = made.write(tmp_path / "bare")
    prune(folder, made, 5, [0])
    segment(folder, 5).unlink()
    refuse(folder, "begins with record 0, not 5")


# Going on.


def test_what_others_append_is_taken_over(tmp_path: Path) -> None:
    made = make(4)
    folder = made.write(tmp_path / "ledger")
    with found(folder) as (end, _):
        assert end.read_on() is None
        for _ in range(3):
            made.grow(2)
            with segment(folder).open("ab") as file:
                file.write(b"".join(line + b"\n" for line in made.lines[-2:]))
            assert end.read_on() is None
            assert (end.tree.size, end.last_leaf) == (len(made.lines), made.leaves[-1])
        made.cut()
        made.grow(1)
        segment(folder, 10).write_bytes(made.lines[10] + b"\n")
        segment(folder, 11).write_bytes(b"")
        assert end.read_on() is None
        assert (end.tree.size, end.segment, end.offset) == (11, 11, 0)
        assert end.path == segment(folder, 11)


def test_a_segment_that_shrinks_is_refused(tmp_path: Path) -> None:
    folder = make(4).write(tmp_path / "ledger")
    with found(folder) as (end, _):
        os.truncate(segment(folder), 10)
        with pytest.raises(LedgerRefusedError, match="is shorter than it was: 10 bytes instead of"):
            end.read_on()


def test_a_segment_that_is_gone_or_replaced_is_refused(tmp_path: Path) -> None:
    folder = make(4).write(tmp_path / "ledger")
    with found(folder) as (end, _):
        segment(folder).unlink()
        with pytest.raises(LedgerRefusedError, match="was removed; nothing is written to it"):
            end.read_on()


def test_where_nothing_can_be_set_aside_nothing_is_cut_off(tmp_path: Path) -> None:
    folder = make(4).write(tmp_path / "ledger")
    with segment(folder).open("ab") as file:
        file.write(b"torn")
    size = segment(folder).stat().st_size
    at = size - 4
    # A folder stands where the copy should go.
    copy = f"{segment(folder).name}.torn-{at}-{sha(b'torn').hex()}"
    (folder / "segments" / copy / "x").mkdir(parents=True)
    files = open_files()
    with pytest.raises(LedgerError, match="the incomplete end cannot be set aside") as caught:
        find_end(folder)
    assert not isinstance(caught.value, LedgerRefusedError)
    assert segment(folder).stat().st_size == size
    assert open_files() == files
