"""stdin and stdout in states that a program meets seldom."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from cert.core.errors import ConfigurationError
from cert.runner.record_file import OutputError
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.stdin import check_stdin
from cert_cli.stdout import print_text, write_stdout
from tests.cli.helpers import Program, Terminal


class Failing(io.RawIOBase):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise self.error


def failing(error: OSError) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(Failing(error)), encoding="utf-8")


def test_a_text_is_written_in_the_encoding_of_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal("latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    assert print_text("ä\u2502\n") is ExitCode.PASS
    assert stream.bytes.getvalue() == b"\xe4\\u2502\n"


def test_a_closed_stdout_counts_as_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(BrokenPipeError):
        write_stdout(b"x")


def test_a_reader_that_left_and_a_full_disk_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    with pytest.raises(BrokenPipeError):
        write_stdout(b"x")
    monkeypatch.setattr(sys, "stdout", failing(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OutputError, match="No space left"):
        write_stdout(b"x")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 4),
        (OSError(errno.ENOSPC, "No space left"), 4),
    ],
)
def test_printing_commands_end_with_the_documented_code(
    monkeypatch: pytest.MonkeyPatch, error: OSError, code: int
) -> None:
    import typer

    monkeypatch.setattr(sys, "stdout", failing(error))
    with pytest.raises(typer.Exit) as caught:
        run_command(lambda _: print_text("x"))
    assert caught.value.exit_code == code


@pytest.mark.parametrize("stream", [None, failing(OSError(errno.EIO, "gone"))])
def test_a_report_that_nobody_can_read_is_no_error(
    monkeypatch: pytest.MonkeyPatch, stream: io.TextIOWrapper | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    report("x", hint="y")
    assert sys.stderr is stream


def test_a_report_is_escaped_redacted_and_in_the_encoding_of_stderr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal("ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    report("error: \x1b[2J\u202e ü hf_abcdefghijklmnopqrst", hint="look\nhere")
    assert stream.text() == ("cert: error: \\x1b[2J\\u202e \\xfc [redacted]\n  hint: look\\nhere\n")


def test_stdin_is_looked_at_only_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    check_stdin(["a.txt"], no_input=True, quiet=False)
    with pytest.raises(ConfigurationError, match="stdin is closed"):
        check_stdin(["-"], no_input=False, quiet=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(ConfigurationError, match="--no-input"):
        check_stdin(["-"], no_input=True, quiet=False)
    check_stdin(["-"], no_input=False, quiet=True)
    assert capsys.readouterr().err == ""
    check_stdin(["-"], no_input=False, quiet=False)
    assert "Ctrl-D" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    check_stdin(["-"], no_input=True, quiet=False)
    assert capsys.readouterr().err == ""


def test_a_missing_prompt_at_a_terminal_is_said(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cert_cli.commands.analyze.is_live", lambda stream: True)
    ran = cert("analyze", "-m", "fake")
    assert ran.code == 2
    assert "no prompt was given" in ran.err
