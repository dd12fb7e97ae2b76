"""Looking into every record of a ledger (docs/record-format.md, 6.8).

Line by line, in order, in memory that does not grow with the records. What is asked of each:

1. its bytes are canonical, and it follows the schema of its kind;
2. what was measured has the summary, the checks and the verdict that follow from its numbers and
   from a policy that an earlier record registered, the one that its run named at its beginning;
3. it stands between the beginning and the end of its run, with that run's content mode;
4. runs count their records right;
5. in a comparison of arms, everything follows from the plan and the calls (`deep_coordination`);
6. where content is kept apart, it is what the record is committed to, unless it was erased.

Not looked for: two records of one id (that takes memory of all ids), and whether an `erased` record
names what it should where nothing is known of the content kept apart.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.evidence.coordination_records import COORDINATION_KINDS, OUTCOMES
from cert.evidence.deep_content import ContentBook
from cert.evidence.deep_coordination import Comparison
from cert.evidence.deep_policies import PolicyBook
from cert.evidence.deep_runs import RunBook
from cert.evidence.lines import parse_line
from cert.evidence.quick import QuickReader, QuickRecord
from cert.evidence.recompute import Difference, recompute
from cert.evidence.schema import KINDS
from cert.evidence.validation import Validation
from cert.ledger.canonical import CanonicalError
from cert.ledger.control import SCHEMA_VERSION
from cert.ledger.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.evidence.deep_content import ContentOf
    from cert.evidence.deep_runs import Run

_MEASURED: Final = frozenset({"analysis", "error", "refused"})
_NOT_COMPARED: Final = frozenset({"analysis", "error"})
"""What no comparison has; a line that is no task is refused there, too."""
_MAX_DIFFERENCES: Final = 20
_SHOWN_CHARS: Final = 200
_UNREADABLE: Final = (LookupError, TypeError, AttributeError, ValueError)
"""What taking apart a record raises that does not follow the schema."""


class DeepCheck:
    """Looks into the records of one ledger, from the first to the last.

    Args:
        content_of: Salt and content that are kept apart, by the record's id; None from it means
            that there are none. Without it, commitments are not looked at.
        is_part: Whether records may be missing, as in a file of some of a ledger's lines: then
            policies and runs need not be known, and are used where they are.

    Attributes:
        kinds: Records so far, by kind; those of no known kind are `other`.
    """

    def __init__(self, *, content_of: ContentOf | None = None, is_part: bool = False) -> None:
        self.kinds: Counter[str] = Counter()
        self._is_part = is_part
        self._validation = Validation()
        self._quick = QuickReader()
        self._policies = PolicyBook(is_part=is_part, learn=self._quick.learn_policy)
        self._runs = RunBook(is_part=is_part)
        self._content = ContentBook(content_of)
        self._first: int | None = None
        self._time = ""
        self._turns = _Seen()
        self._newer = _Seen()

    def preload(self, seq: int, line: bytes) -> None:
        """Take a line that was kept of a removed part: policies and runs are known by it.

        Args:
            seq: Its place.
            line: It, without a newline; what is no record is passed over, because whatever rests
                on it is found.
        """
        try:
            record = parse_line(line)
            if record["kind"] == "policy":
                self._policies.register(record["policy"])
            elif record["kind"] == "run":
                self._runs.restore(seq, record)
                self._open_comparison(record["run_id"])
        except (CanonicalError, *_UNREADABLE):
            return

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        """Look at the next line.

        Args:
            seq: Its place.
            line: It, without a newline, whatever it holds.

        Returns:
            What is wrong with it or worth a remark; nothing for nearly every record.
        """
        if self._first is None:
            self._first = seq
        quick = self._quick.read(line)
        if quick is not None:
            return self._take_quick(seq, *quick)
        problems: list[Problem] = []
        try:
            record = parse_line(line)
        except CanonicalError as error:
            problems.append(Problem("canonical", _short(error.message)))
            record = _parse_anything(line)
        try:
            self._look_at(seq, record, problems)
        except _UNREADABLE as error:
            if not problems:
                words = f"it cannot be taken apart: {type(error).__name__}: {error}"
                problems.append(Problem("schema", _short(words)))
        if not problems and record["kind"] == "analysis":
            self._quick.learn_instrument(line)
        return problems

    def finish(self) -> Sequence[Problem]:
        """Say what can be said only after the last line."""
        turns = "records are earlier by their clock than the one before them, this one first"
        newer = (
            f"records follow a newer schema than {SCHEMA_VERSION}, this one first: only what "
            f"{SCHEMA_VERSION} describes was looked at, and no verdict was recomputed"
        )
        return [
            *self._content.unexplained(),
            *self._runs.unfinished(),
            *self._turns.remark("clock", turns),
            *self._newer.remark("schema", newer),
        ]

    def _take_quick(self, seq: int, record: QuickRecord, digest: str) -> Sequence[Problem]:
        """Take a record of which everything is known but its place."""
        self.kinds["analysis"] += 1
        self._look_at_time(seq, record.time)
        run = self._runs.find(record.run_id)
        problems = self._look_at_run(run, "analysis", record.content, digest)
        if run is not None:
            run.count(record.assessment.verdict)
        if isinstance(record.commitment, str):
            problems += self._content.take(seq, record.id, record.commitment)
        return problems

    def _look_at(self, seq: int, record: dict[str, Any], problems: list[Problem]) -> None:
        kind = record.get("kind")
        if not isinstance(kind, str):
            kind = ""
        self.kinds[kind if kind in KINDS else "other"] += 1
        fault = self._validation.fault_of(record, kind)
        if fault is None:
            self._look_at_time(seq, record["time"])
        else:
            problems.append(Problem("schema", fault))
        is_newer = fault is None and record["schema"] != SCHEMA_VERSION
        if is_newer:
            self._newer.add(seq)
        if kind in _MEASURED:
            self._look_at_measured(record, kind, problems)
            if kind == "analysis" and fault is None and not is_newer:
                self._judge(record, problems)
            if "commitment" in record:
                problems += self._content.take(seq, record["id"], record["commitment"])
        elif kind in COORDINATION_KINDS:
            is_read = fault is None and not is_newer
            problems += self._look_at_compared(record, kind, is_read=is_read)
        else:
            self._look_at_other(seq, record, kind, problems, is_newer=is_newer)

    def _look_at_other(
        self,
        seq: int,
        record: Mapping[str, Any],
        kind: str,
        problems: list[Problem],
        *,
        is_newer: bool,
    ) -> None:
        if kind == "run":
            problems += self._look_for_result(record)
            problems += self._runs.take(seq, record)
            if "policy" in record["run"]:
                problems += self._policies.look_for(record["run"]["policy"])
            self._open_comparison(record["run_id"])
        elif kind == "policy" and not is_newer:
            problems += self._policies.register(record["policy"], is_sound=not problems)
        elif kind == "erased":
            problems += self._content.erase(seq, self._first or 0, record["erased"])

    def _look_at_time(self, seq: int, time: str) -> None:
        if time < self._time:
            self._turns.add(seq)
        self._time = time

    def _look_at_measured(
        self, record: Mapping[str, Any], kind: str, problems: list[Problem]
    ) -> None:
        outcome, digest = kind, None
        if kind == "analysis":
            assessment = record["assessment"]
            outcome, digest = assessment["verdict"], assessment["policy"]["digest"]
        run = self._runs.find(record["run_id"])
        problems += self._look_at_run(run, kind, record.get("content"), digest)
        if run is not None:
            run.count(outcome)

    def _look_at_compared(
        self, record: Mapping[str, Any], kind: str, *, is_read: bool
    ) -> list[Problem]:
        """Look at a record of a comparison of arms."""
        run = self._runs.find(record["run_id"])
        problems = self._look_at_run(run, kind, record.get("content"), None)
        if run is None or run.comparison is None:
            return problems
        members = record[kind]
        if kind == "coordination" and not run.comparison.is_over:
            for strategy in members["strategies"]:
                run.count(OUTCOMES[strategy["verdict"]])
            if members["policy"] != run.policy:
                words = "its policy is not the one that its run began with"
                expected, found = (_short(str(one)) for one in (run.policy, members["policy"]))
                problems.append(Problem("policy", words, expected=expected, found=found))
        if is_read:
            problems += run.comparison.take(kind, members)
        else:
            run.comparison.miss(kind)
        return problems

    def _look_at_run(
        self, run: Run | None, kind: str, content: str | None, digest: str | None
    ) -> list[Problem]:
        """Look whether a record stands where its run has it; `content` and `digest` if it has."""
        if run is None:
            if self._is_part:
                return []
            return [Problem("run", "no run of its run_id is open: none began, or it has ended")]
        problems = []
        if not run.is_open:
            problems.append(Problem("run", "its run was interrupted and not resumed"))
        if run.comparison is not None:
            is_misplaced = kind in _NOT_COMPARED
        else:
            is_misplaced = kind in COORDINATION_KINDS and self._policies.knows(run.policy["digest"])
        if is_misplaced:
            what = "no comparison" if run.comparison is None else "a comparison of arms"
            problems.append(Problem("run", f"a record of kind {kind}, and its run is {what}"))
        if content is not None and content != run.content:
            words = "its content mode is not the one of its run"
            problems.append(Problem("run", words, expected=run.content, found=content))
        if digest is not None and digest != run.policy["digest"]:
            words = "its policy is not the one that its run began with"
            expected = run.policy["digest"]
            problems.append(Problem("policy", words, expected=expected, found=digest))
        return problems

    def _look_for_result(self, record: Mapping[str, Any]) -> list[Problem]:
        """Look whether a comparison that ends has come to its result."""
        run = self._runs.find(record["run_id"])
        if record["run"]["phase"] != "end" or run is None or run.comparison is None:
            return []
        if run.comparison.is_over or not run.is_whole:
            return []
        return [Problem("run", "its run ends without a result")]

    def _open_comparison(self, run_id: str) -> None:
        """Follow a run that has a plan."""
        run = self._runs.find(run_id)
        if run is None or run.comparison is not None:
            return
        plan = self._policies.find_plan(run.policy["digest"])
        if plan is not None:
            run.comparison = Comparison(plan, is_whole=run.is_whole)

    def _judge(self, record: Mapping[str, Any], problems: list[Problem]) -> None:
        problems += self._policies.look_for(record["assessment"]["policy"])
        # A digest that is registered and follows from the record is that of one and same policy.
        problems += map(_problem_of, recompute(record)[:_MAX_DIFFERENCES])


class _Seen:
    """Something that many records can have: how many have it, and the first of them."""

    def __init__(self) -> None:
        self._first = 0
        self._count = 0

    def add(self, seq: int) -> None:
        if not self._count:
            self._first = seq
        self._count += 1

    def remark(self, code: str, words: str) -> list[Problem]:
        """Say it once; nothing where no record has it."""
        if not self._count:
            return []
        return [Problem(code, f"{self._count} {words}", seq=self._first, is_fault=False)]


def _parse_anything(line: bytes) -> dict[str, Any]:
    """Read what can be read of a line that is not canonical."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _problem_of(difference: Difference) -> Problem:
    if difference.path.startswith("assessment.policy"):
        code = "policy"
    elif difference.path.startswith("assessment"):
        code = "verdict"
    else:
        code = "signals"
    expected, found = (
        None if one is None else _short(one) for one in (difference.recomputed, difference.recorded)
    )
    return Problem(code, _short(str(difference)), expected=expected, found=found)


def _short(text: str) -> str:
    return text[:_SHOWN_CHARS]
