"""The program as a process of its own: pipes, signals, kill -9, full disks, terminals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pexpect
import psutil
import pytest

from tests.cli.helpers import Processes, Program, records_of

if TYPE_CHECKING:
    from pathlib import Path

NEVER = "id: n\nversion: 1\nchecks:\n  - {signal: perplexity, op: '>=', threshold: 1}\n"
"""A policy that everything passes."""


@pytest.fixture(autouse=True)
def policy(folder: Path) -> None:
    (folder / "p.yaml").write_text(NEVER)


def write_mixed(path: Path, count: int) -> int:
    """Write prompts of mixed length, responses to score, and bad lines; return how many lines."""
    draw = random.Random(7)
    words = "machine learning entropy of a distribution the best of times fox".split()  # noqa: SIM905
    lines: list[bytes] = []
    for number in range(count):
        prompt = " ".join(draw.choices(words, k=draw.randint(1, 40)))
        record: dict[str, Any] = {"id": f"n-{number}", "prompt": prompt}
        if number % 7 == 3:
            record["response"] = " ".join(draw.choices(words, k=12))
        line = json.dumps(record).encode()
        if number % 11 == 5:
            line = draw.choice([b"{", b'"text"', b'{"prompt": "\xff"}', b'{"id": "x"}'])
        lines.append(line)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return count


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until the file has this many lines, or the process has ended."""
    deadline = time.monotonic() + 60
    lines = seen = 0
    while lines < count and process.poll() is None:
        assert time.monotonic() < deadline, f"{lines} of {count} lines"
        with suppress(FileNotFoundError), path.open("rb") as stream:
            if path.stat().st_size < seen:
                lines = seen = 0
            stream.seek(seen)
            while block := stream.read(1 << 20):
                seen += len(block)
                lines += block.count(b"\n")
        time.sleep(0.005)


def outcome_of(record: dict[str, Any]) -> tuple[object, ...]:
    """What must be the same however often a run was interrupted."""
    return (
        record["kind"],
        record.get("prompt", {}).get("id"),
        record.get("input"),
        record.get("generation", {}).get("text"),
        record.get("assessment", {}).get("verdict"),
        record.get("error", {}).get("type"),
    )


