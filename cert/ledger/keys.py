"""Ed25519 keys: as they are written, and what they sign (docs/record-format.md, 4).

`cryptography` is imported where it is used: reading a ledger's lines takes no key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import ProofError, SigningKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES: Final = 32
_TEXT: Final = re.compile(r"ed25519:([A-Za-z0-9+/]{43}=)")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key.

    Attributes:
        raw: 32 bytes (RFC 8032).
    """

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse another length."""
        if len(self.raw) != KEY_BYTES:
            raise SigningKeyError(f"an Ed25519 key has {KEY_BYTES} bytes, not {len(self.raw)}")

    @property
    def text(self) -> str:
        """`ed25519:` and base64."""
        return f"ed25519:{self.base64}"

    @property
    def base64(self) -> str:
        """As records hold it."""
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, in hex; names the key's file."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo (RFC 8410), as openssl writes it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
            Ed25519PublicKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
            Encoding,
            PublicFormat,
        )

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            ProofError: It is not this key's over these bytes.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
            Ed25519PublicKey,
        )

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature as error:
            raise ProofError(f"no signature of {self.text} over these bytes") from error


class Signer:
    """A private key that can be used, and its public half."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Signer:
        """A new key, from the system's random source."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
            Ed25519PrivateKey,
        )

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, *, source: str, password: bytes | None = None) -> Signer:
        """Read a private key in PKCS#8 PEM.

        Args:
            pem: The file's bytes.
            source: Named in errors.
            password: Of an encrypted one.

        Raises:
            SigningKeyError: It is no such key, or the password is missing or wrong.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
            load_pem_private_key,
        )

        is_encrypted = b"ENCRYPTED" in pem
        if is_encrypted and not password:
            raise SigningKeyError(
                f"the signing key {source} is encrypted",
                hint="put its password into the environment variable CERT_KEY_PASSWORD",
            )
        try:
            key = load_pem_private_key(pem, password if is_encrypted else None)
        except Exception as error:  # the library raises many kinds
            reason = "wrong password, or a damaged file" if is_encrypted else "no PEM private key"
            raise SigningKeyError(f"the signing key {source} cannot be read: {reason}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(
                f"the signing key {source} is no Ed25519 key",
                hint="`cert keys new` makes one, and so does `openssl genpkey -algorithm ed25519`",
            )
        return cls(key)

    def to_pem(self, password: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted if there is a password."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
            BestAvailableEncryption,
            Encoding,
            KeySerializationEncryption,
            NoEncryption,
            PrivateFormat,
        )

        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(password) if password else NoEncryption()
        )
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def sign(self, data: bytes) -> bytes:
        """64 bytes (RFC 8032)."""
        return self._private.sign(data)


def parse_public_key(data: bytes, *, source: str) -> PublicKey:
    """Read a public key: PEM, or `ed25519:` and base64.

    Raises:
        SigningKeyError: It is neither, or of another kind of key; a private key, too, is refused.
    """
    text = data.strip()
    match = _TEXT.fullmatch(text.decode("latin-1"))
    if match is not None:
        return public_key_from_base64(match[1])
    if b"PRIVATE KEY" in data:
        raise SigningKeyError(
            f"{source} is a private key; verifying takes the public one, and the private one "
            "should not leave its place",
            hint="`cert keys show` prints the public key",
        )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(text)
    except Exception as error:  # the library raises many kinds
        raise SigningKeyError(
            f"{source} is no public key",
            hint="expected PEM, or ed25519: and base64, as `cert keys show` prints both",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(f"{source} is no Ed25519 key")
    return PublicKey(key.public_bytes_raw())


def public_key_from_base64(text: object) -> PublicKey:
    """The key that a record holds.

    Raises:
        SigningKeyError: It is no canonical base64 of 32 bytes.
    """
    return PublicKey(bytes_from_base64(text, "a public key"))


def bytes_from_base64(text: object, what: str) -> bytes:
    """Decode base64 in its one canonical spelling.

    Raises:
        SigningKeyError: It is no text, or not that spelling.
    """
    try:
        raw = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SigningKeyError(f"{what} is no base64") from error
    if base64.b64encode(raw).decode() != text:
        raise SigningKeyError(f"{what} is no canonical base64")
    return raw


def rotation_message(
    origin: str, seq: int, prev: bytes, previous: PublicKey, following: PublicKey
) -> bytes:
    """What both keys sign in a `key` record (docs/record-format.md, 4)."""
    lines = (
        "cert-ledger/key-rotation/v1",
        origin,
        str(seq),
        prev.hex(),
        previous.base64,
        following.base64,
    )
    return "".join(f"{line}\n" for line in lines).encode()
