"""Verify a ledger as a whole, in one pass and bounded memory (docs/record-format.md, 6).

    start -> lines of all segments, stopping at each checkpoint's size -> end -> state

It never writes. What it finds goes into a report; it raises where it cannot do its work.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.chain import Chain, Place
from cert.ledger.checkpoint import Checkpoint, SignedCheckpoint, parse_checkpoint, root_text
from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.findings import Finding, Findings, Problem, Report, State
from cert.ledger.line import HASH_BYTES, genesis_prev, is_control, may_be_control, parse_links
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.merkle import Frontier, verify_inclusion
from cert.ledger.pruned import PrunedPart, parse_pruned, verify_pruned
from cert.ledger.reader import PRUNED, PRUNING, PRUNING_NOTE, TAIL, read_blocks
from cert.ledger.tail import parse_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cert.ledger.keys import PublicKey
    from cert.ledger.reader import Block, Reader, Segment

_REMARKS: Final = ("recovered", "erased", "pruned")
_REMOVED: Final = Place(1, "", 0)


class RecordCheck(Protocol):
    """What looks into records (`--deep`); it never raises on what a record holds."""

    @property
    def kinds(self) -> Mapping[str, int]:
        """Records so far, by kind."""

    def preload(self, seq: int, line: bytes) -> None:
        """Take a line that was kept of a removed part."""

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        """Look at a line."""

    def finish(self) -> Sequence[Problem]:
        """Say what can be said at the end only."""


def verify_ledger(
    reader: Reader,
    pinned: PublicKey,
    *,
    head: bytes | None = None,
    deep: RecordCheck | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Verify a ledger.

    Args:
        reader: Where it is.
        pinned: The key that is trusted, from outside of the ledger.
        head: A signed note that was kept elsewhere.
        deep: Looks into every record, too.
        progress: Told how many bytes were read since the last time.

    Raises:
        LedgerError: A file cannot be read.
        ProofError: The head is none, or nobody known signed it.
    """
    signed_head = None if head is None else parse_checkpoint(head)
    if signed_head is not None and not signed_head.checkpoint.size:
        raise ProofError("a head of size 0 pins nothing")
    return _Verification(reader, pinned, signed_head, deep, progress).run()


