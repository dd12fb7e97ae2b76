from __future__ import annotations

import os
import signal
import time

import pytest

from cert_cli.exit_codes import ExitCode
from cert_cli.interrupts import Interrupted, Interrupts


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    # The handler runs between two instructions of this thread.
    for _ in range(1000):
        time.sleep(0)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)],
)
def test_the_first_signal_raises_where_nothing_can_be_lost(number: int, code: ExitCode) -> None:
    interrupts = Interrupts()
    with interrupts.handled(), pytest.raises(Interrupted) as caught:
        send(number)
    assert caught.value.code is code
    assert not isinstance(caught.value, Exception)


def test_the_first_signal_is_noted_where_something_is_being_written() -> None:
    interrupts = Interrupts()
    with interrupts.handled(), interrupts.deferred():
        assert not interrupts.seen()
        send(signal.SIGTERM)
        assert interrupts.seen()
    assert interrupts.code is ExitCode.TERMINATED


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_second_signal_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    ended: list[int] = []
    written: list[bytes] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(os, "isatty", lambda fd: is_terminal)
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data))
    interrupts = Interrupts()
    with interrupts.handled(), interrupts.deferred():
        send(signal.SIGTERM)
        send(signal.SIGINT)
    assert ended == [130]
    assert written == ([b"\x1b[?25h\n"] if is_terminal else [])


def test_former_handlers_are_put_back() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts().handled():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
