"""The id that ties together the log lines and records of one request.

It lives in a context variable, so it follows `await` and `asyncio.gather` by itself. A new thread
starts without it, unless it is run in `contextvars.copy_context()`.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LENGTH = 200

_current: ContextVar[str | None] = ContextVar("cert_correlation_id", default=None)


def get_correlation_id() -> str | None:
    """Return the id of the request that this code runs for; None outside of any."""
    return _current.get()


@contextmanager
def correlation_id_context(correlation_id: str | None = None) -> Iterator[str]:
    """Set the correlation id for the block, and restore the outer one after it.

    Args:
        correlation_id: The id, at most 200 characters, none of them a control character; None
            draws a random one.

    Yields:
        The id in force.

    Raises:
        ValueError: The id is empty, too long, or could forge a log line.

    >>> with correlation_id_context("req-123"):
    ...     get_correlation_id()
    'req-123'
    """
    if correlation_id is None:
        correlation_id = uuid.uuid4().hex
    if not 0 < len(correlation_id) <= MAX_LENGTH:
        raise ValueError(
            f"a correlation id has 1 to {MAX_LENGTH} characters, got {len(correlation_id)}"
        )
    if escape_controls(correlation_id) != correlation_id:
        raise ValueError(
            f"a correlation id has no control characters: {escape_controls(correlation_id)}"
        )
    token = _current.set(correlation_id)
    try:
        yield correlation_id
    finally:
        _current.reset(token)
