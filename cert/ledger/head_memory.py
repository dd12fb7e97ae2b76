"""The newest head of every ledger that a key signed, remembered beside the key.

    KEYS/heads/<SHA-256 of the origin, in hex>.note   the last checkpoint that was signed here

Whoever can write a ledger's folder can cut it, or take its checkpoints away and make other records
of what is left. A writer that remembers what it signed last goes on with neither, and `cert verify`
finds it without a head that somebody kept. The memory is as safe as the key: a head that is kept on
another machine says more.
"""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING, Final

from cert.ledger.checkpoint import MAX_NOTE_BYTES, parse_checkpoint
from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.files import FOLDER_MODE, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.checkpoint import SignedCheckpoint

logger = logging.getLogger(__name__)

_HEADS: Final = "heads"


class HeadMemory:
    """The heads that are remembered in one folder of keys."""

    def __init__(self, keys: Path) -> None:
        """Take the folder of the keys, which need not exist yet."""
        self._folder = keys / _HEADS
        self._has_warned = False

    def path_of(self, origin: str) -> Path:
        """The file that a ledger's head is remembered in."""
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.note"

    def find(self, origin: str) -> SignedCheckpoint | None:
        """The newest checkpoint that was signed here; None where there is none.

        Its signature is not looked at: which key has to have made it, the ledger says.

        Raises:
            SigningKeyError: It cannot be read.
        """
        path = self.path_of(origin)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                signed = parse_checkpoint(file.read(MAX_NOTE_BYTES + 1))
        except FileNotFoundError:
            return None
        except (OSError, ProofError) as error:
            reason = error.message if isinstance(error, ProofError) else error.strerror
            raise SigningKeyError(
                f"the remembered head of this ledger, {path}, cannot be read: {reason}",
                hint="verify the ledger with a head that was kept elsewhere, then remove the file",
            ) from error
        if signed.checkpoint.origin != origin:
            raise SigningKeyError(
                f"{path} is the head of another ledger, {signed.checkpoint.origin}",
                hint="see who changed it; it is safe to remove once the ledger is verified",
            )
        return signed

    def remember(self, signed: SignedCheckpoint) -> None:
        """Remember a checkpoint, unless a larger one is remembered.

        The ledger's lock is held. Where it cannot be written, that is logged once: the ledger
        itself is complete.
        """
        origin = signed.checkpoint.origin
        try:
            known = self.find(origin)
            if known is not None and known.checkpoint.size >= signed.checkpoint.size:
                return
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            write_file(self.path_of(origin), signed.note, is_durable=False)
        except (OSError, SigningKeyError) as error:
            if not self._has_warned:
                logger.warning("the head of the ledger could not be remembered: %s", error)
            self._has_warned = True
