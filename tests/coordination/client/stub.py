"""A server on loopback that says exactly the bytes it is told, and a clock that never waits."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from cert.coordination.client import AnthropicClient
from cert.coordination.endpoint import ClientConfig
from cert.coordination.protocol import Call, Message, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

KEY = "sk-ant-api03-PLANTED0123456789abcdef"


class Clock:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, wait_s: float) -> None:
        self.slept_s.append(wait_s)
        self.now_s += wait_s
        await asyncio.sleep(0)


@dataclass
class Request:
    """What came in."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Exchange:
    """One request, and the socket to answer it on."""

    request: Request
    writer: asyncio.StreamWriter
    closed: asyncio.Event

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection off, so that the client sees a reset and not an end."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Script: TypeAlias = "Callable[[Exchange], Awaitable[None]]"


@dataclass
class Stub:
    """The server: answers the nth request by the nth script, and by the last one from then on."""

    scripts: list[Script]
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        closed = asyncio.Event()
        try:
            while True:
                request = await _read_request(reader)
                script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                self.requests.append(request)
                exchange = Exchange(request, writer, closed)
                answering = asyncio.ensure_future(script(exchange))
                # An answer that stalls ends with its client.
                waiting = asyncio.ensure_future(_until_gone(reader, writer))
                await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                answering.cancel()
                for task in (waiting, answering):
                    with suppress(asyncio.CancelledError, OSError):
                        await task
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            self.open_now -= 1
            writer.close()


async def _until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof() and not writer.is_closing():  # noqa: ASYNC110 - streams have no event
        await asyncio.sleep(0.01)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.strip().split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, json.loads(body) if body else {})


@asynccontextmanager
async def stub(*scripts: Script) -> AsyncIterator[Stub]:
    server = Stub(list(scripts))
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def message(**changes: object) -> dict[str, Any]:
    """A message as the API sends it; a change to ... leaves the field out."""
    document = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "model-x-1",
        "content": [{"type": "text", "text": "42"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    } | changes
    return {name: value for name, value in document.items() if value is not ...}


def error_body(kind: str, words: str = "no", code: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": words}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


def raw(
    body: bytes,
    *,
    status: int = 200,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> bytes:
    """An answer's bytes; `length` lies about the body's."""
    lines = [
        f"HTTP/1.1 {status} Word",
        f"content-type: {kind}",
        "request-id: req_1",
        f"content-length: {len(body) if length is None else length}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(data: bytes) -> Script:
    """A script that sends these bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(data)

    return script


def says_and_closes(data: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.close()

    return script


def says_and_resets(data: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        await asyncio.sleep(0.02)  # the bytes must be read before the reset discards them
        exchange.reset()

    return script


def replies(**changes: object) -> Script:
    return says(raw(json.dumps(message(**changes)).encode()))


def fails(
    status: int,
    kind: str,
    words: str = "no",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Script:
    body = json.dumps(error_body(kind, words, code)).encode()
    return says(raw(body, status=status, headers=headers))


def events(*documents: Mapping[str, object]) -> bytes:
    """Server-sent events, by the type that each document has."""
    return b"".join(
        f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in documents
    )


def streamed(body: bytes) -> bytes:
    """An answer that ends with its last chunk."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\n"
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"


START = {
    "type": "message_start",
    "message": message(content=[], stop_reason=None)
    | {"usage": {"input_tokens": 10, "output_tokens": 1}},
}
BLOCK = {
    "type": "content_block_start",
    "index": 0,
    "content_block": {"type": "text", "text": ""},
}
END_BLOCK = {"type": "content_block_stop", "index": 0}
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 5},
}
STOP = {"type": "message_stop"}


def part(text: str) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }


def call(**changes: object) -> Call:
    return Call(
        **(
            {
                "key": "t/a/0/0/0",
                "model": "model-x",
                "messages": (Message(Role.USER, "How much?"),),
                "max_tokens": 100,
                "timeout_s": 20.0,
            }
            | changes
        )
    )


@asynccontextmanager
async def client(
    server: Stub,
    *,
    clock: Clock | None = None,
    config: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - the client's own
) -> AsyncIterator[AnthropicClient]:
    """A client of the server, whose waits are over at once."""
    clock = Clock() if clock is None else clock
    given = ClientConfig(**({"base_url": server.url, "api_key": KEY} | dict(config or {})))
    built = AnthropicClient(
        given,
        clock=clock,
        sleep=clock.sleep,
        uniform=lambda low, high: high,
        **options,
    )
    try:
        yield built
    finally:
        await built.aclose()
