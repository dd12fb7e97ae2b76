"""A reply as JSON, and back without loss."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
import orjson

from cert.coordination.protocol import Attempt, Reply, StopReason, Usage
from cert.core.errors import CertError


class ReplyFormatError(CertError):
    """Bytes are no reply that `build_reply_json` wrote."""


def build_reply_json(reply: Reply) -> bytes:
    """Write a reply, keys sorted; equal replies give equal bytes.

    Text that is no valid Unicode cannot be written: the client lets none through.

    Raises:
        ReplyFormatError: It holds such text, or signals that are no JSON.
    """
    try:
        return orjson.dumps(asdict(reply), option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ReplyFormatError(f"the reply cannot be written as JSON: {error}") from error


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    stop_reason: StopReason
    usage: Usage
    model: str
    message_id: str | None
    attempts: tuple[Attempt, ...]
    latency_s: float
    rate_limits: dict[str, str]
    signals: dict[str, Any] | None


def parse_reply_json(data: bytes) -> Reply:
    """Read a reply.

    Raises:
        ReplyFormatError: A field is missing, unknown, or of another type.
    """
    try:
        stored = msgspec.json.decode(data, type=_Stored)
    except msgspec.DecodeError as error:
        raise ReplyFormatError(f"not a reply: {error}") from error
    return Reply(**{name: getattr(stored, name) for name in _Stored.__struct_fields__})
