"""Looking into every record of a ledger with the contents that are kept beside it.

`DeepCheck` asks for the content of records that commit to it. Here is what it cannot know: that
contents were kept back altogether, and that their file cannot be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.evidence.deep import DeepCheck
from cert.ledger.errors import LedgerRefusedError
from cert.ledger.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.content import ContentStore

_UNUSABLE = b"", b""
"""Matches no commitment."""


class ContentCheck:
    """Looks into the records of one ledger, from the first to the last; a `RecordCheck`.

    Attributes:
        kinds: Records so far, by kind.
    """

    def __init__(
        self, store: ContentStore | None, *, fault: str | None = None, is_part: bool = False
    ) -> None:
        """Begin.

        Args:
            store: The contents; None where there is no such file, or what is there is none.
            fault: Why it is none; None where it is open, or not there.
            is_part: Whether records may be missing, as in `DeepCheck`.
        """
        self._store = store
        self._fault = fault
        self._is_there = store is not None or fault is not None
        self._deep = DeepCheck(
            content_of=self._content_of if self._is_there else None, is_part=is_part
        )
        self.kinds = self._deep.kinds
        self._kept_back = 0

    def preload(self, seq: int, line: bytes) -> None:
        """Take a line that was kept of a removed part."""
        self._deep.preload(seq, line)

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:
        """Look at the next line."""
        # Quotes within a text are escaped: these are members of the record.
        if not self._is_there and b'"commitment":"' in line and b'"content":"committed"' in line:
            self._kept_back += 1
        return self._deep.check(seq, line)

    def finish(self) -> Sequence[Problem]:
        """Say what can be said only after the last line."""
        problems = [*self._deep.finish()]
        if self._kept_back:
            words = f"the content of {self._kept_back} records was kept back; it was not looked at"
            problems.append(Problem("content", words, is_fault=False))
        if self._fault is not None:
            problems.append(Problem("content", self._fault, is_fault=False))
        return problems

    def _content_of(self, record_id: str) -> tuple[bytes, bytes] | None:
        if self._store is None:
            return _UNUSABLE
        try:
            return self._store.get(record_id)
        except LedgerRefusedError as error:
            self._fault = error.message
            return _UNUSABLE
