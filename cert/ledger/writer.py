"""Write at the end of a ledger, whose lock the caller holds: records, segments, checkpoints.

Whatever goes wrong, the file ends after a whole record that was acknowledged, or the writer is
broken and says so until the process ends.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cert.ledger.checkpoint import Checkpoint, SignedCheckpoint, parse_checkpoint, sign_checkpoint
from cert.ledger.control import build_rotation, utc_now
from cert.ledger.errors import (
    LedgerBrokenError,
    LedgerError,
    LedgerFullError,
    LedgerRefusedError,
    ProofError,
    SigningKeyError,
)
from cert.ledger.files import write_all, write_file
from cert.ledger.line import MAX_LINE_BYTES, chain_lines
from cert.ledger.reader import CHECKPOINTS, TAIL, FolderReader, note_name
from cert.ledger.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.end import End
    from cert.ledger.head_memory import HeadMemory
    from cert.ledger.keys import PublicKey, Signer

logger = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MONTH_CHARS: Final = len("2026-11")


class Keys(Protocol):
    """Where private keys come from.

    Attributes:
        heads: Where the last head of every ledger is remembered; None remembers nothing.
    """

    heads: HeadMemory | None

    def default(self) -> Signer:
        """The key of a new ledger."""

    def find(self, public: PublicKey) -> Signer:
        """The private half of a key.

        Raises:
            SigningKeyError: It is not here.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """When files are closed and checkpoints signed.

    Attributes:
        segment_bytes: A segment of this size is closed; also one of another month.
        seal_records: A checkpoint is signed after so many records, ...
        seal_s: ... and with the first record after so many seconds; at each close anyway.
        lock_timeout_s: How long other processes are waited for.
    """

    segment_bytes: int = 64 << 20
    seal_records: int = 1000
    seal_s: float = 60.0
    lock_timeout_s: float = 60.0


class Entry(NamedTuple):
    """An acknowledged record.

    Attributes:
        seq: Its number.
        line: Its bytes with links, without newline.
    """

    seq: int
    line: bytes


