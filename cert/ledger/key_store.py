"""A user's signing keys: a folder of PEM files outside of every ledger.

    KEYS/<fingerprint>.pem   private keys, PKCS#8, mode 0600, encrypted if there was a password
    KEYS/<fingerprint>.pub   their public halves, PEM
    KEYS/current             fingerprint of the key that new ledgers begin with
    KEYS/heads/              the last head of every ledger that was signed (`head_memory`)

Old keys stay: a ledger goes on with the key that is in force in it until it is rotated.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from cert.ledger.errors import SigningKeyError
from cert.ledger.files import FOLDER_MODE, write_file
from cert.ledger.head_memory import HeadMemory
from cert.ledger.keys import PublicKey, Signer, parse_public_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSWORD_VARIABLE: Final = "CERT_KEY_PASSWORD"  # noqa: S105 - the name of a variable
_CURRENT: Final = "current"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_MAX_PEM_BYTES: Final = 1 << 16


class KeyStore:
    """The keys in one folder."""

    def __init__(self, folder: Path, *, created: Callable[[Signer], None] = lambda _: None) -> None:
        """Take a folder, which need not exist yet.

        Args:
            folder: Where the keys are.
            created: Told of the key that `default` makes where there is none.
        """
        self.folder = folder
        self.heads: HeadMemory | None = HeadMemory(folder)
        self._created = created

    def default(self) -> Signer:
        """The current key; where there is none at all, a new one without a password.

        Raises:
            SigningKeyError: It cannot be read or written.
        """
        current = self.current()
        if current is not None:
            return self.find(current)
        signer = self.create(password_from_environment())
        self._created(signer)
        return signer

    def find(self, public: PublicKey) -> Signer:
        """The private half of a key.

        Raises:
            SigningKeyError: It is not here, or cannot be read.
        """
        path = self.path_of(public)
        try:
            pem = _read(path)
        except FileNotFoundError as error:
            raise SigningKeyError(
                f"the key {public.text} that signs this ledger is not in {self.folder}",
                hint="name its file with CERT_SIGNING_KEY, or have its owner rotate the ledger",
            ) from error
        return Signer.from_pem(pem, source=str(path), password=password_from_environment())

    def create(self, password: bytes | None) -> Signer:
        """Make a key and make it the current one.

        Raises:
            SigningKeyError: It cannot be written.
        """
        signer = Signer.generate()
        try:
            self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            write_file(self.path_of(signer.public), signer.to_pem(password))
            write_file(self.path_of(signer.public).with_suffix(".pub"), signer.public.pem)
            write_file(self.folder / _CURRENT, f"{signer.public.fingerprint}\n".encode())
        except OSError as error:
            raise SigningKeyError(
                f"a key cannot be written to {self.folder}: {error.strerror}",
                hint="name another folder with CERT_KEYS",
            ) from error
        return signer

    def current(self) -> PublicKey | None:
        """The public half of the current key; None where there is none.

        Raises:
            SigningKeyError: It cannot be read.
        """
        path = self.folder / _CURRENT
        try:
            fingerprint = _read(path).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise SigningKeyError(f"{path} names no key", hint="cert keys new makes one")
        return self._read_public(fingerprint)

    def all(self) -> list[PublicKey]:
        """Public halves of all keys, by fingerprint.

        Raises:
            SigningKeyError: One cannot be read.
        """
        if not self.folder.is_dir():
            return []
        names = sorted(path.stem for path in self.folder.glob("*.pub"))
        return [self._read_public(name) for name in names if _FINGERPRINT.fullmatch(name)]

    def path_of(self, public: PublicKey) -> Path:
        """The file of a private key."""
        return self.folder / f"{public.fingerprint}.pem"

    def _read_public(self, fingerprint: str) -> PublicKey:
        path = self.folder / f"{fingerprint}.pub"
        try:
            public = parse_public_key(_read(path), source=str(path))
        except FileNotFoundError as error:
            raise SigningKeyError(f"{path} is missing", hint="cert keys new makes a key") from error
        if public.fingerprint != fingerprint:
            raise SigningKeyError(f"{path} holds another key than its name says")
        return public


class GivenKey:
    """One private key that was named outright."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.heads: HeadMemory | None = None

    @classmethod
    def load(cls, text_or_path: str) -> GivenKey:
        """Take the PEM itself, or the path of its file.

        Raises:
            SigningKeyError: It cannot be read.
        """
        password = password_from_environment()
        if text_or_path.lstrip().startswith("-----BEGIN"):
            return cls(Signer.from_pem(text_or_path.encode(), source="given", password=password))
        from pathlib import Path  # noqa: PLC0415 - only here at run time

        try:
            pem = _read(Path(text_or_path))
        except (FileNotFoundError, ValueError) as error:
            raise SigningKeyError(
                "the signing key that was given is neither PEM nor a file that is there",
                hint="CERT_SIGNING_KEY is a PEM file, or its text; cert keys new makes a key",
            ) from error
        return cls(Signer.from_pem(pem, source=text_or_path, password=password))

    def default(self) -> Signer:
        """The key."""
        return self._signer

    def find(self, public: PublicKey) -> Signer:
        """The key, if it is the one.

        Raises:
            SigningKeyError: It is another one.
        """
        if public != self._signer.public:
            raise SigningKeyError(
                f"the ledger is signed by {public.text}, the given key is "
                f"{self._signer.public.text}",
                hint="give the ledger's key, or rotate the ledger: cert keys rotate",
            )
        return self._signer


def password_from_environment() -> bytes | None:
    """The password of encrypted keys; None where there is none."""
    return os.environ.get(PASSWORD_VARIABLE, "").encode() or None


def _read(path: Path) -> bytes:
    """Read a small file without following a link.

    Raises:
        FileNotFoundError: It is not there.
        SigningKeyError: It cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(fd, _MAX_PEM_BYTES)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SigningKeyError(f"{path} cannot be read: {error.strerror}") from error
