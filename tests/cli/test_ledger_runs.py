"""Runs of the program in a ledger: what is recorded, what is continued, and what if it fails."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.places import keys_folder, ledger_folder
from cert.evidence.deep import DeepCheck
from cert.ledger.appender import open_ledger
from cert.ledger.content import read_content
from cert.ledger.findings import Report, State
from cert.ledger.key_store import KeyStore
from cert.ledger.reader import FolderReader
from cert.ledger.run_lock import RunLock
from cert.ledger.verify import verify_ledger
from tests.cli.helpers import Processes, Program, records_of
from tests.cli.ledgers import own_keys

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = ("--ledger", "ledger")
RECORDS = {"analysis", "error", "refused"}
NEVER = "id: n\nversion: 1\nchecks:\n  - {signal: perplexity, op: '>=', threshold: 1}\n"


def lines_of(ledger: Path) -> list[bytes]:
    parts = [path.read_bytes() for path in sorted((ledger / "segments").glob("*.jsonl"))]
    return b"".join(parts).split(b"\n")[:-1]


def records_in(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(ledger)]


def kinds(ledger: Path) -> list[str]:
    return [
        f"{one['kind']} {one['run']['phase']}" if one["kind"] == "run" else one["kind"]
        for one in records_in(ledger)
    ]


def check(ledger: Path) -> Report:
    key = KeyStore(keys_folder(None)).current()
    assert key is not None
    report = verify_ledger(FolderReader(ledger), key, deep=DeepCheck())
    assert report.state is State.UNANCHORED, report
    assert report.sealed == report.records
    return report


@pytest.fixture
def prompts(folder: Path) -> Path:
    path = folder / "in.txt"
    path.write_text("one\ntwo\nthree\nfour\n")
    return path


def test_a_run_is_registered_begun_recorded_and_ended(
    cert: Program, folder: Path, prompts: Path
) -> None:
    ran = cert("batch", prompts, *LEDGER, "-o", "out.jsonl", "--correlation-id", "req-1")
    ledger = folder / "ledger"
    assert kinds(ledger) == ["genesis", "policy", "run begin", *["analysis"] * 4, "run end"]
    _, policy, begin, *analyses, end = records_in(ledger)
    assert ran.out.encode().split(b"\n")[:-1] == lines_of(ledger)[3:-1]
    assert (folder / "out.jsonl").read_bytes() == ran.out.encode()
    assert {one["run_id"] for one in (begin, *analyses, end)} == {begin["run_id"]}
    assert begin["correlation_id"] == "req-1"
    assert begin["run"]["policy"]["digest"] == policy["policy"]["digest"]
    assert begin["run"]["model"]["digest"] == analyses[0]["provenance"]["model"]["digest"]
    assert begin["run"]["inputs"][0]["bytes"] == prompts.stat().st_size
    assert sum(end["run"]["counts"].values()) == 4
    assert end["run"]["exit_code"] == ran.code
    assert check(ledger).kinds["analysis"] == 4


def test_the_users_own_ledger_is_the_default_and_said(cert: Program, prompts: Path) -> None:
    ran = cert("batch", prompts)
    ledger = ledger_folder("auto")
    assert ledger is not None
    assert f"recorded in {ledger}" in ran.err
    assert "made a signing key, ed25519:" in ran.err
    assert "signing key" not in cert("analyze", "x").err
    assert "recorded" not in cert("analyze", "x", "-q").err
    assert kinds(ledger).count("run end") == 3
    assert kinds(ledger).count("policy") == 1
    check(ledger)


def test_no_ledger_leaves_nothing(cert: Program, folder: Path, prompts: Path) -> None:
    ran = cert("batch", prompts, "--no-ledger")
    assert ran.code in {0, 1}
    assert "_prev" not in ran.records[0]
    assert not (ledger_folder("auto") or folder).exists()


def test_a_named_ledger_is_not_spoken_of(cert: Program, prompts: Path) -> None:
    assert "recorded in" not in cert("batch", prompts, *LEDGER).err


def test_an_ended_run_is_not_continued(cert: Program, folder: Path, prompts: Path) -> None:
    first = cert("batch", prompts, *LEDGER)
    second = cert("batch", prompts, *LEDGER)
    assert len(first.records) == len(second.records) == 4
    assert kinds(folder / "ledger").count("run begin") == 2


def test_settings_that_commit_need_a_ledger(cert: Program) -> None:
    ran = cert("analyze", "x", "--content", "committed", "--no-ledger")
    assert ran.code == 2
    assert "there is none" in ran.err


def test_committed_content_lies_beside_the_ledger(cert: Program, folder: Path) -> None:
    ran = cert("analyze", "a secret prompt", *LEDGER, "--content", "committed")
    ledger = folder / "ledger"
    assert ran.code in {0, 1}
    (record,) = ran.records
    assert b"secret" not in b"".join(lines_of(ledger))
    assert "text" not in record["prompt"]
    contents = read_content(ledger)
    assert contents is not None
    with contents:
        row = contents.get(record["id"])
    assert row is not None
    salt, content = row
    assert len(salt) == 32
    assert json.loads(content)["prompt"]["text"] == "a secret prompt"
    check(ledger)


def interrupted(cert: Program, folder: Path, prompts: Path, *more: str) -> str:
    """Run, and forget the end, as if the process had been killed before it."""
    cert("batch", prompts, *LEDGER, *more)
    segment = folder / "ledger" / "segments" / "000000000000.jsonl"
    lines = segment.read_bytes().split(b"\n")
    run_id: str = json.loads(lines[2])["run_id"]
    segment.write_bytes(b"\n".join(lines[:5]) + b"\n")  # genesis, policy, begin, two records
    for note in (folder / "ledger" / "checkpoints").iterdir():
        note.unlink()
    (folder / "ledger" / "tail.json").unlink()
    # As if it had been killed before it signed anything.
    shutil.rmtree(own_keys().folder / "heads")
    return run_id


def test_an_unfinished_run_goes_on_under_its_id(cert: Program, folder: Path, prompts: Path) -> None:
    run_id = interrupted(cert, folder, prompts)
    ran = cert("batch", prompts, *LEDGER)
    ledger = folder / "ledger"
    assert "continuing after 2 records" in ran.err
    assert kinds(ledger) == [
        "genesis",
        "policy",
        "run begin",
        *["analysis"] * 2,
        "run resumed",
        *["analysis"] * 2,
        "run end",
    ]
    records = records_in(ledger)
    assert {one["run_id"] for one in records if "run_id" in one} == {run_id}
    texts = [one["prompt"]["text"] for one in records if one["kind"] == "analysis"]
    assert texts == ["one", "two", "three", "four"]
    assert sum(records[-1]["run"]["counts"].values()) == 4
    check(ledger)


def test_an_output_that_is_behind_is_completed_from_the_ledger(
    cert: Program, folder: Path, prompts: Path
) -> None:
    interrupted(cert, folder, prompts, "-o", "out.jsonl")
    out = folder / "out.jsonl"
    out.write_bytes(out.read_bytes().split(b"\n")[0] + b"\n")
    ran = cert("batch", prompts, *LEDGER, "-o", "out.jsonl")
    assert "was behind" in ran.err
    ours = [line for line in lines_of(folder / "ledger") if b'"kind":"analysis"' in line]
    assert out.read_bytes().split(b"\n")[:-1] == ours
    assert len(ours) == 4


def test_another_output_begins_another_run(cert: Program, folder: Path, prompts: Path) -> None:
    interrupted(cert, folder, prompts)
    (folder / "other.jsonl").write_bytes(lines_of(folder / "ledger")[4] + b"\n")
    ran = cert("batch", prompts, *LEDGER, "-o", "other.jsonl")
    assert "did not end" in ran.err
    assert ran.code == 2  # the output is of another input, as it was before there were ledgers


@pytest.mark.parametrize("change", ["input", "setting", "never", "model"])
def test_what_was_asked_for_otherwise_is_another_run(
    cert: Program, folder: Path, prompts: Path, change: str
) -> None:
    run_id = interrupted(cert, folder, prompts)
    more: list[str] = []
    if change == "input":
        prompts.write_text("one\ntwo\nthree\n")
    elif change == "setting":
        more = ["--max-new-tokens", "3"]
    elif change == "never":
        more = ["--resume", "never"]
    else:
        segment = folder / "ledger" / "segments" / "000000000000.jsonl"
        digest = records_in(folder / "ledger")[2]["run"]["model"]["digest"]
        line = lines_of(folder / "ledger")[2]
        changed = line.replace(digest.encode(), b"sha256:" + b"0" * 64)
        segment.write_bytes(b"\n".join([*lines_of(folder / "ledger")[:2], changed, b""]))
    ran = cert("batch", prompts, *LEDGER, *more)
    assert "continuing" not in ran.err
    assert kinds(folder / "ledger").count("run begin") == 2
    assert records_in(folder / "ledger")[-1]["run_id"] != run_id
    assert ("did not end" in ran.err) == (change == "model")


def test_a_run_that_still_goes_on_is_left_alone(cert: Program, folder: Path, prompts: Path) -> None:
    run_id = interrupted(cert, folder, prompts)
    lock = RunLock(folder / "ledger", run_id)
    assert lock.acquire()
    ran = cert("batch", prompts, *LEDGER)
    assert "continuing" not in ran.err
    assert len(ran.records) == 4
    lock.release()
    assert "continuing after 2" in cert("batch", prompts, *LEDGER).err


def test_stdin_is_never_continued(cert: Program, folder: Path, prompts: Path) -> None:
    text = prompts.read_text()
    prompts.write_text("x\n")
    cert("batch", "-", *LEDGER, stdin=text)
    assert records_in(folder / "ledger")[2]["run"]["inputs"] == [
        {"bytes": None, "sha256": None, "source": "-"}
    ]
    interrupted_lines = lines_of(folder / "ledger")[:5]
    segment = folder / "ledger" / "segments" / "000000000000.jsonl"
    segment.write_bytes(b"\n".join([*interrupted_lines, b""]))
    for path in (*(folder / "ledger" / "checkpoints").iterdir(), folder / "ledger" / "tail.json"):
        path.unlink()
    shutil.rmtree(own_keys().folder / "heads")
    assert len(cert("batch", "-", *LEDGER, stdin=text).records) == 4


def test_no_evidence_no_result(cert: Program, folder: Path, prompts: Path) -> None:
    (folder / "ledger").write_text("a file")
    ran = cert("batch", prompts, *LEDGER)
    assert ran.code == 4
    assert ran.out == ""
    assert "cannot be used" in ran.err
    assert "--no-ledger" in ran.err


def test_a_damaged_ledger_is_not_written_to(cert: Program, folder: Path, prompts: Path) -> None:
    cert("batch", prompts, *LEDGER)
    segment = folder / "ledger" / "segments" / "000000000000.jsonl"
    damaged = segment.read_bytes().replace(b'"one"', b'"two"')
    segment.write_bytes(damaged)
    (folder / "ledger" / "tail.json").unlink()
    ran = cert("batch", prompts, *LEDGER)
    assert ran.code == 5
    assert "cert verify" in ran.err
    assert segment.read_bytes() == damaged


def test_whoever_must_serve_goes_on_without_a_ledger(
    cert: Program, folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ledger").write_text("a file")
    monkeypatch.setenv("CERT_ON_LEDGER_FAILURE", "warn")
    ran = cert("batch", prompts, *LEDGER)
    assert ran.code in {0, 1}
    assert "warning: no evidence is kept" in ran.err
    assert len(ran.records) == 4


@pytest.mark.parametrize("setting", ["halt", "warn"])
def test_a_ledger_that_fails_halfway(
    processes: Processes, folder: Path, tiny: Path, prompts: Path, setting: str
) -> None:
    prompts.write_text("".join(f"prompt number {n}\n" for n in range(40)))
    job = ("batch", prompts, *LEDGER, "-m", tiny, "--max-new-tokens", "32", "--batch-rows", "4")
    # What is ready together is appended together, all or none. 28 records fit: seven waves of rows.
    ran = processes.run(
        *job,
        env={"CERT_ON_LEDGER_FAILURE": setting},
        preexec_fn=lambda: _limit_files(120_000),
    )
    count = kinds(folder / "ledger").count("analysis")
    assert 0 < count < 40
    if setting == "halt":
        assert ran.code == 4
        assert "cannot take the record" in ran.err
        assert len(ran.records) == count
    else:
        assert ran.code in {0, 1}
        assert "not wholly in it" in ran.err
        assert len(ran.records) == 40
    again = processes.run(*job)
    assert f"continuing after {count} records" in again.err
    assert kinds(folder / "ledger").count("analysis") == 40


def _limit_files(size: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def wait_for_records(ledger: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(FileNotFoundError):
            if kinds(ledger).count("analysis") >= count:
                return
        time.sleep(0.02)


def test_kill_9_anywhere_and_the_ledger_ends_as_if_uninterrupted(
    processes: Processes, folder: Path, tiny: Path
) -> None:
    (folder / "p.yaml").write_text(NEVER)
    draw = random.Random(os.urandom(8))
    total = 120
    path = folder / "in.txt"
    path.write_text("".join(f"prompt {n} {'word ' * draw.randint(0, 9)}\n" for n in range(total)))
    args = ("batch", path, *LEDGER, "-m", tiny, "--policy", "p.yaml", "-o", "out.jsonl", "-q")
    ledger = folder / "ledger"
    kills = 0
    for _ in range(3):
        process = processes.start(*args, stdout=subprocess.DEVNULL)
        done = kinds(ledger).count("analysis") if ledger.exists() else 0
        wait_for_records(ledger, done + draw.randint(1, 20), process)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    last = Program()(*args)
    assert last.code == 0, last.err
    records = [one for one in records_in(ledger) if one["kind"] in RECORDS]
    assert [one["input"]["line"] for one in records] == list(range(1, total + 1))
    assert len({one["run_id"] for one in records}) == 1
    assert records_of(folder / "out.jsonl") == records
    assert records_in(ledger)[-1]["run"]["counts"]["passed"] == total
    check(ledger)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_sealed_ledger_and_a_run_that_goes_on(
    processes: Processes, folder: Path, tiny: Path, number: int
) -> None:
    path = folder / "in.txt"
    path.write_text("".join(f"prompt {n}\n" for n in range(400)))
    args = ("batch", path, *LEDGER, "-m", tiny, "--max-new-tokens", "48")
    process = processes.start(*args, stdout=subprocess.DEVNULL)
    wait_for_records(folder / "ledger", 3, process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    records = records_in(folder / "ledger")
    assert records[-1]["run"]["phase"] == "interrupted"
    done = sum(one["kind"] == "analysis" for one in records)
    assert sum(records[-1]["run"]["counts"].values()) == done
    check(folder / "ledger")
    ran = processes.run(*args, "--limit", "400")  # another limit is another job
    assert "continuing" not in ran.err


def test_two_runs_at_once_share_a_ledger(
    processes: Processes, folder: Path, tiny: Path, prompts: Path
) -> None:
    both = [
        processes.start("batch", prompts, *LEDGER, "-m", tiny, "--max-new-tokens", "8", "--seed", n)
        for n in ("1", "2")
    ]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode in {0, 1}
    report = check(folder / "ledger")
    assert report.kinds["analysis"] == 8
    assert kinds(folder / "ledger").count("run end") == 2


@pytest.mark.parametrize("is_named", [True, False])
def test_stdout_that_nobody_reads_does_not_stop_a_ledger_that_was_named(
    processes: Processes, folder: Path, tiny: Path, is_named: bool
) -> None:
    path = folder / "in.txt"
    path.write_text("".join(f"prompt {n}\n" for n in range(60)))
    more = LEDGER if is_named else ()
    process = processes.start(
        "batch",
        path,
        *more,
        "-m",
        tiny,
        "--max-new-tokens",
        "16",
        env={"XDG_STATE_HOME": str(folder / "state")},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=120)
    ledger = folder / "ledger" if is_named else folder / "state" / "cert" / "ledger"
    count = kinds(ledger).count("analysis")
    assert count == 60 if is_named else 1 <= count < 60
    assert kinds(ledger)[-1] == ("run end" if is_named else "run interrupted")
    assert process.returncode in ({0, 1} if is_named else {4})


def test_a_key_can_be_given(cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = KeyStore(folder / "keys").create(b"password")
    monkeypatch.setenv("CERT_SIGNING_KEY", str(KeyStore(folder / "keys").path_of(signer.public)))
    ran = cert("analyze", "x", *LEDGER)
    assert ran.code == 2
    assert "CERT_KEY_PASSWORD" in ran.err
    monkeypatch.setenv("CERT_KEY_PASSWORD", "password")
    assert cert("analyze", "x", *LEDGER).code in {0, 1}
    report = verify_ledger(FolderReader(folder / "ledger"), signer.public)
    assert report.state is State.UNANCHORED
    monkeypatch.delenv("CERT_SIGNING_KEY")
    ran = cert("analyze", "x", *LEDGER)  # appends need no key, sealing does
    assert ran.code == 2
    assert "signs this ledger" in ran.err


def test_a_ledger_of_many_commands_opens_without_being_read(cert: Program, folder: Path) -> None:
    for _ in range(3):
        cert("analyze", "x", *LEDGER)
    ledger = folder / "ledger"
    segment = ledger / "segments" / "000000000000.jsonl"
    data = bytearray(segment.read_bytes())
    data[data.index(b'"kind":"policy"')] ^= 1  # behind a checkpoint: only a verifier reads it
    segment.write_bytes(bytes(data))
    with open_ledger(ledger, KeyStore(keys_folder(None))) as opened:
        assert opened.size == len(lines_of(ledger))
