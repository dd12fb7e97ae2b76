"""Verify a plain file of records as far as it goes (docs/record-format.md, 6.7).

    first line with links    -> chain from there on, numbers may jump forward
    first line without links -> canonical form, line by line

Nothing in such a file is signed. Only a head that was kept elsewhere makes more of it than
`unsealed`, and only where the file begins at record 0 and has no gaps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.chain import Chain, Place
from cert.ledger.checkpoint import SignedCheckpoint, parse_checkpoint, root_text
from cert.ledger.errors import ProofError
from cert.ledger.findings import Finding, Findings, Report, State
from cert.ledger.line import MAX_LINE_BYTES, is_control, parse_links
from cert.ledger.lineage import Lineage, parse_genesis
from cert.ledger.merkle import Frontier
from cert.ledger.reader import read_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from cert.ledger.findings import Problem
    from cert.ledger.keys import PublicKey
    from cert.ledger.reader import Block
    from cert.ledger.verify import RecordCheck

_REMARKS: Final = ("recovered", "erased", "pruned")
_START: Final = Place(1, "", 0)


def verify_plain(  # noqa: PLR0913 - as `verify_ledger`
    file: BinaryIO,
    size_bytes: int,
    *,
    pinned: PublicKey | None,
    head: bytes | None = None,
    deep: RecordCheck | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Verify a file of lines.

    Args:
        file: At its beginning.
        size_bytes: How much of it to read.
        pinned: The key that is trusted, from outside of the file; not needed without a head.
        head: A signed note that was kept elsewhere.
        deep: Looks into every record, too. It has to expect that records are missing.
        progress: Told how many bytes were read since the last time.

    Raises:
        ProofError: The head is none, nobody known signed it, or the file has gaps or no beginning
            and cannot be compared with it.
    """
    signed = None if head is None else parse_checkpoint(head)
    if signed is not None and not signed.checkpoint.size:
        raise ProofError("a head of size 0 pins nothing", hint="give a newer head")
    walk = _Walk(pinned, signed, deep)
    for block in read_blocks(file, size_bytes):
        walk.take(block)
        progress(block.size_bytes)
    return walk.finish()


