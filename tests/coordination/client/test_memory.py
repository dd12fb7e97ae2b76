"""What a server sends does not decide how much memory the client takes."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

pytest.importorskip("anthropic")

# The limit of the design, for a whole process: interpreter, SDK and all.
MAX_RSS_BYTES = 150 * 2**20

_CLIENT = """
import asyncio, json, resource, sys
from cert.coordination.client import AnthropicClient
from cert.coordination.endpoint import ClientConfig
from cert.coordination.protocol import Call, CallError, Message, Role

# Reading the whole of it fails here, and not only in a figure.
resource.setrlimit(resource.RLIMIT_DATA, (600 * 2**20, 600 * 2**20))

async def ask(url, mode):
    config = ClientConfig(base_url=url, is_streamed=mode == "stream")
    agent = AnthropicClient(config, sleep=lambda wait_s: asyncio.sleep(0))
    call = Call(key="k", model="m", messages=(Message(Role.USER, "hi"),), timeout_s=60.0)
    try:
        await agent.call(call)
    except CallError as error:
        return f"{error.failure} {len(str(error)) <= 2000}"
    finally:
        await agent.aclose()

def peak_bytes():
    with open("/proc/self/status") as status:
        return [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")][0]

for name, url, mode in json.loads(sys.argv[1]):
    print(json.dumps([name, asyncio.run(ask(url, mode)), peak_bytes()]))
"""


class Flood:
    """Sends more bytes than anybody wants to whoever connects, from threads of this process."""

    def __init__(self, head: bytes, unit: bytes, count: int) -> None:
        self._sent = (head, unit, count)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        head, unit, count = self._sent
        with peer, suppress(OSError):
            peer.recv(65536)
            peer.sendall(head)
            for _ in range(count):
                peer.sendall(unit)


_OK = b"HTTP/1.1 200 OK\r\n"
_JSON = b"content-type: application/json\r\n"
_EVENTS = b"content-type: text/event-stream\r\n"
_BOMB = gzip.compress(b" " * 200 * 2**20, 6)
_MEGABYTE = b"x" * 2**20

CASES = {
    "gzip bomb": (
        _OK + _JSON + b"content-encoding: gzip\r\n\r\n" + _BOMB,
        b"",
        0,
        "json",
        "invalid True",
    ),
    "gzip bomb of an error": (
        b"HTTP/1.1 400 Bad\r\ncontent-encoding: gzip\r\n\r\n" + _BOMB,
        b"",
        0,
        "json",
        "invalid True",
    ),
    "gzip bomb in a stream": (
        _OK + _EVENTS + b"content-encoding: gzip\r\n\r\n" + _BOMB,
        b"",
        0,
        "stream",
        "invalid True",
    ),
    "endless reply": (_OK + _JSON + b"\r\n", _MEGABYTE, 2000, "json", "invalid True"),
    "endless error": (
        b"HTTP/1.1 400 Bad\r\n\r\n",
        _MEGABYTE,
        2000,
        "json",
        "rejected True",
    ),
    "endless line of a stream": (
        _OK + _EVENTS + b"\r\ndata: ",
        _MEGABYTE,
        2000,
        "stream",
        "invalid True",
    ),
    "endless events": (
        _OK + _EVENTS + b"\r\n",
        b"event: ping\ndata: {}\n\n" * 4000,
        20_000,
        "stream",
        "invalid True",
    ),
    "error of 5 MB": (
        b"HTTP/1.1 529 Bad\r\n\r\n" + b'{"type":"error","error":{"type":"overloaded_error",',
        b'"message":"' + b"m" * 5 * 2**20 + b'"}}',
        1,
        "json",
        "transient True",
    ),
}


def test_memory_is_bounded() -> None:
    floods = {name: Flood(*case[:3]) for name, case in CASES.items()}
    asked = [[name, flood.url, CASES[name][3]] for name, flood in floods.items()]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT, json.dumps(asked)],
            capture_output=True,
            timeout=200,
            check=False,
        )
    finally:
        for flood in floods.values():
            flood.close()
    assert done.returncode == 0, done.stderr.decode()
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name: failure for name, failure, _ in reports} == {
        name: case[4] for name, case in CASES.items()
    }
    assert max(peak for *_, peak in reports) < MAX_RSS_BYTES, reports
