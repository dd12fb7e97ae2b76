"""Bodies of requests: a whole one within limits, and a batch's, read while it arrives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from cert.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import Receive

_AHEAD_BYTES: Final = 256 * 1024


class ClientGoneError(Exception):
    """Nobody waits for an answer any more."""


class LateBodyError(Exception):
    """The next line of a batch did not come in time."""


async def read_body(request: Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """Read a whole body.

    Raises:
        Problem: It is larger than the limit, or was not there in time.
        ClientGoneError: The client left before it was complete.
    """
    too_large = Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit_bytes} bytes"
    )
    if int(request.headers.get("content-length", "0")) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise too_large
    except TimeoutError as error:
        detail = f"the body did not arrive within {timeout_s:g} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail) from error
    except ClientDisconnect as error:
        raise ClientGoneError from error
    return bytes(body)


async def wait_until_gone(receive: Receive) -> None:
    """Wait until the client of a request whose body was read is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class BatchBody:
    """A body that a thread reads while the event loop receives it.

    At most some hundred kilobytes are held; the client waits until the reader has taken them.

    Args:
        receive: The request's.
        idle_s: Seconds that a line may take while nothing of the batch is being worked on.
    """

    def __init__(self, receive: Receive, *, idle_s: float) -> None:
        self._receive = receive
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._filled = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_complete = False
        self._error: Exception | None = None
        self._line_at = time.monotonic()

    @property
    def is_gone(self) -> bool:
        """Whether the client left."""
        return isinstance(self._error, ClientGoneError)

    def read(self) -> bytes:
        """Take the next bytes, none at the end; for the thread that reads lines.

        Raises:
            ClientGoneError: The client left before the end, or nothing more is wanted.
            LateBodyError: A line took too long.
        """
        with self._filled:
            while not (self._chunks or self._is_complete or self._error):
                self._filled.wait()
            if self._error is not None:
                raise self._error
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            self._held_bytes -= len(chunk)
        self._loop.call_soon_threadsafe(self._room.set)
        return chunk

    async def pump(self) -> None:
        """Receive until the client is gone, or the task is cancelled."""
        while (message := await self._receive())["type"] == "http.request":
            if chunk := message.get("body", b""):
                if b"\n" in chunk:
                    self._line_at = time.monotonic()
                with self._filled:
                    self._chunks.append(chunk)
                    self._held_bytes += len(chunk)
                    self._filled.notify()
            if not message.get("more_body", False):
                with self._filled:
                    self._is_complete = True
                    self._filled.notify()
            while self._held_bytes > _AHEAD_BYTES:
                self._room.clear()
                await self._room.wait()
        self.fail(ClientGoneError())

    async def watch(self, is_busy: Callable[[], bool]) -> None:
        """Fail once a line takes too long; to be cancelled.

        Args:
            is_busy: Whether something of the batch is being worked on, which stops the clock.
        """
        while not (self._is_complete or self._error):
            if is_busy():
                self._line_at = time.monotonic()
            elif time.monotonic() - self._line_at > self._idle_s:
                self.fail(LateBodyError(f"no line came within {self._idle_s:g} s"))
            await asyncio.sleep(self._idle_s / 20)

    def fail(self, error: Exception) -> None:
        """Let the reader end."""
        with self._filled:
            self._error = self._error or error
            self._filled.notify()
