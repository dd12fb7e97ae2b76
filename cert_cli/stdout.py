"""stdout, as a place that may be closed, full or left by its reader."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from cert_cli.exit_codes import ExitCode


def write_stdout(data: bytes) -> None:
    """Write and flush; after a failure stdout leads nowhere, so that nothing fails again at exit.

    Raises:
        BrokenPipeError: Its reader went away, or it was closed from the start.
        OutputError: It cannot be written for another reason, a full disk for example.
    """
    from cert.runner.record_file import OutputError  # noqa: PLC0415 - not for --help

    if sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        discard_stdout()
        raise
    except OSError as error:
        discard_stdout()
        raise OutputError(
            f"stdout cannot be written: {error.strerror}",
            hint="make room where it leads; -o files hold whole records only",
        ) from error


def print_text(text: str) -> ExitCode:
    """Write a text in stdout's own encoding; what that lacks is written as an escape."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    write_stdout(text.encode(encoding, "backslashreplace"))
    return ExitCode.PASS


def discard_stdout() -> None:
    """Point stdout at nothing."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
