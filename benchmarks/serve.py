"""`cert serve` under load: requests a second, latency, what HTTP adds, overload, half-open sockets.

    .venv/bin/python benchmarks/serve.py            # all but the soak, some minutes
    .venv/bin/python benchmarks/serve.py --soak 3600

Every prompt is another one, so that nothing comes out of the cache. The server is a process of its
own with a new ledger and a new key; it, its clients and whatever else runs share the processors,
so the load of the machine is printed beside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 32
FEW_TOKENS = 4
"""Where the model is not what is measured."""

ROUNDS = 10
"""Requests a client in the part with many of them; a busy machine takes minutes for more."""

OK, OVERLOADED = 200, 429
LATE_S = 0.1
DROPPED = 10
"""One connection in so many of the soak is dropped half-way."""

WORDS = (
    "river",
    "stone",
    "letter",
    "window",
    "garden",
    "winter",
    "music",
    "paper",
    "bridge",
    "market",
)
ROOT = Path(__file__).parents[1]
numbers = itertools.count(1)


def next_prompt() -> str:
    """A prompt that nobody has asked before."""
    n = next(numbers)
    words = [WORDS[n // 10**i % 10] for i in range(6)]
    return f"Note {n} about the {' '.join(words)}: it was"


class Server:
    """A running `cert serve`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.ledger = folder / "ledger"
        self.log = (folder / "log").open("wb")
        command = [sys.executable, "-m", "cert_cli", "serve", "--port", "0", "--metrics-port", "0"]
        ledger = () if "--no-ledger" in flags else ("--ledger", str(self.ledger))
        environment = {**os.environ, "CERT_KEYS": str(folder / "keys"), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*command, *ledger, *flags], env=environment, stderr=self.log
        )
        self.port = self._wait_for("listening", "url")
        self._wait_for("ready", "model")
        self.seen = psutil.Process(self.process.pid)

    def _wait_for(self, message: str, field: str) -> int:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for line in Path(self.log.name).read_text().splitlines():
                entry = json.loads(line)
                if entry["message"] == message:
                    return int(str(entry[field]).rpartition(":")[2]) if field == "url" else 0
            if self.process.poll() is not None:
                raise SystemExit(Path(self.log.name).read_text())
            time.sleep(0.1)
        raise SystemExit(f"no line {message!r} within 120 s")

    def stop(self) -> int:
        """Drain and end; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.log.close()
        return code


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """Run a server in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "--log-format", "json", *flags)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def analyze(self, prompt: str, tokens: int = TOKENS) -> tuple[int, float, bytes]:
        """Status, seconds and body of one request."""
        began = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        body = json.dumps({"prompt": prompt, "sampling": {"max_new_tokens": tokens}}).encode()
        head = (
            f"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        reply = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            await self.close()
        return int(lines[0].split()[1]), time.perf_counter() - began, reply

    async def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(port: int, clients: int, requests: int) -> tuple[float, list[float]]:
    """So many clients, each asking again as soon as it was answered."""
    left = iter(range(requests))
    latencies: list[float] = []

    async def ask() -> None:
        client = Client(port)
        for _ in left:
            status, seconds, _ = await client.analyze(next_prompt())
            if status != OK:
                raise SystemExit(f"status {status}")
            latencies.append(seconds)
        await client.close()

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    return requests / (time.perf_counter() - began), latencies


def quantiles(seconds: list[float]) -> str:
    """P50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * p))] * 1e3 for p in (0.5, 0.95, 0.99)]
    return "p50 {:.1f}  p95 {:.1f}  p99 {:.1f} ms".format(*at)


def throughput() -> None:
    """Requests a second with 1, 8 and 32 clients."""
    with serving() as server:
        asyncio.run(load(server.port, 2, 10))
        one = 0.0
        for clients, rounds in ((1, 4), (8, 2), (32, 1), (1, 4)):
            requests = rounds * clients * ROUNDS
            rate, latencies = asyncio.run(load(server.port, clients, requests))
            one = one or rate
            print(
                f"{clients:>3} clients  {rate:7.1f} requests/s ({rate / one:.1f} times one)  "
                f"{quantiles(latencies)}  {busy()}"
            )
        print(f"exit {server.stop()}; {verified(server)}")


def added() -> None:
    """What a request over HTTP takes longer than `engine.analyze` in this process, pairwise."""
    from cert.backends.protocol import SamplingParams  # noqa: PLC0415 - torch
    from cert.core.config import CERTConfig  # noqa: PLC0415 - the same
    from cert.inputs.case import PromptCase  # noqa: PLC0415 - the same
    from cert.runner.local import open_engine  # noqa: PLC0415 - the same

    for flags in (("--no-ledger",), ()):
        with serving(*flags) as server, open_engine(CERTConfig()) as engine:
            sampling = SamplingParams(max_new_tokens=FEW_TOKENS)

            async def pairs(port: int = server.port) -> list[tuple[float, float]]:
                client, found = Client(port), []
                for n in range(70):
                    case = PromptCase(id=str(n), text=next_prompt())
                    began = time.perf_counter()
                    engine.analyze(case, sampling=sampling)  # noqa: B023 - used in this round
                    inside = time.perf_counter() - began
                    found.append((inside, (await client.analyze(case.text, FEW_TOKENS))[1]))
                await client.close()
                return found[10:]

            measured = asyncio.run(pairs())
            inside = statistics.median(one for one, _ in measured) * 1e3
            over = statistics.median(one for _, one in measured) * 1e3
            name = "without a ledger" if flags else "with a ledger (synced before each answer)"
            print(
                f"in process p50 {inside:.1f} ms, over HTTP {name} p50 {over:.1f} ms: "
                f"added {over - inside:+.1f} ms  {busy()}"
            )
            server.stop()


def half_open() -> None:
    """Requests while 500 connections have sent half a head each."""
    with serving("--receive-timeout", "120") as server:
        asyncio.run(load(server.port, 2, 10))
        held = []
        for _ in range(500):
            one = socket.create_connection(("127.0.0.1", server.port))
            one.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: ")
            held.append(one)
        rate, latencies = asyncio.run(load(server.port, 8, 100))
        print(f"500 half-open   {rate:.1f} requests/s  {quantiles(latencies)}  {busy()}")
        for one in held:
            one.close()
        server.stop()


def overload(places: int = 16) -> None:
    """Twice as many clients as places: who is taken is answered and recorded, the rest refused."""
    with serving("--max-requests", str(places)) as server:
        asyncio.run(load(server.port, 2, 10))
        taken: list[str] = []
        refused: list[float] = []

        async def ask(until: float) -> None:
            client = Client(server.port)
            while time.perf_counter() < until:
                status, seconds, reply = await client.analyze(next_prompt())
                if status == OK:
                    taken.append(json.loads(reply)["id"])
                elif status == OVERLOADED:
                    refused.append(seconds)
                    await asyncio.sleep(0.25)
                else:
                    raise SystemExit(f"status {status}: {reply!r}")
            await client.close()

        async def crowd() -> None:
            until = time.perf_counter() + 15
            await asyncio.gather(*(ask(until) for _ in range(2 * places)))

        asyncio.run(crowd())
        code = server.stop()
        lines = b"\n".join(one.read_bytes() for one in (server.ledger / "segments").iterdir())
        recorded = sum(one.encode() in lines for one in taken)
        late = sum(one > LATE_S for one in refused)
        print(
            f"{places} places, {2 * places} clients: {len(taken)} answered, {recorded} of them "
            f"recorded; {len(refused)} refused, {quantiles(refused)}, max "
            f"{max(refused) * 1e3:.0f} ms, {late} after more than {LATE_S * 1e3:.0f} ms; "
            f"exit {code}; "
            f"{verified(server)}  {busy()}"
        )


def soak(seconds: int, rate: float) -> None:
    """Ask at a low rate for long, and see that nothing grows."""
    with serving() as server:
        asyncio.run(_soak(server, seconds, rate))
        print(f"exit {server.stop()}; {verified(server)}")


async def _soak(server: Server, seconds: int, rate: float) -> None:
    began = time.monotonic()
    asked = 0
    latencies: list[float] = []
    next_sample = 0.0
    while (now := time.monotonic() - began) < seconds:
        if now >= next_sample:
            print(f"{now:6.0f} s  {asked:>6} requests  {footprint(server)}", flush=True)
            next_sample += max(10.0, seconds / 30)
        # A connection of its own each time.
        client = Client(server.port)
        if asked % DROPPED == DROPPED - 1:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Len")
            await writer.drain()
            writer.close()
            del reader
        status, took, _ = await client.analyze(next_prompt(), tokens=FEW_TOKENS)
        if status != OK:
            raise SystemExit(f"status {status}")
        latencies.append(took)
        await client.close()
        asked += 1
        await asyncio.sleep(max(0.0, asked / rate - (time.monotonic() - began)))
    print(f"{seconds:6.0f} s  {asked:>6} requests  {footprint(server)}  {quantiles(latencies)}")


def footprint(server: Server) -> str:
    """Memory, descriptors and threads of the server."""
    seen = server.seen
    return (
        f"RSS {seen.memory_info().rss / 2**20:.1f} MiB, {seen.num_fds()} descriptors, "
        f"{seen.num_threads()} threads"
    )


def verified(server: Server) -> str:
    """What `cert verify --deep` says of the ledger."""
    if not server.ledger.is_dir():
        return "no ledger"
    keys = {**os.environ, "CERT_KEYS": str(server.ledger.parent / "keys"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "cert_cli", "verify", "--deep", str(server.ledger)],
        env=keys,
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        f"cert verify --deep: {done.stdout.split()[0] if done.stdout else '?'} ({done.returncode})"
    )


def busy() -> str:
    """How busy the machine is, this program included."""
    return f"[load {os.getloadavg()[0]:.1f} of {os.cpu_count()} processors]"


def describe() -> None:
    """Print what ran."""
    names = ("torch", "transformers", "starlette", "uvicorn", "h11")
    found: dict[str, Any] = {name: version(name) for name in names}
    print(f"python {platform.python_version()}, " + ", ".join(f"{n} {v}" for n, v in found.items()))
    print(f"{platform.machine()}, {os.cpu_count()} processors; {TOKENS} tokens a request")


PARTS = {
    "throughput": throughput,
    "added": added,
    "half-open": half_open,
    "overload": overload,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them by default")
    parser.add_argument("--soak", type=int, metavar="SECONDS", help="this alone, for so long")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second of the soak")
    asked = parser.parse_args()
    describe()
    if asked.soak:
        soak(asked.soak, asked.rate)
        return
    for name in asked.parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
