from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from cert.core.errors import ConfigurationError
from cert.runner.record_file import OutputError, RecordFile


def test_lines_are_there_for_others_as_soon_as_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with RecordFile(path) as file:
        file.write(b"one")
        assert path.read_bytes() == b"one\n"
        file.write("zwölf".encode())
        assert path.read_bytes() == "one\nzwölf\n".encode()
        assert file.size_bytes == file.complete_bytes == 11
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_kept_and_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cert.runner.record_file._CHUNK_BYTES", 3)
    path = tmp_path / "out"
    path.write_bytes(b"\nfirst line\nb\n")
    with RecordFile(path) as file:
        assert list(file.lines()) == [b"", b"first line", b"b"]
        assert list(file.lines(12)) == [b"b"]
        assert file.last_line() == b"b"
        file.write(b"c")
        assert list(file.lines()) == [b"", b"first line", b"b", b"c"]
        assert file.last_line() == b"c"


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "out") as file:
        assert list(file.lines()) == []
        assert file.last_line() is None
        assert file.tail(10) == b""
        assert file.cut_torn_end() is None


@pytest.mark.parametrize("head", [b"", b"one\n", b"one\ntwo\n"])
def test_a_torn_end_is_kept_beside_the_file_and_cut_off(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "out"
    path.write_bytes(head + b'{"torn')
    digest = hashlib.sha256(b'{"torn').hexdigest()[:16]
    with RecordFile(path) as file:
        assert file.tail(3) == b'{"t'
        copy = file.cut_torn_end()
        assert copy == tmp_path / f"out.torn-{len(head)}-{digest}"
        assert copy.read_bytes() == b'{"torn'
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert path.read_bytes() == head
        file.write(b"next")
    assert path.read_bytes() == head + b"next\n"


def test_a_torn_end_that_cannot_be_kept_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"torn")
    digest = hashlib.sha256(b"torn").hexdigest()[:16]
    (tmp_path / f"out.torn-0-{digest}").symlink_to(tmp_path / "elsewhere")
    with RecordFile(path) as file, pytest.raises(OutputError, match="torn end"):
        file.cut_torn_end()
    assert path.read_bytes() == b"torn"
    assert not (tmp_path / "elsewhere").exists()


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with RecordFile(path), pytest.raises(ConfigurationError, match="is being written") as caught:
        RecordFile(path)
    assert str(os.getpid()) in caught.value.message
    assert "wait" in caught.value.hint
    RecordFile(path).close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        RecordFile(link)
    assert target.read_bytes() == b"precious"


def test_a_file_with_a_second_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    os.link(path, tmp_path / "other")
    with pytest.raises(ConfigurationError, match="2 names"):
        RecordFile(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null"), Path("/dev/full")):
        with pytest.raises(ConfigurationError, match="not a regular file"):
            RecordFile(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/out", "No such file"),
        ("x" * 300, "File name too long"),
        ("nul\0name", "NUL"),
        (".", "Is a directory"),
    ],
)
def test_a_path_that_cannot_be_opened_is_a_configuration_error(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        RecordFile(tmp_path / name if "\0" not in name else Path(name))


def test_a_file_that_cannot_be_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ConfigurationError, match="cannot be locked"):
        RecordFile(tmp_path / "out")


def test_a_refused_file_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    os.link(path, tmp_path / "other")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    with pytest.raises(ConfigurationError):
        RecordFile(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count


_FULL = """
import resource, signal, sys
from pathlib import Path
from cert.runner.record_file import OutputError, RecordFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
file = RecordFile(Path(sys.argv[1]))
acknowledged = 0
try:
    while True:
        file.write(b"x" * 29)
        acknowledged += 1
except OutputError as error:
    print(acknowledged, error.message, "|", error.hint)
try:
    file.write(b"y" * 200)
except OutputError:
    print("again")
file.write(b"z" * 5)
file.close()
"""


def test_a_full_disk_leaves_whole_lines_and_acknowledges_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("3 ")
    assert "make room" in first
    assert second == "again"
    assert path.read_bytes() == (b"x" * 29 + b"\n") * 3 + b"zzzzz\n"


def test_another_write_error_is_backed_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with RecordFile(path) as file:
        file.write(b"one")
        written = os.write

        def half(fd: int, data: bytes) -> int:
            if len(data) > 2:
                return written(fd, data[:2])
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OutputError, match="Input/output error") as caught:
            file.write(b"abc")
        monkeypatch.undo()
        assert "check the disk" in caught.value.hint
        assert path.read_bytes() == b"one\n"
        file.write(b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_disk_that_fails_to_sync_is_an_error_and_is_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    file = RecordFile(tmp_path / "out")
    file.write(b"one")
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(OutputError, match="brought to the disk"):
        file.close()
    file.close()
    assert len(calls) == 1


def test_a_long_run_is_synced_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cert.runner.record_file._SYNC_INTERVAL_S", 0.0)
    calls = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    with RecordFile(tmp_path / "out") as file:
        file.write(b"one")
        file.write(b"two")
        assert len(calls) == 2
        file.sync()
    assert len(calls) == 2


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"one\ntwo\n")
    with RecordFile(path) as file:
        os.truncate(path, 0)
        with pytest.raises(OutputError, match="cut by another program"):
            list(file.lines())


def test_reading_holds_one_line_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as stream:
        for _ in range(60):
            stream.write(b"x" * 1_000_000 + b"\n")
    tracemalloc.start()
    try:
        with RecordFile(path) as file:
            assert sum(len(line) for line in file.lines()) == 60_000_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
