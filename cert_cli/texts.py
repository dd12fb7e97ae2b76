"""What every command's --help ends with: examples and exit codes."""

from __future__ import annotations

from cert_cli.exit_codes import ExitCode

RUN_CODES = (
    ExitCode.PASS,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.INCONCLUSIVE,
    ExitCode.INCOMPLETE,
    ExitCode.UNAVAILABLE,
    ExitCode.NOTHING,
    ExitCode.BUG,
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
)
PRINT_CODES = (ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE)


def epilog(*examples: str, codes: tuple[ExitCode, ...] = RUN_CODES) -> str:
    """Build the end of a help text; a backspace keeps Click from filling the lines after it."""
    lines = ["\b", "Examples:", *(f"  {one}" for one in examples), ""]
    lines += ["\b", "Exit codes (`cert exit-codes` says more):"]
    lines += [f"  {int(code):<4} {code.meaning}" for code in codes]
    return "\n".join(lines)
