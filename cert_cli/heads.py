"""A ledger's head: its newest signed checkpoint, to be kept elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.ledger.appender import open_ledger
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.files import write_file
from cert.ledger.key_source import keys_of
from cert.ledger.reader import CHUNK_BYTES, FolderReader
from cert_cli.token_check import token_name

if TYPE_CHECKING:
    from pathlib import Path

    from cert.core.config import CERTConfig
    from cert.ledger.checkpoint import SignedCheckpoint

_SEE: Final = "`cert verify` says what is wrong"


def load_head(folder: Path, config: CERTConfig) -> tuple[SignedCheckpoint, str | None]:
    """Read the newest checkpoint; sign one first where records are unsealed and the key is here.

    Returns:
        The checkpoint, and why it does not cover all records; None where it does.

    Raises:
        ConfigurationError: There is no checkpoint, and none can be signed.
        LedgerRefusedError: The ledger is damaged.
        LedgerError: A file cannot be read, or the checkpoint is none.
    """
    reader = FolderReader(folder)
    records = count_records(reader)
    newest = reader.checkpoints[-1] if reader.checkpoints else 0
    if newest > records:
        raise LedgerRefusedError(
            f"ledger {folder} has {records} records, and a signed checkpoint of {newest}", hint=_SEE
        )
    reason = None
    if newest < records:
        try:
            with open_ledger(folder, keys_of(config)) as ledger:
                return ledger.seal(), None
        except LedgerRefusedError:
            raise
        except LedgerError as error:
            reason = error.message
    if not newest:
        raise ConfigurationError(
            f"ledger {folder} has no checkpoint, and none can be signed: {reason}",
            hint="run this where its key is",
        )
    signed = parse_checkpoint(reader.read_checkpoint(newest))
    if reason is None:
        return signed, None
    return signed, f"the last {records - newest} records are not covered by it: {reason}"


def count_records(reader: FolderReader) -> int:
    """Records that there are or were, by the names of the segments and the lines of the last."""
    if not reader.segments:
        return 0
    last = reader.segments[-1]
    count, left = last.first, last.size_bytes
    with reader.open_segment(last) as file:
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            count += chunk.count(b"\n")
    return count


def stamp_head(folder: Path, signed: SignedCheckpoint, url: str | None) -> bool:
    """Have a checkpoint time-stamped, and keep the token beside it.

    Returns:
        False where it has a token already, which stays: the earlier one says more.

    Raises:
        ConfigurationError: No authority is configured, or its URL is none that can be asked.
        MissingExtraError: Asking takes a package that is not installed.
        LedgerError: The authority cannot be reached or refuses, or the token cannot be written.
    """
    if url is None:
        raise ConfigurationError(
            "no time-stamping authority is configured",
            hint="set timestamp_url, or the environment variable CERT_TIMESTAMP_URL",
        )
    path = folder / token_name(signed.checkpoint.size)
    if path.exists():
        return False
    from cert.ledger.timestamp import request_timestamp  # noqa: PLC0415 - http, only for this

    token = request_timestamp(signed.note, url)
    try:
        write_file(path, token)
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}") from error
    return True
