"""Stable ids: given ones must be unique, others follow from the content."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import TYPE_CHECKING, Self

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

_CACHE_KIB = 8192


def content_id(prompt: str, response: str | None = None) -> str:
    """Derive an id from what will be measured.

    The first 16 hex digits of SHA-256 over the prompt's UTF-8 bytes or, where there is a
    response, over `prompt || 0x00 || response`. Without a response, `printf %s PROMPT | sha256sum`
    begins with the same digits.

    >>> content_id("Hello")
    '185f8db32271fe25'
    """
    digest = hashlib.sha256(prompt.encode())
    if response is not None:
        digest.update(b"\0" + response.encode())
    return digest.hexdigest()[:16]


def is_content_id(given: str, prompt: str, response: str | None = None) -> bool:
    """Whether an id is the one that follows from the content, counted up or not.

    >>> is_content_id("185f8db32271fe25-2", "Hello")
    True
    """
    stem, _, number = given.partition("-")
    try:
        derived = content_id(prompt, response)
    except UnicodeEncodeError:  # a lone surrogate: no id was ever derived from it
        return False
    return stem == derived and (not number or number.isdecimal())


def place_id(source: str, line: int) -> str:
    """Name a prompt by its place, where an id that follows from it would tell what it is.

    Anybody can try guesses against an unsalted hash of a short prompt.
    """
    return f"{source}:{line}"


class IdIndex:
    """Every id handed out so far and the place where it was first used.

    Ids are compared byte for byte: NFC and NFD spellings are two ids, as they are to every other
    program that reads the records. The index lives in a temporary SQLite database that the
    operating system removes with the process; of it at most 8 MiB are held in memory, however
    many ids there are. One thread at a time.

    Raises:
        ConfigurationError: (Any method) the temporary database cannot be written.

    >>> with IdIndex() as index:
    ...     [index.claim_content("Hello", None, "a.txt", line) for line in (1, 2)]
    ...     index.claim("185f8db32271fe25-2", "b.jsonl", 7)
    ['185f8db32271fe25', '185f8db32271fe25-2']
    ('a.txt', 2)
    """

    def __init__(self) -> None:
        # An empty name is SQLite's private on-disk database, deleted on closing. The reader may
        # be advanced by another thread than the one that began it.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._sources: list[str] = []
        self._execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._execute("PRAGMA temp_store=FILE")
        # A crash loses the index with the process: nothing has to be rolled back or synced.
        self._execute("PRAGMA journal_mode=OFF")
        self._execute("PRAGMA synchronous=OFF")
        self._execute(
            "CREATE TABLE ids (id BLOB PRIMARY KEY, source INTEGER, line INTEGER, count INTEGER)"
            " WITHOUT ROWID"
        )
        # One transaction for good; without it, each row would be one.
        self._execute("BEGIN")

    def claim(self, given: str, source: str, line: int) -> tuple[str, int] | None:
        """Take a given id.

        Returns:
            None if it is free (and now taken); else source and line of its first use.
        """
        if self._insert(given, source, line):
            return None
        first_source, first_line = self._execute(
            "SELECT source, line FROM ids WHERE id = ?", given.encode()
        )[0]
        return self._sources[first_source], first_line

    def claim_content(self, prompt: str, response: str | None, source: str, line: int) -> str:
        """Take the content's id, or for repeated content the next free of `-2`, `-3`, ..."""
        base = content_id(prompt, response)
        if self._insert(base, source, line):
            return base
        found = self._execute("SELECT count FROM ids WHERE id = ?", base.encode())
        count = int(found[0][0])
        while True:
            count += 1
            repeated = f"{base}-{count}"
            if self._insert(repeated, source, line):
                break
        self._execute("UPDATE ids SET count = ? WHERE id = ?", count, base.encode())
        return repeated

    def close(self) -> None:
        """Free the database's space."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _insert(self, name: str, source: str, line: int) -> bool:
        if not self._sources or self._sources[-1] != source:
            self._sources.append(source)
        return bool(
            self._execute(
                "INSERT INTO ids VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING RETURNING 1",
                name.encode(),
                len(self._sources) - 1,
                line,
            )
        )

    def _execute(self, statement: str, *values: object) -> list[tuple[int, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"the index of prompt ids cannot be kept on disk: {error}",
                hint="free some space, or point TMPDIR to a folder that has it",
            ) from error
