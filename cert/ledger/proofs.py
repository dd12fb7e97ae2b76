"""Proofs that stand alone: one record is in the ledger; the ledger continues an older head.

Both are texts that whoever trusts the ledger's key checks without the ledger
(docs/record-format.md, 10): a C2SP tlog-proof, and the form of a C2SP witness request.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.ledger.checkpoint import SignedCheckpoint, parse_checkpoint
from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.keys import bytes_from_base64
from cert.ledger.line import HASH_BYTES, leaf_hash, parse_links
from cert.ledger.merkle import (
    consistency_ranges,
    inclusion_ranges,
    verify_consistency,
    verify_inclusion,
)
from cert.ledger.pruned import KeptLine, PrunedPart, parse_pruned
from cert.ledger.reader import PRUNED
from cert.ledger.subtrees import read_leaves, subtree_roots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.keys import PublicKey
    from cert.ledger.reader import Reader

_MAX_HASHES: Final = 63
_MAGIC: Final = "c2sp.org/tlog-proof@v1"
_NUMBER: Final = "(0|[1-9][0-9]{0,15})"
_INCLUSION: Final = re.compile(
    rf"{re.escape(_MAGIC)}\nextra ([A-Za-z0-9+/=]+)\nindex {_NUMBER}\n((?:[^\n]+\n)*)\n"
)
_CONSISTENCY: Final = re.compile(rf"old {_NUMBER}\n((?:[^\n]+\n)*)\n")


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """One record is in the ledger that a checkpoint signs.

    Attributes:
        line: The record's, without newline.
        index: Its `_seq`.
        path: Audit path, nearest sibling first.
        signed: The checkpoint.
    """

    line: bytes
    index: int
    path: tuple[bytes, ...]
    signed: SignedCheckpoint

    def encode(self) -> bytes:
        """Write it as a C2SP tlog-proof."""
        extra = base64.b64encode(self.line).decode()
        return _encode([_MAGIC, f"extra {extra}", f"index {self.index}"], self.path, self.signed)

    def verify(self, key: PublicKey) -> None:
        """Check it.

        Raises:
            ProofError: The key did not sign the checkpoint, or the record is not in its tree.
        """
        self.signed.verify(key)
        self.verify_path()

    def verify_path(self) -> None:
        """Check all but the signature.

        Raises:
            ProofError: The record is not in the checkpoint's tree at this index.
        """
        links = parse_links(self.line)
        if links is None or links.seq != self.index:
            raise ProofError(f"the proof is of index {self.index}, and not so its record")
        verify_inclusion(
            index=self.index,
            size=self.signed.checkpoint.size,
            leaf=leaf_hash(self.line),
            path=self.path,
            root=self.signed.checkpoint.root,
        )


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The records that an older head is of are the first ones of a newer checkpoint.

    Attributes:
        old: Tree size of the older head.
        hashes: As RFC 6962, section 2.1.2, orders them.
        signed: The newer checkpoint.
    """

    old: int
    hashes: tuple[bytes, ...]
    signed: SignedCheckpoint

    def encode(self) -> bytes:
        """Write it in the form of a C2SP witness request."""
        return _encode([f"old {self.old}"], self.hashes, self.signed)

    def verify(self, head: SignedCheckpoint, key: PublicKey) -> None:
        """Check it; that the head itself is signed is another question.

        Raises:
            ProofError: The key did not sign the newer checkpoint, or it does not continue the head.
        """
        self.signed.verify(key)
        self.verify_hashes(head)

    def verify_hashes(self, head: SignedCheckpoint) -> None:
        """Check all but the signature.

        Raises:
            ProofError: The newer checkpoint does not continue the head.
        """
        old, new = head.checkpoint, self.signed.checkpoint
        if old.origin != new.origin:
            raise ProofError(f"the head is of {old.origin!r}, the ledger is {new.origin!r}")
        if old.size != self.old:
            raise ProofError(f"the head is of {old.size} records, the proof of {self.old}")
        verify_consistency(
            old=old.size,
            new=new.size,
            old_root=old.root,
            new_root=new.root,
            proof=self.hashes,
        )


def prove_inclusion(reader: Reader, seq: int) -> InclusionProof:
    """Prove that a record is in the ledger, by its newest checkpoint.

    A record that was kept of a removed part is proven by the checkpoint that it was kept with.

    Args:
        reader: The ledger.
        seq: Number of the record.

    Raises:
        ConfigurationError: There is no such record, it was removed, or no checkpoint covers it yet.
        ProofError: The ledger is not what its checkpoint signs.
        LedgerError: It cannot be read.
    """
    part, newest = _read_part(reader), _read_newest(reader)
    size = newest.checkpoint.size
    if part is not None and seq < part.size:
        kept = _find_kept(part, seq)
        signed = parse_checkpoint(reader.read_checkpoint(kept.size))
        return _checked(InclusionProof(kept.line, seq, kept.proof, signed))
    if seq >= size:
        raise ConfigurationError(
            f"the newest checkpoint covers the records 0 to {size - 1}, and not {seq}",
            hint="`cert ledger head` signs one of all records",
        )
    found: list[bytes] = []

    def watch(number: int, line: bytes) -> None:
        if number == seq:
            found.append(line)

    ranges = inclusion_ranges(seq, size)
    leaves = read_leaves(reader, part, size, watch=watch)
    roots = subtree_roots(leaves, [*ranges, (seq, seq + 1)], part)
    path = tuple(roots[one] for one in ranges)
    return _checked(InclusionProof(found[0], seq, path, newest))


