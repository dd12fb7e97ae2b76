"""A server with /v1/messages on loopback, whose agents are as able as a test wants them to be."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Answer = Callable[[dict[str, Any]], str | tuple[int, dict[str, Any], dict[str, str]]]

_SUM = re.compile(r"What is (\d+) \+ (\d+)\?")


def write_tasks(path: Path, count: int) -> Path:
    """Sums with known answers, each in a group of its own."""
    rows = [
        {
            "id": f"sum-{n}",
            "prompt": f"What is {n} + {n + 1}?",
            "label": str(2 * n + 1),
            "evaluator": "numeric",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass
class Ability:
    """Answers sums, rightly as often as it is told to; the same again in the same order of calls.

    There is one wrong answer to each, so that at one half a vote is right half the time, too.

    Attributes:
        alone: Share of right answers to a task as it stands.
        together: The same where the prompt holds what others answered.
    """

    alone: float
    together: float
    asked: Counter[str] = field(default_factory=Counter)

    def __call__(self, body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        found = _SUM.search(prompt)
        assert found is not None
        right = int(found[1]) + int(found[2])
        self.asked[prompt] += 1
        draw = hashlib.sha256(f"{self.asked[prompt]}{prompt}".encode()).digest()
        share = self.together if "<data-" in prompt else self.alone
        is_right = int.from_bytes(draw[:4], "big") < share * 2**32
        return f"Let me see.\nANSWER: {right if is_right else right + 1}"


@dataclass
class MessagesServer:
    """Serves while its context lasts.

    Attributes:
        answer: From a request's body to the reply's text, or to status, body and headers.
        bodies: Every request's body, in order of arrival.
        headers: Every request's headers, by lower-case name.
    """

    answer: Answer
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # an answer in two pieces would wait for an acknowledgement

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                said = outer.answer(body)
                if isinstance(said, str):
                    said = 200, message(said, body), {}
                status, document, headers = said
                data = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "content-type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ValueError):  # a client that was killed in the middle
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


def message(text: str, body: dict[str, Any]) -> dict[str, Any]:
    """A reply of the Messages API; a token is four characters."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": f"{body['model']}-1",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(body["messages"][-1]["content"]) // 4,
            "output_tokens": len(text) // 4,
        },
    }


def error(kind: str, text: str = "planted") -> dict[str, Any]:
    """An error of the Messages API."""
    return {"type": "error", "error": {"type": kind, "message": text}}
