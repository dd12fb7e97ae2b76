"""Which records may be removed: closed segments, old enough, up to a signed checkpoint."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.core.errors import ConfigurationError
from cert.ledger.errors import ProofError
from cert.ledger.line import is_control
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.pruned import PrunedPart, parse_pruned
from cert.ledger.reader import PRUNED, read_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.findings import Problem
    from cert.ledger.reader import Reader, Segment

_NEVER: Final = "~"
"""Sorts after every time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go.

    Attributes:
        part: What stands for records that went earlier, if any.
        size: Records 0 .. size - 1 are gone afterwards; those of `part` where nothing is to go.
        segments: The files that hold those that are there still.
        newest: `time` of the newest record that goes; empty where nothing is to go.
    """

    part: PrunedPart | None
    size: int
    segments: tuple[Segment, ...]
    newest: str

    @property
    def records(self) -> int:
        """How many go."""
        return self.size - (0 if self.part is None else self.part.size)

    @property
    def size_bytes(self) -> int:
        """Of the files that go."""
        return sum(one.size_bytes for one in self.segments)


def parse_date(text: str) -> datetime:
    """Midnight in UTC at the beginning of a day.

    >>> parse_date("2027-01-01").isoformat()
    '2027-01-01T00:00:00+00:00'

    Raises:
        ConfigurationError: It is no date.
    """
    day: datetime | None = None
    with suppress(ValueError):
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    if day is None or f"{day:%Y-%m-%d}" != text:
        raise ConfigurationError(
            f"{text!r} is no date", hint="write it as YYYY-MM-DD, for example 2027-01-01"
        )
    return day


def check_retention(before: datetime, *, retention_days: int, now: datetime) -> None:
    """See that nothing is removed that has to be kept.

    Raises:
        ConfigurationError: It would be; says which date would be allowed.
    """
    allowed = now - timedelta(days=retention_days)
    if before > allowed:
        raise ConfigurationError(
            f"records are kept for {retention_days} days, so those of before "
            f"{before:%Y-%m-%d} may not be removed yet",
            hint=f"--before {allowed:%Y-%m-%d} would be allowed; the setting is retention_days",
        )


def read_part(reader: Reader) -> PrunedPart | None:
    """What stands for records that were removed; None where none were.

    Raises:
        LedgerError: It cannot be read.
    """
    data = reader.read_side_file(PRUNED)
    return None if data is None else parse_pruned(data)


def plan_pruning(reader: Reader, before: datetime, *, at_least: int = 0) -> Plan:
    """Find what may go: whole closed segments, all of whose records are older.

    Args:
        reader: The ledger.
        before: Records of this moment and later stay.
        at_least: Size of a pruning that was recorded and cut off; it goes whatever its age.

    Raises:
        LedgerError: A file cannot be read.
    """
    part = read_part(reader)
    limit = before.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    start = 0 if part is None else part.size
    segments = [one for one in reader.segments if one.first >= start]
    chosen, newest, seen = 0, "", ""
    for number, (one, following) in enumerate(pairwise(segments), 1):
        seen = max(seen, _newest_time(reader, one))
        if seen >= limit and following.first > at_least:
            break
        if following.first in reader.checkpoints:
            chosen, newest = number, seen
    size = segments[chosen].first if chosen else start
    return Plan(part, size, tuple(segments[:chosen]), newest)


def _newest_time(reader: Reader, segment: Segment) -> str:
    """The latest `time` in a segment; a record without one counts as newer than all."""
    newest = ""
    with reader.open_segment(segment) as file:
        for block in read_blocks(file, segment.size_bytes):
            for line in block.lines:
                newest = max(newest, _time_of(line))
    return newest


def _time_of(line: bytes) -> str:
    try:
        time = orjson.loads(line)["time"]
        datetime.fromisoformat(time)
    except (ValueError, LookupError, TypeError):
        return _NEVER
    return time if time.endswith("Z") else _NEVER


class Survey:
    """What a pruning has to know of a ledger, collected while that is verified.

    Attributes:
        kinds: Not counted.
        recorded: The `pruned` of the last such record; None for none.
        recorded_at: Its number.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.recorded: dict[str, Any] | None = None
        self.recorded_at = 0
        self._said: dict[int, int] = {}
        self._keys: list[tuple[int, bytes]] = []
        self._genesis: bytes | None = None

    def preload(self, seq: int, line: bytes) -> None:
        """Take a line that was kept of a removed part."""
        self.check(seq, line)

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        """Take a line."""
        if not seq:
            self._genesis = line
        elif is_control("key", line):
            self._keys.append((seq, line))
        elif is_control("pruned", line):
            self.recorded, self.recorded_at = orjson.loads(line)["pruned"], seq
            self._said.setdefault(self.recorded["size"], seq)
        return ()

    def finish(self) -> Sequence[Problem]:
        """Nothing to say."""
        return ()

    def said_at(self, size: int) -> int | None:
        """Number of the first `pruned` record of a size; None where there is none."""
        return self._said.get(size)

    def lineage_at(self, size: int) -> Lineage:
        """The keys up to a tree size.

        Raises:
            LedgerError: There was no genesis, or a rotation does not hold.
        """
        if self._genesis is None:
            raise ProofError("there is no genesis")
        lineage = Lineage(parse_genesis(self._genesis))
        for seq, line in self._keys:
            if seq < size:
                lineage.rotate(line)
        return lineage
