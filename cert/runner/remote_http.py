"""HTTP/1.1 to one server: h11 over asyncio's streams.

One request a connection. Redirects are not followed and proxies not used, whatever the environment
says: a prompt goes to the server that was named, and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import h11

from cert import __version__
from cert.runner.remote_errors import (
    ServerLostError,
    ServerUnavailableError,
    error_of_status,
    not_a_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from cert.runner.remote_target import Target

CONNECT_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 1 << 16
_MAX_HEAD_BYTES: Final = 1 << 16
_MAX_BODY_BYTES: Final = 16 << 20
_CLOSE_S: Final = 1.0
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)
"""A host that is gone is noticed after a minute; how long a prompt takes, nobody can say."""


class Link:
    """One connection, for one request and its answer. Sending and receiving may go on at once."""

    def __init__(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self.is_continued = asyncio.Event()
        """Whether the server wants the body: it said `100 Continue`, or answers already."""

    async def send(self, event: h11.Event) -> None:
        """Send a part of the request, and wait until the connection takes more.

        Raises:
            OSError: The connection is gone; what the server said before may still be received.
        """
        data = self._state.send(event)
        if data:
            self._writer.write(data)
        await self._writer.drain()

    async def next_event(self) -> h11.Event:
        """Receive the next part of the answer.

        Raises:
            ServerLostError: The connection ended before the answer did.
            ServerRefusedError: What came is no HTTP.
        """
        while True:
            try:
                event = self._state.next_event()
                if event is h11.NEED_DATA:
                    self._state.receive_data(await self._reader.read(_READ_BYTES))
                    continue
            except h11.RemoteProtocolError as error:
                if self._reader.at_eof():
                    raise self.lost("before its answer was complete") from error
                raise not_a_server(self._target, f"it speaks no HTTP/1.1 ({error})") from error
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise self.lost(f"before its answer was complete ({reason})") from error
            if isinstance(event, h11.InformationalResponse):
                self.is_continued.set()
                continue
            return event  # type: ignore[return-value]  # h11.PAUSED: only servers get it

    async def response(self) -> h11.Response:
        """Receive the head of the answer.

        Raises:
            ServerLostError: None came.
        """
        event = await self.next_event()
        if not isinstance(event, h11.Response):
            raise self.lost("without an answer")
        return event

    async def body(self) -> bytes:
        """Receive the rest of a short answer.

        Raises:
            ServerLostError: The connection ended before it, or it is not short.
        """
        body = bytearray()
        while isinstance(event := await self.next_event(), h11.Data):
            body += event.data
            if len(body) > _MAX_BODY_BYTES:
                raise self.lost("after an answer that is far too long")
        return bytes(body)

    async def fail(self, response: h11.Response) -> None:
        """Raise what an answer says that is none of success.

        Raises:
            ConfigurationError, ServerUnavailableError: As `error_of_status`.
        """
        try:
            body = await self.body()
        except ServerLostError:
            body = b""  # the status says enough
        raise error_of_status(self._target, response.status_code, headers_of(response), body)

    def lost(self, how: str) -> ServerLostError:
        """Build the error for a connection that ended too early."""
        return ServerLostError(
            f"the connection to {self._target.url} ended {how}",
            hint="see the server's log; an -o file is continued by the same command",
        )


@asynccontextmanager
async def open_link(target: Target) -> AsyncIterator[Link]:
    """Connect, and close at the end.

    Raises:
        ServerUnavailableError: It cannot be reached, or its certificate is not trusted.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                target.host,
                target.port,
                ssl=ssl.create_default_context() if target.is_tls else None,
                limit=_READ_BYTES,
            )
    except TimeoutError as error:
        raise _unreachable(target, f"no answer within {CONNECT_TIMEOUT_S:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise ServerUnavailableError(
            f"the certificate of {target.url} is not trusted: {error.verify_message}",
            hint="name the file of its authority in SSL_CERT_FILE",
        ) from error
    except ssl.SSLError as error:
        raise _unreachable(target, f"no TLS there ({error.reason})") from error
    except OSError as error:
        raise _unreachable(target, error.strerror or str(error)) from error
    _keep_alive(writer)
    try:
        yield Link(target, reader, writer)
    except BaseException:
        writer.transport.abort()  # whoever is on the other end may never read what is left
        raise
    else:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await writer.wait_closed()


async def exchange(  # noqa: PLR0913 - the parts of a request
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    body: bytes = b"",
    timeout_s: float,
) -> bytes:
    """Send a short request and receive its short answer.

    Raises:
        ConfigurationError: It is refused.
        ServerUnavailableError: It cannot be had, or not in time.
    """
    try:
        async with asyncio.timeout(timeout_s), open_link(target) as link:
            sized = {**headers, "content-length": str(len(body))} if body else headers
            with suppress(OSError):  # the answer tells more
                await link.send(build_request(target, method, path, sized))
                if body:
                    await link.send(h11.Data(data=body))
                await link.send(h11.EndOfMessage())
            response = await link.response()
            if response.status_code != 200:  # noqa: PLR2004 - success
                await link.fail(response)
            return await link.body()
    except TimeoutError as error:
        raise _unreachable(target, f"no answer within {timeout_s:g} s") from error


def build_request(
    target: Target, method: str, path: str, headers: Mapping[str, str]
) -> h11.Request:
    """Build the head of a request."""
    every = {
        "host": target.authority,
        "user-agent": f"cert/{__version__}",
        "accept-encoding": "identity",
        "connection": "close",
        **headers,
    }
    return h11.Request(method=method, target=f"{target.path}{path}", headers=list(every.items()))


def headers_of(response: h11.Response) -> dict[str, str]:
    """The headers of an answer, by lower-case name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}


def _unreachable(target: Target, reason: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"{target.url} cannot be reached: {reason}",
        hint="is `cert serve` running there? --server and CERT_SERVER name another",
    )


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    for level, name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):
                connection.setsockopt(level, option, value)
