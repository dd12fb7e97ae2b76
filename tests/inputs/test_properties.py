"""Whatever the bytes are: no exception, every line accounted for."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.inputs.case import PromptCase
from cert.inputs.options import ReadOptions
from cert.inputs.reader import read_cases
from cert.inputs.rows import MAX_NAME_CHARS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.inputs.helpers import Item

MAX_CHARS = 40
FRAGMENTS = [
    *(b"\n", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80"),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x0c", b" ", b"\t", b"a", b"word"),
    *(b'"', b'""', b",", b'"a,b"', b"{", b"}", b"[", b"]", b":", b"\\", b"\\u0070", b"\\ud800"),
    *(b'{"prompt": "a"}', b'{"prompt": "a", "id": 1}', b'"prompt"', b"NaN", b"1e999", b"-0"),
    *(b"1.0", b"null", b"x" * 50, b"x" * 5000, b"[" * 100, b"9" * 500, b"1,a\n", b'2,"b\nc"\n'),
]
messy = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=12), max_size=25).map(b"".join)
WHOLE_FILE = re.compile(r"data|encoding is|not a Parquet file|not a readable Parquet file")

fuzz = settings(
    max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(folder: Path, name: str, data: bytes, **options: object) -> list[Item]:
    path = folder / name
    path.write_bytes(data)
    options = {"max_chars": MAX_CHARS, **options}
    return list(read_cases([str(path)], ReadOptions(**options)))  # type: ignore[arg-type]


def check(items: list[Item]) -> None:
    ids = set()
    for item in items:
        if isinstance(item, PromptCase):
            assert item.id not in ids
            ids.add(item.id)
            assert 0 < len(item.text) <= MAX_CHARS
            assert 0 < len(item.id) <= MAX_NAME_CHARS
            for text in (item.text, item.id, item.response, item.group, item.label):
                (text or "").encode()
        else:
            assert item.error_type in {"InvalidInput", "PromptTooLong"}
            assert item.message.encode()
            assert "word" not in item.message
    assert [item.line for item in items] == sorted({item.line for item in items})


def is_refused_whole(items: list[Item]) -> bool:
    return (
        len(items) == 1
        and not isinstance(items[0], PromptCase)
        and bool(WHOLE_FILE.search(items[0].message))
    )


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl"])
@fuzz
@given(data=messy)
def test_lines_are_cases_or_refused_or_blank(tmp_path: Path, name: str, data: bytes) -> None:
    items = read(tmp_path, name, data)
    check(items)
    if is_refused_whole(items):
        return
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    white = b" \t\r" if name == "x.jsonl" else None

    def is_blank(line: bytes) -> bool:
        if white is not None:
            return not line.strip(white)
        try:
            return not line.decode().strip()
        except UnicodeDecodeError:
            return False

    expected = [at for at, line in enumerate(lines, 1) if not is_blank(line)]
    assert [item.line for item in items] == expected


@pytest.mark.parametrize("header", [b"id,prompt\n", b"prompt\n"])
@fuzz
@given(data=messy)
def test_csv_never_raises(tmp_path: Path, header: bytes, data: bytes) -> None:
    items = read(tmp_path, "x.csv", header + data)
    check(items)
    assert all(item.line > 1 for item in items)


@fuzz
@given(data=messy)
def test_parquet_never_raises(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("pyarrow")
    for whole in (data, b"PAR1" + data, b"PAR1" + data + b"\x10\0\0\0PAR1"):
        assert len(read(tmp_path, "x.parquet", whole)) == 1


@fuzz
@given(data=messy, delimiter=st.sampled_from(["--", "\0", "\n\n", "a", "\u2028"]))
def test_delimited_text_keeps_every_character(tmp_path: Path, data: bytes, delimiter: str) -> None:
    items = read(tmp_path, "x.txt", data, delimiter=delimiter)
    if is_refused_whole(items):
        return
    pieces = [
        piece.strip(b"\r\n")
        for piece in data.removeprefix(b"\xef\xbb\xbf").split(delimiter.encode())
    ]
    kept = [item.text.encode() for item in items if isinstance(item, PromptCase)]
    remaining = iter(pieces)
    assert all(text in remaining for text in kept), "in order, none made up"
    assert len(items) == sum(bool(piece.decode(errors="replace").strip()) for piece in pieces)


prompts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
real_prompts = prompts.filter(lambda text: bool(text.strip()))


@fuzz
@given(texts=st.lists(real_prompts, max_size=8))
def test_what_csv_writes_is_read_back(tmp_path: Path, texts: list[str]) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, quoting=csv.QUOTE_ALL)
    writer.writerow(["prompt", "n"])
    writer.writerows((text, at) for at, text in enumerate(texts))
    items = read(tmp_path, "x.csv", sink.getvalue().encode())
    assert [item.text for item in items if isinstance(item, PromptCase)] == texts
    assert len(items) == len(texts)


@fuzz
@given(texts=st.lists(real_prompts, max_size=8), ascii_only=st.booleans())
def test_what_json_writes_is_read_back(tmp_path: Path, texts: list[str], ascii_only: bool) -> None:
    lines = [json.dumps({"prompt": text}, ensure_ascii=ascii_only) for text in texts]
    items = read(tmp_path, "x.jsonl", "\n".join(lines).encode())
    assert [item.text for item in items if isinstance(item, PromptCase)] == texts
    assert len(items) == len(texts)
