from __future__ import annotations

import pytest

from cert.core.errors import ConfigurationError
from cert.runner.tally import ErrorBudget, Tally, parse_error_budget


def test_every_kind_is_counted_where_it_belongs() -> None:
    tally = Tally()
    for verdict in ("pass", "fail", "inconclusive", "pass"):
        tally.add({"kind": "analysis", "assessment": {"verdict": verdict}})
    tally.add({"kind": "error"})
    tally.add({"kind": "refused"})
    assert tally == Tally(passed=2, failed=1, inconclusive=1, errors=1, refused=1)
    assert (tally.audited, tally.total) == (4, 6)


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "genesis"},
        {},
        {"kind": "analysis"},
        {"kind": "analysis", "assessment": {"verdict": "perhaps"}},
    ],
)
def test_another_record_is_not_counted(record: dict[str, object]) -> None:
    tally = Tally()
    with pytest.raises(ValueError, match="not a record"):
        tally.add(record)
    assert tally.total == 0


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0", ErrorBudget(0)),
        (" 12 ", ErrorBudget(12)),
        ("5%", ErrorBudget(5.0, is_percent=True)),
        ("0.5%", ErrorBudget(0.5, is_percent=True)),
        ("100%", ErrorBudget(100.0, is_percent=True)),
    ],
)
def test_a_budget_is_a_count_or_a_share(text: str, budget: ErrorBudget) -> None:
    assert parse_error_budget(text) == budget


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "-1%", "nan%", "%", "ten", "٣", "1e3"])
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--max-errors") as caught:
        parse_error_budget(text)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("text", "wrong", "passed", "exceeded"),
    [
        ("0", 0, 1, False),
        ("0", 1, 9, True),
        ("1", 1, 9, False),
        ("1", 2, 9, True),
        ("10%", 1, 9, False),
        ("10%", 2, 9, True),
        ("100%", 3, 0, False),
        ("0%", 0, 0, False),
    ],
)
def test_errors_and_refusals_count_against_the_budget_together(
    text: str, wrong: int, passed: int, exceeded: bool
) -> None:
    tally = Tally(passed=passed, errors=wrong // 2, refused=wrong - wrong // 2)
    assert parse_error_budget(text).is_exceeded(tally) is exceeded
