"""Parquet, in batches of rows, with as little of the file in memory as that allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cert.core.errors import ConfigurationError, InvalidInput
from cert.core.extras import missing_extra
from cert.inputs.columns import choose_columns
from cert.inputs.rows import Row, build_row, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

    from cert.inputs.case import RefusedInput
    from cert.inputs.options import ReadOptions

_BATCH_ROWS = 16
_BUFFER_BYTES = 1 << 20
_MAX_METADATA_BYTES = 16 << 20
_MAX_EXPANSION = 500
_MIN_BOMB_BYTES = 64 << 20
_MAX_DICTIONARY_BYTES = 8 << 20


class ParquetTable:
    """A Parquet file whose schema has been read."""

    def __init__(self, file: BufferedIOBase, source: str, options: ReadOptions) -> None:
        """Read the schema.

        Args:
            file: Seekable.
            source: For messages and refusals.
            options: Field names and limits.

        Raises:
            MissingExtraError: pyarrow is not installed.
            InvalidInput: The file is damaged.
            ConfigurationError: A column is missing or has a type that cannot be used.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415 - the same
        except ImportError as error:
            raise missing_extra("reading Parquet needs pyarrow", "parquet") from error
        self._failures: tuple[type[Exception], ...] = (pa.ArrowException, OSError, ValueError)
        self._source = source
        self._options = options
        try:
            table = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, **_limits())
            schema = table.schema_arrow
            columns = choose_columns(schema.names, source, options)
            texts = [name for name in columns if _is_text(pa, schema.field(name).type)]
            self._check_types(pa, schema, columns, texts)
            self._table: Any = parquet.ParquetFile(
                file,
                buffer_size=_BUFFER_BYTES,
                read_dictionary=_check_chunks(table.metadata, texts),
                **_limits(),
            )
        except self._failures as error:
            raise InvalidInput(f"not a readable Parquet file ({type(error).__name__})") from None
        self._columns = columns

    def rows(self) -> Iterator[Row | RefusedInput]:
        """Read the rows; `line` counts them from 1. A damaged page ends the file."""
        line = 0
        batches = self._table.iter_batches(
            batch_size=_BATCH_ROWS, columns=list(self._columns), use_threads=False
        )
        while True:
            try:
                batch = next(batches, None)
            except self._failures as error:
                reason = f"damaged from here on ({type(error).__name__}); the rest is not read"
                yield refuse(self._source, line + 1, InvalidInput(reason))
                return
            if batch is None:
                return
            for at in range(batch.num_rows):
                line += 1
                try:
                    row = build_row(self._values(batch, at), line, self._options)
                except InvalidInput as error:
                    yield refuse(self._source, line, error)
                else:
                    yield row

    def _values(self, batch: Any, at: int) -> dict[str, object]:  # noqa: ANN401 - no types
        try:
            return {name: batch.column(name)[at].as_py() for name in self._columns}
        except UnicodeDecodeError as error:
            raise InvalidInput(f"not valid UTF-8: {error.reason}") from None

    def _check_types(self, pa: Any, schema: Any, columns: dict[str, int], texts: list[str]) -> None:  # noqa: ANN401
        options = self._options
        for name in columns:
            kind = schema.field(name).type
            integral = pa.types.is_integer(kind) and name not in {
                options.prompt_field,
                options.response_field,
            }
            boolean = pa.types.is_boolean(kind) and name == options.label_field
            if not (name in texts or integral or boolean or pa.types.is_null(kind)):
                raise ConfigurationError(
                    f"{self._source}: the column {name!r} holds {kind}, which cannot be used there"
                )


def _limits() -> dict[str, int]:
    return {
        "thrift_string_size_limit": _MAX_METADATA_BYTES,
        "thrift_container_size_limit": 1_000_000,
    }


def _check_chunks(metadata: Any, texts: list[str]) -> list[str]:  # noqa: ANN401 - no types
    """Choose the columns to read as dictionaries, so that a repeated string is held once.

    Only where the file has them so in all their length, which the size tells; building a
    dictionary of a long column costs several times its size instead.

    Raises:
        InvalidInput: A column expands so much that it is no text that anybody wrote.
    """
    dictionaries = set(texts)
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(at)
            name = chunk.path_in_schema
            if name not in texts:
                continue
            unpacked = chunk.total_uncompressed_size
            if unpacked > max(_MIN_BOMB_BYTES, _MAX_EXPANSION * chunk.total_compressed_size):
                raise InvalidInput(
                    f"column {name!r} expands to {unpacked:,} bytes, more than "
                    f"{_MAX_EXPANSION} times its size in the file"
                )
            if not chunk.has_dictionary_page or unpacked > _MAX_DICTIONARY_BYTES:
                dictionaries.discard(name)
    return sorted(dictionaries)


def _is_text(pa: Any, kind: Any) -> bool:  # noqa: ANN401 - no types
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