class _Walk:
    """One verification; also the watcher of its chain."""

    def __init__(
        self, pinned: PublicKey | None, head: SignedCheckpoint | None, deep: RecordCheck | None
    ) -> None:
        self._pinned = pinned
        self._head = head
        self._deep = deep
        self._findings = Findings()
        self._chain: Chain | None = None
        """None before the first line, and where lines have no links."""
        self._first_seq = 0
        self._lineage: Lineage | None = None
        self._head_root: bytes | None = None
        self._here = _START
        """Where the next line begins."""
        self._unsealed = _START
        """Where the first line after the head begins."""
        self._has_contradiction = False

    @property
    def wants_all(self) -> bool:
        return self._deep is not None

    def report(self, finding: Finding) -> None:
        self._findings.add(replace(finding, segment=None))

    def look_at(self, seq: int, line: bytes) -> Sequence[Problem]:
        return () if self._deep is None else self._deep.check(seq, line)

    def meet_control(self, seq: int, line: bytes, place: Place) -> None:
        try:
            parse_canonical(line)
        except CanonicalError as error:
            # What only looks like a record that the chain of keys hangs on is not passed over.
            if place.line > 1 and (is_control("key", line) or is_control("genesis", line)):
                self._add(State.INVALID, "canonical", f"a control record: {error.message}", place)
            return
        if is_control("key", line) and self._lineage is not None and not self._has_gaps:
            try:
                self._lineage.rotate(line)
            except ProofError as error:
                words = f"no rotation of the key: {error.message}"
                self._add(State.INVALID, "key-record", words, place)
        elif is_control("genesis", line) and seq:
            self._add(State.INVALID, "genesis", "a genesis that is not record 0", place)
        for kind in _REMARKS:
            if is_control(kind, line):
                self._add(None, kind, f"a `{kind}` record says what was done here", place)

    def take(self, block: Block) -> None:
        """Go on over some lines."""
        if not block.is_complete:
            words = f"{block.size_bytes} bytes without a newline at the end"
            self._add(State.TORN, "torn", f"{words}: the last line is not complete", self._here)
            return
        if self._here == _START:
            self._start(block.lines[0])
        if self._chain is None:
            for line in block.lines:
                self._take_bare(line)
        else:
            self._take_linked(self._chain, block.lines)
        self._here = Place(self._here.line, "", block.offset + block.size_bytes)

    def finish(self) -> Report:
        """Say what can be said at the end only."""
        chain, records = self._chain, self._here.line - 1
        if not records:
            self._add(State.INVALID, "form", "there is no record at all", _START)
        root = None
        if chain is not None:
            chain.settle(None)
            if chain.gaps:
                words = f"lines of other runs were left out in {chain.gaps} places"
                self._add(None, "gaps", words, None)
            elif self._lineage is not None:
                root = chain.frontier.root()
        if self._deep is not None:
            self._finish_deep(self._deep)
        sealed = 0
        if self._head is not None and self._judge_head(self._head, is_whole=root is not None):
            sealed = self._head.checkpoint.size
        if records > sealed:
            words = f"no signature covers the last {records - sealed} records"
            self._add(State.UNSEALED, "unsealed", words, self._unsealed if sealed else _START)
        return self._build_report(records, sealed, root)

    @property
    def _has_gaps(self) -> bool:
        return self._chain is not None and self._chain.gaps > 0

    def _start(self, line: bytes) -> None:
        """Go by what the first line says of itself."""
        links = parse_links(line)
        if links is None:
            return
        self._first_seq = links.seq
        prev = bytes.fromhex(links.prev.decode())
        self._chain = Chain(Frontier(), prev, self, seq=links.seq, may_jump=True)
        if links.seq == 0:
            try:
                self._lineage = Lineage(parse_genesis(line))
            except ProofError as error:
                words = f"record 0 is no genesis: {error.message}"
                self._add(State.INVALID, "genesis", words, _START)

    def _take_linked(self, chain: Chain, lines: Sequence[bytes]) -> None:
        wanted = 0 if self._head is None else self._head.checkpoint.size
        at = 0
        while at < len(lines):
            size = chain.frontier.size
            part = lines[at : at + wanted - size] if size < wanted else lines[at:]
            chain.feed(part, "", self._here.offset)
            at += len(part)
            offset = self._here.offset + sum(map(len, part)) + len(part)
            self._here = Place(chain.frontier.size + 1, "", offset)
            if chain.frontier.size == wanted:
                self._head_root, self._unsealed = chain.frontier.root(), self._here

    def _take_bare(self, line: bytes) -> None:
        place = self._here
        self._here = Place(place.line + 1, "", place.offset + len(line) + 1)
        if parse_links(line) is not None and not self._has_contradiction:
            self._has_contradiction = True
            words = f"the line has no _prev and _seq, which line {place.line} has"
            self._add(State.INVALID, "form", words, _START)
        if len(line) > MAX_LINE_BYTES:
            self._add(State.INVALID, "form", f"more than {MAX_LINE_BYTES} bytes", place)
        elif self._deep is not None:
            for one in self._deep.check(place.line - 1, line):
                self._add_problem(one, place.line, place.offset)
        else:
            try:
                parse_canonical(line)
            except CanonicalError as error:
                self._add(State.INVALID, "canonical", error.message, place)

    def _finish_deep(self, deep: RecordCheck) -> None:
        for one in deep.finish():
            is_placed = one.seq is not None and not self._has_gaps
            self._add_problem(one, (one.seq or 0) - self._first_seq + 1 if is_placed else None)

    def _judge_head(self, head: SignedCheckpoint, *, is_whole: bool) -> bool:
        """Compare the file with the head; whether it holds."""
        if not is_whole or self._lineage is None:
            worst = self._findings.worst()
            if worst is None or worst.state is not State.INVALID:
                raise ProofError(
                    "the head cannot be compared with this file, which has gaps, or does not begin "
                    "with record 0",
                    hint="verify the ledger's folder, or leave out --head",
                )
            self._add(None, "head", "the head could not be compared with this file", None)
            return False
        checkpoint, lineage = head.checkpoint, self._lineage
        if not head.is_signed_by(self._pinned, *lineage.keys):
            raise ProofError(
                "the head is not signed by the pinned key, nor by another of this ledger's",
                hint="give the file that `cert ledger head` wrote, and the key that signed it",
            )
        worst = self._findings.worst()
        is_invalid = worst is not None and worst.state is State.INVALID
        if self._pinned not in lineage.keys and not is_invalid:
            words = "the records name another key than the one that was pinned"
            expected = None if self._pinned is None else self._pinned.text
            self._add(State.INVALID, "key", words, _START, expected, lineage.current.text)
        if not head.is_signed_by(self._pinned, *lineage.keys):
            return self._leave_out(
                "the head is not signed by the pinned key, nor by another of this ledger's",
                hint="give the file that `cert ledger head` wrote, and the key that signed it",
            )
        if checkpoint.origin != lineage.origin:
            words = "this is of another ledger than the head"
            self._add(State.INVALID, "head", words, _START, checkpoint.origin, lineage.origin)
            return False
        records = self._here.line - 1
        if checkpoint.size > records:
            words = "the file is shorter than the head that was kept"
            sizes = str(checkpoint.size), str(records)
            self._add(State.ROLLED_BACK, "head", words, self._here, *sizes)
            return False
        if self._head_root == checkpoint.root:
            return True
        words = f"the first {checkpoint.size} records are not those that the kept head is of"
        found = None if self._head_root is None else root_text(self._head_root)
        self._add(State.ROLLED_BACK, "head", words, _START, root_text(checkpoint.root), found)
        return False

    def _leave_out(self, words: str, *, hint: str) -> bool:
        """A head that proves nothing: an error, unless the file is invalid anyway."""
        if not self._is_invalid:
            raise ProofError(words, hint=hint)
        self._add(None, "head", words, None)
        return False

    @property
    def _is_invalid(self) -> bool:
        worst = self._findings.worst()
        return worst is not None and worst.state is State.INVALID

    def _build_report(self, records: int, sealed: int, root: bytes | None) -> Report:
        first = self._findings.worst()
        state = State.VALID if first is None or first.state is None else first.state
        is_known = self._lineage is not None and not self._has_gaps
        return Report(
            state=state,
            mode="fast" if self._deep is None else "deep",
            first=first,
            findings=self._findings.ordered(),
            omitted=self._findings.omitted,
            origin=None if self._lineage is None else self._lineage.origin,
            records=records,
            sealed=sealed,
            root=None if root is None else root_text(root),
            key=self._lineage.current.text if self._lineage is not None and is_known else None,
            kinds={} if self._deep is None else dict(self._deep.kinds),
        )

    def _add_problem(self, problem: Problem, line: int | None, offset: int | None = None) -> None:
        one, state = problem, State.INVALID if problem.is_fault else None
        self._findings.add(
            Finding(state, one.code, one.message, line, None, offset, one.expected, one.found)
        )

    def _add(  # noqa: PLR0913, PLR0917 - what a finding is made of
        self,
        state: State | None,
        code: str,
        message: str,
        place: Place | None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        line, offset = (None, None) if place is None else (place.line, place.offset)
        self._findings.add(Finding(state, code, message, line, None, offset, expected, found))
