"""Content that is kept apart, held against the commitments in the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cert.evidence.commitment import verify_commitment
from cert.ledger.errors import ProofError
from cert.ledger.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    ContentOf = Callable[[str], tuple[bytes, bytes] | None]


class ContentBook:
    """Which content is there, which is not, and which was erased.

    Memory grows with the records whose content is not there, which are the erased ones.

    Args:
        content_of: Salt and content by the record's id; None where there are none. Without this
            function nothing is known of the content, and nothing is looked at.
    """

    def __init__(self, content_of: ContentOf | None) -> None:
        self._content_of = content_of
        self._missing: dict[int, tuple[str, str]] = {}
        self._erased: set[int] = set()

    def take(self, seq: int, record_id: str, commitment: str) -> list[Problem]:
        """Take what a record is committed to."""
        if self._content_of is None:
            return []
        kept = self._content_of(record_id)
        if kept is None:
            self._missing[seq] = record_id, commitment
            return []
        return _compare(commitment, kept)

    def erase(self, seq: int, first: int, erased: Mapping[str, Any]) -> list[Problem]:
        """Take the `erased` of a record.

        Args:
            seq: Place of that record.
            first: Place of the first record that is there; what came before cannot be looked at.
            erased: What it says was erased.
        """
        at = erased["seq"]
        named = erased["record_id"], erased["commitment"]
        if at >= seq:
            words = "what is said to be erased is no earlier record"
            return [Problem("erased", words, expected=f"less than {seq}", found=str(at))]
        if self._content_of is None or at < first:
            return []
        if self._missing.get(at) == named:
            self._erased.add(at)
            return []
        kept = self._content_of(named[0])
        if kept is None or _compare(named[1], kept):
            return [Problem("erased", f"record {at} is not the one that is said to be erased")]
        words = f"the content of record {at} is said to be erased, and it is still there"
        return [Problem("erased", words, is_fault=False)]

    def unexplained(self) -> Sequence[Problem]:
        """Return a fault for all content that is not there and was not erased."""
        return [
            Problem("content", "its content is not there, and was not erased", seq=seq)
            for seq in self._missing
            if seq not in self._erased
        ]


def _compare(commitment: str, kept: tuple[bytes, bytes]) -> list[Problem]:
    salt, content = kept
    try:
        verify_commitment(commitment, salt=salt, content=content)
    except ProofError as error:
        return [Problem("content", error.message)]
    return []
