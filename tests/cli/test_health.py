"""`cert health`, as a user has it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from cert.core.health import CheckResult
from tests.cli.ledgers import digest_of_tree, make_ledger, segment_of
from tests.faults.helpers import needs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.helpers import Processes, Program

HOST = ("--check", "ledger", "--check", "checkpoint", "--check", "key", "--check", "clock")


def test_the_reference_model_in_a_process_of_its_own(processes: Processes, folder: Path) -> None:
    ledger = make_ledger(folder / "ledger")
    before = digest_of_tree(folder.parent)
    ran = processes.run("health", "--json", "--ledger", ledger, "--min-free-bytes", 0)
    assert digest_of_tree(folder.parent) == before, "it is read-only"
    report = json.loads(ran.out)
    assert (ran.code, report["status"], ran.err) == (0, "healthy", "")
    assert set(report["checks"]) >= {"model", "inference", "instrument", "key", "clock"}
    assert "nats of the pinned ones" in report["checks"]["instrument"]["reason"]
    assert (report["exit_code"], report["recorded_as"]) == (0, None)


def test_a_table_for_people(cert: Program, folder: Path) -> None:
    ran = cert("health", *HOST, "--ledger", folder / "ledger")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("HEALTHY  4 checks in ")
    assert [line.split()[:2] for line in lines[1:] if not line.startswith(" ")] == [
        [name, "healthy"] for name in ("ledger", "checkpoint", "key", "clock")
    ]
    assert not list(folder.iterdir())


def test_quiet_shows_what_is_not_healthy(cert: Program, folder: Path) -> None:
    make_ledger(folder / "ledger")
    assert cert("health", *HOST, "-q", "--ledger", folder / "ledger").out == ""
    (folder / "ledger" / "tail.json").unlink()
    ran = cert("health", *HOST, "-q", "--ledger", folder / "ledger")
    assert ran.code == 3
    assert ran.out.startswith("DEGRADED  4 checks")
    assert "clock" not in ran.out


def test_a_broken_ledger_is_unhealthy_and_no_traceback(cert: Program, folder: Path) -> None:
    ledger = make_ledger(folder / "ledger")
    segment_of(ledger).write_bytes(b"\x1b[2J\xff\n")
    ran = cert("health", *HOST, "--ledger", ledger)
    assert (ran.code, ran.err) == (6, "")
    assert "\x1b" not in ran.out
    recorded = cert("health", *HOST, "--ledger", ledger, "--record")
    assert recorded.code == 6
    assert recorded.out.startswith("UNHEALTHY")
    assert recorded.err.startswith("cert: error: ledger ")


def test_nothing_that_could_be_checked(cert: Program) -> None:
    ran = cert("health", "--no-ledger", "--check", "key")
    assert ran.code == 7
    assert ran.out.startswith("UNKNOWN")


def test_names_of_checks(cert: Program) -> None:
    listed = [line.split()[0] for line in cert("health", "--list").out.splitlines()]
    assert listed[:2] == ["environment", "device"]
    assert len(listed) == 14
    ran = cert("health", "--check", "clok")
    assert (ran.code, "did you mean clock?" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "flags",
    [
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
        ("--timeout", "-1"),
        ("--max-checkpoint-age", "0"),
        ("--min-free-percent", "101"),
        ("--full-bytes", "-1"),
        ("--record", "--no-ledger"),
        ("--config", "/no/such/file"),
        ("--server", ""),
    ],
)
def test_flags_that_are_wrong(cert: Program, flags: tuple[str, ...]) -> None:
    ran = cert("health", "--check", "clock", *flags)
    assert (ran.code, ran.out) == (2, "")


def test_an_old_checkpoint(cert: Program, folder: Path) -> None:
    ledger = make_ledger(folder / "ledger")
    for note in (ledger / "checkpoints").iterdir():
        os.utime(note, (time.time() - 1000, time.time() - 1000))
    assert cert("health", *HOST, "--ledger", ledger).code == 0
    assert cert("health", *HOST, "--ledger", ledger, "--max-checkpoint-age", "900").code == 3


def test_room_on_the_disk_by_flags(cert: Program, folder: Path) -> None:
    disk = ("health", "--check", "disk", "--ledger", folder)
    assert cert(*disk, "--min-free-bytes", 0, "--min-free-percent", 0, "--full-bytes", 0).code == 0
    assert cert(*disk, "--min-free-bytes", 2**62, "--full-bytes", 0).code == 3
    assert cert(*disk, "--full-bytes", 2**62).code == 6


def test_a_report_is_recorded(cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cert.runner import health

    found = CheckResult.degraded("hf_abcdefghijklmnopqrstuvwxyz is no reason")
    monkeypatch.setattr(health, "check_disk", lambda *_: found)
    ledger = folder / "ledger"
    ran = cert("health", *HOST, "--check", "disk", "--record", "--json", "--ledger", ledger)
    report = json.loads(ran.out)
    assert (ran.code, report["status"], report["recorded_as"]) == (3, "degraded", 1)
    assert "note: made a signing key" in ran.err
    line = json.loads(segment_of(ledger).read_bytes().splitlines()[1])
    assert line["kind"] == "health"
    assert line["health"]["model"] == "reference"
    checks = {one["name"]: one for one in line["health"]["checks"]}
    assert checks["disk"]["reason"] == "[redacted] is no reason"
    assert "hf_" not in ran.out
    assert line["health"]["status"] == "degraded"
    verified = cert("verify", ledger, "--json")
    said = json.loads(verified.out)
    assert (verified.code, said["kinds"], said["findings"]) == (0, {"genesis": 1, "health": 1}, [])


def test_a_report_that_cannot_be_recorded(cert: Program, folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    ran = cert("health", "--check", "clock", "--record", "--ledger", folder / "file")
    assert ran.code == 4
    assert ran.out.startswith("HEALTHY")
    assert "cannot be used" in ran.err


@needs("faketime")
@pytest.mark.parametrize(
    ("shift", "code", "says"), [("-400d", 6, "ahead of the clock"), ("+100y", 6, "plausible year")]
)
def test_a_clock_that_is_wrong(
    processes: Processes, folder: Path, shift: str, code: int, says: str
) -> None:
    import subprocess

    ledger = make_ledger(folder / "ledger")
    command = processes.command("health", "--check", "clock", "--json", "--ledger", ledger)
    ran = subprocess.run(
        ["faketime", "-f", shift, *command],
        env=processes.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code
    assert says in json.loads(ran.stdout)["checks"]["clock"]["reason"]


def test_ctrl_c_ends_it(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = processes.start("health", "--server", url)
        client, _ = silent.accept()
        with client:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"cert: interrupted\n")


@pytest.mark.parametrize(
    "flags",
    [
        ("--expect-digest", "sha256:aa"),
        ("--model", "reference"),
        ("--device", "cpu"),
        ("--ledger", "x"),
        ("--no-ledger",),
        ("--keys", "x"),
        ("--max-checkpoint-age", 5),
        ("--check", "model", "--check", "server"),
    ],
    ids=lambda flags: flags[0],
)
def test_what_a_server_would_not_be_asked_about_is_refused(
    cert: Program, flags: tuple[str | int, ...]
) -> None:
    ran = cert("health", "--server", "http://127.0.0.1:9", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert f"{flags[0]}" in ran.err
    assert "not beside --server" in ran.err


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://x", "http://", "http://u:pw@x", "http://x?y=1", "http://x:99999"],
)
def test_a_url_that_is_none_is_a_usage_error(cert: Program, url: str) -> None:
    ran = cert("health", "--server", url)
    assert (ran.code, ran.out) == (2, "")
    assert "pw" not in ran.err
