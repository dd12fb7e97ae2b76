"""A password that somebody types."""

from __future__ import annotations

import getpass
import sys

from cert.core.errors import ConfigurationError
from cert.ledger.key_store import PASSWORD_VARIABLE
from cert_cli.terminal import is_live


def ask_twice() -> bytes:
    """Ask for a new password, twice, without showing it.

    Raises:
        ConfigurationError: Nobody is there to type it, it is empty, or the two differ.
    """
    if not is_live(sys.stdin):
        raise ConfigurationError(
            "--password asks for one, and stdin is no terminal",
            hint=f"put it into the environment variable {PASSWORD_VARIABLE}",
        )
    try:
        first = getpass.getpass("password of the new key: ", sys.stderr)
        second = getpass.getpass("once more: ", sys.stderr)
    except EOFError as error:
        raise ConfigurationError("no password was given; no key was made") from error
    if first != second:
        raise ConfigurationError("the two passwords differ; no key was made")
    if not first:
        raise ConfigurationError("the password is empty; no key was made")
    return first.encode()
