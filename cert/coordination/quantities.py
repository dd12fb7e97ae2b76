"""Numbers with units, as people and models write them, read exactly.

Nothing is guessed: text with several numbers has none, and a number whose unit is of another kind
is another quantity.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

MAX_CHARS: Final = 400
"""Longer text is no number; bounds the arithmetic on what a model wrote."""
_MAX_EXPONENT: Final = 400
_SIGNIFICANT_DIGITS: Final = 6

_SIGNS: Final = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2044": "/", "\u00d7": "x"})
_RAISED: Final = "\u00b2\u00b3\u00b9\u2070-\u207b"
# NFKC would make 102 of 10 with a raised 2, and 11/2 of 1 with a vulgar half.
_POWER_OF_TEN: Final = re.compile(rf"([x\u00d7*]\s?10)([{_RAISED}]+)")
_RAISED_NUMBER: Final = re.compile(rf"\d\s?[{_RAISED}]")
_VULGAR: Final = re.compile("[\u00bc-\u00be\u2150-\u215e]")
# Grouped by threes, or plain; the last alternative would otherwise take the first group alone.
_DIGITS: Final = (
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d+"
    r"|\d{1,3}(?:[ '\u2019_]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
)
_NUMBER: Final = re.compile(
    rf"(?<![\w.,/])(?P<sign>[-+]\s?)?(?P<currency>[$€£])?\s?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/))?(?P<digits>{_DIGITS})(?:\s?/\s?(?P<below>\d+))?"
    r"(?:e(?P<exponent>[-+]?\d+)|\s?[x*]\s?10\^(?P<power>[-+]?\d+))?"
    r"(?![\d]|[.,/]\d)(?:\s{0,2}(?P<unit>[%°$€£]|[a-zµμ][a-zµμ/]*\d?))?",
    re.IGNORECASE | re.ASCII,
)

_METRE, _GRAM, _SECOND, _LITRE, _BYTE = "length", "mass", "time", "volume", "data"
_FACTORS: Final[dict[str, tuple[str, Fraction]]] = {
    "%": ("ratio", Fraction(1, 100)),
    "percent": ("ratio", Fraction(1, 100)),
    "$": ("usd", Fraction(1)),
    "usd": ("usd", Fraction(1)),
    "dollar": ("usd", Fraction(1)),
    "cent": ("usd", Fraction(1, 100)),
    "€": ("eur", Fraction(1)),
    "eur": ("eur", Fraction(1)),
    "euro": ("eur", Fraction(1)),
    "£": ("gbp", Fraction(1)),
    "gbp": ("gbp", Fraction(1)),
    "mm": (_METRE, Fraction(1, 1000)),
    "millimetre": (_METRE, Fraction(1, 1000)),
    "millimeter": (_METRE, Fraction(1, 1000)),
    "cm": (_METRE, Fraction(1, 100)),
    "centimetre": (_METRE, Fraction(1, 100)),
    "centimeter": (_METRE, Fraction(1, 100)),
    "m": (_METRE, Fraction(1)),
    "metre": (_METRE, Fraction(1)),
    "meter": (_METRE, Fraction(1)),
    "km": (_METRE, Fraction(1000)),
    "kilometre": (_METRE, Fraction(1000)),
    "kilometer": (_METRE, Fraction(1000)),
    "mg": (_GRAM, Fraction(1, 1000)),
    "milligram": (_GRAM, Fraction(1, 1000)),
    "g": (_GRAM, Fraction(1)),
    "gram": (_GRAM, Fraction(1)),
    "kg": (_GRAM, Fraction(1000)),
    "kilogram": (_GRAM, Fraction(1000)),
    "t": (_GRAM, Fraction(10**6)),
    "tonne": (_GRAM, Fraction(10**6)),
    "ms": (_SECOND, Fraction(1, 1000)),
    "millisecond": (_SECOND, Fraction(1, 1000)),
    "s": (_SECOND, Fraction(1)),
    "sec": (_SECOND, Fraction(1)),
    "second": (_SECOND, Fraction(1)),
    "min": (_SECOND, Fraction(60)),
    "minute": (_SECOND, Fraction(60)),
    "h": (_SECOND, Fraction(3600)),
    "hour": (_SECOND, Fraction(3600)),
    "day": (_SECOND, Fraction(86_400)),
    "week": (_SECOND, Fraction(604_800)),
    "ml": (_LITRE, Fraction(1, 1000)),
    "millilitre": (_LITRE, Fraction(1, 1000)),
    "milliliter": (_LITRE, Fraction(1, 1000)),
    "cl": (_LITRE, Fraction(1, 100)),
    "dl": (_LITRE, Fraction(1, 10)),
    "l": (_LITRE, Fraction(1)),
    "litre": (_LITRE, Fraction(1)),
    "liter": (_LITRE, Fraction(1)),
    "byte": (_BYTE, Fraction(1)),
    "kb": (_BYTE, Fraction(10**3)),
    "kilobyte": (_BYTE, Fraction(10**3)),
    "mb": (_BYTE, Fraction(10**6)),
    "megabyte": (_BYTE, Fraction(10**6)),
    "gb": (_BYTE, Fraction(10**9)),
    "gigabyte": (_BYTE, Fraction(10**9)),
    "km/h": ("speed", Fraction(1000, 3600)),
    "m/s": ("speed", Fraction(1)),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit.

    Attributes:
        number: As written, in `unit`.
        unit: One that `is_unit` knows, in singular; None where none, or an unknown one, follows.
    """

    number: Fraction
    unit: str | None = None

    def in_unit(self, unit: str | None) -> Fraction | None:
        """The number in another unit; None where that is of another kind.

        A number without a unit is taken to be in the unit that is asked for, and asked for
        without one, the number is as written.

        >>> Quantity(Fraction(3, 2), "km").in_unit("m")
        Fraction(1500, 1)
        """
        if unit is None or self.unit is None or unit == self.unit:
            return self.number
        kind, factor = _FACTORS[self.unit]
        wanted_kind, wanted_factor = _FACTORS[unit]
        return self.number * factor / wanted_factor if kind == wanted_kind else None


