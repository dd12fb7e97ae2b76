from __future__ import annotations

import unicodedata

import pytest

from cert.observability.controls import escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 日本 🙂", "plain ünïcode 日本 🙂"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
        ("\x9b2J\x7f\x85", "\\x9b2J\\x7f\\x85"),
        ("a\u202eb\u2066c\u200bd\u2028e\ufeff", "a\\u202eb\\u2066c\\u200bd\\u2028e\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_known_answers(text: str, shown: str) -> None:
    assert escape_controls(text) == shown
    assert escape_controls(shown) == shown
    shown.encode()


def test_every_control_format_and_separator_that_moves_text_is_escaped() -> None:
    for code in range(0x110000):
        character = chr(code)
        kind = unicodedata.category(character)
        bidi = unicodedata.bidirectional(character)
        steers = kind in {"Cc", "Cs", "Zl", "Zp"} or bidi in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        }  # fmt: skip
        if steers:
            assert escape_controls(character) != character, hex(code)
        elif kind[0] in "LNPSM":
            assert escape_controls(character) == character, hex(code)
