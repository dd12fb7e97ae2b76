"""Which key signs what: the genesis, and the rotations after it (docs/record-format.md, 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.checkpoint import is_origin
from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.keys import (
    PublicKey,
    bytes_from_base64,
    public_key_from_base64,
    rotation_message,
)
from cert.ledger.line import genesis_prev, is_control, parse_links

if TYPE_CHECKING:
    from cert.ledger.checkpoint import SignedCheckpoint

FORMAT: Final = "1"


@dataclass(frozen=True, slots=True)
class Genesis:
    """What record 0 says.

    Attributes:
        origin: Names the ledger.
        key: The first key.
    """

    origin: str
    key: PublicKey


def parse_genesis(line: bytes) -> Genesis:
    """Read record 0 and check that its link is that of its origin and key.

    Raises:
        ProofError: It is no genesis; says why.
    """
    record = _parse(line, "genesis")
    ledger = record["ledger"]
    if record["_seq"] != 0:
        raise ProofError("a genesis is record 0")
    if ledger.get("format") != FORMAT:
        raise ProofError(f"format {ledger.get('format')!r}; this version reads {FORMAT!r}")
    origin = ledger.get("origin")
    if not isinstance(origin, str) or not is_origin(origin):
        raise ProofError("its origin is none")
    try:
        genesis = Genesis(origin, public_key_from_base64(ledger.get("public_key")))
    except SigningKeyError as error:
        raise ProofError(f"its key: {error.message}") from error
    if record["_prev"] != genesis_prev(origin, genesis.key).hex():
        raise ProofError("its link is not that of its origin and key")
    return genesis


class Lineage:
    """The keys of a ledger, in the order of their turns."""

    def __init__(self, genesis: Genesis) -> None:
        self.origin = genesis.origin
        self._turns = [(0, genesis.key)]

    @property
    def keys(self) -> list[PublicKey]:
        """The first one first."""
        return [key for _, key in self._turns]

    @property
    def current(self) -> PublicKey:
        """The last one."""
        return self._turns[-1][1]

    def key_at(self, size: int) -> PublicKey:
        """The key in force at a tree size."""
        return next(key for since, key in reversed(self._turns) if since <= size)

    def verify(self, signed: SignedCheckpoint, size: int) -> None:
        """Check that a checkpoint is this ledger's, of a size, and by the key in force there.

        Raises:
            ProofError: It is not.
        """
        checkpoint = signed.checkpoint
        if checkpoint.size != size:
            raise ProofError(f"a checkpoint of {checkpoint.size} records, not of {size}")
        if checkpoint.origin != self.origin:
            raise ProofError(f"a checkpoint of {checkpoint.origin!r}, not of {self.origin!r}")
        signed.verify(self.key_at(checkpoint.size))

    def rotate(self, line: bytes) -> None:
        """Follow a `key` record.

        Raises:
            ProofError: It does not pass on the key in force, or is not signed by both; the key in
                force stays.
        """
        record = _parse(line, "key")
        part = record["key"]
        try:
            previous = public_key_from_base64(part.get("previous"))
            following = public_key_from_base64(part.get("public_key"))
            signature = bytes_from_base64(part.get("signature"), "the signature")
            proof = bytes_from_base64(part.get("proof"), "the proof")
        except SigningKeyError as error:
            raise ProofError(error.message) from error
        if previous != self.current:
            raise ProofError(f"it passes on {previous.text}, in force is {self.current.text}")
        if following == previous:
            raise ProofError("it passes a key on to itself")
        seq, prev = record["_seq"], bytes.fromhex(record["_prev"])
        message = rotation_message(self.origin, seq, prev, previous, following)
        previous.verify(signature, message)
        following.verify(proof, message)
        self._turns.append((seq + 1, following))


_MEMBERS: Final = {"genesis": "ledger", "key": "key"}


def _parse(line: bytes, kind: str) -> dict[str, Any]:
    """Read a control record that must be of a kind; its member of that kind is a dict."""
    if not is_control(kind, line):
        raise ProofError(f"no {kind} record")
    try:
        member = parse_canonical(line).get(_MEMBERS[kind])
    except CanonicalError as error:
        raise ProofError(error.message) from error
    links = parse_links(line)
    if links is None or not isinstance(member, dict):
        raise ProofError(f"no {kind} record")
    return {"_seq": links.seq, "_prev": links.prev.decode(), _MEMBERS[kind]: member}