def canonical_unit(text: str) -> str | None:
    """The unit's name in this module; None for what is no known unit.

    >>> canonical_unit("Kilometres"), canonical_unit("furlong")
    ('kilometre', None)
    """
    name = unicodedata.normalize("NFKC", text).strip().casefold()
    if name in _FACTORS:
        return name
    singular = name.removesuffix("s")
    return singular if len(singular) > 1 and singular in _FACTORS else None


def find_quantity(text: str) -> Quantity | None:
    """The one number that a text holds.

    Read are thousands between commas, spaces or apostrophes, a decimal point, a decimal comma
    where it cannot separate thousands, signs, fractions, mixed numbers, exponents, currencies.

    Returns:
        None where there is no number, more than one, or the text exceeds `MAX_CHARS`.

    >>> find_quantity("It is 1,250.5 kg.")
    Quantity(number=Fraction(2501, 2), unit='kg')
    >>> find_quantity("3 or 4") is None
    True
    """
    if len(text) > MAX_CHARS:
        return None
    plain = _VULGAR.sub(r" \g<0>", _POWER_OF_TEN.sub(r"\1^\2", text))
    if _RAISED_NUMBER.search(plain):
        return None
    plain = unicodedata.normalize("NFKC", plain).translate(_SIGNS)
    if len(plain) > MAX_CHARS:
        return None
    found = list(_NUMBER.finditer(plain))
    if len(found) != 1 or _has_more_digits(plain, found[0]):
        return None
    match = found[0]
    number = _value(match)
    if number is None:
        return None
    unit = canonical_unit(match["unit"] or "") or canonical_unit(match["currency"] or "")
    return Quantity(number, unit)


def round_number(number: Fraction) -> str:
    """Write a number with six significant digits, so that equal ones are equal texts.

    >>> round_number(Fraction(2, 3)), round_number(Fraction(1500))
    ('0.666667', '1500')
    """
    context = Context(prec=_SIGNIFICANT_DIGITS)
    value = context.divide(Decimal(number.numerator), Decimal(number.denominator))
    return f"{value.normalize(context) + 0:f}" if value else "0"


def _has_more_digits(text: str, match: re.Match[str]) -> bool:
    """Whether digits stand outside of the number and the unit (`m2` is the unit's own)."""
    return any(char.isdigit() for char in text[: match.start()] + text[match.end() :])


def _value(match: re.Match[str]) -> Fraction | None:
    exponent = int(match["exponent"] or match["power"] or 0)
    below = int(match["below"] or 1)
    if abs(exponent) > _MAX_EXPONENT or not below:
        return None
    number = Fraction(_plain_digits(match["digits"])) / below + int(match["whole"] or 0)
    number *= Fraction(10) ** exponent
    return -number if (match["sign"] or "").startswith("-") else number


def _plain_digits(digits: str) -> str:
    bare = re.sub(r"[ '\u2019_]", "", digits)
    point, comma = bare.rfind("."), bare.rfind(",")
    if comma < 0:
        return bare
    if point > comma:
        return bare.replace(",", "")
    if point >= 0:
        return bare.replace(".", "").replace(",", ".")
    is_grouped = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+", bare)
    return bare.replace(",", "") if is_grouped else bare.replace(",", ".")
