from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError
from cert.inputs.case import PromptCase, RefusedInput
from cert.inputs.ids import content_id
from cert.inputs.options import ReadOptions
from cert.inputs.reader import case_from_argument, read_cases
from tests.inputs.helpers import only, reasons, seen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.inputs.helpers import Read


def test_no_sources_no_cases() -> None:
    assert list(read_cases([])) == []


def test_ids_are_unique_across_sources_and_duplicates_name_both_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "x", "prompt": "one"}\n{"prompt": "two"}\n')
    (tmp_path / "b.csv").write_bytes(b"id,prompt\ny,two\nx,three\n,two\n")
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")
    items = list(read_cases([a, b, a]))
    ids = [item.id for item in items if isinstance(item, PromptCase)]
    two = content_id("two")
    assert ids == ["x", two, "y", f"{two}-2", f"{two}-3"]
    assert [(item.source, item.line) for item in items] == [
        *((a, 1), (a, 2), (b, 2), (b, 3), (b, 4), (a, 1), (a, 2))
    ]
    assert reasons(items) == [
        f"the id of {b}:3 is that of {a}:1 already",
        f"the id of {a}:1 is that of {a}:1 already",
    ]


def test_a_refused_row_takes_no_id(read: Read) -> None:
    data = b'{"id": "x", "prompt": ""}\n{"id": "x", "prompt": "p"}\n'
    assert seen(read(data, "input.jsonl")) == [(1, "!InvalidInput"), (2, "p")]


def test_ids_are_the_same_in_every_run(read: Read) -> None:
    data = b"one\ntwo\none\n\xff\none\n"
    assert read(data) == read(data)


def test_reading_twice_gives_ids_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\na\n")
    first = list(read_cases([str(path)]))
    assert first == list(read_cases([str(path)], ReadOptions()))


def test_argument() -> None:
    assert case_from_argument(" Hello\n") == PromptCase(
        id=content_id(" Hello\n"), text=" Hello\n", source="argument", line=1
    )
    case = case_from_argument("a", id="x", response="b")
    assert case == PromptCase(id="x", text="a", response="b")
    assert only([case_from_argument("a", response="b")]).id == content_id("a", "b")


@pytest.mark.parametrize(
    ("text", "options", "error_type"),
    [
        ("", {}, "InvalidInput"),
        (" \n", {}, "InvalidInput"),
        ("a\udcff", {}, "InvalidInput"),
        (b"bytes", {}, "InvalidInput"),
        (None, {}, "InvalidInput"),
        ("a", {"response": ""}, "InvalidInput"),
        ("a", {"id": ""}, "InvalidInput"),
        ("abc", {"max_chars": 2}, "PromptTooLong"),
    ],
)
def test_an_argument_that_cannot_be_used(
    text: str, options: dict[str, object], error_type: str
) -> None:
    refused = case_from_argument(text, **options)  # type: ignore[arg-type]
    assert isinstance(refused, RefusedInput)
    assert (refused.source, refused.line, refused.error_type) == ("argument", 1, error_type)


@pytest.mark.parametrize(
    ("options", "reason", "hint"),
    [
        ({"input_format": "jsnl"}, "unknown input format 'jsnl'", "did you mean jsonl?"),
        ({"input_format": "?"}, "unknown input format", None),
        ({"max_chars": 0}, "at least 1", None),
        ({"delimiter": ""}, "delimiter is empty", None),
        ({"delimiter": "\ud800"}, "not valid Unicode", None),
        ({"prompt_field": ""}, "a field name is empty", None),
        ({"label_field": "prompt"}, "two purposes", "give prompt"),
    ],
)
def test_options_that_cannot_be_used(
    options: dict[str, object], reason: str, hint: str | None
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        ReadOptions(**options)  # type: ignore[arg-type]
    assert (caught.value.hint or "").startswith(hint or "")


def test_the_package_loads_no_pyarrow_and_no_model_stack() -> None:
    code = (
        "import sys; from cert.inputs import *; read_cases([]); "
        "print([name for name in ('pyarrow', 'torch', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(run.stdout) == []
