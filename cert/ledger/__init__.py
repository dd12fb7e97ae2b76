"""Bytes that evidence is made of: canonical JSON (RFC 8785). Knows bytes, not models."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.ledger.canonical import CanonicalError as CanonicalError
    from cert.ledger.canonical import canonical_bytes as canonical_bytes
    from cert.ledger.canonical import parse_canonical as parse_canonical

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CanonicalError": "cert.ledger.canonical",
        "canonical_bytes": "cert.ledger.canonical",
        "parse_canonical": "cert.ledger.canonical",
    },
)
