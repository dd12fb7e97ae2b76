"""Lines of a ledger: a record with its place and its link in front (docs/record-format.md, 2).

`_prev` and `_seq` sort before every key that begins with a lower-case letter, so they stand at a
fixed place, are put in front of a record's bytes without encoding it again, and are read without
parsing JSON.
"""

from __future__ import annotations

import hashlib
import re
from binascii import hexlify
from typing import TYPE_CHECKING, Final, NamedTuple

from cert.ledger.canonical import CanonicalError, parse_canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.ledger.keys import PublicKey

MAX_LINE_BYTES: Final = 1 << 24
HASH_BYTES: Final = 32

_FORM: Final = re.compile(rb'\{"_prev":"([0-9a-f]{64})","_seq":(0|[1-9][0-9]{0,15}),"[a-z]')
_CONTROL: Final = re.compile(_FORM.pattern[: -len(rb'"[a-z]')] + rb'"clock":')
_KIND: Final = b'"kind":"'
_CONTROL_KINDS: Final = (b'genesis"', b'key"', b'recovered"', b'erased"', b'pruned"')
_BODY: Final = re.compile(rb'\{"[a-z]')
_SEQ_END: Final = len(b'{"_prev":"') + 2 * HASH_BYTES + len(b'","_seq":')
_NEWLINE: Final = 0x0A
_LEAF: Final = hashlib.sha256(b"\x00")
"""Copied for each line, which costs less than beginning anew."""


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
    digest = _LEAF.copy()
    digest.update(line)
    return digest.digest()


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
    if _NEWLINE in body:
        raise CanonicalError("a record with a newline would be two lines")
    if len(body) > MAX_LINE_BYTES - 128:
        raise CanonicalError(f"a record of {len(body)} bytes; the limit is {MAX_LINE_BYTES - 128}")


def join_links(prev: bytes, seq: int, body: bytes) -> bytes:
    """Put place and link in front of a record's bytes; no newline."""
    return b'{"_prev":"%b","_seq":%d,%b' % (prev.hex().encode(), seq, body[1:])


def chain_lines(prev: bytes, seq: int, bodies: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Put places and links in front of records in a row.

    Args:
        prev: Leaf hash of the line before the first one.
        seq: Place of the first one.
        bodies: Bytes of records without links.

    Returns:
        The lines, without newlines, and their leaf hashes.
    """
    lines: list[bytes] = []
    leaves: list[bytes] = []
    copy = _LEAF.copy
    for body in bodies:
        line = b'{"_prev":"%b","_seq":%d,%b' % (hexlify(prev), seq, body[1:])
        digest = copy()
        digest.update(line)
        prev = digest.digest()
        lines.append(line)
        leaves.append(prev)
        seq += 1
    return lines, leaves


def is_measured(line: bytes) -> bool:
    """Whether a line, which has the form of one, begins like the record of a measured text.

    It is then neither a control record nor one of a policy or a run, which is seen without looking
    through all of it.
    """
    return line.startswith(b',"assessment":', line.find(b",", _SEQ_END))


def parse_links(line: bytes) -> Links | None:
    """Read place and link; None where the line has not the form of one."""
    match = _FORM.match(line)
    if match is None or len(line) > MAX_LINE_BYTES:
        return None
    return Links(match[1], int(match[2]))


def may_be_control(line: bytes) -> bool:
    """Whether a kind of control record is named anywhere; asked once, instead of for each kind."""
    at = line.find(_KIND)
    while at >= 0:
        if line.startswith(_CONTROL_KINDS, at + len(_KIND)):
            return True
        at = line.find(_KIND, at + 1)
    return False


def is_control(kind: str, line: bytes) -> bool:
    """Whether a line is a control record of a kind (docs/record-format.md, 3).

    A line that looks like one and is not canonical counts as one, so that somebody looks closer.
    """
    if not _CONTROL.match(line) or b'"kind":"%b"' % kind.encode() not in line:
        return False
    try:
        return parse_canonical(line).get("kind") == kind
    except CanonicalError:
        return True