class Writer:
    """The end of a ledger with what it takes to write there."""

    def __init__(self, end: End, keys: Keys, limits: Limits) -> None:
        self.end = end
        self._keys = keys
        self._limits = limits
        self._broken: str | None = None
        self._is_dirty = False
        self._sealed = end.tree.size
        self._sealed_at = time.monotonic()
        self._month_of, self._month = end.segment, _month_of_segment(end)

    @property
    def is_broken(self) -> bool:
        """Whether the disk failed."""
        return self._broken is not None

    def check(self) -> None:
        """See that the disk did not fail.

        Raises:
            LedgerBrokenError: It did.
        """
        if self._broken is not None:
            raise LedgerBrokenError(
                f"{self._broken}; the last records may or may not be there",
                hint="check the disk, then run `cert verify`; nothing more is written until then",
            )

    def _stop_if_disk_failed(self, error: OSError) -> None:
        """Don't ask again: a folder's second sync may succeed and say nothing about the first."""
        if error.errno == errno.EIO:
            self._broken = f"{self.end.folder}: {error.strerror}"
            self.check()

    def read_on(self) -> None:
        """Take over what others appended, and repair what they left incomplete.

        Raises:
            LedgerError: The ledger is damaged or cannot be read, or the repair not be written.
        """
        try:
            recovered = self.end.read_on()
        except OSError as error:
            self._stop_if_disk_failed(error)
            raise LedgerError(
                f"ledger {self.end.folder} cannot be read to its end: {error.strerror}",
                hint="check the disk, then run `cert verify`",
            ) from error
        self.take_repair(recovered)

    def take_repair(self, recovered: bytes | None) -> None:
        """Append the record of a repair, if there was one.

        Raises:
            LedgerError: It could not be written.
        """
        if recovered is not None:
            logger.warning("an incomplete end was set aside in %s", self.end.folder)
            self.append([recovered])
            self.sync()

    def append(self, bodies: Sequence[bytes]) -> list[Entry]:
        """Write records, all or none.

        Raises:
            LedgerError: They could not be written.
        """
        if not bodies:
            return []
        end = self.end
        seq = end.tree.size
        lines, leaves = chain_lines(end.last_leaf, seq, bodies)
        self._is_dirty = True
        try:
            write_all(end.fd, b"\n".join([*lines, b""]))
        except OSError as error:
            self._take_back(error)
        end.advance(lines, leaves)
        return list(map(Entry, range(seq, seq + len(lines)), lines))

    def _take_back(self, error: OSError) -> None:
        """Cut off what was written of records that could not be written whole."""
        try:
            os.ftruncate(self.end.fd, self.end.offset)
        except OSError:
            self._broken = f"{self.end.path} could not be cut back after a failed write"
            self.check()
        if error.errno in _FULL:
            raise LedgerFullError(
                f"{self.end.path} cannot take the record: {error.strerror}; it was not recorded",
                hint="make room, then run the same command again",
            ) from error
        raise LedgerError(
            f"{self.end.path} cannot be written: {error.strerror}; the record was not recorded",
            hint="check the disk, then run the same command again",
        ) from error

    def sync(self) -> None:
        """Bring to the disk what was appended.

        Raises:
            LedgerBrokenError: The disk failed; it is not asked a second time.
        """
        if not self._is_dirty:
            return
        self.check()
        try:
            os.fdatasync(self.end.fd)
        except OSError as error:
            self._broken = f"{self.end.path} could not be brought to the disk: {error.strerror}"
            self.check()
        self._is_dirty = False

    def rotate(self, new: Signer) -> Entry:
        """Pass the ledger on to another key, and sign a checkpoint with it.

        Raises:
            SigningKeyError: The key in force is not here, or is the new one.
            LedgerError: It cannot be written.
        """
        end = self.end
        old = self._keys.find(end.lineage.current)
        if old.public == new.public:
            raise SigningKeyError(
                "the ledger is signed by this key already",
                hint="make a new one first: cert keys new",
            )
        origin = end.lineage.origin
        body = build_rotation(origin, end.tree.size, end.last_leaf, old, new)
        (entry,) = self.append([body])
        self.seal(new)
        return entry

    def close_segment_if_due(self) -> None:
        """Go on in a new segment where the open one is large, or of another month.

        Raises:
            LedgerError: It could not be sealed, or the next one not created.
        """
        end, month = self.end, utc_now()[:_MONTH_CHARS]
        if self._month_of != end.segment:
            self._month_of, self._month = end.segment, _month_of_segment(end)
        if not end.offset:
            self._month = month
        elif end.offset >= self._limits.segment_bytes or self._month != month:
            self.seal()
            try:
                end.move_on()
            except OSError as error:
                self._stop_if_disk_failed(error)
                raise LedgerError(
                    f"{end.folder}: the next segment cannot be created: {error.strerror}",
                    hint="make room, or check the disk",
                ) from error
            self._month_of, self._month = end.segment, month

    def seal_if_due(self) -> None:
        """Sign a checkpoint where the last one is old enough.

        Raises:
            LedgerBrokenError: The disk failed.
        """
        records = self.end.tree.size - self._sealed
        age_s = time.monotonic() - self._sealed_at
        if records and (records >= self._limits.seal_records or age_s >= self._limits.seal_s):
            try:
                self.seal()
            except LedgerBrokenError:
                raise
            except LedgerError as error:
                # The records are there; the next one, or the end, tries again.
                logger.warning("no checkpoint could be signed: %s", error)

    def seal(self, signer: Signer | None = None) -> SignedCheckpoint:
        """Sign a checkpoint of what is there.

        Everything is synced first, also what other processes wrote: a checkpoint must not outlive
        the records that it is of.

        Raises:
            SigningKeyError: The key in force is not here.
            LedgerError: It cannot be written.
        """
        end = self.end
        size = end.tree.size
        path = end.folder / CHECKPOINTS / note_name(size)
        checkpoint = Checkpoint(end.lineage.origin, size, end.tree.root())
        self._sealed, self._sealed_at = size, time.monotonic()
        self._is_dirty = True
        self.sync()
        try:
            if path.exists():
                return self._remember(self._read_checkpoint(size))
            note = sign_checkpoint(checkpoint, signer or self._keys.find(end.lineage.current))
            write_file(path, note)
            self._write_tail()
        except OSError as error:
            raise LedgerError(
                f"the checkpoint {path} cannot be written: {error.strerror}; the records are there",
                hint="make room, or check the disk",
            ) from error
        return self._remember(parse_checkpoint(note))

    def _remember(self, signed: SignedCheckpoint) -> SignedCheckpoint:
        if self._keys.heads is not None:
            self._keys.heads.remember(signed)
        return signed

    def _read_checkpoint(self, size: int) -> SignedCheckpoint:
        """Read a checkpoint that is there already, by this process or by another."""
        end = self.end
        try:
            note = FolderReader(end.folder, is_locked=True).read_checkpoint(size)
            signed = parse_checkpoint(note)
            end.verify(signed)
        except ProofError as error:
            raise LedgerRefusedError(
                f"the checkpoint {size} of {end.folder} does not hold: {error.message}",
                hint="`cert verify` says what is wrong; the checkpoint was left as it is",
            ) from error
        return signed

    def _write_tail(self) -> None:
        end = self.end
        path = end.tree.last_path()
        if path is None:
            return
        tail = Tail(
            size=end.tree.size,
            last_leaf=end.last_leaf,
            proof=tuple(path),
            frontier=tuple(end.tree.roots()),
            segment=end.segment,
            offset=end.offset,
            key=end.lineage.current.base64,
            index=end.index,
        )
        write_file(end.folder / TAIL, tail.encode(), is_durable=False)


def _month_of_segment(end: End) -> str:
    """Month of the first record of the open segment; of an empty one, this month."""
    if not end.offset:
        return utc_now()[:_MONTH_CHARS]
    with open(end.fd, "rb", closefd=False) as file:
        file.seek(0)
        line = file.readline(MAX_LINE_BYTES)
    _, _, time_ = line.rpartition(b'"time":"')
    return time_[:_MONTH_CHARS].decode("ascii", "replace")
