"""The units are accepted, confined, and allow what the program does."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cert_cli.scaffold import UNITS, build_units, find_program
from tests.deployments.ops_tools import DEPLOYMENTS, ROOT, passes, run, tool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.helpers import Processes

SYSTEMD = DEPLOYMENTS / "systemd"
# Measured by systemd 252; 10 is exposed, 0 is safe.
SCORES = {"cert-serve": 1.2, "cert-serve-metrics": 1.1, "cert-nightly": 0.7, "cert-health": 0.7}


def test_the_folder_holds_what_init_prints_and_no_copy_of_it() -> None:
    names = {path.name for path in SYSTEMD.iterdir()}
    assert names == {*(n for files in UNITS.values() for n in files), "sysusers.conf", "gpu.conf"}
    for path in SYSTEMD.iterdir():
        assert path.resolve().parent == ROOT / "configs" / "templates" / "systemd"


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    for service in UNITS:
        for name, text in build_units(service, find_program()).items():
            (tmp_path / name).write_text(text)
    shutil.copytree(tmp_path, tmp_path / "with-gpu")
    extra = tmp_path / "with-gpu" / "cert-serve.service.d"
    extra.mkdir()
    shutil.copy(SYSTEMD / "gpu.conf", extra)
    for folder in (tmp_path, tmp_path / "with-gpu"):
        done = run(
            analyze, "verify", "--man=no", *(one for one in folder.iterdir() if one.is_file())
        )
        assert (done.returncode, done.stderr) == (0, "")
    for timer in SYSTEMD.glob("*.timer"):
        passes(analyze, "calendar", re.findall(r"OnCalendar=(.*)", timer.read_text())[0])


@pytest.mark.parametrize("name", SCORES)
def test_no_unit_is_more_exposed_than_it_was(name: str) -> None:
    analyze = tool("systemd-analyze")
    threshold = str(int(SCORES[name] * 10))
    unit = SYSTEMD / f"{name}.service"
    out = passes(
        analyze, "security", "--offline=true", "--no-pager", f"--threshold={threshold}", unit
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", out)
    assert found is not None
    assert float(found[1]) <= SCORES[name]


def test_the_sandbox_allows_every_system_call_of_a_batch(
    tmp_path: Path, processes: Processes
) -> None:
    allowed, known = _calls("cert-nightly.service")
    (tmp_path / "prompts.txt").write_text("Once upon a time\n")
    trace = tmp_path / "trace"
    # Only what is not allowed stops the program; `flock` shows that calls are seen at all.
    seen = ",".join(f"?{name}" for name in sorted((known - allowed) | {"flock"}))
    strace = [tool("strace"), "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", trace]
    batch = ("batch", tmp_path / "prompts.txt", "--ledger", tmp_path / "ledger", "--no-input", "-q")
    done = subprocess.run(
        [*strace, "-e", f"trace={seen}", *processes.command(*batch, "--max-new-tokens", "2")],
        env=processes.environment({"CERT_KEYS": str(tmp_path / "keys")}),
        capture_output=True,
        check=False,
        timeout=200,
    )
    if not trace.exists():
        pytest.skip(f"strace cannot trace here: {done.stderr.decode()[:200]}")
    assert done.returncode in {0, 1, 3}, done.stderr
    calls = re.findall(r"^\d+ +([a-z]\w+)\(", trace.read_text(errors="replace"), re.MULTILINE)
    assert set(calls) == {"flock"}


def _text(name: str) -> str:
    return (SYSTEMD / name).read_text()


def _calls(unit: str) -> tuple[set[str], set[str]]:
    """Which calls a unit's SystemCallFilter lines let through, and all that systemd knows."""
    analyze = tool("systemd-analyze")
    listed = passes(analyze, "syscall-filter", "--no-pager")
    sets: dict[str, set[str]] = {}
    for line in listed.splitlines():
        if line.startswith(("@", "# Unlisted")):
            members = sets.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.add(line.strip())

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return set().union(*map(calls, sets[name]))

    allowed = calls("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)", _text(unit), re.MULTILINE):
        for name in line.removeprefix("~").split():
            allowed = allowed - calls(name) if line.startswith("~") else allowed | calls(name)
    return allowed, set().union(*map(calls, sets))
