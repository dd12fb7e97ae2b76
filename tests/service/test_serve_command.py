"""`cert serve` as its users have it: a process, the reference model, signals, a ledger."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.service.serving import JSON, ROOT, Program, analyze, ask, verify, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-token-of-sixteen-or-more"  # noqa: S105 - a test's
SECRET_PROMPT = "A prompt that is nobody's business"  # noqa: S105 - the same


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One server for all tests here; the last one ends it."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "token").write_text(TOKEN)
    started = Program.start(folder, "--token-file", str(folder / "token"), "--max-new-tokens", "4")
    yield started
    started.kill()


SHOWN = {"Authorization": f"Bearer {TOKEN}"}


def refused(tmp_path: Path, *flags: str, **env: str) -> tuple[int, str]:
    """Run `cert serve` where it must end by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "cert_cli", "serve", "--port", "0", "--metrics-port", "0", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CERT_KEYS": str(tmp_path / "keys"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_it_answers_before_it_is_ready_and_measures_after(program: Program) -> None:
    port = program.port
    assert ask(port, "GET", "/livez").json == {"status": "alive"}
    program.wait_for("ready")
    reply = ask(port, "POST", "/v1/analyze", {"prompt": SECRET_PROMPT}, {**JSON, **SHOWN})
    assert reply.status == 200
    record = reply.json
    assert record["provenance"]["model"]["name"] == "reference"
    assert record["assessment"]["policy"]["id"] == "reference"
    program.wait_for("answered")  # which is logged once the answer is out
    assert SECRET_PROMPT not in program.err.read_text()
    assert TOKEN not in program.err.read_text()
    for line in program.err.read_bytes().splitlines():
        json.loads(line)


def test_requests_together_run_together(program: Program) -> None:
    program.wait_for("ready")

    def one(n: int) -> str:
        body = {"prompt": f"Once upon a time there were {n}"}
        return str(ask(program.port, "POST", "/v1/analyze", body, {**JSON, **SHOWN}).json["id"])

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(one, range(16)))
    segments = b"".join(
        one.read_bytes() for one in (program.folder / "ledger" / "segments").iterdir()
    )
    assert all(one.encode() in segments for one in ids)


def test_metrics_and_health_have_their_own_port(program: Program) -> None:
    program.wait_for("ready")
    port = program.ops_port
    assert ask(port, "GET", "/readyz").json == {"status": "ready"}
    assert ask(port, "GET", "/metrics").status == 401
    ask(program.port, "POST", "/v1/analyze", {"prompt": "counted"}, {**JSON, **SHOWN})

    def scrape() -> str:
        return ask(port, "GET", "/metrics", headers=SHOWN).body.decode()

    wait_until(lambda: 'code="200",route="/v1/analyze"' in scrape())
    text = scrape()
    assert re.search(r"^cert_ready 1\.0$", text, re.MULTILINE)
    assert re.search(
        r'^cert_http_requests_total\{code="200",route="/v1/analyze"\}', text, re.MULTILINE
    )
    assert "cert_build_info{" in text
    assert "process_resident_memory_bytes" in text


def test_the_same_port_twice_is_a_usage_error(program: Program, tmp_path: Path) -> None:
    code, err = refused(tmp_path, "--port", str(program.port), "--no-ledger")
    assert code == 2
    assert str(program.port) in err
    assert "--port" in err


def test_at_sigterm_it_seals_and_ends(program: Program) -> None:
    program.wait_for("ready")
    assert program.end(signal.SIGTERM) == 143
    found = program.verify()
    assert found.returncode == 0, found.stdout
    assert "all of them signed" in found.stdout
    assert "is not finished" not in found.stdout
    assert program.process.stdout is not None
    assert program.process.stdout.read() == b""
    assert program.logged("stopped") is not None


def test_killed_at_work_nothing_that_was_answered_is_lost(tmp_path: Path) -> None:
    program = Program.start(tmp_path / "killed", "--max-new-tokens", "4", "-q")
    try:
        # Quiet, so the port is only known from the system.
        port = _port_of(program)
        wait_until(lambda: ask(port, "GET", "/readyz").status == 200, seconds=120)
        answered: list[bytes] = []

        def go_on(n: int) -> None:
            try:
                for i in range(100):
                    line = analyze(port, f"killed at work {n} {i}").body
                    answered.append(line)
            except (OSError, http.client.HTTPException):
                return

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(go_on, n) for n in range(4)]
            wait_until(lambda: len(answered) >= 12, seconds=60)
            program.kill()
            for one in running:
                one.result()
        assert program.err.read_bytes() == b""
    finally:
        program.kill()
    ledger = b"".join(
        one.read_bytes() for one in (program.folder / "ledger" / "segments").iterdir()
    )
    assert all(one in ledger for one in answered)
    found = verify(program.folder)
    assert found.returncode in {0, 3}, found.stdout
    assert "INVALID" not in found.stdout


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--host", "192.0.2.1"], 2, "no token"),
        (["--metrics-host", "192.0.2.1", "--no-ledger"], 2, "no token"),
        (["--token-file", "missing"], 2, "cannot be read"),
        (["--policy", "no-such-policy", "--no-ledger"], 2, "no policy"),
        (["--model", "./no-such-folder", "--no-ledger"], 6, "no-such-folder"),
        (["--port", "70000"], 2, "serve_port"),
    ],
)
def test_what_cannot_be_served_says_why(
    tmp_path: Path, flags: list[str], code: int, words: str
) -> None:
    found, err = refused(tmp_path, *flags)
    assert found == code, err
    assert words in err


def test_a_ledger_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    code, err = refused(tmp_path, "--ledger", str(tmp_path / "file" / "ledger"))
    assert code == 4, err
    assert "ledger" in err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_extra_it_says_how_to_get_it(tmp_path: Path, missing: str) -> None:
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\n"
        "from cert_cli.app import app\napp(['serve', '--no-ledger'], prog_name='cert')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 6
    assert f"needs {missing}" in done.stderr
    assert "[serve]'" in done.stderr


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    program = Program.start(tmp_path / "twice", "--no-ledger", "--drain-timeout", "60")
    try:
        program.wait_for("ready")
        with socket.create_connection(("127.0.0.1", program.port)) as held:
            held.sendall(
                b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            assert held.recv(12) == b"HTTP/1.1 200"
            program.process.send_signal(signal.SIGINT)
            program.wait_for("draining")
            assert program.process.poll() is None
            assert program.end(signal.SIGINT) == 130
    finally:
        program.kill()


def _port_of(program: Program) -> int:
    """The API's port: of those the process listens on, the one that knows the API."""
    import psutil

    found: list[int] = []

    def look() -> bool:
        for one in psutil.Process(program.process.pid).net_connections("tcp4"):
            if one.status == psutil.CONN_LISTEN:
                port = one.laddr.port
                if ask(port, "GET", "/openapi.json").status == 200:
                    found.append(port)
                    return True
        return False

    wait_until(look, seconds=120)
    return found[0]
