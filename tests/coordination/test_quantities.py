from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination.quantities import (
    MAX_CHARS,
    Quantity,
    canonical_unit,
    find_quantity,
    round_number,
)


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("42", 42, None),
        ("It is 42.", 42, None),
        ("-7", -7, None),
        ("\u22127", -7, None),
        ("1,234.5", Fraction(2469, 2), None),
        ("1.234,5", Fraction(2469, 2), None),
        ("1 234 567", 1234567, None),
        ("1'000", 1000, None),
        ("1,234", 1234, None),
        ("3,14", Fraction(157, 50), None),
        ("0,125", Fraction(1, 8), None),
        (".5", Fraction(1, 2), None),
        ("3/4", Fraction(3, 4), None),
        ("1 1/2", Fraction(3, 2), None),
        ("\u00bd", Fraction(1, 2), None),
        ("1\u00bd", Fraction(3, 2), None),
        ("1.2e3", 1200, None),
        ("1.2 x 10^3", 1200, None),
        ("1.2\u00d710\u00b3", 1200, None),
        ("3*10\u207b\u00b2", Fraction(3, 100), None),
        ("\uff11\uff12", 12, None),
        ("50 %", 50, "%"),
        ("$1,250.00", 1250, "$"),
        ("-$5", -5, "$"),
        ("12 km/h", 12, "km/h"),
        ("12 Kilometers", 12, "kilometer"),
        ("12 m\u00b2", 12, None),
        ("5 apples", 5, None),
    ],
)
def test_one_number_is_read(text: str, number: float | Fraction, unit: str | None) -> None:
    assert find_quantity(text) == Quantity(Fraction(number), unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two",
        "3 or 4",
        "3-4",
        "2026-01-05",
        "10:30",
        "1.2.3",
        "12,34,567",
        "1,2,3",
        "5\u00b2",
        "1/0",
        "1e401",
        "1e99999999999",
        "x2 = 5",
        "9" * (MAX_CHARS + 1),
        # 18 characters each, once normalised
        "\ufdfa" * MAX_CHARS,
    ],
)
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert find_quantity(text) is None


def test_units_of_one_kind_are_converted_and_others_are_not() -> None:
    assert Quantity(Fraction(90), "min").in_unit("h") == Fraction(3, 2)
    assert Quantity(Fraction(36), "km/h").in_unit("m/s") == 10
    assert Quantity(Fraction(5), "kg").in_unit("m") is None
    assert Quantity(Fraction(5)).in_unit("m") == 5
    assert Quantity(Fraction(5), "kg").in_unit(None) == 5


def test_units_have_plurals_and_no_others() -> None:
    assert canonical_unit("Hours") == "hour"
    assert canonical_unit("s") == "s"
    assert canonical_unit("furlongs") is None
    assert canonical_unit("") is None


@given(st.fractions(min_value=-(10**9), max_value=10**9), st.sampled_from(["", " km", " %"]))
def test_a_fraction_is_read_as_it_is_written(number: Fraction, unit: str) -> None:
    text = f"{number.numerator}/{number.denominator}{unit}"
    assert find_quantity(text) == Quantity(number, unit.strip() or None)


@given(st.integers(-(10**15), 10**15))
def test_thousands_separators_change_nothing(number: int) -> None:
    assert find_quantity(f"{number:,}") == Quantity(Fraction(number))
    assert find_quantity(f"{number:_}") == Quantity(Fraction(number))


@given(st.text(max_size=500))
def test_any_text_is_read_without_an_error(text: str) -> None:
    found = find_quantity(text)
    if found is not None:
        round_number(found.number)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(1, 3), "0.333333"),
        (Fraction(-2, 3), "-0.666667"),
        (Fraction(1234567), "1234570"),
        (Fraction(15, 10), "1.5"),
        (Fraction(10) ** 20, "1" + "0" * 20),
        (Fraction(10) ** -8, "0.00000001"),
    ],
)
def test_numbers_have_one_spelling(number: Fraction, text: str) -> None:
    assert round_number(number) == text
