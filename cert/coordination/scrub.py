"""Texts of servers and libraries made fit for errors, logs and records: short and without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.observability.controls import escape_controls
from cert.observability.redaction import MASK, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CHARS = 2000
MIN_KEY_CHARS = 16


class Scrubber:
    """Takes known secrets and everything that looks like one out of a text.

    Args:
        secrets: Exact texts to mask, whatever they look like.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first, so that no secret's end outlives another one within it.
        self._secrets = tuple(sorted({one for one in secrets if one}, key=len, reverse=True))

    def __call__(self, text: str, *, max_chars: int = MAX_CHARS) -> str:
        """Return the text without secrets and control characters, cut to `max_chars`."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        # Cut last: what is cut before could end within a secret, and pass for none.
        text = escape_controls(redact(text))
        return text if len(text) <= max_chars else text[: max_chars - 1] + "\u2026"

    def finds(self, text: str) -> bool:
        """Tell whether a known secret is within the text.

        Local servers are given keys such as "EMPTY" or "ollama", which are words; those of fewer
        than `MIN_KEY_CHARS` are no find.
        """
        return any(secret in text for secret in self._secrets if len(secret) >= MIN_KEY_CHARS)
