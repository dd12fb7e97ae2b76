"""A `cert serve` made of a socket, h11 and a fake model, which can be told to misbehave."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec

from cert.assessment.policy import Policy
from cert.backends.protocol import SamplingParams
from cert.inputs.case import PromptCase, RefusedInput
from cert.runner.pipeline import RunSettings, run_cases
from cert.runner.token_pieces import split_tokens
from tests.runner.helpers import engine

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

Reply = tuple[int, dict[str, str], bytes]
SAMPLING: dict[str, Any] = {
    "max_new_tokens": 3,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": None,
    "stop": [],
}


class HangUpError(Exception):
    """Close the connection without another byte."""


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    beats: int = 0
    is_complete: bool = False


@dataclass
class FakeServer:
    """Serves on loopback while its context lasts.

    Attributes:
        info: What GET /v1/server adds or changes.
        replies: Given, in this order, to requests of a path instead of the usual answer.
        twist: Changes the answer to a line of a batch: number from 0, the record's line, what is
            sent. It may raise `HangUpError`.
        last: Whether the last chunk is sent.
        extra: Sent after the last record.
        asked: Every request, in order.
    """

    info: dict[str, Any] = field(default_factory=dict)
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    twist: Callable[[int, bytes], bytes] = lambda _, line: line + b"\n"
    last: bool = True
    extra: bytes = b""
    backend: dict[str, Any] = field(default_factory=dict)
    content: str = "full"
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._engine, self._backend = self._stack.enter_context(engine(**self.backend))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._stack.close()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def digest(self) -> str:
        return self._backend.identity.digest

    def batches(self) -> list[Asked]:
        return [one for one in self.asked if one.path == "/v1/batch"]

    def describe(self) -> dict[str, Any]:
        return {
            "cert": "4.0.0",
            "model": {"name": "fake", "digest": self.digest},
            "policy": {"id": self._engine.policy.id, "digest": self._engine.policy.digest},
            "content": self.content,
            "ledger": True,
            "sampling": SAMPLING,
            "limits": {"max_body_bytes": 100_000, "max_prompt_chars": 100_000},
            **self.info,
        }

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, h11.ProtocolError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            with connection:
                _Conversation(self, connection).run()

    def record(self, case: PromptCase | RefusedInput, asked: Asked) -> bytes:
        """What the real one would answer."""
        given: dict[str, object] = dict(asked.query)
        if stops := tuple(value for name, value in asked.query if name == "stop"):
            given["stop"] = stops
        known = {name: value for name, value in given.items() if name in SAMPLING}
        settings = RunSettings(
            run_id="served",
            sampling=msgspec.convert({**SAMPLING, **known}, SamplingParams, strict=False),
            content=self.content,
            in_flight=1,
            policy=policy_of(asked),
        )
        (outcome,) = run_cases(iter([case]), self._engine, settings)
        return outcome.line

    def pieces(self, token_ids: list[int]) -> list[str]:
        return split_tokens(self._backend.decode, token_ids)


class _Conversation:
    """One request on one connection."""

    def __init__(self, server: FakeServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._state = h11.Connection(h11.SERVER)

    def run(self) -> None:
        try:
            self._answer()
        except HangUpError:
            # Closed with something unread, it would be reset, and what it sent lost on the way.
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(65536):
                pass

    def _answer(self) -> None:
        request = self._next()
        assert isinstance(request, h11.Request)
        url = urlsplit(request.target.decode())
        asked = Asked(
            request.method.decode(),
            url.path,
            parse_qsl(url.query, keep_blank_values=True),
            {name.decode(): value.decode() for name, value in request.headers},
        )
        self._server.asked.append(asked)
        if replies := self._server.replies.get(url.path):
            self._reply(*replies.pop(0))
        elif url.path == "/v1/batch":
            self._batch(asked)
        elif url.path == "/v1/tokens":
            ids = json.loads(self._body())["token_ids"]
            self._reply(200, {}, json.dumps({"pieces": self._server.pieces(ids)}).encode())
        elif url.path == "/v1/server":
            self._reply(200, {}, json.dumps(self._server.describe()).encode())
        else:
            self._reply(404, {}, b"")

    def _batch(self, asked: Asked) -> None:
        if asked.headers.get("expect"):
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        self._send(
            h11.Response(status_code=200, headers=[("content-type", "application/x-ndjson")])
        )
        pending = b""
        while isinstance(event := self._next(), h11.Data):
            *lines, pending = (pending + event.data).split(b"\n")
            for line in lines:
                if not line:
                    asked.beats += 1
                    continue
                said = json.loads(line)
                asked.lines.append(said)
                made = self._server.record(case_of(said), asked)
                self._send(h11.Data(data=self._server.twist(len(asked.lines) - 1, made)))
        asked.is_complete = isinstance(event, h11.EndOfMessage)
        if self._server.extra:
            self._send(h11.Data(data=self._server.extra))
        if self._server.last:
            self._send(h11.EndOfMessage())

    def _body(self) -> bytes:
        body = b""
        while isinstance(event := self._next(), h11.Data):
            body += event.data
        return body

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        every = [*headers.items(), ("content-length", str(len(body)))]
        self._send(h11.Response(status_code=status, headers=every))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        if data := self._state.send(event):
            self._connection.sendall(data)

    def _next(self) -> h11.Event:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(self._connection.recv(65536))
        return event  # type: ignore[return-value]


def policy_of(asked: Asked) -> Policy | None:
    if "cert-policy" not in asked.headers:
        return None
    return msgspec.json.decode(base64.b64decode(asked.headers["cert-policy"]), type=Policy)


def case_of(said: dict[str, Any]) -> PromptCase | RefusedInput:
    """A line of a batch, as docs/http-api.md says it."""
    source, line = said["input"]["source"], said["input"]["line"]
    if "refused" in said:
        return RefusedInput(source, line, said["refused"]["type"], said["refused"]["message"])
    return msgspec.convert(
        {"text": said["prompt"], "source": source, "line": line}
        | {name: said[name] for name in ("id", "response", "group", "label") if name in said},
        PromptCase,
    )
