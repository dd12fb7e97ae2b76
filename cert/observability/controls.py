"""Characters that steer a terminal or a line-based reader, made visible."""

from __future__ import annotations

import re

# C0 and DEL, C1, line and paragraph separators, bidirectional controls, zero-width and tag
# characters, the byte order mark, and lone surrogates, which no encoding can write.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape_controls(text: str) -> str:
    r"""Replace every character that could move a cursor, forge a line or hide text.

    Args:
        text: Any string, lone surrogates included.

    Returns:
        One line of text that UTF-8 can encode; everything else is unchanged. Backslashes are not
        doubled: this is for reading, not for decoding again.

    >>> escape_controls("a\nb\x1b[2J")
    'a\\nb\\x1b[2J'
    """
    return _CONTROLS.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    short = _SHORT.get(character)
    if short is not None:
        return short
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004 - the two-digit escape ends there
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - as above
