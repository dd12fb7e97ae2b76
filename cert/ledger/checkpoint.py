"""Signed checkpoints: C2SP tlog-checkpoint in a signed note (docs/record-format.md, 5)."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.keys import PublicKey, Signer, bytes_from_base64
from cert.ledger.line import HASH_BYTES

MAX_NOTE_BYTES: Final = 65_536
_ORIGIN: Final = re.compile(r"[!-*,-~]{1,255}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree's head.

    Attributes:
        origin: Names the ledger.
        size: Leaves.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{root_text(self.root)}\n".encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with its signatures, not verified by itself.

    Attributes:
        checkpoint: What the note says.
        signatures: Key name and decoded signature (key id first) of each signature line.
        note: The bytes.
    """

    checkpoint: Checkpoint
    signatures: tuple[tuple[str, bytes], ...]
    note: bytes

    def verify(self, key: PublicKey) -> None:
        """Check that a key signed it under the origin's name.

        Raises:
            ProofError: There is no signature of this key, or one in its name is wrong.
        """
        origin = self.checkpoint.origin
        key_id = key_id_of(origin, key)
        mine = [
            signature[_KEY_ID_BYTES:]
            for name, signature in self.signatures
            if name == origin and signature[:_KEY_ID_BYTES] == key_id
        ]
        if not mine:
            raise ProofError(f"the checkpoint of size {self.checkpoint.size} is not by {key.text}")
        for signature in mine:
            key.verify(signature, self.checkpoint.text)

    def is_signed_by(self, *keys: PublicKey | None) -> bool:
        """Whether one of these keys signed it."""
        for key in keys:
            if key is not None:
                with suppress(ProofError):
                    self.verify(key)
                    return True
        return False


def root_text(root: bytes) -> str:
    """A root as checkpoints and records write it, in base64."""
    return base64.b64encode(root).decode()


def is_origin(text: object) -> bool:
    """Whether a text can name a ledger: 1 to 255 printable ASCII characters, no space, no `+`."""
    return isinstance(text, str) and _ORIGIN.fullmatch(text) is not None


def key_id_of(name: str, key: PublicKey) -> bytes:
    """Four bytes that name a key in a note; no substitute for the key."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.raw).digest()[:_KEY_ID_BYTES]


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Write a checkpoint as a signed note, the origin being the key's name."""
    signature = key_id_of(checkpoint.origin, signer.public) + signer.sign(checkpoint.text)
    line = f"— {checkpoint.origin} {base64.b64encode(signature).decode()}\n"
    return checkpoint.text + b"\n" + line.encode()


def parse_checkpoint(note: bytes) -> SignedCheckpoint:
    """Read a signed note that is a checkpoint without extension lines.

    Raises:
        ProofError: It is none; says why.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise ProofError(f"a checkpoint of more than {MAX_NOTE_BYTES} bytes")
    try:
        text, signatures = note.decode().rsplit("\n\n", 1)
    except ValueError as error:
        raise ProofError("no signed note: no blank line, or no UTF-8") from error
    if any(ord(one) < ord(" ") and one != "\n" for one in text + signatures):
        raise ProofError("no signed note: it holds a control character")
    try:
        origin, size, root = text.split("\n")
    except ValueError as error:
        raise ProofError("no checkpoint: expected three lines before the blank one") from error
    if not is_origin(origin) or not _SIZE.fullmatch(size):
        raise ProofError("no checkpoint: no origin, or no tree size")
    return SignedCheckpoint(
        Checkpoint(origin, int(size), _decode(root, HASH_BYTES, "the root")),
        tuple(map(_parse_signature, _lines(signatures))),
        note,
    )


def _lines(text: str) -> list[str]:
    *lines, end = text.split("\n")
    if end or not lines:
        raise ProofError("no signed note: the last line is not complete")
    return lines


def _parse_signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, signature = rest.partition(" ")
    if dash != "—" or not name or "+" in name or any(one.isspace() for one in name):
        raise ProofError("no signed note: a signature line is malformed")
    try:
        raw = bytes_from_base64(signature, "a signature")
    except SigningKeyError as error:
        raise ProofError(f"no signed note: {error.message}") from error
    if len(raw) <= _KEY_ID_BYTES:
        raise ProofError("no signed note: a signature is too short")
    return name, raw


def _decode(text: str, size: int, what: str) -> bytes:
    try:
        raw = bytes_from_base64(text, what)
    except SigningKeyError as error:
        raise ProofError(f"no checkpoint: {error.message}") from error
    if len(raw) != size:
        raise ProofError(f"no checkpoint: {what} has {len(raw)} bytes, not {size}")
    return raw
