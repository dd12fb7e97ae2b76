"""Which keys a configuration means: the one that was given, else those of the user's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.core.places import keys_folder
from cert.ledger.key_store import GivenKey, KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.core.config import CERTConfig
    from cert.ledger.keys import Signer
    from cert.ledger.writer import Keys


def keys_of(config: CERTConfig, *, created: Callable[[Signer], None] = lambda _: None) -> Keys:
    """Find the signing keys.

    Args:
        config: `signing_key` wins over `keys`.
        created: Told of a key that is made because there is none.

    Raises:
        SigningKeyError: The given key cannot be read.
    """
    if config.signing_key is not None:
        return GivenKey.load(config.signing_key)
    return KeyStore(keys_folder(config.keys), created=created)
