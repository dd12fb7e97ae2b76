from __future__ import annotations

import re
from contextlib import redirect_stderr

import pytest

from cert.runner.tally import Tally
from cert_cli.progress import Meter, describe
from tests.cli.helpers import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr("cert_cli.progress._INTERVAL_S", 0.0)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_terminal_sees_how_far_it_is(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        meter = Meter(is_wanted=True, color=False)
        meter.total = 50
        with meter.running():
            meter.show(Tally(passed=2, failed=1, refused=1))
        shown = terminal.text()
        assert "4/50" in shown
        assert "2 passed, 1 failed, 0 inconclusive, 0 errors, 1 refused" in shown
        assert re.search(r"/s", shown)
        assert not re.search(r"\x1b\[[0-9;]*m", shown)


def test_colour_where_it_is_wanted(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        meter = Meter(is_wanted=True, color=True)
        with meter.running():
            meter.show(Tally(passed=1))
        assert re.search(r"\x1b\[[0-9;]+m", terminal.text())


def test_the_bar_makes_room_and_comes_back(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        meter = Meter(is_wanted=True, color=False)
        with meter.running():
            meter.show(Tally(passed=1))
            meter.make_room()
            at = len(terminal.text())
            meter.make_room()
            assert len(terminal.text()) == at
            meter.show(Tally(passed=2))
            assert "2 passed" in terminal.text()[at:]
        at = len(terminal.text())
        meter.show(Tally(passed=3))
        assert len(terminal.text()) == at


def test_the_bar_is_drawn_a_few_times_a_second_only(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redirect_stderr(terminal):
        monkeypatch.setattr("cert_cli.progress._INTERVAL_S", 1000.0)
        meter = Meter(is_wanted=True, color=False)
        with meter.running():
            for count in range(100):
                meter.show(Tally(passed=count))
        assert "99 passed" not in terminal.text()


def test_nothing_is_shown_unless_it_is_wanted(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        meter = Meter(is_wanted=False, color=None)
        assert not meter.is_shown
        with meter.running():
            meter.show(Tally(passed=1))
        assert terminal.text() == ""


def test_nothing_is_shown_elsewhere_than_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(is_wanted=True, color=None)
    with meter.running():
        meter.show(Tally(passed=1))
    assert capsys.readouterr().err == ""


def test_counts_in_words() -> None:
    assert describe(Tally(inconclusive=3, errors=2)) == (
        "0 passed, 0 failed, 3 inconclusive, 2 errors, 0 refused"
    )
