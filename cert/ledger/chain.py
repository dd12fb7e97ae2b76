"""Walk along the lines of a ledger: form, number, link, tree; which line is at fault.

A chain tells where a link is broken, not which side of it was changed. The rules D and L of
docs/record-format.md (6.4) decide, so that every verifier names the same line.
"""

from __future__ import annotations

import hashlib
from binascii import hexlify
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol

from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.findings import Finding, State
from cert.ledger.line import HASH_BYTES, MAX_LINE_BYTES, Links, leaf_hash, parse_links

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.findings import Problem
    from cert.ledger.merkle import Frontier

_CONTROL: Final = b'"clock":'
_SEQ: Final = b'","_seq":%d,"'
_FORM: Final = b'{"_prev":"'
_FORM_BYTES: Final = len(_FORM)
_SEQ_AT: Final = _FORM_BYTES + 2 * HASH_BYTES
_FORM_OF: Final = itemgetter(slice(_FORM_BYTES))
_LINK_OF: Final = itemgetter(slice(_FORM_BYTES, _SEQ_AT))
_START: Final = hashlib.sha256(b"\x00")
_SHOWN_BYTES: Final = 120


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line is.

    Attributes:
        line: Counted from 1 over the ledger.
        segment: Its file's name.
        offset: Of its first byte in that file.
    """

    line: int
    segment: str
    offset: int


@dataclass(slots=True)
class _Unsettled:
    """A broken link; the next line says which side is at fault."""

    here: Place
    before: Place
    leaf: bytes
    expected: str
    found: str


class Watcher(Protocol):
    """Whoever wants to know what a walk meets."""

    def report(self, finding: Finding) -> None:
        """Take a finding; they come nearly in order of lines."""

    def meet_control(self, seq: int, line: bytes, place: Place) -> None:
        """Look at what may be a control record (docs/record-format.md, 3)."""

    def look_at(self, seq: int, line: bytes) -> Sequence[Problem]:
        """Look at any line, for as long as `wants_all`."""

    @property
    def wants_all(self) -> bool:
        """Whether `look_at` is to be called."""


class Chain:
    """The walk, at one place of a ledger.

    Attributes:
        frontier: The tree of all lines so far.
        last_leaf: Leaf hash of the line before; for the first one, what its link should be.
        here: Where the line before is; None at the beginning.
        seq: Number that the next line should have.
        gaps: How often numbers jumped forward, where that is allowed.
    """

    def __init__(
        self,
        frontier: Frontier,
        last_leaf: bytes,
        watcher: Watcher,
        *,
        seq: int | None = None,
        may_jump: bool = False,
    ) -> None:
        """Start behind the records of a tree.

        Args:
            frontier: The tree so far; it grows with the walk.
            last_leaf: 32 bytes, the link of the first line.
            watcher: Is told what is met.
            seq: Number of the first line; None is the tree's size.
            may_jump: Lets numbers jump forward, as in a file of some runs' records only.
        """
        self.frontier = frontier
        self.last_leaf = last_leaf
        self.here: Place | None = None
        self.gaps = 0
        self._watcher = watcher
        self.seq = frontier.size if seq is None else seq
        self._may_jump = may_jump
        self._before: bytes | None = None
        self._reported = 0
        self._unsettled: _Unsettled | None = None

    def feed(self, lines: Sequence[bytes], segment: str, offset: int) -> None:
        """Go on over complete lines of one segment, the first of them at an offset."""
        if not lines:
            return
        size_bytes = sum(map(len, lines))
        if size_bytes > MAX_LINE_BYTES or not self._feed_fast(lines, segment, offset):
            for line in lines:
                self._feed_one(line, Place(self.frontier.size + 1, segment, offset))
                offset += len(line) + 1
            return
        last = lines[-1]
        start = offset + size_bytes + len(lines) - len(last) - 1
        self.here, self._before = Place(self.frontier.size, segment, start), last

    def feed_incomplete(self, line: bytes, segment: str, offset: int) -> None:
        """Go on over bytes that lack their newline and count as a line without the form."""
        self._feed_one(line, Place(self.frontier.size + 1, segment, offset), is_complete=False)

    def settle(self, tail_leaf: bytes | None) -> None:
        """Name the line at fault for a broken link at the very end.

        Args:
            tail_leaf: Leaf hash of the last line as a signed checkpoint of exactly this size has
                it; None where that is not known.
        """
        unsettled = self._unsettled
        if unsettled is not None:
            self._settle(unsettled, before=tail_leaf == unsettled.leaf)

    def blame_last(self, code: str) -> bool:
        """Name the last line, if it is damaged and lines are missing after it (rule D)."""
        return self._is_damaged_before(code)

    def _feed_fast(self, lines: Sequence[bytes], segment: str, offset: int) -> bool:
        """Check many lines, none too long, by few calls.

        False, and nothing changed, if not all is as expected.
        """
        first, count = self.seq, len(lines)
        width = _width(first)
        if self._unsettled is not None or _width(first + count) != width:
            return False
        leaves: list[bytes] = []
        copy, append = _START.copy, leaves.append
        for line in lines:
            digest = copy()
            digest.update(line)
            append(digest.digest())
        # What stands at the same place of every line is cut out and compared as a whole: a line
        # that is too short makes the whole too short.
        links = hexlify(b"".join((self.last_leaf, *leaves[:-1])))
        numbers = (_SEQ * count) % tuple(range(first, first + count))
        keys = set(map(itemgetter(slice(width, width + 3)), lines))
        if not (
            b"".join(map(_LINK_OF, lines)) == links
            and b"".join(map(itemgetter(slice(_SEQ_AT, width + 1)), lines)) == numbers
            and set(map(_FORM_OF, lines)) == {_FORM}
            and all(key[1:2].islower() for key in keys)
        ):
            return False
        if _CONTROL[:3] in keys:
            at = offset
            for number, line in enumerate(lines):
                if line.startswith(_CONTROL, width):
                    place = Place(self.frontier.size + number + 1, segment, at)
                    self._watcher.meet_control(first + number, line, place)
                at += len(line) + 1
        if self._watcher.wants_all:
            self._look_at_all(lines, segment, offset)
        self.frontier.extend(leaves)
        self.last_leaf, self.seq = leaves[-1], first + count
        return True

    def _look_at_all(self, lines: Sequence[bytes], segment: str, offset: int) -> None:
        look_at, seq, number = self._watcher.look_at, self.seq, self.frontier.size
        for line in lines:
            number += 1
            problems = look_at(seq, line)
            if problems:
                self._tell(problems, Place(number, segment, offset))
            offset += len(line) + 1
            seq += 1

    def _tell(self, problems: Sequence[Problem], place: Place) -> None:
        for one in problems:
            self._watcher.report(
                Finding(
                    State.INVALID if one.is_fault else None,
                    one.code,
                    one.message,
                    place.line,
                    place.segment,
                    place.offset,
                    one.expected,
                    one.found,
                )
            )

    def _feed_one(self, line: bytes, place: Place, *, is_complete: bool = True) -> None:
        links = parse_links(line) if is_complete else None
        leaf = leaf_hash(line)
        if self._unsettled is not None:
            self._settle(
                self._unsettled,
                before=links is not None and links.prev == hexlify(self._unsettled.leaf),
            )
        if is_complete:
            seq = self._check(line, links, leaf, place)
        else:
            seq = self.seq
            found = f"{len(line)} bytes without one"
            self._fault("form", "the end of the line", place, "a newline", found)
        if links is not None and line.startswith(_CONTROL, _width(links.seq)):
            self._watcher.meet_control(seq, line, place)
        if self._watcher.wants_all:
            self._tell(self._watcher.look_at(seq, line), place)
        self.frontier.extend([leaf])
        self.here, self._before = place, line
        self.last_leaf, self.seq = leaf, seq + 1

    def _check(self, line: bytes, links: Links | None, leaf: bytes, place: Place) -> int:
        """Check one line; returns the number that it goes by."""
        if links is None:
            shown = "a longer line" if len(line) > MAX_LINE_BYTES else _shown(line)
            expected = '{"_prev":"<64 hex digits>","_seq":<number>,"...'
            self._fault("form", "the beginning of the line", place, expected, shown)
            return self.seq
        if links.seq != self.seq:
            if self._may_jump and links.seq > self.seq:
                self.gaps += 1
                return links.seq
            numbers = str(self.seq), str(links.seq)
            self._fault("seq", "the number of the record", place, *numbers)
        elif links.prev != hexlify(self.last_leaf):
            expected, found = self.last_leaf.hex(), links.prev.decode()
            if self.here is None:
                self._name(place, "link", "the link to what came before", expected, found)
            elif not self._is_damaged_before("link"):
                self._unsettled = _Unsettled(place, self.here, leaf, expected, found)
        return links.seq

    def _fault(self, code: str, words: str, place: Place, expected: str, found: str) -> None:
        if self.here is None or not self._is_damaged_before(code):
            self._name(place, code, words, expected, found)

    def _is_damaged_before(self, code: str) -> bool:
        """Rule D: the line before is at fault if it is no canonical object."""
        before = self.here
        if before is None or self._before is None or before.line == self._reported:
            return False
        try:
            parse_canonical(self._before)
        except CanonicalError as error:
            self._name(before, code, "the line, which was cut or joined", "a record", str(error))
            return True
        return False

    def _settle(self, unsettled: _Unsettled, *, before: bool) -> None:
        """Rule L."""
        self._unsettled = None
        if before:
            if unsettled.before.line != self._reported:
                self._name(
                    unsettled.before,
                    "link",
                    "the line, to which the next one no longer links",
                    unsettled.found,
                    unsettled.expected,
                )
        else:
            self._name(
                unsettled.here,
                "link",
                "the link to the line before",
                unsettled.expected,
                unsettled.found,
            )

    def _name(self, place: Place, code: str, words: str, expected: str, found: str) -> None:
        self._reported = place.line
        self._watcher.report(
            Finding(
                State.INVALID,
                code,
                f"{words} is not as it should be",
                place.line,
                place.segment,
                place.offset,
                expected,
                found,
            )
        )


def _width(seq: int) -> int:
    """Where the first key of a record of this number begins, with its quotation mark."""
    return _SEQ_AT + len(_SEQ % seq) - 1


def _shown(line: bytes) -> str:
    return line[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
