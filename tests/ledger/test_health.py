"""Health of real ledgers, seen without writing to them."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

import pytest

from cert.core.health import HealthStatus
from cert.ledger import health
from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.glance import load_end
from cert.ledger.health import check_checkpoint, check_key, check_writable
from cert.ledger.key_store import GivenKey, KeyStore
from tests.cli.ledgers import digest_of_tree
from tests.ledger.opened import FIRST, NEVER, SECOND, Ring, begin, body, lines_of

if TYPE_CHECKING:
    from pathlib import Path

    from cert.core.health import CheckResult


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Genesis and three records, sealed."""
    with begin(tmp_path / "ledger") as ledger:
        ledger.append([body(one) for one in range(3)])
    return tmp_path / "ledger"


def checkpoint(
    folder: Path, *, max_age_s: float | None = None, later_s: float = 0.0
) -> CheckResult:
    return check_checkpoint(
        folder,
        Ring,
        max_age_s=max_age_s,
        lock_timeout_s=1.0,
        now=lambda: time.time() + later_s,
    )


def leave_unsealed(folder: Path, count: int = 2) -> None:
    ledger = begin(folder, NEVER)
    ledger.append([body(one) for one in range(10, 10 + count)])


def segment(folder: Path) -> Path:
    return max((folder / "segments").glob("*.jsonl"))


def test_looking_leaves_no_trace(folder: Path) -> None:
    leave_unsealed(folder)
    before = digest_of_tree(folder)
    assert check_writable(folder, 1.0)
    assert checkpoint(folder)
    assert check_key(folder, Ring, lock_timeout_s=1.0)
    assert digest_of_tree(folder) == before


