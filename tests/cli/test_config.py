from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cert.core.config import CERTConfig
from cert_cli.commands.config import app

ROOT = Path(__file__).parents[2]

runner = CliRunner()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("CERT_", "LOG_", "METRICS_")) or name in {"DEVICE", "MAX_MEMORY_GB"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_every_setting_is_shown_once() -> None:
    result = runner.invoke(app, ["show"])
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == list(CERTConfig.model_fields)
    assert "default" not in result.stdout


def test_origins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "cert.yaml").write_text("seed: 3\nstop: ['a b']\n")
    monkeypatch.setenv("DEVICE", "cpu")
    result = runner.invoke(app, ["show", "--origin"])
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
    assert rows["seed"].split() == ["3", "file", "cert.yaml"]
    assert rows["device"].split() == ["cpu", "environment", "DEVICE"]
    assert rows["top_k"].split() == ["0", "default"]
    assert rows["policy"].split() == ["none", "default"]
    assert rows["stop"].startswith('["a b"] ')


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_TEMPERATURE", "0.0")
    plain = json.loads(runner.invoke(app, ["show", "--json"]).stdout)
    assert plain == CERTConfig().model_dump(mode="json")
    full = json.loads(runner.invoke(app, ["show", "--json", "--origin"]).stdout)
    assert full["temperature"] == {"value": 0.0, "origin": "environment CERT_TEMPERATURE"}
    assert {name: entry["value"] for name, entry in full.items()} == plain


def test_a_named_file(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("device: cpu\n")
    result = runner.invoke(app, ["show", "--json", "--origin", "--config", str(file)])
    assert json.loads(result.stdout)["device"] == {"value": "cpu", "origin": f"file {file}"}


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["show", "--origin"]])
def test_neither_secrets_nor_control_characters_are_shown(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "a" * 30
    monkeypatch.setenv("CERT_MODEL", f"https://ann:pw@host/\x1b[2J{secret}")
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert secret not in result.stdout
    assert "ann:pw" not in result.stdout
    assert "\x1b" not in result.stdout
    assert "https://[redacted]@host/" in result.stdout


def test_a_long_value_leaves_the_others_origins_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_MODEL", "m" * 500)
    lines = runner.invoke(app, ["show", "--origin"]).stdout.splitlines()
    assert sum(len(line) > 100 for line in lines) == 1


def test_a_wrong_setting_ends_with_2_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "gpu")
    result = runner.invoke(app, ["show"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "device (environment DEVICE): it should be 'auto', 'cpu' or 'cuda'" in result.stderr


def test_without_a_subcommand_there_is_help() -> None:
    result = runner.invoke(app, [])
    assert "show" in result.stdout + result.stderr
    assert runner.invoke(app, ["hide"]).exit_code == 2


def test_another_encoding_and_a_closed_pipe() -> None:
    program = "from cert_cli.commands.config import app; app(['show'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CERT_MODEL": "modèle"}
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"mod\\xe8le" in shown.stdout
    full = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{program}" | true; exit "${{PIPESTATUS[0]}}"'],
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert full.returncode in {0, 4}
    assert full.stderr == b""


def test_help_loads_no_settings_and_loses_no_brackets() -> None:
    program = (
        "import sys\n"
        "from cert_cli.commands.config import app\n"
        "try: app(['show', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'cert.core.config', 'pydantic_settings', 'torch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert b"--origin" in done.stdout
    assert b"[tool.cert]" in done.stdout


def test_the_token_is_masked_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_TOKEN", "a plain sentence of a token")
    for arguments in (["show"], ["show", "--json", "--origin"]):
        result = runner.invoke(app, arguments)
        assert "a plain sentence" not in result.stdout
        assert "[redacted]" in result.stdout
    assert "a plain sentence" not in repr(CERTConfig.load())


def test_a_wrong_token_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_TOKEN", "hunter2")
    result = runner.invoke(app, ["show"])
    assert result.exit_code == 2
    assert "hunter2" not in result.stderr
    assert "token (environment CERT_TOKEN): String should have at least 16" in result.stderr
