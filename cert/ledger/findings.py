"""What a verification found: states, findings, the report."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MAX_FINDINGS: Final = 1000
_MAX_KNOWN_LINES: Final = 100_000


class State(StrEnum):
    """States of a ledger, the worst first (docs/record-format.md, 6.6)."""

    INVALID = "invalid"
    ROLLED_BACK = "rolled-back"
    TORN = "torn"
    UNSEALED = "unsealed"
    UNANCHORED = "unanchored"
    VALID = "valid"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(State).index(self)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about one record, not located yet.

    Attributes:
        code: One word a kind of problem, for example `verdict`.
        message: In words.
        seq: The record's `_seq`; None stands for the record that is being looked at.
        expected: What should have been there.
        found: What was there.
        is_fault: False for a remark, which leaves the state as it is.
    """

    code: str
    message: str
    seq: int | None = None
    expected: str | None = None
    found: str | None = None
    is_fault: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and its place.

    Attributes:
        state: What it makes of the ledger; None for a remark.
        code: One word a kind of problem: form, seq, link, root, checkpoint, head, ...
        message: In words.
        line: Counted from 1 over the whole ledger; None where it has no place.
        segment: File name below `segments/`; None outside of one.
        offset: Bytes from the start of that file to the start of the line.
        expected: What should have been there.
        found: What was there.
    """

    state: State | None
    code: str
    message: str
    line: int | None = None
    segment: str | None = None
    offset: int | None = None
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a verification.

    Attributes:
        state: The worst state of all findings, else `unanchored` or `valid`.
        mode: `fast` or `deep`.
        first: The first finding (by line) of that state; None for unanchored and valid.
        findings: In order of lines, faults and remarks; at most `MAX_FINDINGS`.
        omitted: Findings beyond that number.
        origin: Of the ledger; None where it could not be read.
        records: Complete lines that are there.
        pruned: Records that were removed by a recorded pruning.
        sealed: Tree size of the newest good checkpoint; 0 for none.
        root: Root of all complete lines, base64.
        key: The key in force at the end, `ed25519:` and base64; None where unknown.
        kinds: Records by kind; empty unless deep.
    """

    state: State
    mode: str
    first: Finding | None = None
    findings: tuple[Finding, ...] = ()
    omitted: int = 0
    origin: str | None = None
    records: int = 0
    pruned: int = 0
    sealed: int = 0
    root: str | None = None
    key: str | None = None
    kinds: dict[str, int] = field(default_factory=dict)


class Findings:
    """Findings in order of lines, the worst known, their number bounded."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._first: dict[State, Finding] = {}
        self._lines: list[int] = []
        self.omitted = 0

    def add(self, finding: Finding) -> None:
        """Take a finding."""
        state = finding.state
        if state is not None:
            first = self._first.get(state)
            if first is None or (finding.line or 0) < (first.line or 0):
                self._first[state] = finding
            if finding.line is not None and len(self._lines) < _MAX_KNOWN_LINES:
                insort(self._lines, finding.line)
        if len(self._kept) < MAX_FINDINGS:
            self._kept.append(finding)
        else:
            self.omitted += 1

    def has_fault_between(self, after: int, last: int) -> bool:
        """Whether a line after `after` and up to `last` has a fault."""
        at = bisect_right(self._lines, after)
        return at < len(self._lines) and self._lines[at] <= last

    def worst(self) -> Finding | None:
        """The first finding of the worst state."""
        states = sorted(self._first, key=lambda state: state.rank)
        return self._first[states[0]] if states else None

    def ordered(self) -> tuple[Finding, ...]:
        """All that were kept, in order of lines."""
        return tuple(sorted(self._kept, key=lambda one: one.line or 0))
