"""Passing a ledger on to another key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.core.places import keys_folder
from cert.ledger.appender import open_ledger
from cert.ledger.key_source import keys_of
from cert.ledger.key_store import GivenKey, KeyStore, password_from_environment

if TYPE_CHECKING:
    from pathlib import Path

    from cert.core.config import CERTConfig
    from cert.ledger.keys import PublicKey


def rotate(folder: Path, config: CERTConfig, to: Path | None) -> tuple[PublicKey, str]:
    """Pass a ledger on to another key.

    Args:
        folder: The ledger's.
        config: Says where keys are.
        to: File of the new private key; None is the current key, or a new one where the ledger is
            signed by that already.

    Returns:
        The new key, and in words what was done.

    Raises:
        SigningKeyError: The key in force is not here, or is the new one.
        LedgerError: The ledger cannot be written.
    """
    keys = keys_of(config)
    store = KeyStore(keys_folder(config.keys))
    with open_ledger(folder, keys) as ledger:
        old = keys.find(ledger.key).public
        if to is not None:
            signer, where = GivenKey.load(str(to)).default(), str(to)
        else:
            current = store.current()
            if current is None or current == old:
                signer = store.create(password_from_environment())
            else:
                signer = store.find(current)
            where = str(store.path_of(signer.public))
        entry = ledger.rotate(signer)
    words = (
        f"record {entry.seq} passes {ledger.origin} on from {old.text} to {signer.public.text}, "
        f"whose private half is {where}"
    )
    if to is not None or config.signing_key is not None:
        words += "; whatever writes to this ledger needs CERT_SIGNING_KEY to name that file now"
    return signer.public, words
