"""Append to a ledger: whole records, in order, acknowledged when they are on the disk.

    encoded records -> queue -> one thread takes all that wait
        -> lock -> read what others appended -> links -> write -> sync -> unlock -> acknowledged

Many threads and many processes may append to one ledger at once. What was acknowledged is there
after a crash; what could not be written whole is taken back, and was not acknowledged.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cert.ledger.control import build_genesis
from cert.ledger.end import End, find_end
from cert.ledger.errors import LedgerBrokenError, LedgerError, LedgerRefusedError
from cert.ledger.files import FOLDER_MODE, FolderLock, make_folder, sync_folder, write_file
from cert.ledger.line import check_body, genesis_prev, join_links
from cert.ledger.lineage import Genesis
from cert.ledger.quarantine import build_missing
from cert.ledger.reader import (
    CHECKPOINTS,
    CONTENT,
    RUNS,
    SEGMENTS,
    TAIL,
    list_checkpoints,
    list_segments,
    segment_name,
)
from cert.ledger.writer import Limits, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from cert.ledger.checkpoint import SignedCheckpoint
    from cert.ledger.index import Index
    from cert.ledger.keys import PublicKey, Signer
    from cert.ledger.writer import Entry, Keys


@dataclass(slots=True)
class _Ticket:
    """Records of one caller, waiting or done."""

    bodies: Sequence[bytes]
    is_durable: bool
    entries: list[Entry] = field(default_factory=list)
    error: Exception | None = None
    is_done: bool = False


@dataclass(slots=True)
class _Queue:
    """Callers of one process; the one that holds the mutex serves all that wait."""

    mutex: threading.Lock = field(default_factory=threading.Lock)
    tickets: deque[_Ticket] = field(default_factory=deque)


class Ledger:
    """A ledger that is open for appending."""

    def __init__(self, folder: Path, keys: Keys, *, origin: str, limits: Limits) -> None:
        """See `open_ledger`."""
        self.folder = folder
        self._keys = keys
        self._limits = limits
        self._queues: dict[int, _Queue] = {}
        self._pid = os.getpid()
        self._is_open = True
        self._lock = FolderLock(folder)
        try:
            with self._lock.held(limits.lock_timeout_s):
                self._writer = self._begin_at(*_find_or_begin(folder, keys, origin))
        except BaseException:
            self._lock.close()
            raise

    @property
    def origin(self) -> str:
        """Names the ledger."""
        return self._writer.end.lineage.origin

    @property
    def key(self) -> PublicKey:
        """The key in force."""
        return self._writer.end.lineage.current

    @property
    def size(self) -> int:
        """Records, as far as this process knows."""
        return self._writer.end.tree.size

    @property
    def index(self) -> Index:
        """Policies and unfinished runs, as far as this process knows."""
        return self._writer.end.index

    def append(self, bodies: Sequence[bytes], *, is_durable: bool = True) -> list[Entry]:
        """Append records; all of them or none.

        Waiting callers are served together, with one sync for all.

        Args:
            bodies: Canonical bytes of records, without links.
            is_durable: Whether they must be on the disk when this returns. Otherwise they have
                reached the operating system, and `sync` brings them to the disk.

        Raises:
            CanonicalError: One of them cannot be a record.
            LedgerFullError: There is no room.
            LedgerBrokenError: The disk failed: whether they are there is not known.
            LedgerRefusedError: The ledger was damaged or replaced meanwhile.
            LedgerError: It cannot be locked or read.
        """
        for body in bodies:
            check_body(body)
        ticket = _Ticket(bodies, is_durable)
        queue = self._queue
        queue.tickets.append(ticket)
        with queue.mutex:
            if not ticket.is_done:
                self._commit(queue.tickets)
        if ticket.error is not None:
            raise ticket.error
        return ticket.entries

    def sync(self) -> None:
        """Bring to the disk what was appended.

        Raises:
            LedgerBrokenError: The disk failed.
        """
        with self._queue.mutex:
            self._writer.sync()

    def seal(self) -> SignedCheckpoint:
        """Sign a checkpoint of all records that are there, and return it.

        Raises:
            SigningKeyError: The key in force is not here.
            LedgerError: It cannot be written.
        """
        with self._held() as writer:
            writer.read_on()
            return writer.seal()

    def seal_if_due(self) -> None:
        """Sign a checkpoint if the last one is old enough, for whoever appends now and then.

        Where none can be signed, that is logged: the next record, or the end, tries again.

        Raises:
            LedgerError: The ledger cannot be locked or read, or was damaged meanwhile.
        """
        with self._held() as writer:
            writer.read_on()
            writer.seal_if_due()

    def rotate(self, new: Signer) -> Entry:
        """Pass the ledger on to another key, and sign a checkpoint with it.

        Raises:
            SigningKeyError: The key in force is not here, or is the new one.
            LedgerError: It cannot be written.
        """
        with self._held() as writer:
            writer.read_on()
            return writer.rotate(new)

    def close(self) -> None:
        """Seal and close; once is enough.

        Raises:
            LedgerError: The last records could not be sealed; they are there all the same.
        """
        with self._queue.mutex:
            if not self._is_open:
                return
            self._is_open = False
            try:
                # A child that wrote nothing since the fork has nothing to seal.
                if not self._writer.is_broken and os.getpid() == self._pid:
                    with self._lock.held(self._limits.lock_timeout_s):
                        self._writer.read_on()
                        self._writer.seal()
            finally:
                os.close(self._writer.end.fd)
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _held(self) -> Iterator[Writer]:
        with self._queue.mutex:
            writer = self._current()
            with self._lock.held(self._limits.lock_timeout_s):
                yield writer

    def _commit(self, waiting: deque[_Ticket]) -> None:
        """Append everything that waits; the mutex is held."""
        tickets: list[_Ticket] = []
        while waiting:
            tickets.append(waiting.popleft())
        error: Exception = LedgerBrokenError(
            "appending was interrupted; whether the records are there is not known"
        )
        try:
            self._write(tickets)
        except Exception as caught:  # noqa: BLE001 - raised by each of the callers
            error = caught
        finally:
            for one in tickets:
                one.is_done = True
                one.error = None if one.entries or not one.bodies else error

    def _write(self, tickets: Sequence[_Ticket]) -> None:
        writer = self._current()
        with self._lock.held(self._limits.lock_timeout_s):
            writer.read_on()
            writer.close_segment_if_due()
            entries = iter(writer.append([body for one in tickets for body in one.bodies]))
            if any(one.is_durable for one in tickets):
                writer.sync()
            for one in tickets:
                one.entries = [next(entries) for _ in one.bodies]
            writer.seal_if_due()

    @property
    def _queue(self) -> _Queue:
        """This process's: what a forked parent's threads held or waited for is theirs."""
        return self._queues.setdefault(os.getpid(), _Queue())

    def _current(self) -> Writer:
        """What there is to write with; the mutex is held."""
        if not self._is_open:
            raise LedgerError(f"ledger {self.folder} is closed")
        self._writer.check()
        if self._pid != os.getpid():
            self._reopen()
        return self._writer

    def _reopen(self) -> None:
        """After a fork, go on with a lock, a descriptor and an end of one's own.

        The end is found anew: another thread of the parent may have been at it.
        """
        try:
            lock = FolderLock(self.folder)
        except OSError as error:
            raise LedgerError(
                f"ledger {self.folder} cannot be opened after a fork: {error.strerror}",
                hint="it was there before; see whether somebody moved or removed it",
            ) from error
        try:
            with lock.held(self._limits.lock_timeout_s):
                writer = self._begin_at(*find_end(self.folder, self._keys.heads))
        except BaseException:
            lock.close()
            raise
        os.close(self._writer.end.fd)
        self._lock.close()
        self._lock, self._writer, self._pid = lock, writer, os.getpid()

    def _begin_at(self, end: End, recovered: bytes | None) -> Writer:
        """Finish what others left; the ledger's lock is held."""
        try:
            writer = Writer(end, self._keys, self._limits)
            writer.take_repair(recovered)
            for missing in build_missing(self.folder):
                writer.take_repair(missing)
        except BaseException:
            os.close(end.fd)
            raise
        return writer


