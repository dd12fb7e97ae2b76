"""A real Prometheus scrapes real processes; what it answers is what the ledgers hold."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cli.helpers import Processes
from tests.deployments.ops_tools import tool
from tests.model_factory import build_tiny_model
from tests.service.exporter.disk import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "0123456789abcdef-token"  # noqa: S105 - of this test alone
PATIENCE_S = 120
PROMPTS = ["one", "two and three", "", "four"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), "llama", max_positions=512)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes()
    yield running
    for process in running.started:
        process.kill()
        process.communicate()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def get(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
        body: bytes = answer.read()
        return body


def wait_for(what: Callable[[], bool], *watched: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for process in watched:
            assert process.poll() is None, process.communicate()
        try:
            if what():
                return
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(0.2)
    raise AssertionError("it did not come about")


def lint(exposition: bytes) -> None:
    """`promtool check metrics` finds nothing to say."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=exposition,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def environment(home: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state")}


def lines_of(ledger: Path) -> list[bytes]:
    segments = sorted((ledger / "segments").glob("*.jsonl"))
    return [line for one in segments for line in one.read_bytes().split(b"\n") if line]


class Asked:
    """Prometheus, asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query?query="

    def __call__(self, query: str) -> dict[tuple[str, ...], float]:
        answer = json.loads(get(self._url + urllib.parse.quote(query)))
        assert answer["status"] == "success"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return {
            tuple(
                v for k, v in sorted(one["metric"].items()) if k not in {"__name__", "job"}
            ): float(one["value"][1])
            for one in found
        }

    def one(self, query: str) -> float:
        (value,) = self(query).values()
        return value


def test_prometheus_sees_what_the_ledgers_hold(
    tmp_path: Path, tiny: Path, processes: Processes
) -> None:
    prometheus = tool("prometheus")
    env = processes.environment(environment(tmp_path))
    nightly, served = tmp_path / "nightly", tmp_path / "served"
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    exporter_port, api_port, serve_port, own_port = free_ports(4)

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in PROMPTS))
    model = ("--model", tiny, "--max-new-tokens", "3")
    exporter = processes.start(
        *("serve-metrics", f"nightly={nightly}", f"served={served}", "--interval", "0.5"),
        *("--port", str(exporter_port), "--token-file", token_file),
        env=env,
        stderr=subprocess.DEVNULL,
    )
    server = processes.start(
        *("serve", "--port", str(api_port), "--metrics-port", str(serve_port), *model),
        *("--ledger", served),
        env=env,
        stderr=subprocess.DEVNULL,
    )
    scrape = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "cert-evidence",
                "authorization": {"credentials_file": str(token_file)},
                "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
            },
            {
                "job_name": "cert-serve",
                "static_configs": [{"targets": [f"127.0.0.1:{serve_port}"]}],
            },
        ],
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape))
    watcher = subprocess.Popen(
        [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{own_port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    processes.started.append(watcher)
    all_of_them = (exporter, server, watcher)

    batch = processes.run(
        *("batch", prompts, "--ledger", nightly, "-q", "--max-errors", "1", *model), env=env
    )
    assert batch.code in {0, 1, 3}, batch.err
    wait_for(lambda: get(f"http://127.0.0.1:{serve_port}/readyz") != b"", *all_of_them)
    for prompt in ("five", "six"):
        posted = urllib.request.Request(
            f"http://127.0.0.1:{api_port}/v1/analyze",
            json.dumps({"prompt": prompt}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(posted, timeout=60) as answer:  # noqa: S310 - loopback
            assert answer.status == 200

    ask = Asked(own_port)
    expected = {
        name: len(lines_of(path)) for name, path in (("nightly", nightly), ("served", served))
    }

    def has_come() -> bool:
        records = ask("sum by (ledger) (cert_ledger_records)")
        counted = ask('sum(cert_requests_total{job="cert-serve", status="success"})')
        return records == {(k,): v for k, v in expected.items()} and counted == {(): 2}

    wait_for(has_come, *all_of_them)
    for name, folder in (("nightly", nightly), ("served", served)):
        agrees(ask, name, folder)
    end = [json.loads(line) for line in lines_of(nightly) if b'"phase":"end"' in line]
    assert [one["run"]["exit_code"] for one in end] == [batch.code]
    last = 'cert_run_last_exit_code{ledger="nightly", command="batch"}'
    assert ask.one(last) == batch.code
    assert ask.one('cert_ledger_state{ledger="nightly", state="consistent"}') == 1
    assert ask.one('sum(cert_run_open{ledger="served"})') == 1
    assert ask.one('up{job="cert-evidence"}') == ask.one('up{job="cert-serve"}') == 1
    assert ask.one("cert_ready") == ask.one("cert_model_loaded") == 1

    lint(get(f"http://127.0.0.1:{exporter_port}/metrics", Authorization=f"Bearer {TOKEN}"))
    lint(cert_metrics(get(f"http://127.0.0.1:{serve_port}/metrics")))
    for process in (exporter, server):
        process.terminate()
        assert process.wait(60) == 143


def agrees(ask: Asked, name: str, folder: Path) -> None:
    """Every number that is asked for is the one counted from the ledger's lines."""
    counted = fold(lines_of(folder))
    ledger = f'{{ledger="{name}", job="cert-evidence"}}'

    def non_zero(query: str) -> dict[tuple[str, ...], float]:
        return {labels: value for labels, value in ask(query).items() if value}

    kinds = non_zero(f"sum by (kind) (cert_ledger_records_by_kind{ledger})")
    assert kinds == {(k,): v for k, v in counted["kinds"].items()}
    statuses = non_zero(f"sum by (status) (cert_requests_total{ledger})")
    assert statuses == {(k,): v for k, v in counted["statuses"].items()}
    verdicts = non_zero(f"sum by (policy, verdict) (cert_verdicts_total{ledger})")
    assert verdicts == counted["verdicts"]
    number, total, below = counted["durations"]
    assert ask.one(f"sum(cert_request_duration_seconds_count{ledger})") == number
    assert ask.one(f"sum(cert_request_duration_seconds_sum{ledger})") == pytest.approx(total)
    bucket = ledger.replace("}", ', le="10.0"}')
    assert ask.one(f"sum(cert_request_duration_seconds_bucket{bucket})") == below
    number, total, below = counted["perplexities"]
    assert ask.one(f"cert_hamiltonian_perplexity_count{ledger}") == number
    assert ask.one(f"cert_hamiltonian_perplexity_sum{ledger}") == pytest.approx(total)
    bucket = ledger.replace("}", ', le="50.0"}')
    assert ask.one(f"cert_hamiltonian_perplexity_bucket{bucket}") == below


def cert_metrics(exposition: bytes) -> bytes:
    """Our own families: those of the client library are not ours to name."""
    kept = []
    for line in exposition.decode().splitlines():
        name = line.split(" ")[2] if line.startswith("# ") else line
        if name.startswith("cert_"):
            kept.append(line + "\n")
    return "".join(kept).encode()
