"""Notes: what a person wants to be on record beside the measurements."""

from __future__ import annotations

from typing import Final

from cert.evidence.parts import encodable
from cert.ledger.control import record_head

MAX_NOTE_CHARS: Final = 2000


def build_note_record(text: str, *, time: str | None = None) -> dict[str, object]:
    """Record a note, word for word.

    Args:
        text: 1 to 2000 characters. It cannot be taken out again: no secrets, no personal data.
        time: RFC 3339; now where it is not given.

    Raises:
        ValueError: The text is empty or too long.
    """
    if not 1 <= len(text) <= MAX_NOTE_CHARS:
        raise ValueError(f"a note has 1 to {MAX_NOTE_CHARS} characters, not {len(text)}")
    return {**record_head("note", time), "note": {"text": encodable(text)}}