def test_kill_9_anywhere_loses_and_doubles_nothing(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    total = write_mixed(folder / "in.jsonl", 400)
    args = ("batch", "in.jsonl", "-m", tiny, "--policy", "p.yaml", "-o")
    more = ("-q", "--max-errors", "100%", "--max-new-tokens", "48")
    draw = random.Random(os.urandom(8))
    out = folder / "out.jsonl"
    kills = 0
    for _ in range(3):
        process = processes.start(*args, "out.jsonl", *more, stdout=subprocess.DEVNULL)
        done = out.read_bytes().count(b"\n") if out.exists() else 0
        wait_for_lines(out, done + draw.randint(1, 60), process)
        time.sleep(draw.random() * 0.05)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    program = Program()
    last = program(*args, "out.jsonl", *more)
    assert kills >= 2
    assert last.code == 0, last.err
    whole = program(*args, "whole.jsonl", *more)
    assert whole.code == 0
    records = records_of(out)
    assert len(records) == total
    assert [one["input"]["line"] for one in records] == list(range(1, total + 1))
    assert [outcome_of(one) for one in records] == [
        outcome_of(one) for one in records_of(folder / "whole.jsonl")
    ]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_the_first_signal_ends_well_and_the_run_can_go_on(  # noqa: PLR0917 - parameters
    processes: Processes, folder: Path, tiny: Path, number: int, code: int, word: str
) -> None:
    total = write_mixed(folder / "in.jsonl", 2000)
    args = ("batch", "in.jsonl", "-m", tiny, "--policy", "p.yaml", "-o", "out.jsonl")
    process = processes.start(*args, "--max-new-tokens", "48")
    wait_for_lines(folder / "out.jsonl", 5, process)
    process.send_signal(number)
    started = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == code
    records = records_of(folder / "out.jsonl")
    assert out == (folder / "out.jsonl").read_bytes()
    assert 5 <= len(records) < total
    assert [one["input"]["line"] for one in records] == list(range(1, len(records) + 1))
    assert all(one.get("generation", {}).get("finish_reason") != "cancelled" for one in records)
    assert word in err.decode().splitlines()[-1]
    assert b"Traceback" not in err
    again = Program()(*args, "--max-new-tokens", "48", "--limit", str(len(records) + 1))
    assert f"continuing after {len(records)} records" in again.err


def test_a_signal_while_waiting_for_input_or_for_the_model_ends_at_once(
    processes: Processes, tiny: Path
) -> None:
    process = processes.start("batch", "-", "-m", tiny, "-q", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["prompt"]["text"] == "one"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    loading = processes.start("analyze", "one", "-m", tiny)
    time.sleep(1.0)
    loading.send_signal(signal.SIGTERM)
    _, err = loading.communicate(timeout=20)
    assert loading.returncode in {143, -signal.SIGTERM}
    assert b"Traceback" not in err


def test_the_second_signal_ends_at_once(processes: Processes, folder: Path, tiny: Path) -> None:
    write_mixed(folder / "in.jsonl", 2000)
    args = ("batch", "in.jsonl", "-m", tiny, "-q", "-o", "out.jsonl")
    process = processes.start(*args, "--max-new-tokens", "200")
    wait_for_lines(folder / "out.jsonl", 1, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out.endswith(b"\n")


def test_a_reader_that_goes_away_costs_no_record_where_a_file_takes_them(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    total = write_mixed(folder / "in.jsonl", 120)
    args = ("batch", "in.jsonl", "-m", tiny, "--policy", "p.yaml", "--max-errors", "100%")
    process = processes.start(*args, "-o", "out.jsonl")
    assert process.stdout is not None
    assert process.stdout.readline().endswith(b"\n")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(records_of(folder / "out.jsonl")) == total
    assert b"Traceback" not in err
    assert b"Broken" not in err


def test_a_reader_that_goes_away_ends_a_run_that_nobody_else_reads(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    write_mixed(folder / "in.jsonl", 5000)
    process = processes.start("batch", "in.jsonl", "-m", tiny, "--max-new-tokens", "100")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert b"incomplete" in err
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


def test_a_full_stdout_is_said_and_the_file_stays_whole(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        ran = processes.run("analyze", "one", "-m", tiny, "-o", "out.jsonl", stdout=full)
        assert ran.code == 4
        assert "stdout cannot be written: No space left" in ran.err
        assert "Traceback" not in ran.err
        assert len(records_of(folder / "out.jsonl")) == 1
        assert processes.run("schema", stdout=full).code == 4
        assert processes.run("config", "show", stdout=full).code == 4


def test_a_device_is_no_output_file(processes: Processes) -> None:
    ran = processes.run("analyze", "one", "-o", "/dev/full")
    assert ran.code == 2
    assert "not a regular file" in ran.err


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    total = write_mixed(folder / "in.jsonl", 60)
    args = ("batch", "in.jsonl", "-m", tiny, "--policy", "p.yaml", "--max-errors", "100%", "-q")
    args = (*args, "--no-ledger")  # which would be full first: tests/cli/test_ledger_runs.py
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "cert"]
    ran = subprocess.run(
        [*limited, *processes.command(*args, "-o", "out.jsonl")],
        env=processes.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 4
    assert b"out.jsonl cannot be written: File too large" in ran.stderr
    assert b"run the same command again" in ran.stderr
    before = records_of(folder / "out.jsonl")
    assert 0 < len(before) < total
    assert Program()(*args, "-o", "out.jsonl").code == 0
    after = records_of(folder / "out.jsonl")
    assert after[: len(before)] == before
    assert len(after) == total


def test_closed_descriptors_are_no_crash(processes: Processes, folder: Path, tiny: Path) -> None:
    def closed(redirections: str, *args: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", f'"$@" {redirections}', "cert", *processes.command(*args)],
            env=processes.environment(),
            capture_output=True,
            check=False,
            timeout=60,
        )

    ran = closed(">&-", "analyze", "one", "-m", tiny)
    assert ran.returncode == 2
    assert b"stdout is closed" in ran.stderr
    ran = closed(">&- 2>&-", "analyze", "one", "-m", tiny, "--policy", "p.yaml", "-o", "out.jsonl")
    assert ran.returncode == 0
    assert len(records_of(folder / "out.jsonl")) == 1
    ran = closed("<&-", "batch", "-", "-m", tiny)
    assert ran.returncode == 2
    assert b"stdin is closed" in ran.stderr


def test_an_ascii_locale_is_no_crash(processes: Processes, folder: Path, tiny: Path) -> None:
    (folder / "ünï.txt").write_text("žluťoučký kůň 日本語\n")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = processes.run(
        *("analyze", "-f", "ünï.txt", "-m", tiny, "--format", "human", "-o", "out.jsonl"), env=env
    )
    assert ran.code in {0, 1}, ran.err
    assert ran.out.isascii()
    assert "Traceback" not in ran.err
    assert records_of(folder / "out.jsonl")[0]["prompt"]["text"] == "žluťoučký kůň 日本語"


def test_two_runs_do_not_write_one_file(processes: Processes, folder: Path, tiny: Path) -> None:
    write_mixed(folder / "in.jsonl", 1000)
    args = ("batch", "in.jsonl", "-m", tiny, "-q", "-o", "out.jsonl")
    first = processes.start(*args, "--max-new-tokens", "100", stdout=subprocess.DEVNULL)
    wait_for_lines(folder / "out.jsonl", 1, first)
    second = processes.run(*args, "--max-new-tokens", "100")
    assert second.code == 2
    assert f"another process (pid {first.pid})" in second.err


def test_a_terminal_gets_a_picture_a_note_and_a_bar(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    env: Any = {**processes.environment(), "TERM": "xterm-256color"}
    command, *args = processes.command("analyze", "What is machine learning?", "-m", tiny)
    child = pexpect.spawn(command, args, env=env, dimensions=(40, 80), timeout=60)
    child.expect(pexpect.EOF)
    shown = child.before.decode()
    assert "\x1b[" in shown
    assert "48;5;" in shown
    assert "surprise:" in shown
    assert "perplexity" in shown
    child.close()
    assert child.exitstatus in {0, 1}

    write_mixed(folder / "in.jsonl", 200)
    command, *args = processes.command(
        *("batch", "in.jsonl", "-m", tiny, "-o", "out.jsonl", "--max-new-tokens", "48"),
        *("--max-errors", "100%"),
    )
    child = pexpect.spawn(command, args, env=env, dimensions=(40, 160), timeout=60)
    child.expect(r"\d+/200.*/s.*passed, \d+ failed, \d+ inconclusive, \d+ errors")
    child.expect(pexpect.EOF)
    shown = child.before.decode()
    child.close()
    assert child.exitstatus in {0, 1}
    assert shown.rstrip().endswith("(exit 1)") or "(exit 0)" in shown
    assert shown.count("\x1b[?25h") >= 1
    assert len(records_of(folder / "out.jsonl")) == 200


def test_a_terminal_without_colour_gets_marks(processes: Processes, tiny: Path) -> None:
    env: Any = {**processes.environment(), "TERM": "xterm", "NO_COLOR": "1"}
    command, *args = processes.command("analyze", "What is machine learning?", "-m", tiny, "-q")
    child = pexpect.spawn(command, args, env=env, dimensions=(40, 80), timeout=60)
    child.expect(pexpect.EOF)
    shown = child.before.decode()
    child.close()
    assert "\x1b" not in shown
    assert "[2:" in shown


def test_ctrl_c_at_a_terminal_and_typed_prompts(processes: Processes, tiny: Path) -> None:
    env: Any = {**processes.environment(), "TERM": "xterm"}
    command, *args = processes.command("analyze", "-", "-m", tiny)
    child = pexpect.spawn(command, args, env=env, dimensions=(40, 80), timeout=60)
    child.expect("reading prompts from the terminal")
    child.sendline("What is machine learning?")
    child.expect("surprise:")
    child.expect("policy default")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    command, *args = processes.command("analyze", "-", "-m", tiny, "--no-input")
    child = pexpect.spawn(command, args, env=env, timeout=60)
    child.expect("--no-input")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    command, *args = processes.command("analyze", "-m", str(tiny))
    child = pexpect.spawn(command, args, env=env, timeout=60)
    child.expect("no prompt was given")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2


def test_memory_stays_flat_however_long_the_input_is(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    label = "x" * 60_000
    with (folder / "in.jsonl").open("w") as stream:
        for number in range(6000):
            stream.write(json.dumps({"prompt": f"{number} times", "label": label}) + "\n")
    args = ("batch", "in.jsonl", "-m", tiny, "-q", "--max-new-tokens", "1", "-o", "out.jsonl")
    process = processes.start(*args, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    wait_for_lines(folder / "out.jsonl", 2000, process)
    before = watched.memory_info().rss
    wait_for_lines(folder / "out.jsonl", 5000, process)
    assert process.poll() is None
    # 3,000 cases or records that were kept would be 180 MB. Threads' heaps fill up by some 60 MB
    # in the course of the first 20,000 records, whatever the records' size, and stay so.
    assert watched.memory_info().rss - before < 90_000_000
