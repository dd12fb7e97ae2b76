"""Follow one ledger: read what is new, check its chain, count it. Nothing is ever written to it.

Each look takes the sizes of all files under the ledger's shared lock, re-reads the last line that
was counted, and goes on behind it only if that is still the same. A leaf hash stands for the whole
history before it, so this notices a ledger that was swapped, cut or written anew; it does not
notice a byte changed in what was read before, which is the work of `cert verify`.

    last line as before                     go on
    removed by pruning, up to here          go on behind the removed part
    removed by pruning, and further         go on there; what lay between was never counted
    another history, same genesis           counted anew, and broken from then on
    another genesis                         another ledger: counted anew
"""

from __future__ import annotations

import logging
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cert.ledger.chain import Chain
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.findings import State
from cert.ledger.line import is_control, may_be_control
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.merkle import Frontier
from cert.ledger.pruned import parse_pruned, verify_pruned
from cert.ledger.reader import (
    CHECKPOINTS,
    CHUNK_BYTES,
    PRUNED,
    FolderReader,
    note_name,
    read_blocks,
)
from cert.service.exporter.beginning import begin, first_line, holds_last_line
from cert.service.exporter.state import LedgerState, Position
from cert.service.exporter.totals import Counter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cert.ledger.chain import Place
    from cert.ledger.findings import Finding, Problem
    from cert.ledger.keys import PublicKey
    from cert.ledger.pruned import PrunedPart
    from cert.ledger.reader import Block, Segment

logger = logging.getLogger(__name__)

ROUND_BYTES: Final = 1 << 26
"""Read at most in one look, so that what was counted is shown and kept meanwhile."""
_LOCK_TIMEOUT_S: Final = 5.0
_MAX_FAULT_CHARS: Final = 500
_MAX_KEYS: Final = 1000


class Condition(StrEnum):
    """How a ledger is, as far as following it shows."""

    CONSISTENT = "consistent"
    UNSEALED = "unsealed"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    MISSING = "missing"


