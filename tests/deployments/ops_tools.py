"""The programs that deployments are checked with; a test is skipped where one is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"


def tool(name: str) -> str:
    """The program's path: of `make ops-tools`, or of the system."""
    ours = ROOT / ".ops-tools" / "bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here (make ops-tools, or the system's package)")
    return found


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    """Run a tool to its end; what it printed is in the assertion if it fails."""
    options = {"timeout": 120, **options}
    return subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, check=False, **options
    )


def passes(*command: str | Path, **options: Any) -> str:  # noqa: ANN401
    """Run a tool that has to succeed; returns its stdout."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def alerts() -> Iterator[dict[str, Any]]:
    """Every alert, as its rule says."""
    for path in sorted((DEPLOYMENTS / "prometheus" / "rules").glob("*.yml")):
        for group in documents(path)[0]["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)
