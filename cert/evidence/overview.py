"""What a ledger says that it holds: segments, policies, runs. One pass, and nothing is verified.

Memory grows with runs, policies and segments, not with records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.evidence.coordination_records import COORDINATION_KINDS, OUTCOMES
from cert.ledger.line import is_control
from cert.ledger.reader import PRUNED, read_blocks
from cert.ledger.side_file import parse_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cert.ledger.reader import Reader, Segment

_OF_RUNS: Final = frozenset({"run", "analysis", "error", "refused", *COORDINATION_KINDS})
_OUTCOMES: Final = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
_KINDS: Final = {"error": "errors", "refused": "refused"}


@dataclass(slots=True)
class SegmentView:
    """A file of records.

    Attributes:
        name: Of the file.
        first: `_seq` of its first record, by its name.
        records: Complete lines.
        bytes: Size.
        began: Time of its first record; None where there is none.
        ended: Time of its last record, likewise.
    """

    name: str
    first: int
    records: int
    bytes: int
    began: str | None = None
    ended: str | None = None


@dataclass(slots=True)
class PolicyView:
    """A policy that is registered.

    Attributes:
        id: Its id.
        version: Its version.
        digest: Of its content.
        seq: Number of the record that registers it.
    """

    id: str
    version: int
    digest: str
    seq: int


@dataclass(slots=True)
class RunView:
    """A run.

    Attributes:
        run_id: Its id.
        command: What was run; None where its beginning is gone.
        phase: Of its latest `run` record; anything but `end` is unfinished. None where there is
            none.
        policy: `id@version`; None where its beginning is gone.
        began: Time of its first record.
        ended: Time of its last record.
        counts: Records that are there: passed, failed, inconclusive, errors, refused; of a
            comparison, its strategies by their verdicts.
        exit_code: That it ended with; None where it did not end, or nothing exited.
    """

    run_id: str
    began: str
    ended: str
    command: str | None = None
    phase: str | None = None
    policy: str | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*_OUTCOMES.values(), *_KINDS.values()), 0)
    )
    exit_code: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return self.phase == "end"


@dataclass(slots=True)
class Overview:
    """What a ledger says that it holds.

    Attributes:
        origin: Its name; None where no genesis is there.
        keys: Public keys in base64, the genesis's first, as the records name them.
        pruned: Records that were removed by a recorded pruning.
        records: Complete lines.
        unreadable: Lines that are no records.
        torn_bytes: After the last complete line.
        segments: In order.
        kinds: Records by kind.
        policies: In order of registration.
        runs: In order of their beginning.
        checkpoints: Tree sizes that checkpoints are there for.
    """

    origin: str | None = None
    keys: list[str] = field(default_factory=list)
    pruned: int = 0
    records: int = 0
    unreadable: int = 0
    torn_bytes: int = 0
    segments: list[SegmentView] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    policies: list[PolicyView] = field(default_factory=list)
    runs: list[RunView] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)


def load_overview(reader: Reader, *, progress: Callable[[int], None] = lambda _: None) -> Overview:
    """Read a ledger through.

    Args:
        reader: Where it is.
        progress: Told how many bytes were read since the last time.

    Raises:
        LedgerError: A file cannot be read.
    """
    reading = _Reading(reader)
    for segment in reader.segments:
        view = SegmentView(segment.name, segment.first, 0, segment.size_bytes)
        reading.overview.segments.append(view)
        reading.walk(reader, segment, view, progress)
    return reading.overview


class _Reading:
    """One pass."""

    def __init__(self, reader: Reader) -> None:
        self.overview = Overview(checkpoints=list(reader.checkpoints))
        self._runs: dict[str, RunView] = {}
        self._policies: set[str] = set()
        self._take_kept(reader.read_side_file(PRUNED))

    def walk(
        self,
        reader: Reader,
        segment: Segment,
        view: SegmentView,
        progress: Callable[[int], None],
    ) -> None:
        with reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                if block.is_complete:
                    self._take_lines(block.lines, view)
                else:
                    self.overview.torn_bytes = block.size_bytes
                progress(block.size_bytes)

    def _take_kept(self, data: bytes | None) -> None:
        """Take the lines that were kept of a removed part."""
        if data is None:
            return
        try:
            part = orjson.loads(data)
            self.overview.pruned = parse_count(part["size"])
            for one in part["kept"]:
                self._take(one["line"].encode())
        except (ValueError, TypeError, KeyError, AttributeError):
            self.overview.unreadable += 1

    def _take_lines(self, lines: Sequence[bytes], view: SegmentView) -> None:
        for line in lines:
            view.records += 1
            self.overview.records += 1
            time = self._count(line)
            if time is not None:
                view.began = view.began or time
                view.ended = time

    def _count(self, line: bytes) -> str | None:
        """Take a line; returns its time."""
        try:
            kind, time = self._take(line)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.overview.unreadable += 1
            return None
        self.overview.kinds[kind] = self.overview.kinds.get(kind, 0) + 1
        return time

    def _take(self, line: bytes) -> tuple[str, str]:
        record: dict[str, Any] = orjson.loads(line)
        kind, time = str(record["kind"]), str(record["time"])
        if kind == "policy":
            self._take_policy(record)
        elif kind in _OF_RUNS:
            self._take_of_run(record, kind, time)
        elif is_control("genesis", line):
            ledger = record["ledger"]
            self.overview.origin = str(ledger["origin"])
            self.overview.keys.append(str(ledger["public_key"]))
        elif is_control("key", line):
            self.overview.keys.append(str(record["key"]["public_key"]))
        return kind, time

    def _take_policy(self, record: dict[str, Any]) -> None:
        policy = record["policy"]
        digest = str(policy["digest"])
        if digest not in self._policies:
            self._policies.add(digest)
            view = PolicyView(str(policy["id"]), policy["version"], digest, record["_seq"])
            self.overview.policies.append(view)

    def _take_of_run(self, record: dict[str, Any], kind: str, time: str) -> None:
        run_id = str(record["run_id"])
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = RunView(run_id, time, time)
            self.overview.runs.append(run)
        run.ended = time
        if kind == "analysis":
            run.counts[_OUTCOMES[record["assessment"]["verdict"]]] += 1
        elif kind in _KINDS:
            run.counts[_KINDS[kind]] += 1
        elif kind == "coordination":
            for strategy in record["coordination"]["strategies"]:
                run.counts[_OUTCOMES[OUTCOMES[strategy["verdict"]]]] += 1
        elif kind == "run":
            said = record["run"]
            run.phase = str(said["phase"])
            if "command" in said:
                run.command = str(said["command"])
                run.policy = f"{said['policy']['id']}@{said['policy']['version']}"
            run.exit_code = said.get("exit_code")
