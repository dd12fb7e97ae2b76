"""Append records to a ledger, for tests that start this several times at once.

    append_many.py LEDGER NAME RECORDS BATCH [--without-lock]

It waits for a line on stdin, so that all begin together. Without the lock it exits with 3 once it
meets what it would refuse to continue.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cert.ledger.appender
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import LedgerError
from cert.ledger.files import FolderLock
from cert.ledger.key_store import KeyStore

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoLock(FolderLock):
    """Lets everybody in."""

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        yield


def main(folder: str, name: str, records: str, batch: str, *options: str) -> int:
    if options == ("--without-lock",):
        cert.ledger.appender.FolderLock = NoLock  # type: ignore[misc]
    keys = KeyStore(Path(folder).with_name("keys"))
    try:
        with cert.ledger.appender.open_ledger(Path(folder), keys) as ledger:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            sys.stdin.readline()
            for start in range(0, int(records), int(batch)):
                numbers = range(start, start + int(batch))
                bodies = [canonical_bytes({"n": number, "writer": name}) for number in numbers]
                ledger.append(bodies, is_durable=False)
    except LedgerError:
        if not options:
            raise
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
