"""Runs, followed through a ledger: what they began with, what they hold, what they say at the end.

Runs that ended are forgotten, so that memory grows with the runs that are open and not with the
records. So a run that ended cannot be told from one that never began, and a second run of the same
id is not noticed once the first one has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cert.ledger.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.evidence.deep_coordination import Comparison

_COUNTED = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "error": "errors",
    "refused": "refused",
}
_COUNTS = tuple(_COUNTED.values())
_SHOWN_CHARS = 100


@dataclass(slots=True)
class Run:
    """One run that has not ended.

    Attributes:
        seq: Of the latest record about it.
        policy: Id, version and digest, as its begin record names them.
        content: Content mode of its records.
        counts: Of its records so far, as run records state them.
        is_open: False after `interrupted`, until it is resumed.
        is_whole: False where records of it are gone, so that they cannot be counted.
        comparison: What it holds of a plan; None where its policy is none.
    """

    seq: int
    policy: Mapping[str, Any]
    content: str
    counts: dict[str, int]
    is_open: bool = True
    is_whole: bool = True
    comparison: Comparison | None = None

    def count(self, outcome: str) -> None:
        """Count a record, by its verdict, or by its kind if it has none."""
        self.counts[_COUNTED[outcome]] += 1


class RunBook:
    """Every run that has not ended.

    Args:
        is_part: Whether records may be missing, so that a run need not be known.
    """

    def __init__(self, *, is_part: bool) -> None:
        self._is_part = is_part
        self._runs: dict[str, Run] = {}

    def find(self, run_id: str) -> Run | None:
        """Return the run of this id; None where none is known that has not ended."""
        return self._runs.get(run_id)

    def take(self, seq: int, record: Mapping[str, Any]) -> list[Problem]:
        """Take a `run` record.

        Args:
            seq: Its place.
            record: It, following the schema.

        Raises:
            TypeError: It does not.
        """
        run_id, said = _run_id(record), record["run"]
        run = self._runs.get(run_id)
        phase = said["phase"]
        if phase == "begin":
            is_known = run is not None
            self._begin(seq, run_id, said)
            return [_problem(run_id, "begins, and it began before")] if is_known else []
        if run is None:
            if not self._is_part:
                return [_problem(run_id, f"is {phase}, and no run of this id is open")]
            if phase == "resumed":
                self._begin(seq, run_id, said, is_whole=False)
            return []
        run.seq = seq
        if phase == "resumed":
            return _resume(run, run_id, said)
        if phase == "end":
            del self._runs[run_id]
        return _stop(run, run_id, said)

    def restore(self, seq: int, record: Mapping[str, Any]) -> None:
        """Take a `run` record that was kept, while the run's other records were removed."""
        run_id, said = _run_id(record), record["run"]
        run = self._runs.get(run_id)
        if "policy" in said:
            self._begin(seq, run_id, said, is_whole=False)
        elif said["phase"] == "end":
            self._runs.pop(run_id, None)
        elif run is not None:
            run.seq = seq
            run.is_open = False

    def unfinished(self) -> Sequence[Problem]:
        """Return a remark for every run without an end."""
        words = "is not finished: interrupted, still going on, or cut short"
        return [
            Problem("run", f"run {_short(run_id)} {words}", seq=run.seq, is_fault=False)
            for run_id, run in self._runs.items()
        ]

    def _begin(
        self, seq: int, run_id: str, said: Mapping[str, Any], *, is_whole: bool = True
    ) -> None:
        counts = dict.fromkeys(_COUNTS, 0)
        self._runs[run_id] = Run(seq, said["policy"], said["content"], counts, is_whole=is_whole)


def _resume(run: Run, run_id: str, said: Mapping[str, Any]) -> list[Problem]:
    run.is_open = True
    return [
        _problem(run_id, f"is resumed with another {name}", str(before), str(said[name]))
        for name, before in (("policy", run.policy), ("content", run.content))
        if said[name] != before
    ]


def _stop(run: Run, run_id: str, said: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if not run.is_open:
        words = f"was interrupted and not resumed, and is said to be {said['phase']}"
        problems.append(_problem(run_id, words))
    run.is_open = False
    if run.is_whole and said["counts"] != run.counts:
        words = f"run {_short(run_id)} does not count its records right"
        expected, found = _in_words(run.counts), _in_words(said["counts"])
        problems.append(Problem("counts", words, expected=expected, found=found))
    return problems


def _run_id(record: Mapping[str, Any]) -> str:
    run_id = record["run_id"]
    if not isinstance(run_id, str):
        raise TypeError("run_id is no text")
    return run_id


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in _COUNTS)


def _problem(
    run_id: str, words: str, expected: str | None = None, found: str | None = None
) -> Problem:
    return Problem("run", f"run {_short(run_id)} {words}", expected=expected, found=found)


def _short(run_id: str) -> str:
    return run_id[:_SHOWN_CHARS]
