"""From the fields of a row to checked values: what every format has in common."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.core.errors import InvalidInput, PromptTooLong
from cert.inputs.case import RefusedInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.inputs.options import ReadOptions

MAX_NAME_CHARS = 256


@dataclass(frozen=True, slots=True)
class Row:
    """The checked content of one row; `id` is None where the input gives none."""

    line: int
    prompt: str
    id: str | None = None
    response: str | None = None
    group: str | None = None
    label: str | None = None


def refuse(source: str, line: int, error: InvalidInput) -> RefusedInput:
    """Describe why a row was refused."""
    return RefusedInput(source, line, type(error).__name__, error.message)


def decode_utf8(data: bytes) -> str:
    """Decode strictly.

    Raises:
        InvalidInput: Not UTF-8 (overlong forms and surrogates are not); says where.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not valid UTF-8 at byte {error.start + 1}: {error.reason}") from None


def refuse_nul(text: str) -> None:
    r"""Refuse a raw NUL; one that JSON spells `\u0000` is meant, one in a text file is not.

    Raises:
        InvalidInput: There is one.
    """
    if "\0" in text:
        raise InvalidInput("holds a NUL byte; is this file binary, or UTF-16 without a BOM?")


def build_row(values: Mapping[str, object], line: int, options: ReadOptions) -> Row:
    """Check the fields of a row.

    None stands for a value that is not there. Texts are kept exactly: nothing is trimmed,
    normalised (NFC and NFD stay two) or replaced.

    Args:
        values: By the input's own field names; fields that no option names are ignored.
        line: 1-based.
        options: Names and limits.

    Raises:
        PromptTooLong: The prompt exceeds `max_chars`.
        InvalidInput: Anything else that is wrong, without repeating the input's text.
    """
    prompt = values.get(options.prompt_field)
    if not isinstance(prompt, str):
        raise InvalidInput(f"the prompt is {_kind(prompt)}, not a string")
    if not prompt.strip():
        raise InvalidInput("the prompt is empty or nothing but white space")
    if len(prompt) > options.max_chars:
        raise PromptTooLong(_too_long("prompt", len(prompt), options.max_chars))
    _refuse_surrogates("prompt", prompt)
    return Row(
        line=line,
        prompt=prompt,
        id=_name("id", values.get(options.id_field)),
        response=_response(values.get(options.response_field), options.max_chars),
        group=_name("group", values.get(options.group_field)),
        label=_label(values.get(options.label_field), options.max_chars),
    )


def _response(value: object, max_chars: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"the response is {_kind(value)}, not a string")
    if not value:
        # Generating one instead would silently measure something else than was asked for.
        raise InvalidInput("the response is empty: there is nothing to score")
    if len(value) > max_chars:
        raise InvalidInput(_too_long("response", len(value), max_chars))
    _refuse_surrogates("response", value)
    return value


def _name(field: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidInput(f"the {field} is {_kind(value)}, not a string or an integer")
    text = str(value)
    if not text:
        raise InvalidInput(f"the {field} is empty")
    if len(text) > MAX_NAME_CHARS:
        raise InvalidInput(_too_long(field, len(text), MAX_NAME_CHARS))
    _refuse_surrogates(field, text)
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise InvalidInput(f"the {field} holds a control character")
    return text


def _label(value: object, max_chars: int) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int)):
        raise InvalidInput(f"the label is {_kind(value)}, not a string, an integer or a boolean")
    text = str(value)
    if len(text) > max_chars:
        raise InvalidInput(_too_long("label", len(text), max_chars))
    _refuse_surrogates("label", text)
    return text


def _refuse_surrogates(field: str, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the {field} holds a lone surrogate at character {error.start + 1}"
        ) from None


def _too_long(field: str, chars: int, limit: int) -> str:
    return f"the {field} has {chars:,} characters; at most {limit:,} are accepted"


def _kind(value: object) -> str:
    kinds = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "of another type")
