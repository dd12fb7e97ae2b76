"""What a crash leaves at the end of a file: cut, NULs, garbage; and damage that no crash leaves."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.reader import TAIL, segment_name
from cert.ledger.writer import Limits
from tests.faults.helpers import Place, note

if TYPE_CHECKING:
    from pathlib import Path

SEALED, LATER = 4, 3


@pytest.fixture
def unsealed(place: Place) -> Place:
    """Four sealed records, then three that a writer acknowledged before it was killed."""
    with place.open() as ledger:
        ledger.append([note(f"sealed {number}") for number in range(SEALED - 1)])
    process = place.start("--records", -1, "--size-bytes", 1, "--on-line")
    assert process.stdin is not None
    process.stdin.write(b"\n" * LATER)
    process.stdin.flush()
    while len(place.said().acks) < LATER:
        assert process.poll() is None
    process.kill()
    return place


def segment(place: Place) -> Path:
    return place.ledger / "segments" / segment_name(0)


def keep_acks_below(place: Place, seq: int) -> None:
    """Forget what was acknowledged and then cut off on purpose."""
    lines = [line for line in place.acks.read_text().splitlines() if line.startswith("ack ")]
    kept = [line for line in lines if int(line.split()[1]) < seq]
    place.acks.write_text("".join(f"{line}\n" for line in kept))


@pytest.mark.parametrize(("with_tail", "step"), [(True, 1), (False, 7)])
def test_cut_at_every_byte(unsealed: Place, tmp_path: Path, with_tail: bool, step: int) -> None:
    place = unsealed
    if not with_tail:
        (place.ledger / TAIL).unlink()
    data = segment(place).read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    assert len(ends) == SEALED + LATER
    origin = tmp_path / "origin"
    shutil.copytree(place.ledger, origin)
    sizes = range(ends[SEALED - 1], len(data) + 1, step)
    for size in sizes:
        place.begin_anew()
        shutil.copytree(origin, place.ledger)
        segment(place).write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        keep_acks_below(place, whole)
        assert place.check_nothing_lost() == (size not in ends)
        assert len(place.lines()) == whole + (size not in ends) + 1


@pytest.mark.parametrize("with_tail", [True, False])
def test_cut_into_what_is_sealed_is_refused(unsealed: Place, with_tail: bool) -> None:
    place = unsealed
    if not with_tail:
        (place.ledger / TAIL).unlink()
    data = segment(place).read_bytes()
    end = [at + 1 for at, byte in enumerate(data) if byte == 10][SEALED - 1]
    for size in (*range(0, end, 37), end - 1):
        segment(place).write_bytes(data[:size])
        before = place.tree()
        with pytest.raises(LedgerError):
            place.open()
        assert place.tree() == before


GARBAGE = random.Random(5).randbytes(3000)
TAILS = {
    "one NUL": b"\0",
    "a page of NULs": b"\0" * 4096,
    "NULs and newlines": b"\0\n" * 9,
    "newline": b"\n",
    "stale bytes": GARBAGE.replace(b"\n", b"_"),
    "stale bytes with newlines": b"\n".join(GARBAGE[at : at + 99] for at in range(0, 3000, 99)),
    "stale text": b'x" , "kind":"note"}\n{"about":1}\n',
    "a beginning": b'{"_prev":"0123',
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_what_is_no_record_at_the_end_is_set_aside_once(unsealed: Place, tail: bytes) -> None:
    with segment(unsealed).open("ab") as file:
        file.write(tail)
    assert unsealed.check_nothing_lost() == 1
    assert list(unsealed.copies().values()) == [tail]
    assert unsealed.check_nothing_lost() == 0


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_a_writer_that_is_open_sets_it_aside_too(place: Place, tail: bytes) -> None:
    with place.open() as ledger:
        ledger.append([note()])
        with segment(place).open("ab") as file:
            file.write(tail)
        (entry,) = ledger.append([note()])
    assert entry.seq == 3
    assert list(place.copies().values()) == [tail]
    place.check_acknowledged()


def test_the_segment_of_a_new_ledger_may_be_empty_or_torn(place: Place) -> None:
    limits = Limits(segment_bytes=1)
    with place.open(limits) as ledger:
        ledger.append([note()])
        ledger.append([note()])
    (last,) = [one for one in place.segments() if one == segment_name(2)]
    path = place.ledger / "segments" / last
    line = path.read_bytes()
    (place.ledger / "checkpoints" / "000000000003.note").unlink()
    shutil.rmtree(place.keys / "heads")
    for size in (0, 1, len(line) - 1):
        path.write_bytes(line[:size])
        (place.ledger / TAIL).unlink(missing_ok=True)
        before = place.tree()
        assert place.check_nothing_lost() == (size > 0)
        place.begin_anew()
        for name, data in before.items():
            (place.ledger / name).parent.mkdir(parents=True, exist_ok=True)
            (place.ledger / name).write_bytes(data)


HOLES = {
    "NULs": lambda data: b"\0" * len(data),
    "a bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "gone": lambda data: b"",
    "a newline": lambda data: b"\n" + data[1:],
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES.keys())
@pytest.mark.parametrize("with_tail", [True, False])
def test_damage_before_a_record_is_refused(unsealed: Place, hole: object, with_tail: bool) -> None:
    place = unsealed
    assert callable(hole)
    if not with_tail:
        (place.ledger / TAIL).unlink()
    data = segment(place).read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    first = 0 if not with_tail else SEALED - 1
    for number in range(first, SEALED + LATER - 2):
        for at in (ends[number], ends[number] + 5, ends[number + 1] - 40):
            segment(place).write_bytes(data[:at] + hole(data[at : at + 20]) + data[at + 20 :])
            before = place.tree()
            with pytest.raises(LedgerRefusedError):
                place.open()
            assert place.tree() == before
