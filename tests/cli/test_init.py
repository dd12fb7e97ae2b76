"""`cert init`: the programs that it is for accept what it prints, and no path breaks out."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError
from cert_cli.app import app
from cert_cli.scaffold import UNITS, build_ci, build_crontab, build_units, find_program
from tests.cli.helpers import ROOT, Processes, Program

NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
STRANGE = [
    "a b",
    "a'b",
    'a"b',
    "50%",
    "a;reboot",
    "a$(reboot)",
    "a`id`",
    "-rf",
    "é",
    "#",
    "@INPUT@",
]


def unescape_as_cron_does(line: str) -> str | None:
    """What Vixie cron gives to the shell of a line; None if a % cuts it short."""
    out: list[str] = []
    is_escaped = False
    for letter in line:
        if is_escaped:
            if letter == "%":
                out.pop()
            is_escaped = False
        elif letter == "\\":
            is_escaped = True
        elif letter == "%":
            return None
        out.append(letter)
    return "".join(out)


def command_of(text: str) -> str:
    line = text.splitlines()[-1]
    assert line.startswith("17 3 * * * ")
    command = unescape_as_cron_does(line.removeprefix("17 3 * * * "))
    assert command is not None
    return command


@given(program=NAMES, source=NAMES, ledger=NAMES)
def test_cron_and_the_shell_give_the_paths_back(program: str, source: str, ledger: str) -> None:
    try:
        text = build_crontab(
            (f"/p/{program}",), source=Path(f"/s/{source}"), ledger=Path("/l") / ledger
        )
    except ConfigurationError:
        words = (program, source, ledger)
        assert any(not word.isprintable() or {"\\", "%"} <= set(word) for word in words)
        return
    words = shlex.split(command_of(text))
    assert words[3:6] == [f"/p/{program}", "batch", str(Path(f"/s/{source}"))]
    assert words[6:9] == ["--ledger", str(Path("/l") / ledger), "--no-input"]
    assert words[9:] == ["-q", ">/dev/null"]


def test_the_crontab_line_runs_with_nearly_no_environment(
    processes: Processes, folder: Path
) -> None:
    if shutil.which("flock", path="/usr/bin:/bin") is None:
        pytest.skip("flock is not here")
    place = folder / "it's 100% odd"
    place.mkdir()
    (place / "prompts.txt").write_text("Once upon a time\n")
    flags = ("--input", place / "prompts.txt", "--ledger", place / "ledger")
    printed = processes.run("init", "cron", *flags)
    assert printed.code == 0, printed.err
    keys = str(folder / "keys")  # the user's own key folder is not for tests
    done = subprocess.run(
        ["/bin/sh", "-c", command_of(printed.out)],
        env={"PATH": "/usr/bin:/bin", "CERT_KEYS": keys, "CERT_MAX_NEW_TOKENS": "2"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in {0, 1, 3}, done.stderr
    assert done.stdout == ""
    verified = processes.run("verify", place / "ledger", env={"CERT_KEYS": keys})
    assert verified.code == 0, verified.out
    assert "1 analysis" in verified.out


def test_a_second_run_is_left_out_while_the_first_holds_the_lock(folder: Path) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is not here")
    text = build_crontab(("/bin/echo",), source=Path("x"), ledger=folder / "ledger")
    held = ["flock", str(folder / "ledger.lock"), "sh", "-c", command_of(text).partition(">")[0]]
    done = subprocess.run(held, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_crontab_needs_a_ledger(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_LEDGER", "none")
    ran = cert("init", "cron")
    assert ran.code == 2
    assert "--ledger" in ran.err


def test_the_workflow_is_yaml_and_runs_commands_that_there_are(cert: Program) -> None:
    ran = cert("init", "ci", "--input", "a b/prompts.jsonl")
    workflow = yaml.safe_load(ran.out)
    job = workflow["jobs"]["audit"]
    assert job["env"]["CERT_INPUT"] == "a b/prompts.jsonl"
    assert workflow["permissions"] == {"contents": "read"}
    commands = []
    for step in job["steps"]:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40))
        for line in step.get("run", "").splitlines():
            words = shlex.split(line)
            if words[0] == "cert":
                commands.append(words[1:])
            else:
                assert words[:4] == ["python", "-m", "pip", "install"]
    assert [words[0] for words in commands] == ["batch", "verify", "ledger", "bundle"]
    known = typer.main.get_command(app)
    for words in commands:
        help_text = cert(
            *[w for w in words[:2] if w in known.commands or w == "head"], "--help"
        ).out  # type: ignore[attr-defined]  # a group
        for flag in (word for word in words if word.startswith("--")):
            assert f"{flag} " in help_text or f"{flag}," in help_text, (words[0], flag)


@pytest.mark.parametrize("name", [*STRANGE, "a\\b", "a: b"])
def test_the_workflow_takes_any_path_as_data(name: str) -> None:
    job = yaml.safe_load(build_ci(name, version="1.0"))["jobs"]["audit"]
    assert job["env"]["CERT_INPUT"] == (f"./{name}" if name.startswith("-") else name)


@pytest.mark.parametrize("name", ["${{ secrets.X }}", "a\nb", "a\x1bb", "a\u2028b", "\udc80"])
def test_a_path_that_no_format_holds_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        build_ci(name, version="1.0")
    if "$" not in name:
        with pytest.raises(ConfigurationError):
            build_units("serve", (name,))
        with pytest.raises(ConfigurationError):
            build_crontab((name,), source=Path("x"), ledger=Path("y"))


@pytest.mark.parametrize("mark", ["$", "'", '"', "\\"])
def test_what_systemd_refuses_in_a_programs_path_is_refused_first(mark: str) -> None:
    with pytest.raises(ConfigurationError, match="systemd takes"):
        build_units("serve", (f"/opt/{mark}x/cert",))


@pytest.mark.parametrize("name", [n for n in STRANGE if not set(n) & set("$'\"")])
@pytest.mark.parametrize("service", ["nightly", "serve"])
def test_systemd_finds_the_program_whatever_its_path(
    name: str, service: str, tmp_path: Path
) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    program = tmp_path / name / "cert"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    for file, text in build_units(service, (str(program),)).items():
        (tmp_path / file).write_text(text)
    program.chmod(0o755)
    files = [tmp_path / file for file in UNITS[service]]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    program.chmod(0o644)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    assert "is not executable" in done.stderr  # so the check above can fail


def test_units_go_to_a_folder_under_their_names_and_replace_nothing(
    cert: Program, folder: Path
) -> None:
    assert cert("init", "systemd", "-o", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(UNITS["nightly"])
    (folder / "cert-nightly.timer").write_text("mine\n")
    (folder / "cert-failure@.service").unlink()
    again = cert("init", "systemd", "-o", folder)
    assert again.code == 2
    assert "--force" in again.err
    assert (folder / "cert-nightly.timer").read_text() == "mine\n"
    assert not (folder / "cert-failure@.service").exists()
    assert cert("init", "systemd", "-o", folder, "--force").code == 0
    assert "OnCalendar" in (folder / "cert-nightly.timer").read_text()


def test_what_is_written_is_what_is_printed(cert: Program, folder: Path) -> None:
    printed = cert("init", "ci").out
    assert cert("init", "ci", "-o", "new.yml").code == 0
    assert (folder / "new.yml").read_text() == printed
    (folder / "link.yml").symlink_to("/etc/passwd")
    for name in ("link.yml", "missing/new.yml", "."):
        ran = cert("init", "ci", "-o", name, "--force")
        assert ran.code == 2, name
    assert all(f"# ---- {name}" in cert("init", "systemd").out for name in UNITS["nightly"])


def test_a_program_in_a_home_folder_is_warned_about(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cert_cli.scaffold.find_program", lambda: ("/home/ann/bin/cert",))
    ran = cert("init", "systemd", "serve")
    assert ran.code == 0
    assert "warning" in ran.err
    assert "ExecStart=" in ran.out


def test_the_program_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([*find_program(), "--version"], capture_output=True, check=True)
    assert done.stdout.startswith(b"cert ")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert find_program() == (sys.executable, "-m", "cert_cli")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run(
        [*find_program(), "--version"], capture_output=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.startswith(b"cert ")
