"""Copies of what recoveries cut off, and whether the ledger says so (docs/record-format.md, 7).

A recovery copies, cuts, and then appends its record. A crash before the last step leaves a copy
that no record names; whoever opens the ledger next appends the record then.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cert.ledger.control import build_recovered
from cert.ledger.errors import LedgerError
from cert.ledger.line import is_control
from cert.ledger.reader import SEGMENTS, FolderReader, parse_name, read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COPY: Final = re.compile(r"([0-9]{12,16}\.jsonl)\.torn-(0|[1-9][0-9]{0,15})-([0-9a-f]{64})")


def copy_name(segment: str, offset: int, sha256: str) -> str:
    """Name the copy of what was cut off a segment."""
    return f"{segment}.torn-{offset}-{sha256}"


def build_missing(folder: Path) -> Iterator[bytes]:
    """Build the `recovered` records of copies that have none; the ledger's lock is held.

    Raises:
        LedgerError: A segment cannot be read.
        OSError: The folder cannot be read.
    """
    names = sorted(os.listdir(folder / SEGMENTS))  # noqa: PTH208 - names alone
    copies = [match for match in map(_COPY.fullmatch, names) if match is not None]
    if not copies:
        return
    reader = FolderReader(folder, is_locked=True)
    for match in copies:
        segment, offset, sha256 = match[1], int(match[2]), match[3]
        if _is_named(reader, match[0], segment, offset):
            continue
        data = None
        with suppress(LedgerError):
            data = reader.read_side_file(f"{SEGMENTS}/{match[0]}")
        if data is not None and hashlib.sha256(data).hexdigest() == sha256:
            yield build_recovered(
                segment=segment, offset=offset, size_bytes=len(data), sha256=sha256, copy=match[0]
            )


def _is_named(reader: FolderReader, copy: str, segment: str, offset: int) -> bool:
    """Whether a record names a copy: the first one after the cut, as a rule.

    So is one whose segment was removed: its record was, too.
    """
    number = parse_name(segment)
    following = [one for one in reader.segments if number is not None and one.first >= number[0]]
    if not following or following[0].name != segment:
        return True
    start = offset
    for one in following:
        with reader.open_segment(one) as file:
            file.seek(start)
            for block in read_blocks(file, one.size_bytes - start):
                for line in block.lines:
                    if copy.encode() in line and is_control("recovered", line):
                        return True
        start = 0
    return False