def prove_consistency(reader: Reader, head: SignedCheckpoint) -> ConsistencyProof:
    """Prove that the ledger's newest checkpoint continues a head that was kept.

    Args:
        reader: The ledger.
        head: Not verified; whoever kept it knows whose it is.

    Raises:
        ConfigurationError: The head is of a removed part, or of no records.
        ProofError: The ledger does not continue it.
        LedgerError: It cannot be read.
    """
    part, newest = _read_part(reader), _read_newest(reader)
    old, new = head.checkpoint, newest.checkpoint
    if old.origin != new.origin:
        raise ProofError(f"the head is of {old.origin!r}, the ledger is {new.origin!r}")
    if old.size > new.size:
        raise ProofError(
            f"the head is of {old.size} records, the newest checkpoint of {new.size}",
            hint="`cert verify --head` says whether records are missing",
        )
    if not old.size:
        raise ConfigurationError("a head of no records is continued by every ledger")
    if part is not None and old.size < part.size:
        raise ConfigurationError(
            f"the head is of {old.size} records, and the first {part.size} were removed",
            hint="take a newer head; the export of the removed records can prove this one",
        )
    ranges = consistency_ranges(old.size, new.size)
    roots = subtree_roots(read_leaves(reader, part, new.size), ranges, part)
    proof = ConsistencyProof(old.size, tuple(roots[one] for one in ranges), newest)
    proof.verify_hashes(head)
    return proof


def parse_inclusion(data: bytes) -> InclusionProof:
    """Read a C2SP tlog-proof whose `extra` is a record's line; nothing is verified.

    Raises:
        ProofError: It is none.
    """
    match, signed = _parse(_INCLUSION, data)
    try:
        line = bytes_from_base64(match[1], "the record")
    except SigningKeyError as error:
        raise ProofError(f"no proof: {error.message}") from error
    return InclusionProof(line, int(match[2]), _parse_hashes(match[3]), signed)


def parse_consistency(data: bytes) -> ConsistencyProof:
    """Read a proof that one checkpoint continues another; nothing is verified.

    Raises:
        ProofError: It is none.
    """
    match, signed = _parse(_CONSISTENCY, data)
    return ConsistencyProof(int(match[1]), _parse_hashes(match[2]), signed)


def _encode(lines: Sequence[str], hashes: Sequence[bytes], signed: SignedCheckpoint) -> bytes:
    all_lines = [*lines, *(base64.b64encode(one).decode() for one in hashes)]
    return "".join(f"{one}\n" for one in all_lines).encode() + b"\n" + signed.note


def _parse(form: re.Pattern[str], data: bytes) -> tuple[re.Match[str], SignedCheckpoint]:
    body, blank, note = data.partition(b"\n\n")
    try:
        match = form.fullmatch((body + blank).decode("ascii"))
    except UnicodeDecodeError as error:
        raise ProofError("no proof: it is not ASCII") from error
    if match is None:
        raise ProofError("no proof: it has not the form of one")
    return match, parse_checkpoint(note)


def _parse_hashes(text: str) -> tuple[bytes, ...]:
    lines = text.split("\n")[:-1]
    if len(lines) > _MAX_HASHES:
        raise ProofError(f"no proof: {len(lines)} hashes are too many")
    try:
        hashes = tuple(bytes_from_base64(one, "a hash") for one in lines)
    except SigningKeyError as error:
        raise ProofError(f"no proof: {error.message}") from error
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"no proof: a hash has {HASH_BYTES} bytes")
    return hashes


def _checked(proof: InclusionProof) -> InclusionProof:
    try:
        proof.verify_path()
    except ProofError as error:
        raise ProofError(
            f"the ledger is not what its checkpoint signs: {error.message}",
            hint="`cert verify` says what is wrong",
        ) from error
    return proof


def _find_kept(part: PrunedPart, seq: int) -> KeptLine:
    for one in part.kept:
        if one.seq == seq:
            return one
    raise ConfigurationError(
        f"record {seq} was removed with all before {part.size}",
        hint="the export that was made of them can prove it: it is a ledger, too",
    )


def _read_part(reader: Reader) -> PrunedPart | None:
    data = reader.read_side_file(PRUNED)
    return None if data is None else parse_pruned(data)


def _read_newest(reader: Reader) -> SignedCheckpoint:
    if not reader.checkpoints:
        raise ConfigurationError(
            "the ledger has no checkpoint: nothing is signed yet",
            hint="`cert ledger head` signs one of all records",
        )
    return parse_checkpoint(reader.read_checkpoint(reader.checkpoints[-1]))
