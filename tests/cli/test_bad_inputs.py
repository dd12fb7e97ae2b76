"""Hostile inputs through the program: each has its record or its refusal, the others go on."""

from __future__ import annotations

import gzip
import io
import json
import resource
import time
import zipfile
from typing import TYPE_CHECKING

import jsonschema
import pytest

from cert.evidence.schema import record_schema
from tests.cli.helpers import Processes, Program, records_of

if TYPE_CHECKING:
    from pathlib import Path

GOOD = b'{"prompt": "good"}'

REFUSED_LINES = {
    "truncated": b'{"prompt": "a',
    "scalar": b"42",
    "string": b'"text"',
    "list": b'["a"]',
    "null": b"null",
    "two values": b"{} {}",
    "no prompt": b'{"id": "x"}',
    "empty prompt": b'{"prompt": ""}',
    "blank prompt": b'{"prompt": " \\n\\t "}',
    "prompt is a number": b'{"prompt": 1}',
    "prompt is null": b'{"prompt": null}',
    "byte FF": b'{"prompt": "a\xffb"}',
    "overlong": b'{"prompt": "a\xc0\x80b"}',
    "cut multibyte": b'{"prompt": "a\xe2\x82"}',
    "encoded surrogate": b'{"prompt": "a\xed\xa0\x80b"}',
    "lone surrogate": b'{"prompt": "a\\ud800b"}',
    "reversed pair": b'{"prompt": "a\\udc00\\ud800b"}',
    "raw NUL": b'{"prompt": "a\x00b"}',
    "raw control": b'{"prompt": "a\x01b"}',
    "NaN": b'{"prompt": "a", "x": NaN}',
    "Infinity": b'{"prompt": "a", "x": -Infinity}',
    "1e999": b'{"prompt": "a", "x": 1e999}',
    "duplicate keys": b'{"prompt": "a", "prompt": "b"}',
    "duplicate by an escape": b'{"prompt": "a", "\\u0070rompt": "b"}',
    "depth 1,000": b'{"prompt": "a", "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "depth 100,000": b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long integer": b'{"prompt": "a", "x": ' + b"9" * 5000 + b"}",
    "a long id": b'{"prompt": "a", "id": "' + b"x" * 200_000 + b'"}',
    "a control in the id": b'{"prompt": "a", "id": "a\\u001b[2J"}',
    "a prompt that is too long": b'{"prompt": "' + b"a" * 100_001 + b'"}',
}

ACCEPTED_LINES = {
    "escaped NUL": b'{"prompt": "a\\u0000b"}',
    "CR at the end": b'{"prompt": "crlf"}\r',
    "U+2028 inside": '{"prompt": "a\u2028b\u2029c"}'.encode(),
    "U+0085, VT, FF, FS": b'{"prompt": "a\\u0085b\\u000bc\\u000cd\\u001ce"}',
    "-0, 1.0, 2^53": b'{"prompt": "numbers", "x": [-0, 1.0, 1]}',
    "NFC id": '{"prompt": "nfc", "id": "\u00e9"}'.encode(),
    "NFD id": '{"prompt": "nfd", "id": "e\u0301"}'.encode(),
    "terminal escapes": b'{"prompt": "\\u001b]52;c;AAAA\\u0007\\u001b[2J\\u009b31m\\u202e"}',
    "a forged line": b'{"prompt": "a\\n{\\"kind\\":\\"analysis\\"}"}',
    "markup": b'{"prompt": "<script>[bold]::add-mask::x</script>"}',
    "a surrogate pair": b'{"prompt": "\\ud83d\\ude42"}',
}


def check(records: list[dict[str, object]]) -> None:
    validator = jsonschema.Draft202012Validator(record_schema())
    for record in records:
        validator.validate(record)


def test_every_bad_line_is_refused_and_every_other_one_measured(
    cert: Program, folder: Path
) -> None:
    lines, expected = [], []
    for name, line in {**REFUSED_LINES, **ACCEPTED_LINES}.items():
        lines += [line, GOOD]
        expected += [
            (name, "refused" if name in REFUSED_LINES else "analysis"),
            ("good", "analysis"),
        ]
    (folder / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    started = time.monotonic()
    ran = cert("batch", "in.jsonl", "-m", "fake", "-o", "out.jsonl", "--max-new-tokens", "2")
    assert time.monotonic() - started < 20
    records = records_of(folder / "out.jsonl")
    assert [
        (name, record["kind"]) for (name, _), record in zip(expected, records, strict=True)
    ] == (expected)
    assert [one["input"]["line"] for one in records] == list(range(1, len(lines) + 1))
    assert ran.code == 4
    check(records)
    assert not any(byte < 32 and byte != 10 for byte in ran.out.encode())
    again = cert("batch", "in.jsonl", "-m", "fake", "-o", "out.jsonl", "--max-new-tokens", "2")
    assert (again.code, again.out) == (4, "")


def test_the_human_view_of_hostile_lines_steers_nothing(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(b"\n".join([*ACCEPTED_LINES.values(), b"{\x1b[2J"]) + b"\n")
    for more in ((), ("-f",)):
        args = ("analyze", "-f", "in.jsonl") if more else ("batch", "in.jsonl")
        ran = cert(*args, "-m", "fake", "--format", "human", "--no-color")
        for character in ran.out + ran.err:
            assert character == "\n" or (ord(character) >= 32 and not 0x7F <= ord(character) < 0xA0)
            assert character not in "\u202e\u2028\u2029\u200b"


def test_the_second_use_of_an_id_names_the_first(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(
        b'{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "y"}\n{"prompt": "c", "id": "x"}\n'
    )
    ran = cert("batch", "in.jsonl", "-m", "fake")
    assert [one["kind"] for one in ran.records] == ["analysis", "analysis", "refused"]
    assert "in.jsonl:3" in ran.records[2]["error"]["message"]
    assert "in.jsonl:1" in ran.records[2]["error"]["message"]


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.zip", b"PK\x03\x04")
    return buffer.getvalue()


FILES = {
    "empty.txt": (b"", 7, 0),
    "newline.txt": (b"\n", 7, 0),
    "no final newline.txt": (b"one\ntwo", 0, 2),
    "bom.txt": (b"\xef\xbb\xbfone\n", 0, 1),
    "bom.jsonl": (b"\xef\xbb\xbf" + GOOD, 0, 1),
    "utf16le.txt": ("one\n".encode("utf-16-le"), 7, 1),
    "utf16be.txt": ("one\n".encode("utf-16-be"), 7, 1),
    "utf16bom.txt": ("one\n".encode("utf-16"), 7, 1),
    "crlf.txt": (b"one\r\ntwo\r\n", 0, 2),
    "cr.txt": (b"one\rtwo\r", 0, 1),
    "separators.txt": ("a\u2028b\u0085c\x0bd\x0ce\x1cf\n".encode(), 0, 1),
    "nul.txt": (b"a\x00b\n", 7, 1),
    "bomb.jsonl": (gzip.compress(b"a" * 10_000_000), 7, 1),
    "bomb.txt": (gzip.compress(b"a" * 10_000_000), 7, 1),
    "nested.zip": (_zip(), None, None),
    "quotes.csv": (b'prompt\n"never closed\n', None, None),
    "empty.csv": (b"", None, None),
    "cut.parquet": (b"PAR1", None, None),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_kind_have_the_documented_exit(
    cert: Program, folder: Path, name: str
) -> None:
    content, code, count = FILES[name]
    (folder / name).write_bytes(content)
    (folder / "p.yaml").write_text(
        "id: p\nversion: 1\nchecks:\n  - {signal: perplexity, op: '>=', threshold: 1}\n"
    )
    args = ("batch", name, "-m", "fake", "--policy", "p.yaml", "--max-errors", "100%")
    started = time.monotonic()
    ran = cert(*args)
    assert time.monotonic() - started < 30
    assert "Traceback" not in ran.err
    check(ran.records)
    if code is None:
        assert ran.code in {2, 7}, ran.err
    else:
        assert ran.code == code
        assert len(ran.records) == count


def test_a_huge_line_takes_neither_the_memory_nor_the_batch(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    with (folder / "in.jsonl").open("wb") as stream:
        stream.write(GOOD + b'\n{"prompt": "')
        for _ in range(100):
            stream.write(b"a" * 1_000_000)
        stream.write(b'"}\n{"prompt": "a"')
        for number in range(1_000_000):
            stream.write(b', "%d": 1' % number)
        stream.write(b"}\n" + GOOD + b"\n")
    process = processes.start(
        *("batch", "in.jsonl", "-m", tiny, "--max-new-tokens", "2", "-q"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)),
    )
    out, err = process.communicate(timeout=60)
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert kinds == ["analysis", "refused", "refused", "analysis"], err
    assert process.returncode == 4


@pytest.mark.parametrize(
    "name", ["../../etc/passwd-not-there", "/etc/shadow-not-there", "x" * 300, "nul\0name"]
)
def test_names_of_files_are_only_names(cert: Program, name: str) -> None:
    ran = cert("batch", name, "-m", "fake")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert cert.loader.calls == []


def test_a_name_with_a_dash_is_written_with_its_folder(cert: Program, folder: Path) -> None:
    (folder / "-x").write_text("one\n")
    assert cert("batch", "-x", "-m", "fake").code == 2
    assert len(cert("batch", "./-x", "-m", "fake").records) == 1
    assert len(cert("batch", "-m", "fake", "--", "./-x").records) == 1


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c, *c, *c]\n",
        "model: !!python/object/apply:os.system ['true']\n",
        "offline: perhaps\n",
        "batch_rows: 012\nbatch_rows: 2\n",
        "modle: x\n",
        "- a\n",
        "\x00",
    ],
)
def test_a_hostile_configuration_is_a_usage_error(
    cert: Program, folder: Path, content: str
) -> None:
    (folder / "cert.yaml").write_text(content)
    ran = cert("analyze", "one", "-q")
    assert ran.code == 2
    assert "cert.yaml" in ran.err
    assert "Traceback" not in ran.err
    assert cert.loader.calls == []


def test_secrets_do_not_leave_in_errors(cert: Program) -> None:
    secret = "hf_" + "a1B2" * 8
    ran = cert("batch", f"https://user:{secret}@host/in.txt", "-m", "fake")
    assert ran.code == 2
    assert secret not in ran.err
    ran = cert("analyze", "x", "-m", "fake", "--policy", f"token={secret}")
    assert ran.code == 2
    assert secret not in ran.err
