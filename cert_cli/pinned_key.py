"""Which key a verification trusts, and why: never one that came with the evidence alone.

--key  >  setting verify_key  >  a key of one's own  >  one that was trusted on first use before
       >  with --trust-on-first-use, the one that the evidence names, which is then remembered
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.core.places import keys_folder, known_keys_file
from cert.ledger.errors import SigningKeyError
from cert.ledger.key_store import KeyStore
from cert.ledger.keys import parse_public_key
from cert.ledger.known_keys import KnownKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.core.config import CERTConfig
    from cert.ledger.claims import Claims
    from cert.ledger.keys import PublicKey

_PREFIX: Final = "ed25519:"
_MAX_KEY_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A key that is trusted.

    Attributes:
        key: It.
        kind: `flag`, `setting`, `own`, `known` or `first-use`.
        source: Where it comes from, in words.
    """

    key: PublicKey
    kind: str
    source: str


def load_public_key(text: str, *, source: str) -> PublicKey:
    """Read `ed25519:` and base64, or a file that holds that or PEM.

    Raises:
        ConfigurationError: It is no public key.
    """
    try:
        if text.startswith(_PREFIX):
            return parse_public_key(text.encode(), source=source)
        with Path(text).open("rb") as file:
            return parse_public_key(file.read(_MAX_KEY_BYTES), source=f"{source}: {text}")
    except SigningKeyError as error:
        raise ConfigurationError(error.message, hint=error.hint) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{source}: {text} cannot be read: {reason}",
            hint="a key is a PEM file, or ed25519: and base64; `cert keys show` prints both",
        ) from error


def choose_key(
    given: str | None, claims: Claims, settings: Callable[[], CERTConfig], *, on_first_use: bool
) -> PinnedKey:
    """Choose the key to trust.

    Args:
        given: Of --key.
        claims: What the evidence says of itself: says which of one's own keys is meant.
        settings: Loads the settings, where they are needed.
        on_first_use: Whether a key that only the evidence names may be trusted.

    Raises:
        ConfigurationError: There is no key to trust, or one cannot be read.
        SigningKeyError: A key of one's own cannot be read.
    """
    if given is not None:
        return PinnedKey(load_public_key(given, source="--key"), "flag", "--key")
    config = settings()
    if config.verify_key is not None:
        source = f"the setting verify_key ({config.origins()['verify_key']})"
        return PinnedKey(load_public_key(config.verify_key, source=source), "setting", source)
    return (
        _own(claims, config)
        or _known(claims, KnownKeys(known_keys_file()))
        or _first(claims, on_first_use=on_first_use)
    )


def _own(claims: Claims, config: CERTConfig) -> PinnedKey | None:
    """A key of the user's own, if the evidence says that it is by one."""
    store = KeyStore(keys_folder(config.keys))
    current = store.current()
    own = [*([] if current is None else [current]), *store.all()]
    chosen = claims.choose(own)
    if chosen is None and claims.genesis is None and claims.newest is None:
        # The evidence says nothing, so that is what will be found wrong with it.
        chosen = next(iter(own), None)
    if chosen is None:
        return None
    return PinnedKey(chosen, "own", f"your own key in {store.folder}")


def _known(claims: Claims, known: KnownKeys) -> PinnedKey | None:
    found = None if claims.origin is None else known.find(claims.origin)
    if found is None:
        return None
    return PinnedKey(found.key, "known", f"trusted on first use, {found.since} ({known.path})")


def _first(claims: Claims, *, on_first_use: bool) -> PinnedKey:
    if claims.genesis is None:
        named = "the evidence names none"
    else:
        named = f"the evidence names {claims.genesis.key.text}, which proves nothing by itself"
    if claims.genesis is None or not on_first_use:
        raise ConfigurationError(
            f"no key is pinned: none was given or configured, and none of your own fits; {named}",
            hint="ask its owner for the public key (`cert keys show`) and give it with --key "
            "FILE|ed25519:..., or accept and remember the one in the evidence with "
            "--trust-on-first-use",
        )
    return PinnedKey(claims.genesis.key, "first-use", "the evidence alone, on first use")
