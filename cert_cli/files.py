"""Small files that a command writes for somebody else."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError
from cert.ledger.files import write_file

if TYPE_CHECKING:
    from pathlib import Path


def check_target(path: Path) -> None:
    """Look at what an output would replace.

    Raises:
        ConfigurationError: It is no file name, or names something else than a regular file.
    """
    if not path.name:
        raise ConfigurationError(f"-o {path} is no file name", hint="name a file with -o")
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return  # not there, or writing it says what is wrong
    if not stat.S_ISREG(mode):
        raise ConfigurationError(
            f"-o {path} is a link, a folder or a device, which is not replaced",
            hint="name another file with -o, or leave it out and redirect stdout",
        )


def write_output(path: Path, data: bytes, *, ledger: Path) -> None:
    """Write a file at once, in the place of an older one, outside of the ledger.

    Raises:
        ConfigurationError: It cannot be written, or lies in the ledger.
    """
    check_target(path)
    target = path.absolute()
    if ledger.resolve() in target.resolve().parents:
        raise ConfigurationError(
            f"-o {path} is inside of the ledger",
            hint="keep it where whoever can write the ledger cannot",
        )
    try:
        write_file(target, data)
    except OSError as error:
        raise ConfigurationError(
            f"-o {path} cannot be written: {error.strerror}", hint="name another file with -o"
        ) from error
