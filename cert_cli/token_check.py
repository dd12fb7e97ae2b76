"""RFC 3161 tokens beside a ledger's checkpoints: since when records are known to have existed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import ProofError
from cert.ledger.reader import CHECKPOINTS, note_name

if TYPE_CHECKING:
    from cert.ledger.reader import Reader
    from cert.ledger.timestamp import Timestamp

_SUFFIX: Final = ".tsr"


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What is known of the newest token.

    Attributes:
        size: Records of the checkpoint that it is for; None where there is no token.
        timestamp: What it states; None where it was not checked or does not hold.
        fault: Why it does not hold; None where it holds or was not checked.
    """

    size: int | None = None
    timestamp: Timestamp | None = None
    fault: str | None = None


def token_name(size: int) -> str:
    """Path of a token within its ledger."""
    return f"{CHECKPOINTS}/{note_name(size).removesuffix('.note')}{_SUFFIX}"


def check_tokens(reader: Reader | None, roots: bytes | None, *, sealed: int) -> TokenCheck:
    """Look for the newest token, and verify it if there are roots to verify it by.

    Args:
        reader: The ledger; None where it is no ledger and has none.
        roots: PEM certificates of time-stamping authorities.
        sealed: Tree size of the newest good checkpoint; tokens of later ones are not looked at.

    Raises:
        ConfigurationError: The roots are no certificates.
        MissingExtraError: Verifying takes a package that is not installed.
        LedgerError: A file cannot be read.
    """
    for size in reversed(reader.checkpoints if reader is not None else ()):
        if reader is None or size > sealed:
            continue
        token = reader.read_side_file(token_name(size))
        if token is not None:
            return _check(token, reader.read_checkpoint(size), roots, size)
    return TokenCheck()


def _check(token: bytes, note: bytes, roots: bytes | None, size: int) -> TokenCheck:
    if roots is None:
        return TokenCheck(size)
    from cert.ledger.timestamp import verify_timestamp  # noqa: PLC0415 - X.509, only for this

    try:
        return TokenCheck(size, verify_timestamp(token, note, roots))
    except ProofError as error:
        return TokenCheck(size, fault=error.message)
