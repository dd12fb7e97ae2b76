"""From inputs to prompts: every line becomes a case or a refusal, or is blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError, InvalidInput
from cert.inputs.case import PromptCase, RefusedInput
from cert.inputs.csv_rows import CsvTable
from cert.inputs.ids import IdIndex, content_id
from cert.inputs.jsonl_rows import read_jsonl
from cert.inputs.options import ReadOptions
from cert.inputs.parquet_rows import ParquetTable
from cert.inputs.rows import Row, build_row, refuse
from cert.inputs.sources import STDIN, Source, check_head, open_source, resolve_format
from cert.inputs.text_rows import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ReadOptions", "case_from_argument", "read_cases"]

_ARGUMENT = "argument"


def read_cases(
    sources: Sequence[str], options: ReadOptions | None = None
) -> Iterator[PromptCase | RefusedInput]:
    """Read prompts from files and stdin, in their order, as a stream.

    Memory stays flat however many rows there are and however long a line is. What is wrong with
    one row is yielded as a `RefusedInput`, and so is a file that is compressed, in another
    encoding or damaged (as its line 1); the others go on. Texts and ids are kept byte for byte.

    An id is the one given, or `content_id`, with `-2`, `-3`, ... for repeated content. The second
    use of an id is refused, and names the first. Refused rows take no id.

    Args:
        sources: Paths; `-` is stdin. A file whose name begins with a dash is given as `./-x`.
        options: Formats, field names, limits; the defaults if None.

    Returns:
        An iterator, to be closed or used up. Not to be advanced by two threads at once.

    Raises:
        ConfigurationError: At once, before anything is read of any source: one is missing, is
            no regular file or cannot be opened, its format is unknown, or a table lacks a
            column. Later, for stdin, or where a medium fails.
        MissingExtraError: At once: Parquet without pyarrow.
    """
    options = options or ReadOptions()
    if list(sources).count(STDIN) > 1:
        raise ConfigurationError("stdin (`-`) can be read only once")
    for path in sources:
        if path != STDIN:
            with open_source(path) as source:
                _open_rows(path, source, options)
    return _read_all(tuple(sources), options)


def case_from_argument(
    text: str,
    *,
    id: str | None = None,  # noqa: A002 - as in PromptCase
    response: str | None = None,
    max_chars: int = 100_000,
) -> PromptCase | RefusedInput:
    """Check one prompt that was given as an argument rather than in a file.

    >>> case_from_argument("Hello").id
    '185f8db32271fe25'
    """
    options = ReadOptions(max_chars=max_chars)
    values = {"prompt": text, "id": id, "response": response}
    try:
        row = build_row(values, 1, options)
    except InvalidInput as error:
        return refuse(_ARGUMENT, 1, error)
    return _case(row, row.id or content_id(row.prompt, row.response), _ARGUMENT)


def _read_all(
    sources: tuple[str, ...], options: ReadOptions
) -> Iterator[PromptCase | RefusedInput]:
    with IdIndex() as index:
        for path in sources:
            with open_source(path) as source:
                for row in _open_rows(path, source, options):
                    yield row if isinstance(row, RefusedInput) else _number(row, source, index)


def _open_rows(path: str, source: Source, options: ReadOptions) -> Iterator[Row | RefusedInput]:
    """Choose the reader; tables read their header now, and raise now if it does not fit."""
    kind = resolve_format(path, options.input_format, seems_json=source.seems_json)
    if options.delimiter is not None and kind not in {"text", "csv"}:
        raise ConfigurationError(f"{source.name}: a delimiter has no meaning in {kind}")
    try:
        check_head(source.head, kind, delimiter=options.delimiter)
        if kind == "parquet":
            source.file.seek(0)
            return ParquetTable(source.file, source.name, options).rows()
    except InvalidInput as error:
        return iter([refuse(source.name, 1, error)])
    if kind == "csv":
        delimiter = options.delimiter or ("\t" if path.lower().endswith(".tsv") else ",")
        return CsvTable(source.read, source.name, options, delimiter=delimiter).rows()
    if kind == "jsonl":
        return read_jsonl(source.read, source.name, options)
    return read_text(source.read, source.name, options)


def _number(row: Row, source: Source, index: IdIndex) -> PromptCase | RefusedInput:
    if row.id is None:
        identity = index.claim_content(row.prompt, row.response, source.name, row.line)
        return _case(row, identity, source.name)
    first = index.claim(row.id, source.name, row.line)
    if first is None:
        return _case(row, row.id, source.name)
    reason = f"the id of {source.name}:{row.line} is that of {first[0]}:{first[1]} already"
    return refuse(source.name, row.line, InvalidInput(reason))


def _case(row: Row, identity: str, source: str) -> PromptCase:
    return PromptCase(
        id=identity,
        text=row.prompt,
        response=row.response,
        group=row.group,
        label=row.label,
        source=source,
        line=row.line,
    )
