"""How many prompts came out how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.assessment.verdict import Verdict
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PERCENT = 100.0


@dataclass(slots=True)
class Tally:
    """Counts of one run, or of a run and the ones it continues.

    Attributes:
        passed: Records whose verdict is pass.
        failed: Records whose verdict is fail.
        inconclusive: Records whose verdict is inconclusive.
        errors: Prompts that were taken and could not be measured.
        refused: Input lines that could not become a prompt.
    """

    passed: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    refused: int = 0

    @property
    def audited(self) -> int:
        """Prompts with a verdict."""
        return self.passed + self.failed + self.inconclusive

    @property
    def total(self) -> int:
        """Input lines accounted for."""
        return self.audited + self.errors + self.refused

    def add(self, record: Mapping[str, object]) -> None:
        """Count a record of kind analysis, error or refused.

        Raises:
            ValueError: The record is of another kind, or has no verdict.
        """
        match record:
            case {"kind": "analysis", "assessment": {"verdict": Verdict.PASS}}:
                self.passed += 1
            case {"kind": "analysis", "assessment": {"verdict": Verdict.FAIL}}:
                self.failed += 1
            case {"kind": "analysis", "assessment": {"verdict": Verdict.INCONCLUSIVE}}:
                self.inconclusive += 1
            case {"kind": "error"}:
                self.errors += 1
            case {"kind": "refused"}:
                self.refused += 1
            case _:
                raise ValueError("not a record of an analysis, an error or a refusal")


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How many errors and refused lines a run tolerates.

    Attributes:
        amount: A count, or a share of all input lines in percent.
        is_percent: Which of the two.
    """

    amount: float = 0
    is_percent: bool = False

    def is_exceeded(self, tally: Tally) -> bool:
        """Whether errors and refused lines together are more than tolerated.

        >>> ErrorBudget(10, is_percent=True).is_exceeded(Tally(passed=9, errors=1))
        False
        """
        wrong = tally.errors + tally.refused
        if self.is_percent:
            return wrong * _PERCENT > self.amount * tally.total
        return wrong > self.amount


def parse_error_budget(text: str) -> ErrorBudget:
    """Parse `N` or `N%`.

    >>> parse_error_budget("2.5%")
    ErrorBudget(amount=2.5, is_percent=True)

    Raises:
        ConfigurationError: It is neither, or lies outside its range.
    """
    number = text.strip()
    try:
        if number.endswith("%"):
            share = float(number[:-1])
            if 0.0 <= share <= _PERCENT:
                return ErrorBudget(share, is_percent=True)
        elif number.isascii() and number.isdecimal():
            return ErrorBudget(int(number))
    except ValueError:
        pass
    raise ConfigurationError(
        f"--max-errors is {text[:50]!r}, which is neither a count nor a percentage from 0% to 100%",
        hint="for example --max-errors 5 or --max-errors 2.5%",
    )
