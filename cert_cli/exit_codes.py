"""Exit codes: what each means, and which one a run ends with."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from cert.runner.tally import ErrorBudget, Tally


class ExitCode(IntEnum):
    """The program's exit codes; where several apply: 5, 4, 1, 3."""

    meaning: str
    detail: str

    def __new__(cls, value: int, meaning: str, detail: str) -> Self:
        """Keep the words beside the number."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        code.detail = detail
        return code

    PASS = 0, "pass", "every verdict is pass"
    FAILED = 1, "gate failed", "at least one verdict is fail"
    USAGE = (
        2,
        "usage or configuration",
        "a flag, a setting, a key, an input or output file is wrong",
    )
    INCONCLUSIVE = (
        3,
        "inconclusive",
        "no verdict is fail, at least one is inconclusive; of `cert health`: degraded",
    )
    INCOMPLETE = (
        4,
        "incomplete",
        (
            "errors and refused lines over --max-errors, an output or a ledger that cannot be "
            "written, a server that was lost midway, or stdout left by its reader while no -o "
            "file took the records"
        ),
    )
    INTEGRITY = (
        5,
        "integrity or replay failed",
        (
            "evidence was altered, is older than the head that was kept, ends in half a line, or "
            "lacks what --require-head or --strict ask for"
        ),
    )
    UNAVAILABLE = (
        6,
        "model or backend unavailable",
        "no such model or server, or it is refused; of `cert health`: unhealthy",
    )
    NOTHING = (
        7,
        "nothing audited",
        (
            "no prompt came in, or every line was refused; of `cert health`: nothing could be "
            "checked"
        ),
    )
    BUG = 70, "a bug", "run again with --debug and report the traceback"
    INTERRUPTED = (
        130,
        "interrupted",
        "Ctrl-C; what was complete is written, what a server had accepted is finished",
    )
    TERMINATED = 143, "terminated", "SIGTERM; likewise"


def code_of_run(tally: Tally, budget: ErrorBudget) -> ExitCode:
    """Choose the exit code of a run that came to its end.

    >>> from cert.runner.tally import ErrorBudget, Tally
    >>> code_of_run(Tally(passed=3, failed=1), ErrorBudget()).name
    'FAILED'
    """
    if tally.audited == 0 and tally.errors == 0:
        return ExitCode.NOTHING
    if budget.is_exceeded(tally):
        return ExitCode.INCOMPLETE
    if tally.audited == 0:
        return ExitCode.NOTHING
    if tally.failed:
        return ExitCode.FAILED
    if tally.inconclusive:
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASS
