"""Cuts a stream of bytes into pieces without ever holding more than one of bounded length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def split_pieces(
    read: Callable[[], bytes], *, separator: bytes = b"\n", limit_bytes: int
) -> Iterator[tuple[int, bytes | None]]:
    r"""Cut at every separator; the separators go, everything else stays.

    Only the separator ends a piece: CR, VT, FF, U+0085 and U+2028 are content. Nothing after the
    last separator is no piece; an empty stream has none. A piece costs time in proportion to its
    length however small the chunks are that it arrives in.

    Args:
        read: Returns the next bytes, as many as it likes; none at the end.
        separator: At least one byte.
        limit_bytes: Longer pieces are not kept.

    Yields:
        The line on which the piece begins (1 plus the number of line feeds before it), and the
        piece, or None where it is longer than the limit.

    >>> chunks = iter([b"one\ntw", b"o\nlonger", b" still\nend", b""])
    >>> list(split_pieces(lambda: next(chunks), limit_bytes=8))
    [(1, b'one'), (2, b'two'), (3, None), (4, b'end')]
    """
    overlap = len(separator) - 1
    line_feeds_between = separator.count(b"\n")
    buffer = bytearray()
    line = 1
    dropping = False
    dropped_line_feeds = 0
    while chunk := read():
        searched = max(0, len(buffer) - overlap)
        buffer += chunk
        begin = 0
        while (end := buffer.find(separator, searched)) >= 0:
            fits = not dropping and end - begin <= limit_bytes
            yield line, bytes(buffer[begin:end]) if fits else None
            line += dropped_line_feeds + buffer.count(b"\n", begin, end) + line_feeds_between
            dropping, dropped_line_feeds = False, 0
            begin = searched = end + len(separator)
        del buffer[:begin]
        if len(buffer) > limit_bytes + overlap:
            dropping = True
            dropped_line_feeds += buffer.count(b"\n", 0, len(buffer) - overlap)
            del buffer[: len(buffer) - overlap]
    if buffer or dropping:
        fits = not dropping and len(buffer) <= limit_bytes
        yield line, bytes(buffer) if fits else None
