"""Lines of a ledger: a record with its place and its link in front (docs/record-format.md, 2).

`_prev` and `_seq` sort before every key that begins with a lower-case letter, so they stand at a
fixed place, are put in front of a record's bytes without encoding it again, and are read without
parsing JSON.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from cert.ledger.canonical import CanonicalError, parse_canonical

if TYPE_CHECKING:
    from cert.ledger.keys import PublicKey

MAX_LINE_BYTES: Final = 1 << 24
HASH_BYTES: Final = 32

_FORM: Final = re.compile(rb'\{"_prev":"([0-9a-f]{64})","_seq":(0|[1-9][0-9]{0,15}),"[a-z]')
_CONTROL: Final = re.compile(_FORM.pattern[: -len(rb'"[a-z]')] + rb'"clock":')
_BODY: Final = re.compile(rb'\{"[a-z]')


class Links(NamedTuple):
    """What a line says about its place.

    Attributes:
        prev: Leaf hash of the line before, as 64 hex digits.
        seq: Place in the ledger, from 0.
    """

    prev: bytes
    seq: int


def leaf_hash(line: bytes) -> bytes:
    """SHA-256 of 0x00 and the line without its newline: link of the chain and leaf of the tree."""
    return hashlib.sha256(b"\x00" + line).digest()


def genesis_prev(origin: str, key: PublicKey) -> bytes:
    """Stands as `_prev` in record 0, so that no file of another ledger or key fits in its place."""
    return hashlib.sha256(b"\x02" + origin.encode() + b"\n" + key.raw).digest()


def check_body(body: bytes) -> None:
    """Look whether a record's bytes can become a line.

    Args:
        body: Canonical bytes of a record without links; that they are canonical is not looked at.

    Raises:
        CanonicalError: It is no object, has a first key that would sort before the links, holds a
            newline, or is too long.
    """
    if not _BODY.match(body):
        raise CanonicalError("a record begins with a key of a lower-case letter")
    if b"\n" in body:
        raise CanonicalError("a record with a newline would be two lines")
    if len(body) > MAX_LINE_BYTES - 128:
        raise CanonicalError(f"a record of {len(body)} bytes; the limit is {MAX_LINE_BYTES - 128}")


def join_links(prev: bytes, seq: int, body: bytes) -> bytes:
    """Put place and link in front of a record's bytes; no newline."""
    return b'{"_prev":"%b","_seq":%d,%b' % (prev.hex().encode(), seq, body[1:])


def parse_links(line: bytes) -> Links | None:
    """Read place and link; None where the line has not the form of one."""
    match = _FORM.match(line)
    if match is None or len(line) > MAX_LINE_BYTES:
        return None
    return Links(match[1], int(match[2]))


def is_control(kind: str, line: bytes) -> bool:
    """Whether a line is a control record of a kind (docs/record-format.md, 3).

    A line that looks like one and is not canonical counts as one, so that somebody looks closer.
    """
    if b'"kind":"%b"' % kind.encode() not in line or not _CONTROL.match(line):
        return False
    try:
        return parse_canonical(line).get("kind") == kind
    except CanonicalError:
        return True
