from __future__ import annotations

import gzip
import io
import os
import socket
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError, InvalidInput
from cert.inputs.case import PromptCase
from cert.inputs.options import ReadOptions
from cert.inputs.reader import read_cases
from cert.inputs.sources import check_head, display_name, open_source, resolve_format
from tests.inputs.helpers import only, reasons, seen

if TYPE_CHECKING:
    from tests.inputs.helpers import Item, Read


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.zip", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("\ufeffhello\nworld\n".encode("utf-16-le"), "UTF-16LE"),
        ("\ufeffhello\nworld\n".encode("utf-16-be"), "UTF-16BE"),
        ("hello\nworld\n".encode("utf-16-le"), "UTF-16LE"),
        ("hello\nworld\n".encode("utf-16-be"), "UTF-16BE"),
        ("\ufeffhello\n".encode("utf-32-le"), "UTF-32LE"),
        ("\ufeffhello\n".encode("utf-32-be"), "UTF-32BE"),
        (gzip.compress(b"\0" * 10_000_000), "gzip"),
        (zipped(zipped(b"\0" * 1_000_000)), "zip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00\x00", "xz"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
        (b"PAR1\x15\x04\x15\x00", "Parquet"),
    ],
)
@pytest.mark.parametrize("name", ["input.txt", "input.jsonl", "input.csv", "input.jsonl.gz"])
def test_what_is_no_utf8_text_is_refused_once_and_named(
    read: Read, data: bytes, named: str, name: str
) -> None:
    items = read(data, name)
    assert seen(items) == [(1, "!InvalidInput")]
    assert named in reasons(items)[0]


def test_the_other_files_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"x"))
    (tmp_path / "b.txt").write_bytes(b"fine\n")
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert seen(list(read_cases(paths))) == [(1, "!InvalidInput"), (1, "fine")]


def test_short_text_is_not_taken_for_utf16() -> None:
    check_head(b"a\0b\0", "text")
    check_head(b"", "text")
    check_head(b"", "parquet")
    check_head(b"a\0b\0c\0d\0e\0", "text", delimiter="\0")
    check_head(b"PAR1 is how it begins", "text")
    with pytest.raises(InvalidInput, match="not a Parquet file"):
        check_head(b"prompt\n", "parquet")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("prompts", "text"),
        ("a/b.d/PROMPTS.TXT", "text"),
        ("notes.md", "text"),
        ("x.prompts", "text"),
        ("x.jsonl", "jsonl"),
        ("x.NDJSON", "jsonl"),
        ("x.csv", "csv"),
        ("x.tsv", "csv"),
        ("x.parquet", "parquet"),
        ("x.pq", "parquet"),
        ("x.jsonl.gz", "jsonl"),
        ("x.gz", "text"),
    ],
)
def test_format_by_extension(path: str, expected: str) -> None:
    assert resolve_format(path, "auto", seems_json=False) == expected
    assert resolve_format(path, "csv", seems_json=True) == "csv"


@pytest.mark.parametrize("name", ["x.json", "x.yaml", "x.xlsx"])
def test_an_unknown_extension_is_no_guess(read: Read, name: str) -> None:
    with pytest.raises(ConfigurationError, match="does not tell the format") as caught:
        read(b"a\n", name)
    assert caught.value.hint is not None
    assert "--input-format" in caught.value.hint
    assert only(read(b"a\n", name, input_format="text")).text == "a"


