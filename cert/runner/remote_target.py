"""The URL of a `cert serve`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from cert.core.errors import ConfigurationError
from cert.observability.controls import escape_controls

_PORTS: Final = {"http": 80, "https": 443}
_EXAMPLE: Final = "for example http://127.0.0.1:8000"
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
_SHOWN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is asked.

    Attributes:
        is_tls: Whether the connection is encrypted and the server's certificate verified.
        host: Name or address, without brackets.
        port: TCP port.
        path: What stands before `/v1/...`; empty, or with a leading slash and none at the end.
    """

    is_tls: bool
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self._scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL again; it never held a secret."""
        return f"{self._scheme}://{self.authority}{self.path}"

    @property
    def _scheme(self) -> str:
        return "https" if self.is_tls else "http"


def parse_server_url(url: str) -> Target:
    """Take a server's URL apart.

    >>> parse_server_url("https://cert.example/team/").path
    '/team'

    Raises:
        ConfigurationError: It is no http or https URL, or has credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise _unusable(url, str(error)) from error
    if parts.username is not None or parts.password is not None:
        # Not shown: it holds a secret.
        raise ConfigurationError(
            "the server's URL holds credentials, which end up in logs and process lists",
            hint="leave them out; the bearer token comes from CERT_TOKEN or CERT_TOKEN_FILE",
        )
    if parts.scheme not in _PORTS:
        raise _unusable(url, "it begins with neither http:// nor https://")
    if escape_controls(url) != url or " " in url:
        raise _unusable(url, "it holds white space or control characters")
    if not _HOST.fullmatch(host) or port == 0:
        raise _unusable(url, "there is no host, or no such port")
    if parts.query or parts.fragment:
        raise _unusable(url, "it has a query or a fragment")
    path = quote(parts.path.rstrip("/"), safe="/%~!$&'()*+,;=:@")
    return Target(parts.scheme == "https", host, port or _PORTS[parts.scheme], path)


def _unusable(url: str, reason: str) -> ConfigurationError:
    shown = escape_controls(url)[:_SHOWN_CHARS]
    return ConfigurationError(f"server {shown} cannot be used: {reason}", hint=_EXAMPLE)
