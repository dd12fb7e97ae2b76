"""Read lines of a ledger from a known place on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cert.ledger.reader import read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.ledger.reader import Reader


class Located(NamedTuple):
    """A complete line and its place.

    Attributes:
        line: Without newline.
        segment: First number of its segment.
        offset: Of its first byte in that segment.
    """

    line: bytes
    segment: int
    offset: int


def scan_lines(reader: Reader, *, segment: int = 0, offset: int = 0) -> Iterator[Located]:
    """Yield the complete lines from a place to the end.

    Nothing is verified.

    Args:
        reader: The ledger.
        segment: First number of the segment to begin with; earlier ones are passed over.
        offset: Where to begin in it.

    Raises:
        LedgerError: A file cannot be read.
    """
    for one in reader.segments:
        if one.first < segment:
            continue
        start = offset if one.first == segment else 0
        with reader.open_segment(one) as file:
            file.seek(start)
            for block in read_blocks(file, one.size_bytes - start):
                at = start + block.offset
                for line in block.lines if block.is_complete else ():
                    yield Located(line, one.first, at)
                    at += len(line) + 1
