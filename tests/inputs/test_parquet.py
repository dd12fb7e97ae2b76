from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError, MissingExtraError
from cert.inputs.case import PromptCase
from cert.inputs.reader import read_cases
from tests.inputs.helpers import reasons, seen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.inputs.helpers import Read

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAME = "input.parquet"


def write(columns: dict[str, object], **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, **options)
    return bytes(sink.getvalue())


def test_all_fields_over_several_row_groups(read: Read) -> None:
    rows = 300
    data = write(
        {
            "id": pa.array(range(rows), pa.int64()),
            "prompt": [f"prompt\r\n\0 {at}" for at in range(rows)],
            "response": pa.array([None if at % 2 else "r" for at in range(rows)]),
            "label": pa.array([bool(at % 2) for at in range(rows)]),
            "group": pa.array(["g"] * rows).dictionary_encode(),
            "score": [0.5] * rows,
        },
        row_group_size=70,
    )
    items = read(data, NAME)
    assert seen(items) == [(at + 1, f"prompt\r\n\0 {at}") for at in range(rows)]
    case = items[1]
    assert isinstance(case, PromptCase)
    assert (case.id, case.response, case.label, case.group) == ("1", None, "true", "g")


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_kinds_of_strings(read: Read, kind: str) -> None:
    if kind == "string_view" and not hasattr(pa, "string_view"):
        pytest.skip("this pyarrow has none")
    data = write({"prompt": pa.array(["one", "two", "one"], getattr(pa, kind)())})
    assert seen(read(data, NAME)) == [(1, "one"), (2, "two"), (3, "one")]


def test_bad_rows(read: Read) -> None:
    broken = pa.Array.from_buffers(
        pa.string(),
        2,
        [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb")],
    )
    data = write({"prompt": pa.chunked_array([["a", None, "", "x" * 11], broken])})
    items = read(data, NAME, max_chars=10)
    assert seen(items) == [
        (1, "a"),
        (2, "!InvalidInput"),
        (3, "!InvalidInput"),
        (4, "!PromptTooLong"),
        (5, "!InvalidInput"),
        (6, "b"),
    ]
    assert reasons(items)[0] == "the prompt is null, not a string"
    assert reasons(items)[3] == "not valid UTF-8: invalid start byte"


def test_columns_that_cannot_be_used(read: Read) -> None:
    with pytest.raises(ConfigurationError, match="no column 'prompt'; found: 'promt'") as caught:
        read(write({"promt": ["a"]}), NAME)
    assert "did you mean 'promt'?" in (caught.value.hint or "")
    with pytest.raises(ConfigurationError, match="'prompt' holds int64"):
        read(write({"prompt": [1]}), NAME)
    with pytest.raises(ConfigurationError, match="'id' holds double"):
        read(write({"prompt": ["a"], "id": [1.5]}), NAME)
    with pytest.raises(ConfigurationError, match="'response' holds bool"):
        read(write({"prompt": ["a"], "response": [True]}), NAME)
    assert seen(read(write({"prompt": ["a"], "id": pa.nulls(1)}), NAME)) == [(1, "a")]


def test_damage_refuses_the_file_and_no_other(read: Read, tmp_path: Path) -> None:
    whole = write({"prompt": [f"{at}" * 50 for at in range(500)]}, compression="none")
    for data in (b"", b"PAR1", b"PAR1" + b"\0" * 100, whole[:-5], whole[: len(whole) // 2]):
        assert seen(read(data, NAME)) == [(1, "!InvalidInput")]
    (tmp_path / "other.txt").write_bytes(b"fine\n")
    items = list(read_cases([str(tmp_path / NAME), str(tmp_path / "other.txt")]))
    assert seen(items) == [(1, "!InvalidInput"), (1, "fine")]


def test_a_damaged_page_ends_the_file_with_a_refusal(read: Read) -> None:
    whole = bytearray(
        write(
            {"prompt": [f"{at} " * 50 for at in range(512)]},
            row_group_size=128,
            compression="zstd",
            use_dictionary=False,
        )
    )
    middle = len(whole) // 2
    whole[middle : middle + 200] = b"\xff" * 200
    items = read(bytes(whole), NAME)
    assert 100 < len(items) < 512
    assert [item.line for item in items] == list(range(1, len(items) + 1))
    assert len(reasons(items)) == 1
    assert "the rest is not read" in reasons(items)[0]


def test_a_column_that_expands_beyond_reason(read: Read) -> None:
    data = write(
        {"prompt": ["x" * 90_000 for _ in range(1000)]}, use_dictionary=False, compression="zstd"
    )
    assert len(data) < 1_000_000
    items = read(data, NAME)
    assert seen(items) == [(1, "!InvalidInput")]
    assert "expands to" in reasons(items)[0]


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / NAME
    path.write_bytes(write({"prompt": ["a"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="needs pyarrow") as caught:
        read_cases([str(path)])
    assert caught.value.hint == "pip install 'cert-framework[parquet]'"