def test_a_ledger_that_can_be_begun_is_fine_and_is_not(tmp_path: Path) -> None:
    found = check_writable(tmp_path / "a" / "b", 1.0)
    assert (found.status, "can be created" in found.reason) == (HealthStatus.HEALTHY, True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    assert "can be begun" in check_writable(tmp_path / "empty", 1.0).reason
    assert checkpoint(tmp_path / "empty").status is HealthStatus.HEALTHY
    assert checkpoint(tmp_path / "a").status is HealthStatus.HEALTHY


@pytest.mark.parametrize("inner", ["", "inner"])
def test_a_file_is_no_folder(tmp_path: Path, inner: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = check_writable(tmp_path / "file" / inner, 1.0)
    assert (found.status, "is no folder" in found.reason) == (HealthStatus.UNHEALTHY, True)


def test_a_ledger_behind_a_link_is_not_written_to(folder: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    assert check_writable(link, 1.0).status is HealthStatus.UNHEALTHY


def test_a_lock_that_is_not_let_go(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        for found in (check_writable(folder, 0.05), check_lock(folder)):
            assert found.status is HealthStatus.UNHEALTHY
            assert "held by another process" in found.reason
    finally:
        os.close(fd)


def check_lock(folder: Path) -> CheckResult:
    return check_checkpoint(folder, Ring, max_age_s=None, lock_timeout_s=0.05)


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
@pytest.mark.parametrize("number", [28, 5, 30])
def test_a_disk_that_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = os.open

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def open_(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            fail()
        return real(path, flags, *rest)

    if call == "write":
        monkeypatch.setattr(health, "write_all", fail)
    else:
        monkeypatch.setattr(os, call, open_ if call == "open" else fail)
    for place in (folder, folder / "new"):
        found = check_writable(place, 1.0)
        assert found.status is HealthStatus.UNHEALTHY
        assert os.strerror(number) in found.reason


@pytest.mark.parametrize(("may", "status"), [(True, "healthy"), (False, "unhealthy")])
def test_where_there_are_no_files_without_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, may: bool, status: str
) -> None:
    real = os.open

    def open_(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, os.strerror(95))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "access", lambda *_, **__: may)
    assert check_writable(folder, 1.0).status == status


def test_a_segment_that_cannot_be_opened(folder: Path) -> None:
    path = segment(folder)
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    assert check_writable(folder, 1.0).status is HealthStatus.UNHEALTHY


def test_all_is_sealed(folder: Path) -> None:
    found = checkpoint(folder, later_s=10 * 86_400)
    assert found.status is HealthStatus.HEALTHY
    assert found.reason.startswith("the newest checkpoint is of 4 records and 10 d old; 0 unsealed")


def test_unsealed_records_may_not_stay_so_for_long(folder: Path) -> None:
    leave_unsealed(folder)
    assert "2 unsealed after it" in checkpoint(folder, later_s=3500).reason
    assert checkpoint(folder, later_s=3500).status is HealthStatus.HEALTHY
    assert checkpoint(folder, later_s=3700).status is HealthStatus.DEGRADED


def test_a_limit_holds_for_every_checkpoint(folder: Path) -> None:
    assert checkpoint(folder, max_age_s=100, later_s=90).status is HealthStatus.HEALTHY
    found = checkpoint(folder, max_age_s=100, later_s=110)
    assert (found.status, "older than 2 min" in found.reason) == (HealthStatus.DEGRADED, True)
    leave_unsealed(folder)
    assert checkpoint(folder, max_age_s=9000, later_s=8000).status is HealthStatus.HEALTHY


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    leave_unsealed(tmp_path / "ledger")
    found = checkpoint(tmp_path / "ledger")
    assert found.status is HealthStatus.DEGRADED
    assert found.reason == "none of 3 records is sealed by a checkpoint"


def test_without_its_notes_a_checkpoint_is_not_proven(folder: Path) -> None:
    (folder / "tail.json").unlink()
    found = checkpoint(folder)
    assert (found.status, "notes are missing" in found.reason) == (HealthStatus.DEGRADED, True)


def test_an_incomplete_end(folder: Path) -> None:
    with segment(folder).open("ab") as file:
        file.write(b'{"_prev":"')
    found = checkpoint(folder)
    assert (found.status, "last 10 bytes" in found.reason) == (HealthStatus.DEGRADED, True)


def test_records_that_do_not_follow(folder: Path) -> None:
    leave_unsealed(folder)
    path = segment(folder)
    *head, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*head[:-1], last]))
    found = checkpoint(folder)
    assert found.status is HealthStatus.UNHEALTHY
    assert "does not follow" in found.reason
    assert "cert verify" in found.reason


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_a_ledger_that_was_cut(folder: Path, keep: int) -> None:
    path = segment(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))
    assert checkpoint(folder).status is HealthStatus.UNHEALTHY
    (folder / "tail.json").unlink()
    assert checkpoint(folder).status is HealthStatus.UNHEALTHY


def test_a_last_sealed_record_that_was_changed(folder: Path) -> None:
    path = segment(folder)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    found = checkpoint(folder)
    assert (found.status, "not hold what was sealed" in found.reason) == (
        HealthStatus.UNHEALTHY,
        True,
    )


@pytest.mark.parametrize("damage", [b"", b"no note", None])
def test_a_checkpoint_that_is_none(folder: Path, damage: bytes | None) -> None:
    (note,) = (folder / "checkpoints").glob("*.note")
    data = note.read_bytes()
    note.write_bytes(data[:-10] + b"AAAAAAAA=\n" if damage is None else damage)
    assert checkpoint(folder).status is HealthStatus.UNHEALTHY


def test_checkpoints_without_records(folder: Path) -> None:
    segment(folder).unlink()
    with pytest.raises(ProofError, match="no records"):
        load_end(folder, lock_timeout_s=1.0)


def test_a_head_that_was_signed_and_is_gone(tmp_path: Path) -> None:
    from cert.ledger.appender import open_ledger

    keys = KeyStore(tmp_path / "keys")
    folder = tmp_path / "ledger"
    with open_ledger(folder, keys, limits=NEVER) as ledger:
        ledger.append([body(1)])
    data = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with open_ledger(folder, keys, limits=NEVER) as ledger:
        ledger.append([body(2)])
    for path in [one for one in folder.rglob("*") if one.is_file()]:
        path.unlink() if path not in data else path.write_bytes(data[path])
    found = check_checkpoint(folder, lambda: keys, max_age_s=None, lock_timeout_s=1.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert "your key signed 3 records, and 2 are there" in found.reason


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LedgerError, match="cannot be read"):
        load_end(tmp_path / "file", lock_timeout_s=1.0)


