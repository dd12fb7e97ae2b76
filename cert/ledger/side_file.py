"""Values of the side files, `tail.json` and `pruned.json`."""

from __future__ import annotations

import re
from typing import Final

_HEX: Final = re.compile(r"[0-9a-f]{64}")


def parse_count(value: object) -> int:
    """A count of 0 or more.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or value < 0:
        raise ValueError("no count")
    return value


def parse_hash(value: object) -> bytes:
    """A hash in hex.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError("no hash")
    return bytes.fromhex(value)


def parse_hashes(value: object) -> tuple[bytes, ...]:
    """A list of hashes in hex.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, list):
        raise ValueError("no list of hashes")  # noqa: TRY004 - one error for one kind of fault
    return tuple(map(parse_hash, value))
