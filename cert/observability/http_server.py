"""A small HTTP server in a thread of its own, for what operators ask: metrics and health.

One loop holds all connections, so a client that sends nothing costs a socket and no thread. Above
`MAX_CONNECTIONS` the oldest one without a request is dropped; requests have `receive_timeout_s` to
arrive. An answer ends its connection. Bodies of requests are not read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
MAX_HEAD_BYTES: Final = 100_000
SEND_TIMEOUT_S: Final = 30.0
LINGER_S: Final = 2.0
"""How long what a client is still sending is thrown away, so that the answer is not reset."""
_CHUNK_BYTES: Final = 65_536
_BACKLOG: Final = 512


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request.

    Attributes:
        method: As given, such as `GET`.
        path: Without query.
        headers: By name in lower case; of several of one name, the last.
    """

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        status: HTTP status.
        body: Left out of the answer to a HEAD, but for its length.
        content_type: Of the body.
        headers: Further ones.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Answer | Callable[[], Answer]]
"""Answers at once, or returns what will, which may take its time: each path that does so has one
thread, so that what is slow holds up neither the others nor the loop."""


class HttpServer:
    """A running server. `close()` it.

    Attributes:
        host: The address it is bound to.
        port: The port it listens on, also where 0 was asked for.
    """

    def __init__(
        self, host: str, port: int, handle: Handler, *, receive_timeout_s: float = 10.0
    ) -> None:
        """Listen, and answer from a thread.

        Args:
            host: Address or name to bind.
            port: 0 takes a free one.
            handle: Is asked for every request.
            receive_timeout_s: In which a request's head must have arrived.

        Raises:
            OSError: The address cannot be bound.
        """
        self._socket = _listen(host, port)
        address = self._socket.getsockname()
        self.host = str(address[0])
        self.port = int(address[1])
        self._handle = handle
        self._receive_timeout_s = receive_timeout_s
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._asked: set[asyncio.StreamWriter] = set()
        """Those whose request is there: they are owed an answer."""
        self._workers: dict[str, ThreadPoolExecutor] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="cert-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, drop what is open, and wait for the thread; again does nothing."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # the loop was closed by another call
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            for worker in self._workers.values():
                worker.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._meet, sock=self._socket, limit=_CHUNK_BYTES, backlog=_BACKLOG
        )
        await self._stop.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio leaves it off on a socket that was made elsewhere: 40 ms more for each answer.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._open) >= MAX_CONNECTIONS:
            silent = (one for one in self._open if one not in self._asked)
            oldest = next(silent, next(iter(self._open)))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = self._loop.create_task(self._hold(reader, writer))

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # What a client did to its connection is its own affair.
            with suppress(OSError, TimeoutError):
                await self._converse(reader, writer)
        finally:
            self._open.pop(writer, None)
            self._asked.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        is_head = False
        try:
            async with asyncio.timeout(self._receive_timeout_s):
                request = await _receive(connection, reader)
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            answer = Answer(status, f"{status.phrase}\n".encode())
        else:
            if request is None:
                return
            is_head = request.method == "HEAD"
            self._asked.add(writer)
            answer = await self._answer(request)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            _send(connection, writer, answer, is_head=is_head)
            await writer.drain()
        writer.write_eof()
        self._asked.discard(writer)
        async with asyncio.timeout(LINGER_S):
            while await reader.read(_CHUNK_BYTES):
                pass

    async def _answer(self, request: Request) -> Answer:
        try:
            answer = self._handle(request)
            if isinstance(answer, Answer):
                return answer
            worker = self._workers.get(request.path)
            if worker is None:
                worker = self._workers[request.path] = ThreadPoolExecutor(1, "cert-http-worker")
            return await self._loop.run_in_executor(worker, answer)
        except Exception:
            logger.exception("an answer could not be made")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return Answer(status, f"{status.phrase}\n".encode())


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (address[0], port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except (OSError, UnicodeError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number is not None and number > 0 else str(error)
        raise OSError(number, f"cannot listen on {host}:{port}: {reason}") from error


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """Read a request's head; None where the client went away before its end.

    Raises:
        h11.RemoteProtocolError: It is no HTTP request.
    """
    while (event := connection.next_event()) is h11.NEED_DATA:
        data = await reader.read(_CHUNK_BYTES)
        if not data:
            return None
        connection.receive_data(data)
    if not isinstance(event, h11.Request):
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    path = event.target.decode("latin-1").partition("?")[0]
    return Request(event.method.decode("latin-1"), path, headers)


def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool
) -> None:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        *answer.headers.items(),
    ]
    events: list[h11.Event] = [
        h11.Response(status_code=answer.status, headers=headers, reason=answer.status.phrase)
    ]
    if answer.body and not is_head:
        events.append(h11.Data(answer.body))
    events.append(h11.EndOfMessage())
    writer.write(b"".join(connection.send(one) or b"" for one in events))
