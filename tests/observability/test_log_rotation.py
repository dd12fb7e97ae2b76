"""Log files that are rotated: by themselves, by another program, under several processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.observability.logging import configure_logging, reset_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("cert.test")
ROOT = Path(__file__).parents[2]
WRITER = """
import logging, sys
from cert.observability.logging import configure_logging
configure_logging(output="file", log_file=sys.argv[1], max_bytes=4000, backup_count=1000)
for number in range(int(sys.argv[3])):
    logging.getLogger("cert.test").info("line", extra={"who": sys.argv[2], "number": number})
"""


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    yield
    reset_logging()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cert.log"


def write(numbers: range) -> None:
    for number in numbers:
        logger.info("line", extra={"number": number})


def numbers_in(*paths: Path) -> list[int]:
    return [json.loads(line)["number"] for path in paths for line in path.read_text().splitlines()]


def test_many_lines_are_rotated_and_all_are_there(path: Path) -> None:
    configure_logging(output="file", log_file=path, max_bytes=1000, backup_count=100)
    write(range(200))
    files = [path, *(path.with_name(f"cert.log.{n}") for n in range(1, 101))]
    there = [one for one in files if one.exists()]
    assert len(there) > 10
    assert all(one.stat().st_size <= 1000 for one in there)
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in there)
    assert numbers_in(*reversed(there)) == list(range(200))


def test_a_file_is_filled_to_the_last_byte_and_no_further(path: Path) -> None:
    configure_logging(output="file", log_file=path, max_bytes=0)
    write(range(1))
    line_bytes = path.stat().st_size
    path.unlink()
    configure_logging(output="file", log_file=path, max_bytes=3 * line_bytes, backup_count=9)
    write(range(7))
    sizes = [len(numbers_in(path.with_name(name))) for name in ("cert.log.2", "cert.log.1")]
    assert (sizes, numbers_in(path)) == ([3, 3], [6])


def test_only_so_many_backups_are_kept(path: Path) -> None:
    configure_logging(output="file", log_file=path, max_bytes=300, backup_count=2)
    write(range(50))
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "cert.log",
        "cert.log.1",
        "cert.log.2",
    ]
    assert numbers_in(path)[-1] == 49


@pytest.mark.parametrize(("max_bytes", "backups"), [(0, 5), (300, 0)])
def test_rotation_can_be_left_to_others(path: Path, max_bytes: int, backups: int) -> None:
    configure_logging(output="file", log_file=path, max_bytes=max_bytes, backup_count=backups)
    write(range(50))
    assert [one.name for one in path.parent.iterdir()] == ["cert.log"]
    assert numbers_in(path) == list(range(50))


def test_a_line_longer_than_a_file_stands_alone(path: Path) -> None:
    configure_logging(output="file", log_file=path, max_bytes=100, backup_count=5)
    write(range(3))
    assert numbers_in(path.with_name("cert.log.2"), path.with_name("cert.log.1"), path) == [0, 1, 2]


@pytest.mark.parametrize("max_bytes", [0, 10**6])
def test_another_program_renames_the_file(path: Path, max_bytes: int) -> None:
    configure_logging(output="file", log_file=path, max_bytes=max_bytes)
    moved = [path.with_name(f"moved-{n}") for n in range(3)]
    for place, one in enumerate(moved):
        write(range(10 * place, 10 * place + 10))
        path.rename(one)
    write(range(30, 40))
    assert numbers_in(*moved, path) == list(range(40))
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_program_copies_and_truncates_the_file(path: Path) -> None:
    configure_logging(output="file", log_file=path)
    write(range(10))
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    os.truncate(path, 0)
    write(range(10, 20))
    assert numbers_in(copy, path) == list(range(20))
    assert b"\0" not in path.read_bytes()


def test_a_file_that_cannot_be_rotated_grows_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    configure_logging(output="file", log_file=path, max_bytes=300, backup_count=2)
    write(range(20))
    assert numbers_in(path) == list(range(20))
    said = capsys.readouterr().err
    assert said == f"cert: cannot rotate {path}: Permission denied; it grows on\n"


def test_several_processes_write_and_rotate_one_file(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([*command, str(who), "300"], env=env, stderr=subprocess.PIPE)
        for who in range(3)
    ]
    for one in writers:
        assert one.communicate(timeout=120)[1] == b""
        assert one.returncode == 0
    lines = [json.loads(line) for one in path.parent.iterdir() for line in one.open()]
    found = sorted((int(line["who"]), line["number"]) for line in lines)
    assert found == [(who, number) for who in range(3) for number in range(300)]
    assert len(list(path.parent.iterdir())) > 10
    # Nobody rotates a file that another one has rotated just before: all but the last are full.
    rotated = [one for one in path.parent.iterdir() if one != path]
    assert all(one.stat().st_size > 3000 for one in rotated)


def test_who_finds_the_lock_held_goes_on_writing(path: Path) -> None:
    import fcntl

    configure_logging(output="file", log_file=path, max_bytes=300, backup_count=9)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write(range(10))
        assert [one.name for one in path.parent.iterdir()] == ["cert.log"]
    write(range(10, 11))
    assert numbers_in(path.with_name("cert.log.1"), path) == list(range(11))
