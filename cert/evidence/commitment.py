"""Commitments: a record that binds its content without showing it (docs/record-format.md, 9).

    commitment = SHA-256(salt || content)

The content lies elsewhere with its salt and can be erased there; the record, and every hash over
it, stays. Without the 32 random bytes of salt a short prompt could be found by trying. The tokens'
logprobs can be tried still, by whoever has the model.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cert.evidence.content import part_content
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import ProofError

if TYPE_CHECKING:
    from collections.abc import Mapping

SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CommittedContent:
    """What a commitment is over, to be kept apart from the record.

    Attributes:
        record_id: `id` of the record that commits to it.
        salt: 32 random bytes.
        content: Canonical bytes of `{"generation": {...}, "prompt": {...}}`.
    """

    record_id: str
    salt: bytes
    content: bytes


def commit(
    record: Mapping[str, Any], *, salt: bytes | None = None
) -> tuple[dict[str, Any], CommittedContent]:
    """Turn a record with full content into one that is committed to its content.

    Args:
        record: Of kind analysis or error, as built with `content="full"`.
        salt: 32 bytes; drawn where none is given. Never use one twice.

    Returns:
        The record without content and with its `commitment`, and the content.

    Raises:
        CanonicalError: The content cannot be encoded.
        ValueError: The record's content is not full, or the salt has another length.
    """
    if record.get("content") != "full":
        raise ValueError(f"content is {record.get('content')!r}; only full content is committed to")
    if salt is None:
        salt = os.urandom(SALT_BYTES)
    rest, content = part_content(record)
    sealed = CommittedContent(record["id"], salt, canonical_bytes(content))
    rest |= {"content": "committed", "commitment": _commitment(salt, sealed.content)}
    return rest, sealed


def verify_commitment(commitment: str, *, salt: bytes, content: bytes) -> None:
    """Check that a commitment is over this salt and content.

    Args:
        commitment: As the record states it.
        salt: 32 bytes.
        content: The bytes, as they were kept.

    Raises:
        ProofError: It is over something else.
    """
    if len(salt) != SALT_BYTES:
        raise ProofError(f"the salt has {len(salt)} bytes, not {SALT_BYTES}")
    found = _commitment(salt, content)
    if found != commitment:
        raise ProofError(f"the record is committed to {commitment}, the content kept is {found}")


def _commitment(salt: bytes, content: bytes) -> str:
    if len(salt) != SALT_BYTES:
        raise ValueError(f"the salt has {len(salt)} bytes; expected {SALT_BYTES}")
    return "sha256:" + hashlib.sha256(salt + content).hexdigest()