class Follower:
    """Follows one ledger.

    Attributes:
        state: What is known; to be kept over a restart.
        counter: Counts into it.
        condition: As of the last look.
        size_bytes: Of all its segments, at the last look that could be taken.
        checkpoint_s: Unix time of the newest good checkpoint's file; None without one.
        behind_bytes: What the last look left for the next one.
    """

    def __init__(self, root: Path, state: LedgerState, *, pinned: PublicKey | None = None) -> None:
        """Go on where a state stands.

        Args:
            root: The ledger's folder, which may not be there yet.
            state: Becomes this follower's own.
            pinned: A key that the ledger must be of; None takes the one that it names itself.
        """
        self.root = root
        self.state = state
        self.counter = Counter(state.totals)
        self.condition = Condition.MISSING
        self.size_bytes = 0
        self.checkpoint_s: float | None = None
        self.behind_bytes = 0
        self._pinned = pinned
        self._lineage: Lineage | None = None
        self._pruned: tuple[bytes | None, PrunedPart | None] = None, None
        self._torn: tuple[str, int] | None = None
        """A file that ends in a long piece of a line, and its size: not read until it grows."""
        self._restore_lineage()

    @property
    def unsealed(self) -> int:
        """Records that no good checkpoint covers."""
        position = self.state.position
        return 0 if position is None else position.size - self.state.sealed

    def look(self) -> None:
        """Read what is new, up to `ROUND_BYTES`. Never raises on what the ledger is like."""
        before = self.condition
        try:
            self.condition = self._look()
        except (LedgerError, OSError) as error:
            self.condition = Condition.UNREADABLE
            self.state.errors += 1
            logger.warning(
                "a ledger cannot be read", extra={"ledger": str(self.root), "reason": str(error)}
            )
        if self.condition is not before:
            logger.info(
                "a ledger's state changed",
                extra={"ledger": str(self.root), "state": self.condition.value},
            )

    def _look(self) -> Condition:
        self.behind_bytes = 0
        try:
            self.root.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self.size_bytes = 0
            return Condition.MISSING
        reader = FolderReader(self.root, lock_timeout_s=_LOCK_TIMEOUT_S)
        self.size_bytes = sum(one.size_bytes for one in reader.segments)
        data = reader.read_side_file(PRUNED)
        if not self.size_bytes and data is None:
            return Condition.MISSING
        part = self._parse_pruned(data)
        if self.state.position is not None and not self.state.position.size:
            self.state.position = None
        if self.state.position is not None and not self._continues(reader, part):
            self._restart(reader, part)
        if self.state.position is None and not self._start(reader, part):
            return self._judge()
        if part is not None:
            self._seal_pruned(reader, part)
        self._walk(reader)
        self._date_checkpoint()
        return self._judge()

    def _judge(self) -> Condition:
        state, lineage = self.state, self._lineage
        # Not kept as a fault: another key may be pinned the next time.
        is_foreign = lineage is not None and self._pinned not in {None, *lineage.keys}
        if is_foreign and self.condition is not Condition.BROKEN:
            logger.error(
                "a ledger is not of the key that is pinned", extra={"ledger": str(self.root)}
            )
        if state.fault or is_foreign:
            return Condition.BROKEN
        return Condition.UNSEALED if self.unsealed or not state.sealed else Condition.CONSISTENT

    def _blame(self, what: str) -> None:
        """Take note of a fault; the first one stays."""
        if not self.state.fault:
            self.state.fault = what[:_MAX_FAULT_CHARS]
            logger.error(
                "a ledger is broken",
                extra={"ledger": str(self.root), "reason": what, "next": "cert verify"},
            )

    # Where to begin.

    def _parse_pruned(self, data: bytes | None) -> PrunedPart | None:
        if data is None:
            return None
        if data != self._pruned[0]:
            self._pruned = data, None
            try:
                self._pruned = data, parse_pruned(data)
            except ProofError as error:
                self._blame(error.message)
        return self._pruned[1]

    def _continues(self, reader: FolderReader, part: PrunedPart | None) -> bool:
        """Whether what was counted is still there, or was removed by a pruning."""
        position = self.state.position
        assert position is not None  # noqa: S101 - asked only then
        here = next((one for one in reader.segments if one.first == position.segment), None)
        is_removed = part is not None and part.size >= position.size
        if here is not None and position.end and not is_removed:
            return holds_last_line(reader, here, position)
        if part is None:
            return False
        if part.size == position.size:
            return part.last_leaf.hex() == position.last_leaf
        if part.size > position.size and part.kept and self._is_same_genesis(part.kept[0].line):
            logger.warning(
                "records were pruned before they were counted",
                extra={"ledger": str(self.root), "records": part.size - position.size},
            )
            self.state.position = None
            return self._start(reader, part)
        return False

    def _seal_pruned(self, reader: FolderReader, part: PrunedPart) -> None:
        """Count what was removed as sealed: its checkpoint may be newer than the last look."""
        position = self.state.position
        assert position is not None  # noqa: S101 - it was found
        if not self.state.sealed < part.size <= position.size:
            return
        try:
            verify_pruned(part, reader.read_checkpoint)
        except LedgerError as error:
            self._blame(error.message)
        else:
            self.state.sealed = part.size

    def _is_same_genesis(self, line: bytes | None) -> bool:
        kept = self.state.lineage
        return bool(kept) and line is not None and kept[0].encode() == line

    def _restart(self, reader: FolderReader, part: PrunedPart | None) -> None:
        """Count anew: this is not the history that was counted."""
        kept = () if part is None else part.kept
        is_same = self._is_same_genesis(kept[0].line if kept else first_line(reader))
        logger.warning(
            "a ledger has another history than the one that was counted; counting anew",
            extra={"ledger": str(self.root), "same_genesis": is_same},
        )
        state = self.state
        self.state = LedgerState(restarts=state.restarts + 1, errors=state.errors)
        self.counter = Counter(self.state.totals)
        self._lineage = self._torn = None
        if is_same:
            self._blame("records that were counted are not there any more, or are others")

    def _start(self, reader: FolderReader, part: PrunedPart | None) -> bool:
        """Begin; False where there is no complete line yet."""
        found = begin(reader, part)
        if found is None:
            return False
        if found.fault:
            self._blame(found.fault)
        self._lineage = found.lineage
        self.state.lineage = list(found.lines)
        self.state.position, self.state.sealed = found.position, found.sealed
        return True

    def _restore_lineage(self) -> None:
        if self.state.lineage:
            try:
                first, *rest = (one.encode() for one in self.state.lineage)
                self._lineage = Lineage(parse_genesis(first))
                for line in rest:
                    self._lineage.rotate(line)
            except ProofError as error:
                self._blame(f"the state file's keys do not hold: {error.message}")

    # Going on.

    def _walk(self, reader: FolderReader) -> None:
        position = self.state.position
        assert position is not None  # noqa: S101 - it was found
        tree = Frontier.from_roots(position.size, [bytes.fromhex(one) for one in position.frontier])
        chain = Chain(tree, bytes.fromhex(position.last_leaf), self, seq=position.seq)
        stops = sorted((one for one in reader.checkpoints if one >= tree.size), reverse=True)
        self._stop(reader, chain, stops)
        left = ROUND_BYTES
        ahead = [one for one in reader.segments if one.first >= position.segment]
        for number, segment in enumerate(ahead):
            begin = position.end if segment.first == position.segment else 0
            if left <= 0:
                self.behind_bytes += segment.size_bytes - begin
                continue
            if not begin and segment.first != chain.seq:
                self._blame(f"{segment.name} is not the number of the record that comes next")
            is_last = number == len(ahead) - 1
            left -= self._walk_segment(reader, chain, segment, begin, stops, left, is_last=is_last)
        chain.settle(None)

    def _walk_segment(  # noqa: PLR0913, PLR0917 - where, how far, and what comes up on the way
        self,
        reader: FolderReader,
        chain: Chain,
        segment: Segment,
        begin: int,
        stops: list[int],
        limit_bytes: int,
        *,
        is_last: bool,
    ) -> int:
        """Read a segment on; returns how many bytes of it."""
        todo = segment.size_bytes - begin
        if todo <= 0 or (is_last and (segment.name, segment.size_bytes) == self._torn):
            return 0
        done = 0
        with reader.open_segment(segment) as file:
            file.seek(begin)
            for block in read_blocks(file, todo):
                offset = begin + block.offset
                if block.is_complete:
                    self._walk_lines(reader, chain, block, segment, offset, stops)
                    done = block.offset + block.size_bytes
                elif is_last:
                    is_long = block.size_bytes > CHUNK_BYTES
                    self._torn = (segment.name, segment.size_bytes) if is_long else None
                else:
                    self._blame(f"{segment.name} is closed and does not end with a newline")
                    chain.feed_incomplete(block.lines[0], segment.name, offset)
                    end = offset + block.size_bytes
                    self._keep(chain, segment, end if block.dropped_bytes else offset, end)
                    done = block.offset + block.size_bytes
                if done >= limit_bytes:
                    self.behind_bytes += todo - done
                    break
        return done

    def _walk_lines(  # noqa: PLR0913, PLR0917 - as above
        self,
        reader: FolderReader,
        chain: Chain,
        block: Block,
        segment: Segment,
        offset: int,
        stops: list[int],
    ) -> None:
        at, lines = 0, block.lines
        while at < len(lines):
            room = stops[-1] - chain.frontier.size if stops else len(lines)
            part = lines[at : at + room]
            chain.feed(part, segment.name, offset)
            offset += sum(map(len, part)) + len(part) + block.dropped_bytes
            # A line that is too long has its middle left out, so it cannot be told again.
            last_bytes = 0 if block.dropped_bytes else len(part[-1]) + 1
            self._keep(chain, segment, offset - last_bytes, offset)
            at += len(part)
            self._stop(reader, chain, stops)

    def _keep(self, chain: Chain, segment: Segment, start: int, end: int) -> None:
        self.state.position = Position(
            chain.frontier.size,
            chain.seq,
            chain.last_leaf.hex(),
            [one.hex() for one in chain.frontier.roots()],
            segment.first,
            start,
            end,
        )

    def _stop(self, reader: FolderReader, chain: Chain, stops: list[int]) -> None:
        """Compare the tree with the checkpoint of its size, if there is one."""
        if not stops or stops[-1] != chain.frontier.size:
            return
        size = stops.pop()
        if self._lineage is None or not size:
            return
        try:
            signed = parse_checkpoint(reader.read_checkpoint(size))
            self._lineage.verify(signed, size)
        except ProofError as error:
            self._blame(f"the checkpoint {size} does not hold: {error.message}")
            return
        if signed.checkpoint.root != chain.frontier.root():
            self._blame(f"the checkpoint {size} is one of other records")
            return
        self.state.sealed = size

    def _date_checkpoint(self) -> None:
        self.checkpoint_s = None
        if self.state.sealed:
            with suppress(OSError):
                path = self.root / CHECKPOINTS / note_name(self.state.sealed)
                self.checkpoint_s = path.lstat().st_mtime

    # What the chain tells.

    @property
    def wants_all(self) -> bool:
        """Every line is counted."""
        return True

    def report(self, finding: Finding) -> None:
        """Take a finding of the chain."""
        if finding.state is State.INVALID:
            self._blame(f"line {finding.line} ({finding.code}): {finding.message}")

    def meet_control(self, seq: int, line: bytes, place: Place) -> None:
        """Follow the keys."""
        if not seq or self._lineage is None or not may_be_control(line):
            return
        if is_control("genesis", line):
            self._blame(f"line {place.line}: a genesis that is not the first record")
        elif is_control("key", line) and len(self.state.lineage) < _MAX_KEYS:
            try:
                self._lineage.rotate(line)
            except ProofError as error:
                self._blame(f"line {place.line}: no rotation of the key: {error.message}")
            else:
                self.state.lineage.append(line.decode())

    def look_at(self, seq: int, line: bytes) -> Sequence[Problem]:  # noqa: ARG002 - the chain's
        """Count a line."""
        self.counter.count(line)
        return ()
