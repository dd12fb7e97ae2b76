"""Reading a ledger's files: names, what is no regular file, lines at the borders of chunks."""

from __future__ import annotations

import fcntl
import io
import os
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger import reader as reader_module
from cert.ledger.errors import LedgerError
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.reader import (
    CHUNK_BYTES,
    PRUNED,
    TAIL,
    FolderReader,
    Segment,
    list_checkpoints,
    list_segments,
    note_name,
    parse_name,
    read_blocks,
    segment_name,
)
from tests.ledger.ledgers import make

if TYPE_CHECKING:
    from pathlib import Path


def blocks_of(data: bytes, size_bytes: int | None = None) -> list[reader_module.Block]:
    return list(read_blocks(io.BytesIO(data), len(data) if size_bytes is None else size_bytes))


def check_blocks(data: bytes) -> None:
    """Compare with what `bytes.split` says, lines, places and completeness."""
    *want, rest = data.split(b"\n")
    found, at = [], 0
    blocks = blocks_of(data)
    for block in blocks:
        assert block.lines
        assert block.offset == at
        assert block.is_complete or block is blocks[-1]
        for line in block.lines:
            assert data[at : at + len(line)] == line
            at += len(line) + 1
        found += block.lines if block.is_complete else []
    assert found == want
    assert [block.lines for block in blocks if not block.is_complete] == ([[rest]] if rest else [])
    assert sum(block.size_bytes for block in blocks) == len(data)


@given(
    data=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\x00", b"12345678"])).map(b"".join),
    chunk=st.integers(1, 12),
)
def test_lines_are_those_of_split_at_every_chunk_size(data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "CHUNK_BYTES", chunk)
        check_blocks(data)


@pytest.mark.parametrize("around", [-2, -1, 0, 1, 2])
def test_a_newline_at_the_border_of_a_chunk(around: int) -> None:
    first = b"x" * (CHUNK_BYTES + around)
    for rest in (b"", b"y", b"\n", b"\n\n", b"y" * CHUNK_BYTES, b"y" * CHUNK_BYTES + b"\n"):
        check_blocks(first + b"\n" + rest)


def test_no_bytes_are_no_blocks() -> None:
    assert blocks_of(b"") == []


def test_no_more_is_read_than_was_there_and_no_less_is_missed() -> None:
    (block,) = blocks_of(b"a\nb\nc\n", 4)
    assert block.lines == [b"a", b"b"]
    (block,) = blocks_of(b"a\nb\n", 100)
    assert block.lines == [b"a", b"b"]


@pytest.mark.parametrize("longer", [1, 2, CHUNK_BYTES - 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 7])
def test_a_line_that_is_too_long_is_cut_and_what_follows_has_its_place(longer: int) -> None:
    size = MAX_LINE_BYTES + longer
    data = b"a\n" + b"x" * size + b"\nb\n\nc"
    blocks = blocks_of(data)
    places = []
    for block in blocks:
        at = block.offset
        for line in block.lines:
            places.append((at, line[:2], len(line) > MAX_LINE_BYTES))
            at += len(line) + 1
        assert block.offset + block.size_bytes <= len(data)
    assert places == [
        (0, b"a", False),
        (2, b"xx", True),
        (size + 3, b"b", False),
        (size + 5, b"", False),
        (size + 6, b"c", False),
    ]
    assert sum(block.size_bytes for block in blocks) == len(data)


def test_a_line_that_is_too_long_may_be_the_last_of_its_chunk() -> None:
    data = b"x" * (MAX_LINE_BYTES + 2 * CHUNK_BYTES - 1) + b"\n" + b"b\n"
    assert len(data) % CHUNK_BYTES == 2
    first, second = blocks_of(data)
    assert (first.offset, first.size_bytes, len(first.lines)) == (0, len(data) - 2, 1)
    assert (second.offset, second.lines) == (len(data) - 2, [b"b"])


def test_the_longest_line_is_whole() -> None:
    data = b"a\n" + b"x" * MAX_LINE_BYTES + b"\nb\n"
    check_blocks(data)