def test_delimiter_where_it_has_no_meaning(read: Read) -> None:
    with pytest.raises(ConfigurationError, match="no meaning in jsonl"):
        read(b"{}\n", "x.jsonl", delimiter="--")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.symlink_to(path), "cannot open"),
        (lambda path: path.symlink_to("nowhere"), "there is no file"),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_readable_file(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "input.txt"
    make(path)  # type: ignore[operator]
    good = tmp_path / "good.txt"
    good.write_bytes(b"fine\n")
    with pytest.raises(ConfigurationError, match=reason):
        # Before anything is read of the good one, and without iterating.
        read_cases([str(good), str(path)])


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("input.txt")
        with pytest.raises(ConfigurationError, match="no regular file"):
            read_cases(["input.txt"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a\0b.txt", "holds a NUL"),
        ("n" * 300 + ".txt", "cannot open"),
        ("../" * 40 + "etc/no such file", "there is no file"),
        ("", "is a folder"),
    ],
)
def test_names_that_cannot_be(path: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read_cases([path])


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input.txt"
    path.write_bytes(b"a\n")

    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    # Simulated: as root, a file without permissions opens all the same.
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        read_cases([str(path)])


def test_a_fifo_that_replaces_the_file_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "input.txt"
    path.write_bytes(b"a\n")
    honest = os.open

    def swap(*args: object, **kwargs: object) -> int:
        path.unlink()
        os.mkfifo(path)
        monkeypatch.setattr(os, "open", honest)
        return honest(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap)
    before = open_descriptors()
    with pytest.raises(ConfigurationError, match="no regular file"):
        read_cases([str(path)])
    assert open_descriptors() == before


def test_symbolic_links_and_leading_dashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x").write_bytes(b"fine\n")
    Path("link").symlink_to("-x")
    assert [item.source for item in read_cases(["./-x", "link"])] == ["./-x", "link"]


def test_a_name_that_is_no_utf8_becomes_valid_unicode(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_bytes(b"fine\n")
    assert only(list(read_cases([path]))).source == f"{tmp_path}/caf\\xe9.txt"
    assert display_name("-") == "-"


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Failing(io.BytesIO):
    def read1(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read1(12)


class Stdin:
    def __init__(self, data: bytes | io.BytesIO) -> None:
        self.buffer = io.BytesIO(data) if isinstance(data, bytes) else data


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"one\ntwo", {}, [(1, "one"), (2, "two")]),
        (b'{"prompt": "one"}\n', {}, [(1, "one")]),
        (b'\xef\xbb\xbf \n{"prompt": "one"}\nbroken\n', {}, [(2, "one"), (3, "!InvalidInput")]),
        (b"{braces} in text\n", {"input_format": "text"}, [(1, "{braces} in text")]),
        (b"prompt\none\n", {"input_format": "csv"}, [(2, "one")]),
        (b"", {}, []),
    ],
)
def test_stdin(
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    options: dict[str, str],
    expected: list[tuple[int, str]],
) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(data))
    items = list(read_cases(["-"], ReadOptions(**options)))  # type: ignore[arg-type]
    assert seen(items) == expected
    assert {item.source for item in items} <= {"-"}


def test_stdin_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin))
        items = read_cases(["-"])
        pipe.write(b"the first\nthe sec")
        first = next(items)
        assert isinstance(first, PromptCase)
        assert first.text == "the first"
        pipe.write(b"ond\n")
        second = next(items)
        assert isinstance(second, PromptCase)
        assert second.text == "the second"
        pipe.close()
        assert list(items) == []


def test_stdin_that_fails_is_no_silent_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(Failing(b"the first\nthe second\n")))
    items = read_cases(["-"])
    assert seen([next(items)]) == [(1, "the first")]
    with pytest.raises(ConfigurationError, match="Input/output error"):
        next(items)


@pytest.mark.parametrize("closed", [None, Stdin(io.BytesIO())])
def test_closed_stdin(monkeypatch: pytest.MonkeyPatch, closed: Stdin | None) -> None:
    if closed is not None:
        closed.buffer.close()
    monkeypatch.setattr("sys.stdin", closed)
    with pytest.raises(ConfigurationError, match="stdin is closed"):
        list(read_cases(["-"]))


def test_stdin_twice_or_as_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="only once"):
        read_cases(["-", "-"])
    monkeypatch.setattr("sys.stdin", Stdin(b"PAR1...."))
    with pytest.raises(ConfigurationError, match="cannot be read from stdin"):
        list(read_cases(["-"], ReadOptions(input_format="parquet")))


def test_read_returns_the_head_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfabcdef")
    with open_source(str(path)) as source:
        assert (source.read(), source.read(), source.read()) == (b"abcdef", b"", b"")


def test_every_descriptor_is_closed(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"one\ntwo\n")
    before = open_descriptors()
    items = read_cases([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    next(items)
    items.close()  # type: ignore[attr-defined]
    rest: list[Item] = list(items)
    assert rest == []
    assert open_descriptors() == before
