"""Control records: those by which a ledger speaks of itself (docs/record-format.md, 3)."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cert.ledger.canonical import canonical_bytes
from cert.ledger.keys import rotation_message
from cert.ledger.lineage import FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.ledger.keys import PublicKey, Signer

SCHEMA_VERSION: Final = "1.0"


def utc_now() -> str:
    """Now, by the system's clock, as RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def build_genesis(origin: str, key: PublicKey) -> bytes:
    """Record 0, without links."""
    ledger = {"format": FORMAT, "origin": origin, "public_key": key.base64}
    return _build("genesis", "ledger", ledger)


def build_rotation(origin: str, seq: int, prev: bytes, old: Signer, new: Signer) -> bytes:
    """Pass the ledger on to another key; goes to exactly this place.

    Args:
        origin: The ledger's.
        seq: Place that the record will have.
        prev: Link that it will have.
        old: The key in force.
        new: The one that follows.
    """
    message = rotation_message(origin, seq, prev, old.public, new.public)
    return _build(
        "key",
        "key",
        {
            "previous": old.public.base64,
            "public_key": new.public.base64,
            "signature": base64.b64encode(old.sign(message)).decode(),
            "proof": base64.b64encode(new.sign(message)).decode(),
        },
    )


def build_recovered(*, segment: str, offset: int, size_bytes: int, sha256: str, copy: str) -> bytes:
    """Say what a recovery cut off, and where its copy is."""
    return _build(
        "recovered",
        "recovered",
        {"segment": segment, "offset": offset, "bytes": size_bytes, "sha256": sha256, "copy": copy},
    )


def build_erased(*, record_id: str, seq: int, commitment: str, reason: str) -> bytes:
    """Say that the content behind a commitment was erased."""
    return _build(
        "erased",
        "erased",
        {"record_id": record_id, "seq": seq, "commitment": commitment, "reason": reason},
    )


def build_pruned(  # noqa: PLR0913 - the members of one record
    *, size: int, root: bytes, before: str, sha256: str, size_bytes: int, reason: str
) -> bytes:
    """Say that the first records were removed, and what their export was."""
    return _build(
        "pruned",
        "pruned",
        {
            "size": size,
            "root": base64.b64encode(root).decode(),
            "before": before,
            "export": {"sha256": sha256, "bytes": size_bytes},
            "reason": reason,
        },
    )


def record_head(kind: str, time: str | None = None) -> dict[str, object]:
    """What every record begins with, control record or not.

    Args:
        kind: Its kind.
        time: RFC 3339; now where it is not given.
    """
    return {
        "kind": kind,
        "schema": SCHEMA_VERSION,
        "id": str(uuid.uuid4()),
        "time": utc_now() if time is None else time,
        "clock": "system",
    }


def _build(kind: str, member: str, content: Mapping[str, object]) -> bytes:
    return canonical_bytes({**record_head(kind), member: content})
