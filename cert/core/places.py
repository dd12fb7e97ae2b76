"""Where a user's own files are, unless a setting says otherwise."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def ledger_folder(setting: str) -> Path | None:
    """The folder that the setting `ledger` means; None for no ledger.

    >>> ledger_folder("none") is None, ledger_folder("./none")
    (True, PosixPath('none'))
    """
    if setting == "none":
        return None
    if setting == "auto":
        return platformdirs.user_state_path("cert", appauthor=False) / "ledger"
    return Path(setting)


def keys_folder(setting: str | None) -> Path:
    """The folder that the setting `keys` means; never inside a ledger."""
    if setting is None:
        return platformdirs.user_config_path("cert", appauthor=False) / "keys"
    return Path(setting)


def known_keys_file() -> Path:
    """Where keys that were trusted on first use are remembered."""
    return platformdirs.user_config_path("cert", appauthor=False) / "known-keys.json"
