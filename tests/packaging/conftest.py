from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Wheel:
    path: Path
    files: dict[str, bytes]
    metadata: Message
    entry_points: str

    def requirements(self) -> list[str]:
        return self.metadata.get_all("Requires-Dist") or []


def build(project: Path, out: Path) -> Wheel:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        everything = {name: archive.read(name) for name in archive.namelist()}
    info = next(name for name in everything if name.endswith(".dist-info/METADATA"))
    return Wheel(
        path=path,
        files={n: d for n, d in everything.items() if ".dist-info/" not in n},
        metadata=message_from_bytes(everything[info]),
        entry_points=everything[info.replace("METADATA", "entry_points.txt")].decode(),
    )


@pytest.fixture(scope="session")
def full_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build(ROOT, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build(ROOT / "packaging" / "core", tmp_path_factory.mktemp("core"))