def test_the_end_of_a_ledger_in_several_segments(tmp_path: Path) -> None:
    from dataclasses import replace

    with begin(tmp_path, replace(NEVER, segment_bytes=1)) as ledger:
        for one in range(3):
            ledger.append([body(one)])
    end = load_end(tmp_path, lock_timeout_s=1.0)
    assert (end.records, end.sealed, end.is_proven) == (4, 4, True)
    assert end.newest_time == "2026-11-01T00:00:00.000Z"


def test_a_key_that_was_rotated_is_the_one_in_force(folder: Path) -> None:
    with begin(folder) as ledger:
        ledger.rotate(SECOND)
    for _ in range(2):
        found = check_key(folder, lambda: GivenKey(SECOND), lock_timeout_s=1.0)
        assert found.status is HealthStatus.HEALTHY
        assert SECOND.public.text in found.reason
        other = check_key(folder, lambda: GivenKey(FIRST), lock_timeout_s=1.0)
        assert other.status is HealthStatus.UNHEALTHY
        assert "the ledger is signed by" in other.reason
        (folder / "tail.json").unlink(missing_ok=True)


def test_a_key_that_is_not_here(folder: Path, tmp_path: Path) -> None:
    found = check_key(folder, lambda: KeyStore(tmp_path / "keys"), lock_timeout_s=1.0)
    assert found.status is HealthStatus.UNHEALTHY
    assert "is not in" in found.reason
    assert not (tmp_path / "keys").exists()


def test_no_key_yet(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    found = check_key(tmp_path / "ledger", lambda: keys, lock_timeout_s=1.0)
    assert (found.status, "no key yet" in found.reason) == (HealthStatus.HEALTHY, True)
    assert not list(tmp_path.iterdir())


def test_no_key_and_no_room_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_probe_disk", lambda _: "Read-only file system")
    found = check_key(tmp_path, lambda: KeyStore(tmp_path / "keys"), lock_timeout_s=1.0)
    assert (found.status, "Read-only" in found.reason) == (HealthStatus.UNHEALTHY, True)


def test_a_key_of_a_new_ledger_signs(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    keys.create(None)
    assert check_key(tmp_path / "ledger", lambda: keys, lock_timeout_s=1.0)
    (pem,) = (tmp_path / "keys").glob("*.pem")
    pem.chmod(0o640)
    found = check_key(tmp_path / "ledger", lambda: keys, lock_timeout_s=1.0)
    assert (found.status, "chmod 600" in found.reason) == (HealthStatus.DEGRADED, True)


def test_halves_of_a_key_that_do_not_belong_together(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    mine = keys.create(None)
    keys.path_of(mine.public).write_bytes(FIRST.to_pem())
    with begin(tmp_path / "ledger") as ledger:
        ledger.rotate(mine)
    broken = GivenKey(FIRST)
    broken._signer = type("Broken", (), {"public": SECOND.public, "sign": FIRST.sign})()
    found = check_key(tmp_path / "other", lambda: broken, lock_timeout_s=1.0)
    assert (found.status, "no signature of" in found.reason) == (HealthStatus.UNHEALTHY, True)


def test_a_given_key_that_is_none(tmp_path: Path) -> None:
    found = check_key(tmp_path, lambda: GivenKey.load("/no/such/file"), lock_timeout_s=1.0)
    assert found.status is HealthStatus.UNHEALTHY


def test_the_key_of_a_broken_ledger_is_not_known(folder: Path) -> None:
    path = segment(folder)
    path.write_bytes(b"x\n" + b"\n".join(lines_of(folder)))
    found = check_key(folder, Ring, lock_timeout_s=1.0)
    assert found.status is HealthStatus.UNKNOWN
