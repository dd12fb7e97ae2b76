"""How the texts of a step are cut into runs that are looked at together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.backends.attention import runs_of


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([7], [(0, 1, 7)]),
        ([5] * 11, [(0, 11, 5)]),
        # 4 * 7 + 4 * 8 = 60 places of 64 are theirs, 15 of 16; of 4 * 6 + 4 * 8 just 7 of 8.
        ([7] * 4 + [8] * 4, [(0, 8, 8)]),
        ([6] * 4 + [8] * 4, [(0, 8, 8)]),
        ([5] * 4 + [8] * 4, [(0, 4, 5), (4, 8, 8)]),
        ([8] * 4 + [5] * 4 + [5] * 2, [(0, 4, 8), (4, 10, 5)]),
        # Four are together, whatever their lengths.
        ([1, 100, 1, 1, 100], [(0, 4, 100), (4, 5, 100)]),
    ],
)
def test_runs_of_one_length_or_nearly(lengths: list[int], runs: list[tuple[int, int, int]]) -> None:
    assert [(part.start, part.stop, width) for part, width in runs_of(lengths)] == runs


@given(st.lists(st.integers(1, 300), min_size=1, max_size=70))
def test_runs_hold_every_text_once_and_all_that_it_sees(lengths: list[int]) -> None:
    runs = runs_of(lengths)
    assert [place for part, _ in runs for place in range(len(lengths))[part]] == [
        *range(len(lengths))
    ]
    assert all(width == max(lengths[part]) for part, width in runs)
