"""Who may ask: loopback alone, or whoever has the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.core.config import CERTConfig

MIN_TOKEN_CHARS: Final = 16
_MAX_TOKEN_BYTES: Final = 4096
_BEARER: Final = "bearer"


def is_loopback(host: str) -> bool:
    """Whether an address to bind reaches this machine alone.

    A name other than `localhost` counts as not: what it means lies with a resolver.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "a.example")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None, *, flag: str) -> None:
    """Refuse to listen to other machines without a token.

    Args:
        host: Address to bind.
        token: What callers will have to show; None for nothing.
        flag: How the address is given, for the hint.

    Raises:
        ConfigurationError: The address is not loopback, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"{flag} {host} lets other machines in, and no token is set",
            hint=f"set --token-file FILE or CERT_TOKEN, or use {flag} 127.0.0.1",
        )


def load_token(config: CERTConfig) -> str | None:
    """The token that the settings name, from the setting itself or from a file.

    Raises:
        ConfigurationError: Both are given, the file cannot be read, or what it holds is no token.
    """
    if config.token_file is None:
        return None if config.token is None else _check_token(config.token, "the setting token")
    if config.token is not None:
        raise ConfigurationError(
            "token and token_file are both set", hint="leave one of them out (cert config show)"
        )
    try:
        with Path(config.token_file).open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"the token file {config.token_file} cannot be read: {reason}",
            hint="name a file that this user can read with --token-file",
        ) from error
    return _check_token(data.decode("latin-1").strip(), f"the token file {config.token_file}")


def shows_token(authorization: str | None, token: str) -> bool:
    """Whether a request's `Authorization` header shows the token; takes the same time if not.

    >>> shows_token("Bearer 0123456789abcdef", "0123456789abcdef"), shows_token(None, "x" * 16)
    (True, False)
    """
    scheme, _, given = (authorization or "").strip().partition(" ")
    # Digests are of one length, so that not even the token's length shows.
    is_same = hmac.compare_digest(_digest(given.strip()), _digest(token))
    return is_same and scheme.lower() == _BEARER


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _check_token(token: str, where: str) -> str:
    is_visible = token.isascii() and token.isprintable() and " " not in token
    if not is_visible or not MIN_TOKEN_CHARS <= len(token) <= _MAX_TOKEN_BYTES:
        raise ConfigurationError(
            f"{where} holds no token: {MIN_TOKEN_CHARS} or more visible ASCII characters",
            hint="make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token