class Zeros(io.RawIOBase):
    """An endless file without newlines."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def test_memory_is_bounded_whatever_the_length_of_a_line() -> None:
    tracemalloc.start()
    try:
        (block,) = read_blocks(Zeros(), 40 * MAX_LINE_BYTES // 10)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not block.is_complete
    assert len(block.lines[0]) == MAX_LINE_BYTES + 1
    assert block.size_bytes == 4 * MAX_LINE_BYTES
    assert peak < 3 * MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("000000000000.jsonl", (0, "jsonl")),
        ("000000000041.note", (41, "note")),
        ("999999999999.note", (999_999_999_999, "note")),
        ("1000000000000.note", (10**12, "note")),
        ("9999999999999999.jsonl", (10**16 - 1, "jsonl")),
        ("10000000000000000.jsonl", None),
        ("0000000000001.note", None),
        ("00000000001.note", None),
        ("000000000041.NOTE", None),
        ("000000000041.tsr", None),
        ("000000000041.note ", None),
        ("000000000041.note\n", None),
        (" 00000000041.note", None),
        ("\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661.note", None),
        ("000000000000.jsonl.torn-5-" + "0" * 64, None),
        (".000000000000.jsonl", None),
        ("", None),
    ],
)
def test_names_of_segments_and_checkpoints(name: str, want: tuple[int, str] | None) -> None:
    assert parse_name(name) == want
    if want is not None:
        assert name == (segment_name if want[1] == "jsonl" else note_name)(want[0])


def test_files_are_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert (list_segments(tmp_path), list_checkpoints(tmp_path)) == ([], [])
    (tmp_path / "segments").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for name in ("1000000000000.jsonl", "000000000009.jsonl", "000000000000.jsonl", "x", "5.note"):
        (tmp_path / "segments" / name).touch()
    for name in ("000000000003.note", "000000000003.tsr", "000000000001.jsonl"):
        (tmp_path / "checkpoints" / name).touch()
    assert list_segments(tmp_path) == [0, 9, 10**12]
    assert list_checkpoints(tmp_path) == [3]


def test_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    made = make(7, seals=[4, 7], cuts=[5])
    reader = FolderReader(made.write(tmp_path / "ledger"))
    first, second = reader.segments
    assert first == Segment(0, "000000000000.jsonl", sum(len(one) + 1 for one in made.lines[:5]))
    assert (second.first, reader.checkpoints) == (5, [4, 7])
    with reader.open_segment(second) as file:
        assert file.read() == made.lines[5] + b"\n" + made.lines[6] + b"\n"
    assert reader.read_checkpoint(4) == made.note(4)
    assert reader.read_side_file(TAIL) is None
    (tmp_path / "ledger" / PRUNED).write_bytes(b"{}")
    assert reader.read_side_file(PRUNED) == b"{}"


def test_no_folder_is_no_ledger(tmp_path: Path) -> None:
    for root in (tmp_path / "missing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(
            LedgerError, match=r"cannot be read: (No such file|Not a dir)"
        ) as caught:
            FolderReader(root)
        assert "segments/" in str(caught.value.hint)
    reader = FolderReader(tmp_path)
    assert (reader.segments, reader.checkpoints) == ([], [])


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    folder = make(3, seals=[3]).write(tmp_path / "ledger")
    segment, note = folder / "segments" / segment_name(0), folder / "checkpoints" / note_name(3)
    reader = FolderReader(folder)
    for path in (segment, note, folder / TAIL):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    for read in (
        lambda: reader.open_segment(reader.segments[0]),
        lambda: reader.read_checkpoint(3),
        lambda: reader.read_side_file(TAIL),
    ):
        with pytest.raises(LedgerError, match="is not a regular file"):
            read()


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = make(3, seals=[3]).write(tmp_path / "ledger")
    reader = FolderReader(folder)
    note = folder / "checkpoints" / note_name(3)
    note.rename(tmp_path / "note")
    note.symlink_to(tmp_path / "note")
    with pytest.raises(LedgerError, match="cannot be read: Too many levels of symbolic links"):
        reader.read_checkpoint(3)
    # A link that leads nowhere is no missing file.
    (folder / TAIL).symlink_to(tmp_path / "nothing")
    with pytest.raises(LedgerError, match=r"tail\.json cannot be read"):
        reader.read_side_file(TAIL)
    with pytest.raises(LedgerError, match="No such file"):
        reader.read_checkpoint(4)


def test_a_reader_waits_for_a_writer_in_the_middle_of_a_record(tmp_path: Path) -> None:
    folder = make(3).write(tmp_path / "ledger")
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    found: list[FolderReader] = []
    thread = threading.Thread(target=lambda: found.append(FolderReader(folder)))
    thread.start()
    try:
        thread.join(0.2)
        assert thread.is_alive()
        # Who holds the lock reads without it.
        assert FolderReader(folder, is_locked=True).segments
        with (folder / "segments" / segment_name(0)).open("ab") as file:
            file.write(b"more\n")
    finally:
        os.close(fd)
        thread.join(10)
    size = (folder / "segments" / segment_name(0)).stat().st_size
    assert found[0].segments[0].size_bytes == size
