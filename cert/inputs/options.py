"""How inputs are to be read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches

from cert.core.errors import ConfigurationError

FORMATS = ("auto", "text", "jsonl", "csv", "parquet")
FIELDS = ("prompt_field", "id_field", "response_field", "label_field", "group_field")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    r"""What to look for in an input, and how much of it to accept.

    A field name that differs from its default was chosen on purpose: every row must then have
    that field (it may be null). Fields under their default names may be missing, except the prompt.

    Attributes:
        input_format: One of `FORMATS`. `auto` goes by the file name's extension; on stdin the
            input is JSONL where its first character is `{`, and text otherwise.
        prompt_field: Where the prompt stands in JSONL, CSV and Parquet.
        id_field: Where its id stands.
        response_field: Where a text to be scored stands.
        label_field: Where the expected outcome stands.
        group_field: Where the group stands.
        delimiter: In text, what separates two prompts, matched byte for byte, in place of the
            line feed (line ends around each prompt are then trimmed). In CSV, the one character
            between two fields, in place of the comma (of the tab in `.tsv`).
        max_chars: Limit of a prompt, a response and a label, each, in characters.

    Raises:
        ConfigurationError: A value is not usable.

    >>> ReadOptions(max_chars=1000).max_text_bytes
    4000
    """

    input_format: str = "auto"
    prompt_field: str = "prompt"
    id_field: str = "id"
    response_field: str = "response"
    label_field: str = "label"
    group_field: str = "group"
    delimiter: str | None = None
    max_chars: int = 100_000

    def __post_init__(self) -> None:
        if self.input_format not in FORMATS:
            close = get_close_matches(self.input_format, FORMATS, n=1)
            raise ConfigurationError(
                f"unknown input format {self.input_format!r}; known are {', '.join(FORMATS)}",
                hint=f"did you mean {close[0]}?" if close else None,
            )
        if self.max_chars < 1:
            raise ConfigurationError(f"max_chars is {self.max_chars}; it must be at least 1")
        if self.delimiter is not None and not _is_encodable(self.delimiter):
            raise ConfigurationError("the delimiter is empty or is not valid Unicode")
        names = self.all_fields
        if "" in names:
            raise ConfigurationError("a field name is empty")
        if len(set(names)) < len(names):
            raise ConfigurationError(
                f"one field cannot serve two purposes: {', '.join(map(repr, names))}",
                hint="give prompt, id, response, label and group fields different names",
            )

    @property
    def max_text_bytes(self) -> int:
        """Bytes that a line of text may have: UTF-8 needs at most 4 a character."""
        return 4 * self.max_chars

    @property
    def max_record_bytes(self) -> int:
        r"""Bytes that a JSONL line or a CSV record may have.

        Room for a prompt and a response of `max_chars` characters, each written as an escaped
        surrogate pair (12 bytes a character), and for whatever else stands in the record.
        """
        return 32 * self.max_chars + 65_536

    @property
    def all_fields(self) -> tuple[str, ...]:
        """The names of all fields, the prompt's first."""
        return tuple(getattr(self, name) for name in FIELDS)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The prompt's field, and every other one whose name differs from the default."""
        defaults = {field.name: field.default for field in fields(self)}
        names = ((getattr(self, field), defaults[field]) for field in FIELDS[1:])
        return (self.prompt_field, *(name for name, default in names if name != default))


def _is_encodable(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
