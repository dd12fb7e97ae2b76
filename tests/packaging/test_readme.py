"""What the README tells people to copy works, and shows what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERDICTS = (0, 1, 3)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def cert_commands() -> list[str]:
    """What the README tells people to run; commands about one ledger together, in their order."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [re.split(r"\s+#", line)[0].strip() for line in lines if "cert " in line]
    about = [command for command in commands if "evidence" in command]
    alone = [command for command in commands if "evidence" not in command]
    return [*alone, " && ".join(f"{{ {command} || [ $? -lt 4 ]; }}" for command in about)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place to run the commands in: samples, `cert` on the path, a model folder."""
    shutil.copytree(ROOT / "sample_prompts", tmp_path / "sample_prompts")
    shutil.copytree(ROOT / "cert" / "reference" / "model", tmp_path / "my-model")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cert"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cert_cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "bin" / "jq").symlink_to("/bin/cat")
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        },
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "command", [c for c in cert_commands() if not c.startswith(("pip", "make"))]
)
def test_a_command_of_the_readme_runs(command: str, folder: Path) -> None:
    # jq is not everywhere, and its arguments mean nothing to cat.
    result = run(re.sub(r"\| jq .*", "| jq", command), folder)
    assert result.returncode in VERDICTS, result.stderr
    assert result.stdout
    assert "Traceback" not in result.stderr


def test_the_server_of_the_readme_answers(folder: Path) -> None:
    (block,) = blocks("bash")
    start, *calls = [re.split(r"\s+#", line)[0] for line in block.splitlines()]
    assert start == "cert serve &"
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    port = url.rpartition(":")[2]
    wait = f"for _ in $(seq 300); do curl -sf {url}/readyz && break; sleep 0.2; done"
    script = [f"export CERT_SERVE_PORT={port} METRICS_PORT=0", start, "pid=$!", f"{wait} >&2"]
    script += [call.replace("http://127.0.0.1:8000", url) for call in calls]
    result = run("\n".join([*script, "kill $pid; wait $pid; code=$?; echo; echo $code"]), folder)
    *records, code = filter(None, result.stdout.splitlines())
    assert code == "143", result.stderr
    assert [json.loads(line)["kind"] for line in records] == ["analysis"] * 2


def demo() -> list[tuple[str, list[str]]]:
    """Commands of the demo, and what the README shows of each."""
    (block,) = blocks("console")
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(lines[0], lines[1:]) for lines in (part.splitlines() for part in parts)]


def lasting(lines: list[str]) -> list[str]:
    """Without times, and without what is drawn at random: keys, digests of keys, origins."""
    patterns = {
        r"\d+\.\d+ s": "TIME",
        r"ed25519:[A-Za-z0-9+/]{43}=": "KEY",
        r"fingerprint [0-9a-f]{64}": "FINGERPRINT",
        r"heads/[0-9a-f]{64}": "HEAD",
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "UUID",
    }
    for pattern, word in patterns.items():
        lines = [re.sub(pattern, word, line.rstrip()) for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def test_the_demo_shows_what_the_readme_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_LEDGER", "demo/ledger")
    monkeypatch.setenv("CERT_KEYS", "demo/keys")
    assert len(demo()) == 2
    for command, expected in demo():
        result = run(command.removeprefix(".venv/bin/"), folder)
        assert result.returncode == 0, result.stderr
        assert lasting(result.stdout.splitlines()) == lasting(expected)


def test_the_makefile_runs_the_commands_that_the_readme_shows() -> None:
    result = subprocess.run(
        ["make", "--just-print", "--assume-old=.venv/.ready", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command, _ in demo():
        assert command in result.stdout


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = blocks("python")
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(("pass ", "fail "))


def test_the_exit_codes_of_the_readme_are_the_programs() -> None:
    from cert_cli.exit_codes import ExitCode

    rows = re.findall(r"^\| ([0-9, ]+) \|", README, flags=re.MULTILINE)
    told = {int(code) for row in rows for code in row.split(",")}
    assert told == {int(code) for code in ExitCode}


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
