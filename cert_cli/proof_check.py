"""One `cert verify --proof`: a record, or the continuation of a head, without the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.ledger.checkpoint import SignedCheckpoint, parse_checkpoint
from cert.ledger.claims import Claims
from cert.ledger.errors import ProofError
from cert.ledger.line import MAX_LINE_BYTES
from cert.ledger.proofs import parse_consistency, parse_inclusion
from cert_cli.pinned_key import choose_key
from cert_cli.verification import read_small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.core.config import CERTConfig
    from cert_cli.pinned_key import PinnedKey

_CONSISTENCY: Final = b"old "
_MAX_PROOF_BYTES: Final = 2 * MAX_LINE_BYTES


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows.

    Attributes:
        words: In a sentence.
        pinned: The key that was trusted.
        line: The record's, without newline; None where it is about a head.
        doubt: What it does not show and might be taken to; None where there is nothing.
    """

    words: str
    pinned: PinnedKey
    line: bytes | None = None
    doubt: str | None = None


def check_proof(
    path: Path, key: str | None, head: Path | None, settings: Callable[[], CERTConfig]
) -> Proven:
    """Check a proof that `cert ledger prove` wrote.

    Args:
        path: Of the proof.
        key: Of --key.
        head: The older head, for a proof that the ledger continues it.
        settings: Loads the settings, where they are needed.

    Raises:
        ProofError: It does not hold.
        ConfigurationError: A file cannot be read, the head is none or missing, or no key is known.
    """
    data = read_small(path, "the proof", limit_bytes=_MAX_PROOF_BYTES)

    def choose(signed: SignedCheckpoint) -> PinnedKey:
        return choose_key(key, Claims(None, signed), settings, on_first_use=False)

    if data.startswith(_CONSISTENCY):
        return _check_consistency(data, head, choose)
    if head is not None:
        raise ConfigurationError(
            "--head belongs to a proof that a ledger continues it, and this is one of a record",
            hint="leave out --head",
        )
    proof = parse_inclusion(data)
    pinned = choose(proof.signed)
    proof.verify(pinned.key)
    signed = proof.signed.checkpoint
    words = f"record {proof.index} is one of the {signed.size} records of {signed.origin}"
    return Proven(words, pinned, proof.line)


def _check_consistency(
    data: bytes, head: Path | None, choose: Callable[[SignedCheckpoint], PinnedKey]
) -> Proven:
    if head is None:
        raise ConfigurationError(
            "this is a proof that a ledger continues an older head, which is missing",
            hint="give that head with --head FILE",
        )
    proof = parse_consistency(data)
    try:
        old = parse_checkpoint(read_small(head, "the head"))
    except ProofError as error:
        raise ConfigurationError(f"the head, {head}: {error.message}") from error
    pinned = choose(proof.signed)
    proof.verify(old, pinned.key)
    signed = proof.signed.checkpoint
    words = (
        f"the first {proof.old} of {signed.size} records of {signed.origin} are those of the head"
    )
    try:
        old.verify(pinned.key)
    except ProofError:
        return Proven(words, pinned, doubt="the trusted key did not sign the head itself")
    return Proven(words, pinned)
