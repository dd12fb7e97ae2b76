"""--textfile: what node_exporter is left, whatever became of the run."""

from __future__ import annotations

import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deployments.ops_tools import tool

if TYPE_CHECKING:
    from tests.cli.helpers import Processes, Program


def read(path: Path) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["textfile"] for sample in samples} == {path.stem}
    return {
        (s.name.removeprefix("cert_run_last_"), s.labels["command"], s.labels.get("outcome", "")): (
            s.value
        )
        for s in samples
    }


def write_prompts(*prompts: str) -> Path:
    path = Path("prompts.txt")
    path.write_text("".join(f"{one}\n" for one in prompts))
    return path


def test_a_run_that_ended_well(cert: Program) -> None:
    before = time.time()
    prompts = write_prompts("one", "two", "three")
    ran = cert("batch", prompts, "--textfile", "nightly.prom", "-q", "--no-ledger")
    assert ran.code == 0
    found = read(Path("nightly.prom"))
    assert found["records", "batch", "passed"] == 3
    assert sum(v for (name, *_), v in found.items() if name == "records") == 3
    assert found["exit_code", "batch", ""] == 0
    assert 0 <= found["duration_seconds", "batch", ""] < time.time() - before + 1
    stamp = found["timestamp_seconds", "batch", ""]
    assert before <= stamp <= time.time()
    assert found["success_timestamp_seconds", "batch", ""] == stamp
    assert stat.S_IMODE(Path("nightly.prom").stat().st_mode) == 0o644
    assert sorted(map(str, Path().iterdir())) == ["nightly.prom", "prompts.txt"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("batch", "nowhere.txt"), 2),
        (("batch", "prompts.txt", "--max-errors", "x"), 2),
        (("batch", "prompts.txt", "--temperature", "-1"), 2),
        (("batch", "empty.txt"), 7),
    ],
)
def test_a_run_that_failed_keeps_when_one_last_went_well(
    cert: Program, arguments: tuple[str, ...], code: int
) -> None:
    prompts = write_prompts("one")
    Path("empty.txt").write_text("")
    more = ("--textfile", "a.prom", "-q", "--no-ledger")
    assert cert(*arguments, *more).code == code
    first = read(Path("a.prom"))
    assert first["exit_code", "batch", ""] == code
    assert ("success_timestamp_seconds", "batch", "") not in first
    assert cert("batch", prompts, *more).code == 0
    good = read(Path("a.prom"))["success_timestamp_seconds", "batch", ""]
    assert cert(*arguments, *more).code == code
    last = read(Path("a.prom"))
    assert last["success_timestamp_seconds", "batch", ""] == good
    assert last["timestamp_seconds", "batch", ""] > good
    assert last["records", "batch", "passed"] == 0


def test_analyze_has_one_too_and_a_dry_run_has_none(cert: Program) -> None:
    assert cert("analyze", "one", "--textfile", "a.prom", "--no-ledger", "-q").code == 0
    assert read(Path("a.prom"))["records", "analyze", "passed"] == 1
    cert("analyze", "one", "--textfile", "b.prom", "--dry-run")
    assert not Path("b.prom").exists()


@pytest.mark.parametrize("name", ["records.jsonl", "x", ".prom", "no/such/folder/a.prom"])
def test_what_node_exporter_would_not_read_is_refused_and_left_alone(
    cert: Program, name: str
) -> None:
    path = Path(name)
    if path.parent.is_dir():
        path.write_text("evidence")
    ran = cert("analyze", "one", "--textfile", name, "--no-ledger")
    assert ran.code == 2
    assert "--textfile" in ran.err
    assert not path.parent.is_dir() or path.read_text() == "evidence"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"cert_run_last_success_timestamp_seconds{} x\n", b"x" * 1_000_000],
)
def test_a_file_that_is_none_of_ours_is_replaced(cert: Program, content: bytes) -> None:
    Path("a.prom").write_bytes(content)
    assert cert("batch", "nowhere.txt", "--textfile", "a.prom", "--no-ledger").code == 2
    assert ("success_timestamp_seconds", "batch", "") not in read(Path("a.prom"))


def test_a_link_is_replaced_and_not_followed(cert: Program) -> None:
    Path("evidence").write_text("as it was")
    Path("a.prom").symlink_to("evidence")
    assert cert("analyze", "one", "--textfile", "a.prom", "--no-ledger", "-q").code == 0
    assert Path("evidence").read_text() == "as it was"
    assert not Path("a.prom").is_symlink()


def test_a_place_that_takes_no_file_is_a_warning(cert: Program) -> None:
    Path("a.prom").mkdir()
    ran = cert("analyze", "one", "--textfile", "a.prom", "--no-ledger")
    assert ran.code == 0
    assert "warning: --textfile a.prom cannot be written" in ran.err
    assert list(map(str, Path().iterdir())) == ["a.prom"]


def test_an_interrupted_run_is_written_down(processes: Processes, tiny: Path) -> None:
    command = ("batch", "-", "--model", tiny, "--textfile", "a.prom", "--no-ledger", "-q")
    process = processes.start(*command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    found = read(Path("a.prom"))
    assert found["exit_code", "batch", ""] == 143
    assert sum(v for (name, *_), v in found.items() if name == "records") == 1


def test_promtool_finds_nothing_to_say(cert: Program) -> None:
    assert cert("analyze", "one", "--textfile", "a.prom", "--no-ledger", "-q").code == 0
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=Path("a.prom").read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
