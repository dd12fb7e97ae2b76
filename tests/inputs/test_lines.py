from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.inputs.lines import split_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable


def cut(
    chunks: Iterable[bytes], separator: bytes = b"\n", limit: int = 1000
) -> list[tuple[int, bytes | None]]:
    stream = iter(chunks)
    return list(split_pieces(lambda: next(stream, b""), separator=separator, limit_bytes=limit))


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"", []),
        (b"\n", [(1, b"")]),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\n\nb\rc\n", [(1, b"a\r"), (2, b""), (3, b"b\rc")]),
    ],
)
def test_lines(data: bytes, pieces: list[tuple[int, bytes]]) -> None:
    assert cut([data]) == pieces


def test_limit_is_inclusive_and_a_longer_piece_is_counted_but_not_kept() -> None:
    data = b"12345\n123456\n1\n" + b"x" * 50 + b"\nend"
    expected = [(1, b"12345"), (2, None), (3, b"1"), (4, None), (5, b"end")]
    for size in (1, 2, 3, 7, 1000):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert cut(chunks, limit=5) == expected


def test_a_long_last_piece_without_separator_is_reported_once() -> None:
    assert cut([b"ok\n", b"x" * 10, b"x" * 10], limit=5) == [(1, b"ok"), (2, None)]


def test_a_long_piece_that_ends_exactly_with_the_stream() -> None:
    assert cut([b"x" * 10, b"\n"], limit=5) == [(1, None)]


def test_delimited_pieces_know_their_line() -> None:
    data = b"a\nb\n--\nc\n\nd--" + b"\n" * 30 + b"--e"
    expected = [(1, b"a\nb\n"), (3, b"\nc\n\nd"), (6, None), (36, b"e")]
    for size in (1, 2, 5, 100):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert cut(chunks, separator=b"--", limit=8) == expected


@given(
    chunks=st.lists(st.text("ab\n", max_size=12).map(str.encode), max_size=12),
    separator=st.sampled_from([b"\n", b"a", b"ab", b"aa", b"\n\n", b"a\nb"]),
    limit=st.integers(0, 8),
)
def test_agrees_with_splitting_the_whole_at_once(
    chunks: list[bytes], separator: bytes, limit: int
) -> None:
    chunks = [chunk for chunk in chunks if chunk]
    whole = b"".join(chunks)
    pieces = whole.split(separator)
    if not pieces[-1]:
        pieces.pop()
    expected = []
    at = 0
    for piece in pieces:
        line = 1 + whole.count(b"\n", 0, at)
        expected.append((line, piece if len(piece) <= limit else None))
        at += len(piece) + len(separator)
    assert cut(chunks, separator, limit) == expected


def test_small_chunks_do_not_make_a_long_piece_slow() -> None:
    begun = time.process_time()
    assert cut((b"x" for _ in range(200_000)), limit=1_000_000) == [(1, b"x" * 200_000)]
    assert time.process_time() - begun < 2
