"""Clocks that are wrong: order is by sequence, and the months of segments follow the clock."""

from __future__ import annotations

import json

import pytest

from tests.faults.helpers import Place, needs

pytestmark = needs("faketime")
SHIFTS = ["-400 days", "+3652 days"]


def times(place: Place) -> list[str]:
    return [json.loads(line)["time"] for line in place.lines()]


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_clock_that_jumps_begins_a_segment_and_no_gap(place: Place, shift: str) -> None:
    assert place.write("--records", 3) == 0
    assert place.write("--records", 3, before=("faketime", "-f", shift)) == 0
    assert len(place.segments()) == 2
    assert place.write("--records", 3) == 0
    assert len(place.segments()) == 3
    stamps = times(place)
    assert stamps != sorted(stamps), "one of the jumps goes back"
    assert [json.loads(line)["_seq"] for line in place.lines()] == list(range(10))
    place.check_acknowledged()
    assert place.check_nothing_lost() == 0


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_ledger_that_was_begun_at_another_time(place: Place, shift: str) -> None:
    assert place.write("--records", 2, before=("faketime", "-f", shift)) == 0
    assert place.check_nothing_lost() == 0
    assert len(place.said().acks) == 2


def test_writers_whose_clocks_differ(place: Place) -> None:
    two = [
        place.start("--records", 40, before=("faketime", "-f", shift)) for shift in ("+0d", "-400d")
    ]
    assert [one.wait(60) for one in two] == [0, 0]
    assert len(place.said().acks) == 80
    place.check_acknowledged()
