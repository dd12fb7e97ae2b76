"""Settings of the commands that run no model, and the ledger that they mean."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cert.core.config import CERTConfig
from cert.core.errors import ConfigurationError
from cert.core.places import ledger_folder
from cert.ledger.reader import list_segments

if TYPE_CHECKING:
    from pathlib import Path


def load_settings(config_file: Path | None, **given: object) -> CERTConfig:
    """Read the settings, and let warnings go to stderr.

    Args:
        config_file: Of --config.
        given: Flags by name of the setting; None where one was not given.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    config = CERTConfig.load(given, config_file=config_file)
    quieter = {"log_level": "WARNING", "log_format": "human"}
    origins = config.origins()
    unset = {name: value for name, value in quieter.items() if origins[name] == "default"}
    config.model_copy(update=unset).apply(stream=sys.stderr)
    return config


def find_folder(given: Path | None, config: CERTConfig) -> Path:
    """The ledger's folder: the one that was given, else the configured one.

    Raises:
        ConfigurationError: Neither is there.
    """
    folder = given if given is not None else ledger_folder(config.ledger)
    if folder is None:
        raise ConfigurationError(
            "no ledger was named, and the setting `ledger` is none",
            hint="give the ledger's folder",
        )
    if not os.path.lexists(folder):
        words = "there is no ledger" if given is not None else "there is no ledger yet"
        raise ConfigurationError(
            f"{words}: {folder} does not exist",
            hint="give the folder that holds segments/ and checkpoints/",
        )
    return folder


def find_ledger(given: Path | None, config: CERTConfig) -> Path:
    """The folder of a ledger that has begun.

    Raises:
        ConfigurationError: There is none.
    """
    folder = find_folder(given, config)
    try:
        has_begun = bool(list_segments(folder))
    except OSError as error:
        raise ConfigurationError(f"ledger {folder} cannot be read: {error.strerror}") from error
    if not has_begun:
        raise ConfigurationError(
            f"{folder} is no ledger: it holds no records",
            hint="give the folder that holds segments/ and checkpoints/",
        )
    return folder
