"""The core wheel, unpacked, on a machine where the model stack does not exist."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.messages_server import Ability, MessagesServer, write_tasks

if TYPE_CHECKING:
    from .conftest import Wheel

ROOT = Path(__file__).resolve().parents[2]

# What the core's metadata does not promise: importing any of it fails as if it were not installed.
PROGRAM = """
import runpy, sys
ABSENT = {"torch", "transformers", "tokenizers", "safetensors", "jinja2", "accelerate",
          "bitsandbytes", "pyarrow", "anthropic", "starlette", "uvicorn", "ray", "vllm"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
site = sys.argv.pop(1)
sys.path.insert(0, site)
import cert
assert cert.__file__.startswith(site), cert.__file__
runpy.run_module("cert_cli", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def site(core_wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(core_wheel.path) as archive:
        archive.extractall(folder)
    return folder


def run(
    site: Path, cwd: Path, *arguments: str, program: str = PROGRAM
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(site), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["exit-codes"],
        ["config", "show", "--origin"],
        ["analyze", "--help"],
        ["batch", "--help"],
        ["coordinate", "--help"],
    ],
)
def test_what_needs_no_model_works(site: Path, tmp_path: Path, arguments: list[str]) -> None:
    result = run(site, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_schema_is_printed(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, "schema")
    assert result.returncode == 0, result.stderr
    assert "2020-12" in json.loads(result.stdout)["$schema"]


def test_the_policies_are_found_inside_the_wheel(site: Path, tmp_path: Path) -> None:
    program = PROGRAM.replace(
        'runpy.run_module("cert_cli", run_name="__main__", alter_sys=True)',
        "from cert.assessment.policy import load_policy; print(load_policy('default').digest)",
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("sha256:")


def test_a_ledger_is_packed_with_the_documents_of_the_wheel(site: Path, tmp_path: Path) -> None:
    program = PROGRAM.replace(
        'runpy.run_module("cert_cli", run_name="__main__", alter_sys=True)',
        "from pathlib import Path; from cert.evidence.bundle import write_bundle; "
        "from cert.ledger.appender import open_ledger; from cert.ledger.key_store import GivenKey; "
        "from cert.ledger.keys import Signer; "
        "open_ledger(Path('ledger'), GivenKey(Signer.generate())).close(); "
        "print(write_bundle(Path('ledger'), Path('evidence.zip')).report.state)",
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("unanchored\n", "")
    with zipfile.ZipFile(tmp_path / "evidence.zip") as archive:
        verifier = (ROOT / "docs" / "verifier" / "cert_verify.py").read_bytes()
        assert archive.read("cert_verify.py") == verifier


def test_agents_of_a_server_are_compared_without_a_model_stack(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("anthropic")
    write_tasks(tmp_path / "tasks.jsonl", 2)
    with MessagesServer(Ability(1.0, 1.0)) as server:
        command = ("coordinate", "tasks.jsonl", "-m", "m", "--base-url", server.url)
        options = ("--replicates", "1", "--no-ledger", "-q")
        refused = run(site, tmp_path, *command, *options)
        assert refused.returncode == 6
        assert "cert-framework-core[coordination]" in refused.stderr
        program = PROGRAM.replace('"anthropic", ', "")
        result = run(site, tmp_path, *command, *options, program=program)
    assert result.returncode == 3, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["kind"] == "coordination"


def test_a_command_that_needs_a_model_names_the_command_that_installs_it(
    site: Path, tmp_path: Path
) -> None:
    result = run(site, tmp_path, "analyze", "Explain entropy")
    assert result.returncode == 6, result.stderr
    assert "pip install 'cert-framework-core[local]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
