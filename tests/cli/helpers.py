"""The program in this process with a fake model, and as a process of its own with a tiny one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from cert_cli.app import app
from tests.fakes import FakeLoader

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
OURS = ("CERT_", "LOG_", "METRICS_")
NAMES = {"DEVICE", "MAX_MEMORY_GB", "PRELOAD_MODELS", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"}


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OURS) and name not in NAMES
    }


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return self.bytes.getvalue().decode(self.encoding)


@dataclass
class Ran:
    """What a run of the program left."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        # Not splitlines(): U+2028 and its like are content of a record.
        *lines, end = self.out.split("\n")
        assert end == ""
        return [json.loads(line) for line in lines]


def records_of(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


@dataclass
class Program:
    """The program in this process, its model replaced by a fake."""

    loader: FakeLoader = field(default_factory=FakeLoader)

    def __call__(self, *args: str | Path, stdin: str | bytes | None = None) -> Ran:
        result = CliRunner().invoke(app, [str(one) for one in args], input=stdin)
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Ran(result.exit_code, result.stdout, result.stderr)


@dataclass
class Processes:
    """Starts the program as a process of its own; whatever still runs at the end is killed."""

    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **options}
        process = subprocess.Popen(self.command(*args), env=self.environment(env), **options)
        self.started.append(process)
        return process

    def run(self, *args: str | Path, stdin: bytes = b"", **options: Any) -> Ran:  # noqa: ANN401
        process = self.start(*args, **{"stdin": subprocess.PIPE, **options})
        out, err = process.communicate(stdin, timeout=120)
        return Ran(process.returncode, (out or b"").decode(), (err or b"").decode())

    @staticmethod
    def command(*args: str | Path) -> list[str]:
        return [sys.executable, "-m", "cert_cli", *(str(one) for one in args)]

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **clean_environment(),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "",
            **(more or {}),
        }
