from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = "Floors: imports only look down"
AUDITOR = "An auditor reads evidence without a model stack"
METRICS = "Evidence and judgement do not know the metrics"
AUDITOR_PACKAGES = ("inputs", "ledger", "signals", "assessment", "evidence")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("cert", "cert_cli"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("cert/core/errors.py", "import cert.runner", FLOORS),
        ("cert/observability/__init__.py", "from cert.core import errors", FLOORS),
        ("cert/evidence/__init__.py", "import cert.trajectory", FLOORS),
        ("cert/newcomer/__init__.py", "", FLOORS),
        ("cert/runner/__init__.py", "import cert_cli", "The library does not know"),
        ("cert/ledger/__init__.py", "import torch", AUDITOR),
        ("cert/evidence/__init__.py", "import transformers", AUDITOR),
        ("cert/signals/__init__.py", "import prometheus_client", METRICS),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as handle:
        handle.write(f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    # The last mention is the detailed one, which stands among the broken contracts.
    broken = result.stdout.split("Broken contracts")[-1]
    assert contract in broken


@pytest.mark.parametrize("package", AUDITOR_PACKAGES)
def test_importing_all_of_an_auditors_package_loads_no_model_stack(package: str) -> None:
    program = f"""
import importlib, pkgutil, sys
package = importlib.import_module("cert.{package}")
count = 0
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
    count += 1
for name in package.__all__ if hasattr(package, "__all__") else []:
    getattr(package, name)
assert count, "no modules"
print(sorted({{"torch", "transformers", "tokenizers", "prometheus_client"}} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
