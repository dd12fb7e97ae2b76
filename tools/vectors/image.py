"""A ledger's files in memory, and the changes that somebody could make to them.

Nothing here knows what is right: an image can be changed in every way, as a disk can.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

SEGMENTS = "segments/"
CHECKPOINTS = "checkpoints/"


class Chunk(NamedTuple):
    """A line as it lies there, with its newline if it has one.

    Attributes:
        segment: Name of its file below `segments/`.
        raw: Its bytes.
    """

    segment: str
    raw: bytes


class Spot(NamedTuple):
    """Where a line begins.

    Attributes:
        segment: File name below `segments/`; None for a line that is in no file.
        offset: Bytes from the start of that file; None likewise.
    """

    segment: str | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class Image:
    """The files of a ledger, by their names in its folder."""

    files: Mapping[str, bytes]

    @classmethod
    def load(cls, folder: Path) -> Image:
        """Read a folder."""
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def write(self, folder: Path) -> Path:
        """Write all files into a folder, which is created; returns it."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    @property
    def segments(self) -> list[str]:
        """Names below `segments/`, in order."""
        return sorted(name.removeprefix(SEGMENTS) for name in self.files if SEGMENTS in name)

    @property
    def sizes(self) -> list[int]:
        """Tree sizes of the checkpoints, in order."""
        names = (name.removeprefix(CHECKPOINTS) for name in self.files if CHECKPOINTS in name)
        return sorted(int(name.removesuffix(".note")) for name in names)

    @property
    def chunks(self) -> list[Chunk]:
        """The lines of all segments, in order."""
        return [
            Chunk(name, raw)
            for name in self.segments
            for raw in _split(self.files[SEGMENTS + name])
        ]

    @property
    def lines(self) -> list[bytes]:
        """The lines without their newlines."""
        return [one.raw.removesuffix(b"\n") for one in self.chunks]

    def note(self, size: int) -> bytes:
        """The checkpoint of a tree size."""
        return self.files[f"{CHECKPOINTS}{size:012d}.note"]

    def spot(self, line: int) -> Spot:
        """Where a line begins that is there, or would be the next one.

        Args:
            line: Counted from 1 over the segments that are there.
        """
        chunks, names = self.chunks, self.segments
        if not 1 <= line <= len(chunks) + 1 or not names:
            return Spot(None, None)
        segment = chunks[line - 1].segment if line <= len(chunks) else names[-1]
        before = (len(one.raw) for one in chunks[: line - 1] if one.segment == segment)
        return Spot(segment, sum(before))

    def put(self, name: str, data: bytes) -> Image:
        """Write one file."""
        return Image({**self.files, name: data})

    def put_note(self, size: int, data: bytes) -> Image:
        """Write a checkpoint under the name of a tree size."""
        return self.put(f"{CHECKPOINTS}{size:012d}.note", data)

    def drop(self, *names: str) -> Image:
        """Delete files that are there."""
        missing = set(names) - set(self.files)
        if missing:
            raise KeyError(*missing)
        return Image({name: data for name, data in self.files.items() if name not in names})

    def drop_notes(self, *, above: int = 0, only: int | None = None) -> Image:
        """Delete the checkpoints of more than so many records, or the only one of a size."""
        sizes = [size for size in self.sizes if size > above and only in {None, size}]
        return self.drop(*(f"{CHECKPOINTS}{size:012d}.note" for size in sizes))

    def rename(self, old: str, new: str) -> Image:
        """Give a file another name."""
        return self.drop(old).put(new, self.files[old])

    def with_chunks(self, chunks: Iterable[Chunk]) -> Image:
        """Write all lines anew; a segment that gets none becomes empty."""
        files = {name: b"" if SEGMENTS in name else data for name, data in self.files.items()}
        for segment, group in groupby(chunks, key=lambda one: one.segment):
            files[SEGMENTS + segment] = b"".join(one.raw for one in group)
        return Image(files)

    def with_line(self, number: int, *raw: bytes) -> Image:
        """Put other bytes in the place of a line and its newline."""
        chunks = self.chunks
        segment = chunks[number - 1].segment
        chunks[number - 1 : number] = [Chunk(segment, one) for one in raw]
        return self.with_chunks(chunks)

    def edit(self, number: int, change: Callable[[bytes], bytes]) -> Image:
        """Change a line, leaving its newline.

        Raises:
            ValueError: Nothing changed.
        """
        raw = self.chunks[number - 1].raw
        changed = change(raw.removesuffix(b"\n")) + b"\n"
        if changed == raw:
            raise ValueError(f"line {number} is as it was")
        return self.with_line(number, changed)

    def truncate(self, size_bytes: int) -> Image:
        """Keep so many bytes of all segments together; segments that get none are deleted."""
        files = dict(self.files)
        for name in self.segments:
            data = files.pop(SEGMENTS + name)[:size_bytes]
            if data or name == self.segments[0]:
                files[SEGMENTS + name] = data
            size_bytes -= len(data)
        return Image(files)

    def append(self, *lines: bytes) -> Image:
        """Add lines at the end, each with its newline."""
        last = SEGMENTS + self.segments[-1]
        return self.put(last, self.files[last] + b"".join(line + b"\n" for line in lines))


def _split(data: bytes) -> list[bytes]:
    """Parts that end with a newline, and what is left."""
    *complete, rest = data.split(b"\n")
    return [one + b"\n" for one in complete] + ([rest] if rest else [])
