"""CSV as in RFC 4180: a header, quoted fields that may hold commas, quotes and line ends."""

from __future__ import annotations

import csv
from collections import deque
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError, InvalidInput, PromptTooLong
from cert.inputs.columns import choose_columns
from cert.inputs.lines import split_pieces
from cert.inputs.rows import Row, build_row, refuse, refuse_nul

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cert.inputs.case import RefusedInput
    from cert.inputs.options import ReadOptions


class CsvTable:
    """A CSV stream whose header has been read.

    Where a record is malformed (an unclosed quote, most often), the lines after its first one
    are read once more as records of their own, so that one bad row does not take the rest with
    it. In a table of one column any text would pass as a row, and after many malformed records
    that would cost too much time; there the lines are skipped, and the refusal names them.
    """

    def __init__(
        self, read: Callable[[], bytes], source: str, options: ReadOptions, *, delimiter: str
    ) -> None:
        """Read the header.

        Args:
            read: Returns the next bytes, none at the end; a byte order mark is gone already.
            source: For messages and refusals.
            options: Field names and limits.
            delimiter: One character.

        Raises:
            ConfigurationError: The delimiter cannot be used, there is no header, it cannot be
                read, or a column is missing in it.
        """
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise ConfigurationError(
                f"the CSV delimiter is {delimiter!r}; it must be one character, no quote and "
                "no line end"
            )
        self._source = source
        self._options = options
        # The limit is the whole process's, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), options.max_chars + 1))
        self._feed = _Feed(read, options.max_record_bytes)
        self._reader = csv.reader(self._feed, delimiter=delimiter, strict=True)
        self._width = 0
        self._columns: dict[str, int] = {}
        self._read_header()

    def rows(self) -> Iterator[Row | RefusedInput]:
        """Read the rows; `line` is the one on which a row begins. Empty lines are skipped."""
        while True:
            try:
                fields = self._next_record()
                if fields is None:
                    return
                if not fields:
                    continue
                row = self._build(fields)
            except InvalidInput as error:
                yield refuse(self._source, self._feed.first_line, error)
            else:
                yield row

    def _read_header(self) -> None:
        try:
            header: list[str] | None = []
            while header == []:
                header = self._next_record()
            for name in header or ():
                _refuse_undecodable(name)
        except InvalidInput as error:
            raise ConfigurationError(
                f"{self._source}: the header cannot be read: {error.message}"
            ) from None
        if header is None:
            raise ConfigurationError(
                f"{self._source}: the file is empty; CSV needs a header line",
                hint=f"let its first line name the columns, {self._options.prompt_field!r} one",
            )
        self._width = len(header)
        self._columns = choose_columns(header, self._source, self._options)

    def _build(self, fields: list[str]) -> Row:
        for field in fields:
            _refuse_undecodable(field)
            refuse_nul(field)
        if len(fields) != self._width:
            raise InvalidInput(f"the row has {len(fields)} fields, the header has {self._width}")
        values: dict[str, object] = {name: fields[at] for name, at in self._columns.items()}
        options = self._options
        for name in (options.id_field, options.group_field, options.label_field):
            # CSV has no null: an empty cell is one. An empty response stays what it is.
            if values.get(name) == "":
                del values[name]
        return build_row(values, self._feed.first_line, options)

    def _next_record(self) -> list[str] | None:
        self._feed.begin_record()
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise InvalidInput(f"{_reason(error)}{self._recover()}") from None
        except _LineTooLongError as error:
            if self._feed.first_line == error.line:
                raise PromptTooLong(
                    f"longer than {self._options.max_record_bytes:,} bytes; "
                    "no accepted prompt needs that"
                ) from None
            self._feed.put_back_too_long(error.line)
            raise InvalidInput(f"a quoted field is not closed{self._recover()}") from None

    def _recover(self) -> str:
        """Say which lines are skipped, if they cannot be read once more."""
        last = self._feed.last_line
        if last == self._feed.first_line or (self._width != 1 and self._feed.read_again()):
            return ""
        return f"; skipped up to line {last}"


class _LineTooLongError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Feed:
    """The lines that `csv.reader` asks for: one or more a record, and some of them twice."""

    def __init__(self, read: Callable[[], bytes], limit_bytes: int) -> None:
        self._pieces = split_pieces(read, limit_bytes=limit_bytes)
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[int, bytes | None]] = deque()
        self._record: list[tuple[int, bytes]] = []
        self._record_bytes = 0
        # Bytes that may be read again; grows with what is read, so total work stays linear.
        self._credit_bytes = 8 * limit_bytes
        self.first_line = 1

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line, data = self._waiting.popleft() if self._waiting else self._fresh()
        if not self._record:
            self.first_line = line
        if data is None:
            raise _LineTooLongError(line)
        if self._record and self._record_bytes + len(data) > self._limit_bytes:
            self._waiting.appendleft((line, data))
            raise csv.Error("record too long")
        self._record.append((line, data))
        self._record_bytes += len(data)
        # A byte that is no UTF-8 must spoil its own record only; it is found there again.
        return data.decode(errors="surrogateescape") + "\n"

    def _fresh(self) -> tuple[int, bytes | None]:
        line, data = next(self._pieces)
        self._credit_bytes += len(data or b"")
        return line, data

    @property
    def last_line(self) -> int:
        return self._record[-1][0] if self._record else self.first_line

    def begin_record(self) -> None:
        self._record.clear()
        self._record_bytes = 0

    def put_back_too_long(self, line: int) -> None:
        self._waiting.appendleft((line, None))

    def read_again(self) -> bool:
        """Queue the record's lines after its first one, if the credit allows it."""
        again = self._record[1:]
        cost = sum(len(data) for _, data in again)
        if cost > self._credit_bytes:
            return False
        self._credit_bytes -= cost
        self._waiting.extendleft(reversed(again))
        return True


def _refuse_undecodable(field: str) -> None:
    if field.isascii():
        return
    try:
        field.encode()
    except UnicodeEncodeError:
        raise InvalidInput("not valid UTF-8") from None


def _reason(error: csv.Error) -> str:
    message = str(error)
    if message.startswith("field larger"):
        return "a field is too long, or its quote is not closed"
    if message.startswith(("record too long", "unexpected end")):
        return "a quoted field is not closed"
    if message.startswith("new-line"):
        return "a carriage return stands in a field without quotes"
    return "a quoted field goes on after its closing quote"
