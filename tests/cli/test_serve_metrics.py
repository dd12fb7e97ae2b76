"""`cert serve-metrics` as operators start, scrape and stop it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.core.config import CERTConfig
from cert.core.errors import ConfigurationError
from cert.ledger.keys import Signer
from cert_cli.exporting import name_ledgers
from tests.cli.ledgers import leave_unsealed, make_ledger
from tests.ledger.ledgers import private

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.cli.helpers import Processes, Program

TOKEN = "0123456789abcdef-token"  # noqa: S105 - of these tests alone


def value(text: str, sample: str) -> float:
    (line,) = [line for line in text.split("\n") if line.startswith(sample + " ")]
    return float(line.removeprefix(sample))


def get(url: str, token: str | None = None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(processes: Processes, *args: str | Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start it; returns the process and the address that it says it serves."""
    process = processes.start("serve-metrics", *args, "--port", "0", "--interval", "0.1")
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    assert line.startswith("cert: serving http://127.0.0.1:"), line
    return process, line.removeprefix("cert: serving ").removesuffix("/metrics\n")


def test_once_prints_what_the_ledgers_hold(cert: Program) -> None:
    make_ledger(Path("one"))
    ran = cert("serve-metrics", "one", "two=nowhere", "--once")
    assert (ran.code, ran.err) == (0, "")
    assert value(ran.out, 'cert_ledger_records{ledger="one"}') == 4
    assert value(ran.out, 'cert_ledger_state{ledger="one",state="consistent"}') == 1
    assert value(ran.out, 'cert_ledger_state{ledger="two",state="missing"}') == 1
    assert sorted(map(str, Path().iterdir())) == ["one"]


def test_once_with_a_state_goes_on_from_it(cert: Program) -> None:
    make_ledger(Path("one"))
    command = ("serve-metrics", "one", "--once", "--state", "state.json")
    assert cert(*command).code == 0
    leave_unsealed(Path("one"), ["a", "b"])
    ran = cert(*command)
    assert value(ran.out, 'cert_ledger_records{ledger="one"}') == 6
    assert value(ran.out, 'cert_ledger_unsealed_records{ledger="one"}') == 2
    kept = json.loads(Path("state.json").read_text())["ledgers"]["one"]
    assert kept["position"]["size"] == 6


def test_without_arguments_it_is_the_configured_ledger(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ledger(Path("mine"))
    monkeypatch.setenv("CERT_LEDGER", "mine")
    ran = cert("serve-metrics", "--once")
    assert value(ran.out, 'cert_ledger_records{ledger="mine"}') == 4
    monkeypatch.setenv("CERT_LEDGER", "none")
    ran = cert("serve-metrics", "--once")
    assert ran.code == 2
    assert "no ledger was named" in ran.err


def test_a_key_is_pinned_by_flag_or_setting(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ledger(Path("one"))
    stranger = Signer(private("stranger")).public.text
    broken = 'cert_ledger_state{ledger="one",state="broken"}'
    ran = cert("serve-metrics", "one", "--once", "--key", stranger)
    assert value(ran.out, broken) == 1
    monkeypatch.setenv("CERT_VERIFY_KEY", stranger)
    assert value(cert("serve-metrics", "one", "--once").out, broken) == 1
    monkeypatch.delenv("CERT_VERIFY_KEY")
    assert value(cert("serve-metrics", "one", "--once").out, broken) == 0
    assert cert("serve-metrics", "one", "--once", "--key", "nowhere").code == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--host", "0.0.0.0"), "lets other machines in"),  # noqa: S104 - refused
        (("--host", "no.such.host.invalid", "--token-file", "token"), "cannot listen on"),
        (("--token-file", "nowhere"), "cannot be read"),
        (("a=one", "a=two"), "two ledgers are named a"),
        (("--state", "one"), "state file"),
        (("--canary", "nowhere", "--canary-ledger", "c"), "the canary's file"),
        (("--config", "nowhere"), "nowhere"),
        (("--interval", "0"), "--interval"),
        (("--port", "65536"), "metrics_port"),
        (tuple(f"l{number}=x" for number in range(51)), "51 ledgers"),
    ],
)
def test_what_cannot_be_served_is_refused(cert: Program, args: tuple[str, ...], words: str) -> None:
    Path("one").mkdir()
    Path("token").write_text(TOKEN)
    ran = cert("serve-metrics", "--port", "0", *args)
    assert ran.code == 2
    assert words in " ".join(ran.err.split())
    assert ran.out == ""


