"""`--server` against `cert serve`, each a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.helpers import records_of
from tests.cli.test_processes import NEVER, wait_for_lines, write_mixed
from tests.cli.test_server_client import stable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.helpers import Processes

    Serve = Callable[..., tuple[str, subprocess.Popen[bytes]]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def serve(processes: Processes, folder: Path, tiny: Path) -> Serve:
    """Starts a server and waits until it has its model."""

    def start(port: int | None = None, *more: str) -> tuple[str, subprocess.Popen[bytes]]:
        port = port or free_port()
        process = processes.start(
            *("serve", "-m", tiny, "--policy", "p.yaml", "--ledger", "served"),
            *("--port", str(port), "--metrics-port", "0", *more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            ready = f"{url}/readyz"
            with suppress(OSError), urllib.request.urlopen(ready, timeout=5):  # noqa: S310 - http
                return url, process
            time.sleep(0.1)
        raise AssertionError("the server did not become ready")

    (folder / "p.yaml").write_text(NEVER)
    return start


def test_two_hundred_lines_give_the_records_of_a_local_run(
    processes: Processes, serve: Serve, folder: Path, tiny: Path
) -> None:
    write_mixed(folder / "in.jsonl", 200)
    url, _ = serve()
    args = ("batch", "in.jsonl", "-q", "--max-errors", "100%", "--max-new-tokens", "8", "-o")
    there = processes.run(*args, "there.jsonl", "--server", url)
    assert there.code == 0, there.err
    local = ("-m", tiny, "--policy", "p.yaml", "--no-ledger")
    here = processes.run(*args, "here.jsonl", *local)
    assert here.code == 0, here.err
    assert there.out == (folder / "there.jsonl").read_text()
    numeric = ("signals", "generation", "assessment")

    def rest(record: dict[str, Any]) -> dict[str, Any]:
        # How rows are put together decides about the last bits of a logprob.
        return {name: part for name, part in stable(record).items() if name not in numeric}

    def text(record: dict[str, Any]) -> object:
        return record.get("generation", {}).get("text")

    mine, theirs = here.records, there.records
    assert len(theirs) == 200
    assert [rest(one) for one in theirs] == [rest(one) for one in mine]
    assert [text(one) for one in theirs] == [text(one) for one in mine]
    assert {one["kind"] for one in theirs} == {"analysis", "refused"}
    verified = processes.run("verify", "served", "--deep")
    assert "invalid" not in verified.out.lower()


def test_kill_9_of_the_server_costs_what_had_not_come(
    processes: Processes, serve: Serve, folder: Path
) -> None:
    total = write_mixed(folder / "in.jsonl", 400)
    url, server = serve()
    args = ("batch", "in.jsonl", "--server", url, "-q", "--max-errors", "100%")
    args += ("--max-new-tokens", "4", "-o", "out.jsonl")
    client = processes.start(*args, stdout=subprocess.DEVNULL)
    wait_for_lines(folder / "out.jsonl", 20, client)
    server.kill()
    _, err = client.communicate(timeout=60)
    assert client.returncode == 4, err
    assert b"ended" in err
    assert b"Traceback" not in err
    come = len(records_of(folder / "out.jsonl"))
    assert 20 <= come < total
    serve(int(url.rsplit(":", 1)[1]))
    again = processes.run(*args)
    assert again.code == 0, again.err
    records = records_of(folder / "out.jsonl")
    assert [one["input"]["line"] for one in records] == list(range(1, total + 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_sending_and_keeps_what_came(
    processes: Processes, serve: Serve, folder: Path, number: int, code: int
) -> None:
    total = write_mixed(folder / "in.jsonl", 2000)
    url, server = serve()
    client = processes.start("batch", "in.jsonl", "--server", url, "-o", "out.jsonl")
    wait_for_lines(folder / "out.jsonl", 5, client)
    client.send_signal(number)
    out, err = client.communicate(timeout=60)
    assert client.returncode == code, err
    assert b"Traceback" not in err
    records = records_of(folder / "out.jsonl")
    assert out == (folder / "out.jsonl").read_bytes()
    assert 5 <= len(records) < total
    assert [one["input"]["line"] for one in records] == list(range(1, len(records) + 1))
    assert server.poll() is None
    after = processes.run("analyze", "x", "--server", url, "-q")
    assert after.code == 0, after.err


def test_two_clients_at_once_and_a_reader_that_leaves(
    processes: Processes, serve: Serve, folder: Path
) -> None:
    total = write_mixed(folder / "in.jsonl", 60)
    url, _ = serve()
    args: tuple[str, ...] = ("batch", "in.jsonl", "--server", url, "-q", "--max-errors", "100%")
    both = [processes.start(*args, "-o", f"{name}.jsonl") for name in "ab"]
    gone = processes.start("batch", "-", "--server", url, stdin=subprocess.PIPE)
    assert gone.stdin is not None
    assert gone.stdout is not None
    gone.stdin.write(b"one\n")
    gone.stdin.flush()
    assert json.loads(gone.stdout.readline())["prompt"]["text"] == "one"
    gone.stdout.close()
    gone.stdin.write(b"two\nthree\n")
    gone.stdin.flush()
    assert gone.wait(60) == 4
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    sets = [[stable(one) for one in records_of(folder / f"{name}.jsonl")] for name in "ab"]
    assert len(sets[0]) == len(sets[1]) == total
