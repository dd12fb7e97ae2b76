"""Small files that a command writes for somebody else."""

from __future__ import annotations

from pathlib import Path

from cert.core.errors import ConfigurationError
from cert.ledger.files import write_file


def write_output(path: Path, data: bytes, *, ledger: Path) -> None:
    """Write a file at once, in the place of an older one, outside of the ledger.

    Raises:
        ConfigurationError: It cannot be written, or lies in the ledger.
    """
    target = Path(path).absolute()
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
