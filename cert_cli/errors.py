"""From an error to what the user reads and to the exit code."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from cert.core.errors import (
    CertError,
    ConfigurationError,
    GPUOutOfMemoryError,
    InvalidInput,
    MissingExtraError,
    ModelNotLoaded,
    ModelUnavailableError,
    NumericalError,
)
from cert_cli.exit_codes import ExitCode
from cert_cli.interrupts import Interrupted, Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_CHARS = 2000


def run_command(body: Callable[[Interrupts], ExitCode], *, debug: bool = False) -> None:
    """Run a command's body and end the program with its exit code.

    Raises:
        typer.Exit: Always.
    """
    interrupts = Interrupts()
    try:
        with interrupts.handled():
            code = body(interrupts)
    except Interrupted as interrupt:
        report(interrupt.code.meaning)
        code = interrupt.code
    except BrokenPipeError:
        code = ExitCode.INCOMPLETE
    except Exception as error:  # noqa: BLE001 - the last place before the interpreter
        if debug:
            traceback.print_exc()
        code = report_error(error)
    raise typer.Exit(code)


def code_of_error(error: Exception) -> ExitCode:
    """Choose the exit code of an error that ended a command."""
    from cert.ledger.errors import (  # noqa: PLC0415 - not for --help
        LedgerError,
        LedgerRefusedError,
        ProofError,
        SigningKeyError,
    )
    from cert.runner.record_file import OutputError  # noqa: PLC0415 - the same

    by_type: tuple[tuple[type[Exception], ExitCode], ...] = (
        (OutputError, ExitCode.INCOMPLETE),
        (LedgerRefusedError, ExitCode.INTEGRITY),
        (ProofError, ExitCode.INTEGRITY),
        (SigningKeyError, ExitCode.USAGE),
        (LedgerError, ExitCode.INCOMPLETE),
        (ConfigurationError, ExitCode.USAGE),
        (InvalidInput, ExitCode.USAGE),
        (ModelUnavailableError, ExitCode.UNAVAILABLE),
        (ModelNotLoaded, ExitCode.UNAVAILABLE),
        (MissingExtraError, ExitCode.UNAVAILABLE),
        (GPUOutOfMemoryError, ExitCode.UNAVAILABLE),
        (NumericalError, ExitCode.UNAVAILABLE),
    )
    return next((code for kind, code in by_type if isinstance(error, kind)), ExitCode.BUG)


def report_error(error: Exception) -> ExitCode:
    """Say on stderr what is wrong and what to do next; return the exit code."""
    code = code_of_error(error)
    if isinstance(error, CertError):
        report(f"error: {error.message}", hint=error.hint)
    else:
        report(
            f"internal error: {type(error).__name__}: {error}",
            hint="run the same command with --debug and report the traceback",
        )
    return code


def report(message: str, *, hint: str | None = None) -> None:
    """Write a line, and a hint under it, to stderr; secrets and control characters don't pass."""
    from cert.observability.controls import escape_controls  # noqa: PLC0415 - not for --help
    from cert.observability.redaction import redact  # noqa: PLC0415 - not for --help

    lines = [f"cert: {message}", *([f"  hint: {hint}"] if hint else [])]
    text = "\n".join(escape_controls(redact(line))[:_MAX_CHARS] for line in lines)
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):  # nobody is left to tell
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
