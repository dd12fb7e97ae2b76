"""`baselines.sqlite`: kept replies, shared by any number of processes.

A reply is there for good when `put` returns, and the first one of a key stays: processes that ask
the same at the same time agree afterwards. Every row has a checksum; one that fails it is an error
and never a reply.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from cert.coordination.reply_json import ReplyFormatError, build_reply_json, parse_reply_json
from cert.core.errors import CertError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from cert.coordination.protocol import Reply

FILE_MODE: Final = 0o600
TIMEOUT_S: Final = 60.0
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS baselines("
    "key TEXT PRIMARY KEY, reply BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"
)
_SETTINGS: Final = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA journal_mode=DELETE",
    "PRAGMA synchronous=EXTRA",
)
_IS_PLAIN: Final = "SELECT count(*) FROM sqlite_master WHERE name='baselines' AND type='table'"


class BaselineError(CertError):
    """The kept replies cannot be read or written, or are damaged."""


class SqliteBaselines:
    """The kept replies of one file; one thread at a time, any number of processes."""

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        """Open the file; created, readable for its owner alone, where there is none.

        Args:
            path: Its folder exists.
            timeout_s: How long other processes are waited for.

        Raises:
            BaselineError: It cannot be opened, or is no such file.
        """
        self.path = path
        with self._errors():
            if not os.path.lexists(path):
                with suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    os.close(os.open(path, flags, FILE_MODE))
            _check_is_ours(path)
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                timeout=timeout_s,
                isolation_level=None,
                uri=True,
            )
            try:
                for statement in (*_SETTINGS, _TABLE):
                    self._connection.execute(statement)
                self._check_table()
            except BaseException:
                self._connection.close()
                raise

    def get(self, key: str) -> Reply | None:
        """The reply of a key; None where there is none.

        Raises:
            BaselineError: The file cannot be read, or the row is damaged.
        """
        query = "SELECT reply, checksum FROM baselines WHERE key = ?"
        with self._errors():
            row = self._connection.execute(query, (key,)).fetchone()
        if row is None:
            return None
        data, checksum = row
        if not isinstance(data, bytes) or checksum != _checksum(key, data):
            raise self._damaged()
        try:
            return parse_reply_json(data)
        except ReplyFormatError as error:
            raise self._damaged() from error

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; one that is there already is left as it is.

        Raises:
            BaselineError: The file cannot be written.
            ReplyFormatError: The reply cannot be written as JSON.
        """
        data = build_reply_json(reply)
        with self._errors():
            self._connection.execute(
                "INSERT OR IGNORE INTO baselines VALUES (?, ?, ?)",
                (key, data, _checksum(key, data)),
            )

    def close(self) -> None:
        """Close the file; once is enough."""
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

    def _check_table(self) -> None:
        if self._connection.execute(_IS_PLAIN).fetchone() != (1,):
            raise BaselineError(f"{self.path} has no table of baselines")

    def _damaged(self) -> BaselineError:
        return BaselineError(
            f"{self.path} holds a damaged reply",
            hint=f"remove the file and measure again: rm {self.path}",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BaselineError(f"{self.path} cannot be used: {error.strerror}") from error
        except sqlite3.Error as error:
            raise BaselineError(f"{self.path} cannot be used: {error}") from error


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + data).digest()


def _check_is_ours(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise BaselineError(f"{path} is not a regular file of one name")
