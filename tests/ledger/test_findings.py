"""Findings: which is the first and the worst, and how many are kept."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cert.ledger.findings import MAX_FINDINGS, Finding, Findings, Report, State

if TYPE_CHECKING:
    import pytest


def finding(line: int | None, state: State | None = State.INVALID, code: str = "x") -> Finding:
    return Finding(state, code, "", line)


def test_states_are_ranked_as_the_page_has_them() -> None:
    names = ["invalid", "rolled-back", "torn", "unsealed", "unanchored", "valid"]
    assert sorted(State, key=lambda state: state.rank) == names
    assert [state.rank for state in State] == list(range(6))


def test_nothing_found() -> None:
    findings = Findings()
    assert (findings.worst(), findings.ordered(), findings.omitted) == (None, (), 0)
    assert not findings.has_fault_between(0, 10**9)


def test_the_first_line_of_the_worst_state_counts() -> None:
    findings = Findings()
    for one in (
        finding(2, None),
        finding(3, State.UNSEALED),
        finding(9),
        finding(5, State.TORN),
        finding(7, code="first"),
        finding(7, code="second"),
        finding(8),
    ):
        findings.add(one)
    assert findings.worst() == finding(7, code="first")
    assert [one.line for one in findings.ordered()] == [2, 3, 5, 7, 7, 8, 9]


def test_a_finding_without_a_place_comes_first() -> None:
    findings = Findings()
    findings.add(finding(1))
    findings.add(finding(None))
    assert findings.worst() == finding(None)
    assert not findings.has_fault_between(1, 9)


def test_faults_between_two_lines() -> None:
    findings = Findings()
    numbers = random.Random(7).sample(range(1, 200), 40)
    for number in numbers:
        findings.add(finding(number))
    findings.add(finding(250, None))
    for after in range(0, 260, 7):
        for last in range(after, 260, 11):
            want = any(after < number <= last for number in numbers)
            assert findings.has_fault_between(after, last) == want


def test_their_number_is_bounded_and_the_worst_is_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cert.ledger.findings._MAX_KNOWN_LINES", 1200)
    findings = Findings()
    for line in range(2000, 500, -1):
        findings.add(finding(line, State.TORN))
    findings.add(finding(400))
    assert len(findings.ordered()) == MAX_FINDINGS == 1000
    assert findings.omitted == 501
    assert findings.worst() == finding(400)
    # Beyond the bound, lines are no longer known.
    assert findings.has_fault_between(1000, 2000)
    assert not findings.has_fault_between(500, 700)


def test_a_report_of_nothing() -> None:
    report = Report(State.VALID, "fast")
    assert (report.first, report.findings, report.records, report.kinds) == (None, (), 0, {})
