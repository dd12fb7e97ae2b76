"""The wire under the SDK: bounded answers, nothing compressed, and only the headers of ours.

Needs the extra `coordination`; imported when a client is built.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import httpx2

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

MAX_REPLY_BYTES = 8 * 2**20
# An error needs a few words; the SDK makes a text of all of it.
MAX_ERROR_BYTES = 64 * 2**10
CONNECT_TIMEOUT_S = 10.0

_FIRST_ERROR = 300
# `x-stainless-*` stays: the SDK reads its own marks back from the request.
_KEPT = frozenset({"host", "accept", "content-type", "content-length", "user-agent", "connection"})
_KEPT_PREFIX = "x-stainless-"


class ReplyTooLargeError(httpx2.TransportError):
    """The answer is longer than `MAX_REPLY_BYTES`."""


class CompressedReplyError(httpx2.TransportError):
    """The answer is compressed though that was ruled out: its size cannot be known."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Reading the certificates takes longer than a call on loopback, so it is done once."""
    return httpx2.create_ssl_context(trust_env=False)


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Sends what our headers say, and reads no more than is allowed."""

    def __init__(self, *, headers: dict[str, str], max_idle: int, proxy: str | None = None) -> None:
        """Keep the headers that every request has, and no other request may have."""
        super().__init__(
            verify=_tls_context(),
            trust_env=False,
            proxy=proxy,
            # How many are open is decided above, where waiting does not count against a deadline.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=max_idle),
        )
        self._headers = headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the answer's body is bounded while it is read."""
        for name in list(request.headers):
            # Variables such as ANTHROPIC_CUSTOM_HEADERS and cookies get no say.
            if name not in _KEPT and not name.startswith(_KEPT_PREFIX):
                del request.headers[name]
        request.headers.update(self._headers)
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            await response.aclose()
            raise CompressedReplyError("the answer is compressed", request=request)
        response.stream = _BoundedStream(
            cast("httpx2.AsyncByteStream", response.stream),
            request,
            is_error=response.status_code >= _FIRST_ERROR,
        )
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends with an error where it is too long; one of an error just ends."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, request: httpx2.Request, *, is_error: bool
    ) -> None:
        self._stream = stream
        self._request = request
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BYTES if self._is_error else MAX_REPLY_BYTES
        async for chunk in self._stream:
            if len(chunk) > left:
                if not self._is_error:
                    raise ReplyTooLargeError("the answer is too long", request=self._request)
                yield chunk[:left]
                return
            left -= len(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def build_http_client(
    *, headers: dict[str, str], max_idle: int, proxy: str | None
) -> httpx2.AsyncClient:
    """Build the HTTP client for the SDK. It reads neither proxies nor anything else from outside.

    Args:
        headers: Sent with every request.
        max_idle: Connections kept open while nothing is asked.
        proxy: URL of a proxy; None is none, whatever the environment says.

    Raises:
        ConfigurationError: The proxy's URL is none.
    """
    try:
        transport = BoundedTransport(headers=headers, max_idle=max_idle, proxy=proxy)
    except (ValueError, httpx2.InvalidURL, ImportError):
        # Not chained: the reason may quote the URL, and that may hold a password.
        transport = None
    if transport is None:
        raise ConfigurationError("the proxy is no URL of an HTTP proxy", hint="http://HOST:PORT")
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        # Reading has no limit here: the deadline of the call is one for all of it.
        timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
    )
