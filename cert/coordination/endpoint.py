"""Where the client's server is and what it is asked with: checked before anything is sent.

Nothing comes from the environment or from other programs' files unless the configuration asks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from cert.core.errors import ConfigurationError

KEY_VARIABLE = "ANTHROPIC_API_KEY"

_MAX_KEY_CHARS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How the client is set up.

    Attributes:
        api_key: Sent as a bearer token; None sends none.
        is_key_from_environment: Whether ANTHROPIC_API_KEY is used where `api_key` is None.
        base_url: Where `/v1/messages` is; None is Anthropic's own, which needs a key. A local
            server (vLLM, llama.cpp, Ollama, LM Studio, SGLang) needs none.
        api_version: Sent as `anthropic-version`; None is the SDK's own.
        proxy: URL of a proxy for all requests; None is none, whatever HTTP_PROXY says.
        is_streamed: Whether replies come as streams; for servers and proxies that cut a connection
            on which nothing moves.
        initial_concurrency: Calls in flight at first, per model; >= 1.
        max_concurrency: Calls in flight at most, per model; >= `initial_concurrency`.
    """

    api_key: str | None = field(default=None, repr=False)
    is_key_from_environment: bool = False
    base_url: str | None = None
    api_version: str | None = None
    proxy: str | None = field(default=None, repr=False)
    is_streamed: bool = False
    initial_concurrency: int = 4
    max_concurrency: int = 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that can be asked."""

    base_url: str
    api_key: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """Texts that must show nowhere."""


def resolve_endpoint(config: ClientConfig, *, default_base_url: str) -> Endpoint:
    """Check a configuration, and find the key where it says so.

    Raises:
        ConfigurationError: There is neither a key nor a base URL, or a value is wrong. No message
            shows a key, or a URL that may hold one.
    """
    if not 1 <= config.initial_concurrency <= config.max_concurrency:
        raise ConfigurationError(
            "1 <= initial_concurrency <= max_concurrency, got"
            f" {config.initial_concurrency} and {config.max_concurrency}"
        )
    key = config.api_key
    if key is None and config.is_key_from_environment:
        key = os.environ.get(KEY_VARIABLE) or None
    if key is None and config.base_url is None:
        raise ConfigurationError(
            "there is neither a key nor the address of a server",
            hint=f"export {KEY_VARIABLE}=... and ask for it, or give --base-url of a server that"
            " needs no key, for example http://127.0.0.1:8000",
        )
    if key is not None:
        key = _checked(key.strip(), "the key", _MAX_KEY_CHARS)
    if config.api_version is not None:
        _checked(config.api_version, "the API version", 64)
    base_url = default_base_url if config.base_url is None else _base_url(config.base_url)
    secrets = [key or ""]
    if config.proxy is not None:
        secrets += _credentials(config.proxy)
    return Endpoint(base_url, key, tuple(one for one in secrets if one))


def _checked(value: str, what: str, max_chars: int) -> str:
    """Return a value that may stand in a header."""
    is_visible = value.isascii() and value.isprintable() and " " not in value
    if not value or len(value) > max_chars or not is_visible:
        raise ConfigurationError(
            f"{what} is 1 to {max_chars} visible ASCII characters without blanks"
        )
    return value


def _base_url(url: str) -> str:
    hint = "for example http://127.0.0.1:8000; the key has its own option"
    try:
        parts = urlsplit(url)
        has_host, has_user = bool(parts.hostname), "@" in parts.netloc
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        has_host = has_user = is_port = False
    if (
        not (has_host and is_port)
        or has_user
        or parts.scheme not in {"http", "https"}
        or parts.query
        or parts.fragment
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise ConfigurationError(
            "the base URL is http:// or https:// with a host and nothing secret in it", hint=hint
        )
    return url.rstrip("/")


def _credentials(proxy: str) -> list[str]:
    try:
        password = urlsplit(proxy).password
    except ValueError:
        return []
    return [] if password is None else [password, unquote(password)]
