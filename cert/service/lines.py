"""The lines of a batch: prompts, and what a client's own reader has refused already.

A client that reads files of its own says in `input` where a line stands there, so that records
name the client's files and lines; `refused` in place of a prompt says why it is none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec

from cert.core.errors import InvalidInput, PromptTooLong
from cert.inputs.case import RefusedInput
from cert.inputs.ids import IdIndex
from cert.inputs.jsonl_rows import parse_object
from cert.inputs.lines import split_pieces
from cert.inputs.rows import build_row, decode_utf8, refuse
from cert.ledger.canonical import MAX_SAFE_INTEGER
from cert.service.recorder import SOURCE
from cert.service.requests import case_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cert.inputs.case import PromptCase
    from cert.inputs.options import ReadOptions


_Kind = TypeVar("_Kind")


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a line stands in the client's files."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    line: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAFE_INTEGER)]


class _Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a line is no prompt."""

    type: Literal["InvalidInput", "PromptTooLong"]
    message: Annotated[str, msgspec.Meta(max_length=2000)]


def read_lines(
    read: Callable[[], bytes], options: ReadOptions
) -> Iterator[PromptCase | RefusedInput]:
    """Read JSON Lines as `cert batch` does; every line that is not blank becomes one case.

    Args:
        read: Returns the next bytes, none at the end.
        options: Limits.
    """
    with IdIndex() as index:
        for line, data in split_pieces(read, limit_bytes=options.max_record_bytes):
            if data is None or data.strip(b" \t\r"):
                yield _read_line(data, _Place(SOURCE, line), options, index)


def _read_line(
    data: bytes | None, place: _Place, options: ReadOptions, index: IdIndex
) -> PromptCase | RefusedInput:
    try:
        values = _parse(data, options)
        if "input" in values:
            place = _member(values, "input", _Place)
    except InvalidInput as error:
        return refuse(place.source, place.line, error)
    try:
        return _build_case(values, place, options, index)
    except InvalidInput as error:
        return refuse(place.source, place.line, error)


def _parse(data: bytes | None, options: ReadOptions) -> dict[str, object]:
    if data is None:
        raise PromptTooLong(f"longer than {options.max_record_bytes:,} bytes")
    return parse_object(decode_utf8(data))


def _build_case(
    values: Mapping[str, object], place: _Place, options: ReadOptions, index: IdIndex
) -> PromptCase | RefusedInput:
    if "refused" in values:
        refused = _member(values, "refused", _Refused)
        return RefusedInput(place.source, place.line, refused.type, refused.message)
    if "prompt" not in values:
        raise InvalidInput("there is no field 'prompt'")
    row = build_row(values, place.line, options)
    if row.id is None:
        identity = index.claim_content(row.prompt, row.response, place.source, place.line)
    elif (first := index.claim(row.id, place.source, place.line)) is None:
        identity = row.id
    else:
        raise InvalidInput(f"the id of line {row.line} is that of line {first[1]} already")
    return replace(case_of(row, identity), source=place.source)


def _member(values: Mapping[str, object], name: str, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(values[name], kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{name}: {error}") from error
