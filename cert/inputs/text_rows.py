"""Plain text: a prompt a line, or a prompt between two delimiters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.core.errors import InvalidInput, PromptTooLong
from cert.inputs.lines import split_pieces
from cert.inputs.rows import Row, build_row, decode_utf8, refuse, refuse_nul

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cert.inputs.case import RefusedInput
    from cert.inputs.options import ReadOptions


def read_text(
    read: Callable[[], bytes], source: str, options: ReadOptions
) -> Iterator[Row | RefusedInput]:
    """Read prompts from plain text.

    A line ends with LF or CRLF. Lines of nothing but white space are skipped; they count in the
    line numbers. With a delimiter, line ends at both ends of a prompt are trimmed, and its line
    is the one on which its first kept character stands.

    Args:
        read: Returns the next bytes, none at the end; a byte order mark is gone already.
        source: For the refusals.
        options: Delimiter and limit.
    """
    delimited = options.delimiter is not None
    separator = options.delimiter.encode() if options.delimiter is not None else b"\n"
    # One byte more for the CR of a CRLF.
    limit = options.max_text_bytes + 1
    for line, data in split_pieces(read, separator=separator, limit_bytes=limit):
        try:
            row = _parse(data, line, options, delimited=delimited)
        except InvalidInput as error:
            yield refuse(source, line, error)
        else:
            if row is not None:
                yield row


def _parse(data: bytes | None, line: int, options: ReadOptions, *, delimited: bool) -> Row | None:
    if data is None:
        raise PromptTooLong(
            f"longer than {options.max_text_bytes:,} bytes; at most {options.max_chars:,} "
            "characters are accepted"
        )
    text = decode_utf8(data)
    if delimited:
        kept = text.lstrip("\r\n")
        line += text.count("\n", 0, len(text) - len(kept))
        text = kept.rstrip("\r\n")
    else:
        text = text.removesuffix("\r")
    if not text.strip():
        return None
    refuse_nul(text)
    return build_row({options.prompt_field: text}, line, options)
