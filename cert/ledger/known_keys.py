"""Keys that were trusted on first use, by the origin of their ledger.

    known-keys.json   {"<origin>": {"key": "ed25519:...", "since": "<RFC 3339>"}, ...}

Whoever controls the first evidence chooses the key. What this keeps out is a later change.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.core.errors import ConfigurationError
from cert.ledger.control import utc_now
from cert.ledger.files import FOLDER_MODE, FolderLock, write_file
from cert.ledger.keys import PublicKey, parse_public_key

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 1 << 26
_LOCK_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that was trusted on first use.

    Attributes:
        key: It.
        since: RFC 3339, when that was.
    """

    key: PublicKey
    since: str


class KnownKeys:
    """The file of keys that were trusted on first use."""

    def __init__(self, path: Path) -> None:
        """Take a file, which need not exist yet."""
        self.path = path

    def find(self, origin: str) -> KnownKey | None:
        """The key that is remembered for an origin; None where there is none.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        entry = self._read().get(origin)
        return None if entry is None else self._parse(entry)

    def remember(self, origin: str, key: PublicKey) -> None:
        """Remember a key for an origin that none is remembered for; an older one stays.

        Raises:
            ConfigurationError: The file cannot be read or written.
            LedgerError: Another process holds its folder.
        """
        folder = self.path.parent
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            with closing(FolderLock(folder)) as lock, lock.held(_LOCK_TIMEOUT_S):
                entries = self._read()
                entries.setdefault(origin, {"key": key.text, "since": utc_now()})
                options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
                write_file(self.path, orjson.dumps(entries, option=options))
        except OSError as error:
            raise ConfigurationError(
                f"the key cannot be remembered in {self.path}: {error.strerror}",
                hint="give the key itself with --key",
            ) from error

    def _read(self) -> dict[str, Any]:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                entries = orjson.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(error.strerror or "") from error
        except orjson.JSONDecodeError as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(entries, dict):
            raise self._unreadable("it is no object")
        return entries

    def _parse(self, entry: object) -> KnownKey:
        match entry:
            case {"key": str(text), "since": str(since)}:
                return KnownKey(parse_public_key(text.encode(), source=str(self.path)), since)
        raise self._unreadable("an entry is no key")

    def _unreadable(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"the keys that were trusted before, {self.path}, cannot be read: {reason}",
            hint="repair the file, or give the key itself with --key",
        )
