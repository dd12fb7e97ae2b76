from __future__ import annotations

import math

import pytest

from cert_cli.picture import draw, legend, level_of
from cert_cli.terminal import Style

PLAIN = Style()
COLOR = Style(color=True)


@pytest.mark.parametrize(
    ("probability", "level"),
    [(1.0, 0), (0.51, 0), (0.49, 1), (0.11, 1), (0.09, 2), (0.009, 3), (0.0009, 4)],
)
def test_a_level_is_how_improbable_a_token_was(probability: float, level: int) -> None:
    assert level_of(math.log(probability)) == level


def test_an_impossible_token_is_of_the_highest_level() -> None:
    assert level_of(-math.inf) == 4


def test_without_colour_surprising_tokens_are_marked() -> None:
    text = draw(["sure", " fair", " odd", " never"], [-0.1, -1.0, -3.0, -9.0], PLAIN)
    assert text.plain == "sure fair[2: odd][4: never]"
    assert all(span.style == "" for span in text.spans)


def test_with_colour_the_text_is_unchanged_and_levels_differ_in_their_background() -> None:
    pieces = ["a", "b", "c", "d", "e"]
    text = draw(pieces, [-0.1, -1.0, -3.0, -5.0, -9.0], COLOR)
    assert text.plain == "abcde"
    assert len({str(span.style) for span in text.spans}) == 4


@pytest.mark.parametrize("style", [PLAIN, COLOR])
def test_a_text_cannot_steer_the_terminal_or_speak_rich_markup(style: Style) -> None:
    hostile = "\x1b]52;c;AAAA\x07\x9b2J\r\x08\u202e\u200b[bold red]x[/] :smile:\x7f"
    shown = draw([hostile], [-0.1], style).plain
    assert not any(ord(one) < 32 or 0x7F <= ord(one) < 0xA0 for one in shown)
    assert "\u202e" not in shown
    assert "\u200b" not in shown
    assert "[bold red]x[/] :smile:" in shown


def test_line_breaks_are_shown_and_kept() -> None:
    assert draw(["a\nb"], [-0.1], PLAIN).plain == "a\u21b5\nb"
    assert draw(["a\nb"], [-0.1], Style(unicode=False)).plain == "a\\n\nb"


def test_the_legend_names_what_is_drawn() -> None:
    assert "[2:...] p<0.1" in legend(PLAIN).plain
    assert "[4:...] p<0.001" in legend(PLAIN).plain
    assert "p<0.5" not in legend(PLAIN).plain
    assert "p<0.5" in legend(COLOR).plain