_OURS: Final = frozenset({SEGMENTS, CHECKPOINTS, TAIL, RUNS, CONTENT})


def open_ledger(
    folder: Path, keys: Keys, *, origin: str | None = None, limits: Limits | None = None
) -> Ledger:
    """Open a ledger, or begin one.

    A ledger that was closed well opens without being read, however long it is.

    Args:
        folder: Created if it is not there; must be a ledger or empty otherwise.
        keys: Where private keys are found.
        origin: Name of a new ledger; None draws one.
        limits: When files are closed and checkpoints signed.

    Raises:
        LedgerRefusedError: It is damaged, or something else is in the folder.
        SigningKeyError: There is no key for a new one.
        LedgerError: It cannot be read, locked or repaired.
    """
    try:
        make_folder(folder)
        foreign = set(os.listdir(folder)) - _OURS  # noqa: PTH208 - names alone
        if foreign and not list_segments(folder):
            shown = min(foreign)
            raise LedgerRefusedError(
                f"{folder} is not empty and no ledger: it holds {shown!r}",
                hint="name an empty or a new folder with --ledger",
            )
        return Ledger(
            folder,
            keys,
            origin=origin or f"cert-ledger/{uuid.uuid4()}",
            limits=limits or Limits(),
        )
    except OSError as error:
        raise LedgerError(
            f"ledger {folder} cannot be used: {error.strerror}",
            hint="name a folder of your own with --ledger, or use --no-ledger",
        ) from error


def _find_or_begin(folder: Path, keys: Keys, origin: str) -> tuple[End, bytes | None]:
    """Find the end of a ledger; where there is none, write record 0, which appears at once."""
    if list_segments(folder) or list_checkpoints(folder):
        return find_end(folder, keys.heads)
    for name in (SEGMENTS, CHECKPOINTS):
        (folder / name).mkdir(mode=FOLDER_MODE, exist_ok=True)
    genesis = Genesis(origin, keys.default().public)
    body = build_genesis(genesis.origin, genesis.key)
    line = join_links(genesis_prev(genesis.origin, genesis.key), 0, body)
    with suppress(FileNotFoundError):
        os.unlink(folder / TAIL)  # noqa: PTH108 - beside the other calls of os
    write_file(folder / SEGMENTS / segment_name(0), line + b"\n")
    sync_folder(folder)
    return find_end(folder, keys.heads)
