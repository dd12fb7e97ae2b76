"""Memory stays flat: each input is read by a process of its own, whose peak is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Prints cases, refusals, seconds, and by how many MiB the peak grew after the imports and the
# reading of a small file of the same kind.
PROGRAM = """
import json, resource, sys, time
from cert.inputs.case import PromptCase
from cert.inputs.reader import read_cases

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

small, large = sys.argv[1:]
assert all(isinstance(item, PromptCase) for item in read_cases([small]))
before, begun = peak(), time.perf_counter()
cases = refused = 0
for item in read_cases([large]):
    if isinstance(item, PromptCase):
        cases += 1
    else:
        refused += 1
print(json.dumps([cases, refused, time.perf_counter() - begun, peak() - before]))
"""
PREFIX = {".txt": b"", ".jsonl": b"", ".csv": b"prompt\n"}
ROW = {".txt": b"a prompt\n", ".jsonl": b'{"prompt": "a prompt"}\n', ".csv": b'"a prompt"\n'}


def measure(small: Path, large: Path) -> tuple[int, int, float, float]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(small), str(large)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    cases, refused, seconds, grown = json.loads(run.stdout)
    return cases, refused, seconds, grown


def write_small(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"small{suffix}"
    path.write_bytes(PREFIX[suffix] + ROW[suffix] * 3)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_line_of_100_megabytes(tmp_path: Path, suffix: str, quoted: bool) -> None:
    large = tmp_path / f"large{suffix}"
    with large.open("wb") as file:
        file.write(PREFIX[suffix] + ROW[suffix])
        if quoted:
            file.write(b'{"prompt": ' if suffix == ".jsonl" else b'"')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + ROW[suffix])
    cases, refused, seconds, grown = measure(write_small(tmp_path, suffix), large)
    assert (cases, refused) == (2, 1)
    assert seconds < 5
    assert grown < 32


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_100_000_lines(tmp_path: Path, suffix: str) -> None:
    large = tmp_path / f"large{suffix}"
    rows = 100_000
    with large.open("wb") as file:
        file.write(PREFIX[suffix])
        for at in range(rows):
            # Every prompt twice, so that both ways of finding an id are gone.
            file.write(ROW[suffix].replace(b"a pr", b"%d a pr" % (at // 2)))
    cases, refused, _, grown = measure(write_small(tmp_path, suffix), large)
    assert (cases, refused) == (rows, 0)
    # The index's cache may fill its 8 MiB, and no more than that.
    assert grown < 24


@pytest.mark.parametrize("repeated", [True, False])
def test_parquet_of_200_megabytes(tmp_path: Path, repeated: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows, chars = 4000, 50_000
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    parquet.write_table(pa.table({"prompt": ["a prompt"]}), small)
    texts = ["x" * chars] * rows
    if not repeated:
        texts = [os.urandom(chars // 2).hex() for _ in range(rows)]
    parquet.write_table(pa.table({"prompt": texts}), large, row_group_size=rows)
    del texts
    cases, refused, _, grown = measure(small, large)
    assert (cases, refused) == (rows, 0)
    assert grown < 100
