from __future__ import annotations

import pytest

from tools.pin_readings import round_up


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.00123, 0.002), (0.9, 0.9), (2.0, 2.0), (9.1, 10.0), (0.0011, 0.002), (1e-7, 1e-7)],
)
def test_tolerances_are_rounded_up_to_one_digit(value: float, rounded: float) -> None:
    assert round_up(value) == rounded
