"""Readers of a part of a ledger: its first records, or those after a removed part."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from cert.ledger.reader import TAIL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.ledger.reader import FolderReader, Segment


class _Part:
    """Some of a ledger's segments, with its side files; a `Reader`."""

    def __init__(self, reader: FolderReader, segments: Sequence[Segment]) -> None:
        self.root = reader.root
        self.segments = list(segments)
        self.checkpoints = list(reader.checkpoints)
        self._reader = reader

    def open_segment(self, segment: Segment) -> BinaryIO:
        """Open a segment at its beginning."""
        return self._reader.open_segment(segment)

    def read_checkpoint(self, size: int) -> bytes:
        """Read a signed note."""
        return self._reader.read_checkpoint(size)

    def read_side_file(self, name: str) -> bytes | None:
        """Read a side file; None where there is none."""
        return self._reader.read_side_file(name)


class FirstRecords(_Part):
    """The first records of a ledger, as a ledger that ends with a checkpoint."""

    def __init__(
        self,
        reader: FolderReader,
        segments: Sequence[Segment],
        size: int,
        side_files: Mapping[str, bytes],
    ) -> None:
        """Take the segments that are there of the first `size` records.

        Args:
            reader: The ledger.
            segments: Those.
            size: Where they end.
            side_files: What has to be added about what was removed before, by names.
        """
        super().__init__(reader, segments)
        self._side_files = side_files
        self.checkpoints = [one for one in reader.checkpoints if one <= size]

    def read_side_file(self, name: str) -> bytes | None:
        """Read a side file; `tail.json` speaks of another end."""
        if name == TAIL:
            return None
        return self._side_files.get(name) or super().read_side_file(name)


class LastRecords(_Part):
    """The records after a removed part, whatever is left of that."""

    def __init__(self, reader: FolderReader, size: int) -> None:
        """Leave out the segments of the first `size` records."""
        super().__init__(reader, [one for one in reader.segments if one.first >= size])
