"""`content.sqlite`: the texts and salts behind commitments (docs/record-format.md, 9).

A row is written before its record is appended, so that no record lacks its content; a row without
a record is harmless. Many processes may write at once, and a row is there for good when `put`
returns.

SQLite's `secure_delete` zeroes what is deleted, and not the stale copies that a page may hold of
rows that were moved to another page earlier. So deleting has two steps: `delete` in a transaction,
then `wipe`, which writes the file anew from the rows that stay; that it is due is noted in the file
itself, so that a crash between the two is made good later.

Whoever takes the ledger's lock as well takes this file's first (`transaction`). Deleting and wiping
keep other writers out for as long as they take: about a minute for a million rows.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

from cert.ledger.errors import LedgerError, LedgerFullError, LedgerRefusedError
from cert.ledger.files import FILE_MODE, sync_folder
from cert.ledger.reader import CONTENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

TIMEOUT_S: Final = 300.0

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS content("
    "record_id TEXT PRIMARY KEY, salt BLOB NOT NULL, content BLOB NOT NULL)"
)
# EXTRA syncs the folder, too, when the journal is unlinked: otherwise a committed deletion could
# be taken back by a journal that comes up again after a power cut.
_SETTINGS: Final = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA journal_mode=DELETE",
    "PRAGMA synchronous=EXTRA",
    "PRAGMA secure_delete=ON",
)
_IS_PLAIN: Final = "SELECT count(*) FROM sqlite_master WHERE name='content' AND type='table'"
_WIPE_IS_DUE: Final = 1
_PAGE_ROWS: Final = 100
_CODE: Final = 0xFF  # an extended error code's primary part


class Content(Protocol):
    """What a commitment is over, as `cert.evidence.commitment` makes it."""

    @property
    def record_id(self) -> str:
        """`id` of the record that commits to it."""

    @property
    def salt(self) -> bytes:
        """Random bytes."""

    @property
    def content(self) -> bytes:
        """Canonical bytes."""


class ContentStore:
    """The rows of one ledger's `content.sqlite`; for threads, and after a fork, too."""

    def __init__(self, path: Path, *, is_read_only: bool, timeout_s: float) -> None:
        """See `open_content` and `read_content`."""
        self.path = path
        self._mode = "ro" if is_read_only else "rw"
        self._timeout_s = timeout_s
        self._mutex = threading.RLock()
        self._depth = 0
        self._pid = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []
        with _errors(path):
            self._connection = self._connect()

    def put(self, rows: Iterable[Content]) -> None:
        """Keep contents; all of them or none. One that is there already is left as it is.

        Raises:
            LedgerRefusedError: There is another content for one of the records.
            LedgerFullError: There is no room.
            LedgerError: It cannot be written.
        """
        given = [(one.record_id, one.salt, one.content) for one in rows]
        with self.transaction() as connection:
            before = connection.total_changes
            connection.executemany("INSERT OR IGNORE INTO content VALUES (?, ?, ?)", given)
            if connection.total_changes - before != len(given):
                self._check_same(given)

    def get(self, record_id: str) -> tuple[bytes, bytes] | None:
        """Salt and content of a record; None where there are none.

        Raises:
            LedgerError: It cannot be read.
        """
        query = (
            "SELECT salt, content FROM content WHERE record_id = ?"
            " AND typeof(salt) = 'blob' AND typeof(content) = 'blob'"
        )
        with self._mutex, _errors(self.path):
            row: tuple[bytes, bytes] | None
            row = self._current().execute(query, (record_id,)).fetchone()
        return row

    def delete(self, record_ids: Iterable[str]) -> int:
        """Delete rows; `wipe` has to follow.

        Returns:
            How many there were.

        Raises:
            LedgerError: It cannot be written; nothing was deleted.
        """
        with self.transaction() as connection:
            before = connection.total_changes
            ids = ((record_id,) for record_id in record_ids)
            connection.executemany("DELETE FROM content WHERE record_id = ?", ids)
            count = connection.total_changes - before
            if count:
                connection.execute(f"PRAGMA user_version={_WIPE_IS_DUE}")
        return count

    def wipe(self) -> bool:
        """Leave no trace of deleted rows in the file, if there may be one.

        Takes as long as copying the file, and room for two copies meanwhile.

        Returns:
            Whether there may have been one.

        Raises:
            LedgerFullError: There is no room; what was deleted is deleted, and a trace may be left.
            LedgerError: It cannot be written; the same.
        """
        with self._mutex, _errors(self.path):
            connection = self._current()
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                return False
            connection.execute("VACUUM")
            connection.execute("PRAGMA user_version=0")
        return True

    def copy_to(self, path: Path) -> None:
        """Write the rows that are there into a new file, mode 0600; the same rows, the same bytes.

        Raises:
            LedgerError: It cannot be written, or is there already.
        """
        with self._mutex, _errors(path):
            _create(path)
            self._current().execute("VACUUM INTO ?", (str(path),))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Keep other writers out; what is done inside is done as a whole or not at all.

        Raises:
            LedgerError: Another process writes all the time, or it cannot be written.
        """
        with self._mutex, _errors(self.path):
            connection = self._current()
            if not self._depth:
                connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield connection
                if self._depth == 1:
                    connection.execute("COMMIT")
            except BaseException:
                if self._depth == 1:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def __iter__(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield record id, salt and content of every row, oldest first, in bounded memory."""
        query = (
            "SELECT rowid, record_id, salt, content FROM content WHERE rowid > ?"
            " ORDER BY rowid LIMIT ?"
        )
        last = 0
        while True:
            with self._mutex, _errors(self.path):
                rows = self._current().execute(query, (last, _PAGE_ROWS)).fetchall()
            if not rows:
                return
            for last, *row in rows:  # noqa: B007 - read by the next query
                yield tuple(row)

    def close(self) -> None:
        """Close it; once is enough."""
        with self._mutex:
            if self._pid == os.getpid():
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _current(self) -> sqlite3.Connection:
        """The connection; after a fork a new one, and the parent's is not even closed."""
        if self._pid != os.getpid():
            self._pid, self._depth = os.getpid(), 0
            self._abandoned.append(self._connection)
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={self._mode}",
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            for one in _SETTINGS:
                connection.execute(one)
            if self._mode == "rw":
                connection.execute(_TABLE)
            self._check_table(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_table(self, connection: sqlite3.Connection) -> None:
        if connection.execute(_IS_PLAIN).fetchone() != (1,):
            raise LedgerRefusedError(f"{self.path} has no table of contents")

    def _check_same(self, given: Iterable[tuple[str, bytes, bytes]]) -> None:
        for record_id, salt, content in given:
            if self.get(record_id) != (salt, content):
                raise LedgerRefusedError(
                    f"{self.path} has another content for the record {record_id}",
                    hint="a record's id and salt are drawn once and never used again",
                )


def open_content(folder: Path, *, timeout_s: float = TIMEOUT_S) -> ContentStore:
    """Open the contents of a ledger for writing; created where there are none.

    Args:
        folder: The ledger's.
        timeout_s: How long other processes are waited for.

    Raises:
        LedgerRefusedError: What is there is no such file.
        LedgerError: It cannot be opened.
    """
    path = folder / CONTENT
    with _errors(path):
        # Looked at and not opened: closing a descriptor would drop the locks of this process.
        if not os.path.lexists(path):
            with suppress(FileExistsError):
                _create(path)
                sync_folder(folder)
        _check_is_ours(path)
    return ContentStore(path, is_read_only=False, timeout_s=timeout_s)


def read_content(folder: Path, *, timeout_s: float = TIMEOUT_S) -> ContentStore | None:
    """Open the contents of a ledger without ever writing; None where there are none.

    Raises:
        LedgerRefusedError: What is there is no such file.
        LedgerError: It cannot be read.
    """
    path = folder / CONTENT
    if not os.path.lexists(path):
        return None
    with _errors(path):
        _check_is_ours(path)
    return ContentStore(path, is_read_only=True, timeout_s=timeout_s)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))


def _check_is_ours(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise LedgerRefusedError(f"{path} is not a regular file of one name")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors of the ledger."""
    try:
        yield
    except OSError as error:
        raise LedgerError(f"{path} cannot be used: {error.strerror}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        raise _error_of(code, f"{path} cannot be used: {error}") from error


def _error_of(code: int, message: str) -> LedgerError:
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return LedgerError(
            message, hint="a writer was cut off; the next one repairs it, reading alone does not"
        )
    match code & _CODE:
        case sqlite3.SQLITE_BUSY:
            return LedgerError(message, hint="another process writes to it and does not let go")
        case sqlite3.SQLITE_FULL:
            return LedgerFullError(message, hint="make room, then run the same command again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return LedgerRefusedError(message, hint="`cert verify --deep` says which rows are left")
        case _:
            return LedgerError(message)
