from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from cert_cli.terminal import Style, is_live, style_of, wants_color
from tests.cli.helpers import Terminal

if TYPE_CHECKING:
    from typing import TextIO


@pytest.mark.parametrize(
    ("variables", "is_terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm"}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_the_environment_decides_about_colour(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_terminal: bool, wanted: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_color(is_terminal=is_terminal) is wanted


@pytest.mark.parametrize("color", [True, False])
def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, color: bool) -> None:
    monkeypatch.setenv("NO_COLOR" if color else "FORCE_COLOR", "1")
    assert style_of(io.StringIO(), color=color).color is color


@pytest.mark.parametrize(
    ("encoding", "unicode"),
    [("utf-8", True), ("UTF-8", True), ("ascii", False), ("latin-1", False)],
)
def test_an_encoding_has_more_than_ascii_or_not(encoding: str, unicode: bool) -> None:
    assert style_of(Terminal(encoding), color=None).unicode is unicode


def test_the_width_is_the_terminals_and_a_files_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "57")
    assert style_of(Terminal(), color=None).width == 57
    assert style_of(io.StringIO(), color=None).width == 100
    monkeypatch.setenv("COLUMNS", "3")
    assert style_of(Terminal(), color=None).width == 40


@pytest.mark.parametrize(("stream", "live"), [(None, False), (io.StringIO(), False)])
def test_what_is_no_terminal(stream: TextIO | None, live: bool) -> None:
    assert is_live(stream) is live
    assert style_of(stream, color=None) == Style(unicode=False)


def test_what_is_a_terminal() -> None:
    assert is_live(Terminal())