def test_a_port_that_is_taken_is_refused(cert: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = cert("serve-metrics", "x", "--port", str(other.getsockname()[1]))
    assert ran.code == 2
    assert "Address already in use" in ran.err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["a/b"], {"b": "a/b"}),
        (["x=a/b", "b"], {"x": "a/b", "b": "b"}),
        (["./a=b"], {"a_b": "./a=b"}),
        (["n="], {"n_": "n="}),
        (["/"], {"root": "/"}),
        (["sp ace/\u202eevil\n"], {"_evil_": "sp ace/\u202eevil\n"}),
        (["x" * 100], {"x" * 64: "x" * 100}),
    ],
)
def test_names_are_those_of_the_folders_or_given(given: list[str], named: dict[str, str]) -> None:
    assert name_ledgers(given, CERTConfig()) == {k: Path(v) for k, v in named.items()}
    with pytest.raises(ConfigurationError, match="two ledgers"):
        name_ledgers([*given, *given], CERTConfig())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_follows_serves_and_keeps_its_counts(
    processes: Processes, number: int, code: int
) -> None:
    make_ledger(Path("one"))
    process, url = start(processes, "one", "--state", "s.json")
    wait_for(lambda: get(f"{url}/readyz")[0] == 200)
    sample = 'cert_ledger_records{ledger="one"}'
    assert value(get(f"{url}/metrics")[1], sample) == 4
    leave_unsealed(Path("one"), ["late"])
    wait_for(lambda: value(get(f"{url}/metrics")[1], sample) == 5)
    assert get(f"{url}/livez") == (200, '{"status":"alive"}')
    status, body = get(f"{url}/healthz")
    assert (status, json.loads(body)["status"]) == (200, "healthy")
    process.send_signal(number)
    assert process.wait(60) == code
    kept = json.loads(Path("s.json").read_text())["ledgers"]["one"]
    assert kept["totals"]["kinds"] == {"genesis": 1, "note": 4}
    with pytest.raises(urllib.error.URLError):
        get(f"{url}/livez")
    again, url = start(processes, "one", "--state", "s.json")
    wait_for(lambda: value(get(f"{url}/metrics")[1], sample) == 5)
    again.terminate()
    assert again.wait(60) == 143


def test_a_token_guards_the_metrics(processes: Processes) -> None:
    make_ledger(Path("one"))
    Path("token").write_text(TOKEN + "\n")
    _, url = start(processes, "one", "--token-file", "token", "--state", "none")
    assert get(f"{url}/metrics")[0] == 401
    assert get(f"{url}/metrics", "wrong" * 4)[0] == 401
    assert get(f"{url}/metrics", TOKEN)[0] == 200
    assert get(f"{url}/livez")[0] == 200


def test_a_reader_that_leaves_is_no_bug(processes: Processes) -> None:
    make_ledger(Path("one"))
    read, write = os.pipe()
    os.close(read)
    process = processes.start("serve-metrics", "one", "--once", stdout=write)
    os.close(write)
    assert process.wait(60) == 4


def test_a_full_disk_at_the_end_of_stdout_is_no_bug(processes: Processes) -> None:
    make_ledger(Path("one"))
    with Path("/dev/full").open("wb") as full:
        process = processes.start("serve-metrics", "one", "--once", stdout=full)
        assert process.wait(60) == 4


def test_the_canary_runs_again_and_again_and_is_counted(
    processes: Processes, cert: Program, tiny: Path
) -> None:
    Path("prompts.txt").write_text("one\ntwo\n")
    Path("cert.yaml").write_text(f"model: {tiny}\nmax_new_tokens: 2\n")
    canary = ("--canary", "prompts.txt", "--canary-interval", "1", "--canary-ledger", "watched")
    process, url = start(processes, "watched", *canary, "--state", "none")

    def rounds() -> float:
        ended = r'^cert_runs_total\{command="canary",ledger="watched",outcome="\w+"\} (\S+)$'
        return sum(map(float, re.findall(ended, get(f"{url}/metrics")[1], re.MULTILINE)))

    wait_for(lambda: rounds() >= 2)
    text = get(f"{url}/metrics")[1]
    assert value(text, 'cert_ledger_records_by_kind{kind="analysis",ledger="watched"}') >= 4
    process.terminate()
    assert process.wait(60) == 143
    assert cert("verify", "watched", "--deep").code == 0
