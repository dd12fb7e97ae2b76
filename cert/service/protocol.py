"""uvicorn's HTTP/1.1 protocol (h11), with the deadlines and limits that it lacks.

- A request's head must have arrived `receive_timeout_s` after the connection was made, or after
  its first byte on a connection that is used again; else 408, and the connection is closed.
- A head larger than `MAX_HEAD_BYTES` is answered 431, a malformed one 400, as problems in JSON.
- A client that takes nothing of its answer for `STALL_S` loses the connection.
- Of more than `max_connections`, the one that has been without a request for longest is dropped,
  so that half-open sockets keep nobody out.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cert.service.link import Link
from cert.service.problems import PROBLEM_JSON, encode_problem

if TYPE_CHECKING:
    import asyncio

    from uvicorn.server import ServerState

MAX_HEAD_BYTES: Final = 64 * 1024
STALL_S: Final = 60.0

_ANSWERABLE = (h11.IDLE, h11.SEND_RESPONSE)
_COMPLETE = (h11.DONE, h11.IDLE, h11.MUST_CLOSE, h11.CLOSED)


def build_protocol(*, receive_timeout_s: float, max_connections: int) -> type[asyncio.Protocol]:
    """Make the protocol of one server.

    Args:
        receive_timeout_s: Seconds in which a request's head must have arrived.
        max_connections: More of them push out those without a request.
    """
    values = {
        "receive_timeout_s": receive_timeout_s,
        "max_connections": max_connections,
        "idle": {},
    }
    return cast("type[asyncio.Protocol]", type("Protocol", (_Protocol,), values))


class _Protocol(H11Protocol):
    """One connection."""

    receive_timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    idle: ClassVar[dict[_Protocol, None]]
    """Connections without a request, the oldest first."""

    server_state: ServerState
    _link: Link
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _has_bytes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        # asyncio does so only for sockets that name TCP as their protocol; without it, an answer of
        # two writes waits for the client's delayed acknowledgement, 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link = Link(transport, self._has_input, self.loop)
        super().connection_made(self._link)
        self._await_head()
        if len(self.connections) > self.max_connections:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest._link.abort()  # noqa: SLF001 - of its own class

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        self._stop_stall_timer()
        self._link.finish()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._link.is_lingering:
            return
        if not self._is_in_request():
            self._await_head()
            self._has_bytes = True
        super().data_received(data)
        if self._is_in_request():
            self._head_arrived()

    def eof_received(self) -> None:
        if self._link.is_lingering:
            self._link.finish()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._link.is_closing() and not self._is_in_request():
            self.idle[self] = None

    def shutdown(self) -> None:
        # h11 has nothing to say on a connection that broke its rules.
        with suppress(h11.LocalProtocolError):
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_S, self._link.abort)

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 refuses; called by uvicorn while it handles h11's error."""
        error = sys.exc_info()[1]
        status = HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))
        self._refuse(status, f"{msg} {error}" if error is not None else msg)

    def _is_in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _has_input(self) -> bool:
        return self.conn.their_state not in _COMPLETE

    def _await_head(self) -> None:
        self.idle.setdefault(self)
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.receive_timeout_s, self._give_up)

    def _head_arrived(self) -> None:
        self.idle.pop(self, None)
        self._has_bytes = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _give_up(self) -> None:
        if self._has_bytes:
            seconds = f"{self.receive_timeout_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no request came within {seconds}")
        else:
            self._link.close()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer in place of the application, and close."""
        if self.conn.our_state in _ANSWERABLE and not self._link.is_closing():
            body = encode_problem(status, detail)
            headers = [
                ("content-type", PROBLEM_JSON),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self._link.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            # Whoever works on it learns that nobody waits for an answer any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._link.close()