class _Verification:
    """One verification; also the watcher of its chain."""

    def __init__(
        self,
        reader: Reader,
        pinned: PublicKey,
        head: SignedCheckpoint | None,
        deep: RecordCheck | None,
        progress: Callable[[int], None],
    ) -> None:
        self._reader = reader
        self._pinned = pinned
        self._head = head
        self._deep = deep
        self._progress = progress
        self._findings = Findings()
        self._lineage: Lineage | None = None
        self._pruned_size = 0
        self._pruned_root = b""
        self._pruning_line = 0
        """Line of the first `pruned` record that says of the removed part that it was to go."""
        self._segments = reader.segments
        self._signed_sizes = set(reader.checkpoints)
        self._removed_good: list[int] = []
        """Sizes of good checkpoints within the removed part."""
        self._sealed = 0
        self._first = Place(1, _first_name(reader.segments), 0)
        """Where line 1 begins; in no file where it was removed."""
        self._here = self._first
        """Where the next line begins."""
        self._unsealed = self._here
        """Where the first line after the newest good checkpoint begins."""
        self._bad_roots: list[_BadRoot] = []
        self._head_root: bytes | None = None
        self._head_place = self._here
        self._tail = parse_tail(reader.read_side_file(TAIL))
        self._is_tail_good = False

    @property
    def wants_all(self) -> bool:
        return self._deep is not None

    def report(self, finding: Finding) -> None:
        self._findings.add(finding)

    def look_at(self, seq: int, line: bytes) -> Sequence[Problem]:
        return () if self._deep is None else self._deep.check(seq, line)

    def meet_control(self, seq: int, line: bytes, place: Place) -> None:
        if not may_be_control(line):
            return
        if is_control("key", line) and self._lineage is not None:
            try:
                self._lineage.rotate(line)
            except ProofError as error:
                self._add(
                    State.INVALID, "key-record", f"no rotation of the key: {error.message}", place
                )
        elif is_control("genesis", line) and seq:
            self._add(State.INVALID, "genesis", "a genesis that is not the first record", place)
        for kind in _REMARKS:
            if is_control(kind, line):
                if kind == "pruned" and not self._pruning_line and self._is_of_removed(line):
                    self._pruning_line = place.line
                self._add(None, kind, f"a `{kind}` record says what was done here", place)

    def run(self) -> Report:
        """Do it."""
        chain = self._start()
        stops = self._stops(chain.frontier.size)
        for number, segment in enumerate(self._segments):
            is_last = number == len(self._segments) - 1
            self._walk_segment(chain, segment, stops, is_last=is_last)
        chain.settle(self._tail_leaf(chain.frontier.size))
        self._judge_roots()
        self._judge_rest(chain, stops)
        if self._deep is not None:
            for one in self._deep.finish():
                state = State.INVALID if one.is_fault else None
                place = self._here if one.seq is None else Place(one.seq + 1, "", 0)
                self._add(state, one.code, one.message, place, one.expected, one.found)
        self._judge_pruning()
        self._judge_key()
        if self._head is not None:
            try:
                self._judge_head(self._head)
            except ProofError as error:
                if not self._is_invalid():
                    raise
                self._add(None, "head", f"not compared with a head: {error.message}", self._first)
        return self._build_report(chain)

    def _is_invalid(self) -> bool:
        worst = self._findings.worst()
        return worst is not None and worst.state is State.INVALID

    def _tail_leaf(self, size: int) -> bytes | None:
        """Leaf hash of the last of so many lines, where a signed checkpoint vouches for it."""
        if self._tail is None or not self._is_tail_good or self._tail.size != size:
            return None
        return self._tail.last_leaf

    def _start(self) -> Chain:
        """Find the genesis: at the beginning, or among what was kept of a removed part."""
        data = self._reader.read_side_file(PRUNED)
        if data is not None:
            self._first = _REMOVED
            try:
                part = parse_pruned(data)
                self._lineage = verify_pruned(part, self._reader.read_checkpoint)
            except LedgerError as error:
                self._add(State.INVALID, "pruned", error.message, self._first)
                return self._start_anywhere()
            return self._start_after(part)
        line = self._first_line()
        if line is None:
            self._add(State.INVALID, "genesis", "there is no record at all", self._here)
            return Chain(Frontier(), bytes(HASH_BYTES), self)
        try:
            genesis = parse_genesis(line)
        except ProofError as error:
            self._add(State.INVALID, "genesis", f"no genesis: {error.message}", self._here)
            return self._start_anywhere()
        self._lineage = Lineage(genesis)
        return Chain(Frontier(), genesis_prev(genesis.origin, genesis.key), self)

    def _start_after(self, part: PrunedPart) -> Chain:
        self._pruned_size = self._sealed = part.size
        self._pruned_root = part.tree().root()
        self._segments = [one for one in self._reader.segments if one.first >= part.size]
        self._here = self._unsealed = Place(part.size + 1, _first_name(self._segments), 0)
        self._add(None, "pruned", f"the first {part.size} records were removed", self._first)
        if len(self._segments) < len(self._reader.segments):
            words = "files of removed records are still there: `cert ledger prune` was cut off"
            self._add(None, "pruned", words, self._first)
        if self._deep is not None:
            for one in part.kept:
                self._deep.preload(one.seq, one.line)
        return Chain(part.tree(), part.last_leaf, self)

    def _is_of_removed(self, line: bytes) -> bool:
        """Whether a `pruned` record speaks of just the part that is not there."""
        with suppress(CanonicalError):
            match parse_canonical(line).get("pruned"):
                case {"size": int(size), "root": root} if size is not True:
                    said = self._pruned_size, root_text(self._pruned_root)
                    return bool((size, root) == said)
        return False

    def _start_anywhere(self) -> Chain:
        """Go by what the first line says of itself; that it should not is reported already."""
        links = parse_links(self._first_line() or b"")
        if links is None:
            return Chain(Frontier(), bytes(HASH_BYTES), self)
        return Chain(Frontier(), bytes.fromhex(links.prev.decode()), self, seq=links.seq)

    def _first_line(self) -> bytes | None:
        for segment in self._reader.segments:
            with self._reader.open_segment(segment) as file:
                for block in read_blocks(file, segment.size_bytes):
                    return block.lines[0] if block.is_complete else None
        return None

    def _stops(self, size: int) -> list[int]:
        """Tree sizes at which roots are compared, the next one last."""
        for signed in self._reader.checkpoints:
            if signed <= size and self._read_checkpoint(signed) is not None:
                self._removed_good.append(signed)
        sizes = {one for one in self._signed_sizes if one > size}
        if self._head is not None and self._head.checkpoint.size > size:
            sizes.add(self._head.checkpoint.size)
        return sorted(sizes, reverse=True)

    def _walk_segment(
        self, chain: Chain, segment: Segment, stops: list[int], *, is_last: bool
    ) -> None:
        self._here = Place(chain.frontier.size + 1, segment.name, 0)
        if self._unsealed.line == self._here.line:
            self._unsealed = self._here
        if segment.first != chain.seq:
            self._add(
                State.INVALID,
                "segment",
                "this file's name is not the number of the record that comes next",
                self._here,
                str(chain.seq),
                str(segment.first),
            )
        with self._reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                size_bytes = block.size_bytes
                if block.is_complete:
                    self._walk_lines(chain, block.lines, stops)
                    end = block.offset + size_bytes
                    self._here = Place(self._here.line, segment.name, end)
                else:
                    self._meet_rest(chain, block, stops, is_last=is_last)
                self._progress(size_bytes)

    def _meet_rest(self, chain: Chain, block: Block, stops: list[int], *, is_last: bool) -> None:
        """Bytes after the last newline of a segment."""
        here = self._here
        if is_last:
            words = f"{block.size_bytes} bytes without a newline at the end"
            self._add(State.TORN, "torn", f"{words}: the last line is not complete", here)
        else:
            chain.feed_incomplete(block.lines[0], here.segment, here.offset)
            self._pass_on(chain, here.offset + block.size_bytes, stops)

    def _walk_lines(self, chain: Chain, lines: Sequence[bytes], stops: list[int]) -> None:
        at = 0
        while at < len(lines):
            room = stops[-1] - chain.frontier.size if stops else len(lines)
            part = lines[at : at + room]
            here = self._here
            chain.feed(part, here.segment, here.offset)
            at += len(part)
            offset = here.offset + sum(map(len, part)) + len(part)
            self._pass_on(chain, offset, stops)

    def _pass_on(self, chain: Chain, offset: int, stops: list[int]) -> None:
        self._here = Place(chain.frontier.size + 1, self._here.segment, offset)
        if stops and chain.frontier.size == stops[-1]:
            self._stop_at(stops.pop(), chain)

    def _stop_at(self, size: int, chain: Chain) -> None:
        root = chain.frontier.root()
        if self._head is not None and self._head.checkpoint.size == size:
            self._head_root, self._head_place = root, self._unsealed
        signed = self._read_checkpoint(size, chain.here) if size in self._signed_sizes else None
        if signed is None:
            return
        if signed.checkpoint.root == root:
            self._sealed, self._unsealed = size, self._here
        elif chain.here is not None:
            self._bad_roots.append(
                _BadRoot(signed.checkpoint, root, self._unsealed, chain.here, chain.last_leaf)
            )

    def _read_checkpoint(self, size: int, last: Place | None = None) -> SignedCheckpoint | None:
        """Read one and do steps 1 and 2 of 6.3; None where they fail.

        Args:
            size: Of the tree.
            last: Where the last line is that it covers; None if it is not there.
        """
        if self._lineage is None:
            return None
        try:
            signed = parse_checkpoint(self._reader.read_checkpoint(size))
            self._lineage.verify(signed, size)
            if not size:
                raise ProofError("one of no records is never written")  # noqa: TRY301 - as above
        except ProofError as error:
            words = f"the checkpoint {size} does not hold: {error.message}"
            self._add(State.INVALID, "checkpoint", words, last or Place(max(size, 1), "", 0))
            return None
        if self._tail is not None and self._tail.size == size:
            root, tail = signed.checkpoint.root, self._tail
            with suppress(ProofError):
                verify_inclusion(
                    index=size - 1, size=size, leaf=tail.last_leaf, path=tail.proof, root=root
                )
                self._is_tail_good = True
        return signed

    def _judge_roots(self) -> None:
        """Rule R."""
        for bad in self._bad_roots:
            size, after = bad.signed.size, bad.first.line - 1
            if self._findings.has_fault_between(after, size):
                continue
            place = bad.first
            words = f"one of the lines {after + 1} to {size} is not the one that was signed"
            leaf = self._tail_leaf(size)
            if leaf is not None and leaf != bad.last_leaf:
                place, words = bad.last, "the line is not the one that was signed"
            self._add(
                State.INVALID, "root", words, place, root_text(bad.signed.root), root_text(bad.root)
            )

    def _judge_rest(self, chain: Chain, stops: Sequence[int]) -> None:
        """What checkpoints say beyond the last line, and what lines there are beyond them."""
        missing = [size for size in reversed(stops) if size in self._signed_sizes]
        if self._lineage is not None and missing and not chain.blame_last("checkpoint"):
            for size in missing:
                found = self._here.line - 1
                words = f"lines are missing: there is a checkpoint of {size} records"
                self._add(State.INVALID, "checkpoint", words, self._here, str(size), str(found))
        if self._here.line - 1 > self._sealed:
            count = self._here.line - 1 - self._sealed
            self._add(
                State.UNSEALED,
                "unsealed",
                f"no checkpoint covers the last {count} records",
                self._unsealed,
            )

    def _judge_pruning(self) -> None:
        """Whoever had records removed signed that; said only where nothing else is wrong."""
        is_signed = 0 < self._pruning_line <= self._sealed
        # Damage hides the record, or the checkpoint that covers it; then it is the fault.
        if not self._pruned_size or is_signed or self._is_invalid():
            return
        if not self._is_signed_later():
            words = "no signed `pruned` record says that the first records were to be removed"
            self._add(State.INVALID, "pruned", words, self._first)

    def _is_signed_later(self) -> bool:
        """Whether that record, which comes after the end of this part of a ledger, is beside it."""
        data, note = map(self._reader.read_side_file, (PRUNING, PRUNING_NOTE))
        if data is None or note is None or self._lineage is None:
            return False
        try:
            later, read = parse_pruned(data), self._reader.read_checkpoint
            lineage = verify_pruned(later, lambda size: note if size == later.size else read(size))
        except LedgerError:
            return False
        keys = self._lineage.keys
        return lineage.keys[: len(keys)] == keys and any(
            one.seq >= self._pruned_size
            and is_control("pruned", one.line)
            and self._is_of_removed(one.line)
            for one in later.kept
        )

    def _judge_key(self) -> None:
        """The pinned key is one of the ledger's; said only where nothing else is wrong."""
        is_pinned = self._lineage is None or self._pinned in self._lineage.keys
        # A damaged rotation hides the keys after it; then it is the fault, not the key.
        if self._lineage is not None and not is_pinned and not self._is_invalid():
            self._add(
                State.INVALID,
                "key",
                "the ledger is signed by another key than the one that was pinned",
                self._first,
                self._pinned.text,
                self._lineage.current.text,
            )

    def _judge_head(self, head: SignedCheckpoint) -> None:
        checkpoint = head.checkpoint
        keys = [self._pinned, *(self._lineage.keys if self._lineage is not None else [])]
        if not head.is_signed_by(*keys):
            raise ProofError(
                "the head is not signed by the pinned key, nor by another of this ledger's",
                hint="give the file that `cert ledger head` wrote, and the key that signed it",
            )
        if self._lineage is not None and checkpoint.origin != self._lineage.origin:
            words = "this is another ledger than the one that the head is of"
            origins = checkpoint.origin, self._lineage.origin
            self._add(State.INVALID, "head", words, self._first, *origins)
            return
        size, records = checkpoint.size, self._here.line - 1
        if size > records:
            words = "the ledger is shorter than the head that was kept"
            self._add(State.ROLLED_BACK, "head", words, self._here, str(size), str(records))
            return
        root, place = self._head_root, self._head_place
        if size <= self._pruned_size:
            known = self._read_checkpoint(size) if size in self._signed_sizes else None
            if known is None:
                raise ProofError(
                    f"the head is of size {size}, in a part that was removed: nothing is left to "
                    "compare it with",
                    hint="give a newer head",
                )
            root = known.checkpoint.root
            good = max((one for one in self._removed_good if one < size), default=0)
            place = Place(good + 1, "", 0)
        if root != checkpoint.root:
            words = f"the first {size} records are not those that the kept head is of"
            self._add(
                State.ROLLED_BACK,
                "head",
                words,
                place,
                root_text(checkpoint.root),
                None if root is None else root_text(root),
            )

    def _build_report(self, chain: Chain) -> Report:
        first = self._findings.worst()
        state = State.UNANCHORED if self._head is None else State.VALID
        if first is not None and first.state is not None:
            state = first.state
        return Report(
            state=state,
            mode="fast" if self._deep is None else "deep",
            first=first,
            findings=self._findings.ordered(),
            omitted=self._findings.omitted,
            origin=None if self._lineage is None else self._lineage.origin,
            records=self._here.line - 1 - self._pruned_size,
            pruned=self._pruned_size,
            sealed=self._sealed,
            root=root_text(chain.frontier.root()),
            key=None if self._lineage is None else self._lineage.current.text,
            kinds={} if self._deep is None else dict(self._deep.kinds),
        )

    def _add(  # noqa: PLR0913, PLR0917 - what a finding is made of
        self,
        state: State | None,
        code: str,
        message: str,
        place: Place,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        segment = place.segment or None
        offset = None if segment is None else place.offset
        self.report(Finding(state, code, message, place.line, segment, offset, expected, found))


@dataclass(frozen=True, slots=True)
class _BadRoot:
    """A checkpoint whose root is another one than that of the lines."""

    signed: Checkpoint
    root: bytes
    first: Place
    last: Place
    last_leaf: bytes


def _first_name(segments: Sequence[Segment]) -> str:
    """File of line 1, or the one where it would be; empty where there is no file."""
    names = [one.name for one in segments if one.size_bytes] or [one.name for one in segments][-1:]
    return names[0] if names else ""
