from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from cert.ledger.content import ContentStore, open_content, read_content
from cert.ledger.errors import LedgerError, LedgerFullError, LedgerRefusedError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    record_id: str
    salt: bytes
    content: bytes


def row(number: int, size: int = 20) -> Row:
    text = (b"text %d;" % number) * (size // 8 + 1)
    return Row(str(uuid.UUID(int=number)), number.to_bytes(32, "big"), text)


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    with open_content(tmp_path) as opened:
        yield opened


def test_what_was_put_is_there_for_others(store: ContentStore, tmp_path: Path) -> None:
    store.put([row(1), row(2)])
    plain = sqlite3.connect(tmp_path / "content.sqlite")
    found = plain.execute("SELECT record_id, salt, content FROM content ORDER BY 1").fetchall()
    assert found == [(one.record_id, one.salt, one.content) for one in (row(1), row(2))]
    columns = plain.execute("PRAGMA table_info(content)").fetchall()
    assert [one[1:4] for one in columns] == [
        ("record_id", "TEXT", 0),
        ("salt", "BLOB", 1),
        ("content", "BLOB", 1),
    ]
    assert store.get(row(2).record_id) == (row(2).salt, row(2).content)
    assert store.get("other") is None


def test_the_file_is_the_users_alone_and_has_no_companion(
    store: ContentStore, tmp_path: Path
) -> None:
    store.put([row(1)])
    assert names_in(tmp_path) == ["content.sqlite"]
    assert (tmp_path / "content.sqlite").stat().st_mode & 0o777 == 0o600


def test_iteration_goes_over_every_row_and_tolerates_writing(store: ContentStore) -> None:
    rows = [row(number) for number in range(250)]
    store.put(rows)
    found = []
    for one in store:
        if not found:
            store.put([row(1000)])
        found.append(Row(*one))
    assert found == [*rows, row(1000)]


def test_the_same_row_again_is_no_fault_and_another_is(store: ContentStore) -> None:
    store.put([row(1)])
    store.put([row(1), row(2)])
    other = Row(row(1).record_id, row(1).salt, b"another text")
    with pytest.raises(LedgerRefusedError, match="another content for the record"):
        store.put([row(3), other])
    assert store.get(row(1).record_id) == (row(1).salt, row(1).content)
    assert store.get(row(3).record_id) is None  # all of them or none


def test_delete_counts_and_leaves_the_others(store: ContentStore) -> None:
    store.put(row(number) for number in range(10))
    assert store.delete([row(3).record_id, row(7).record_id, "unknown"]) == 2
    store.wipe()
    assert [int(uuid.UUID(one[0])) for one in store] == [0, 1, 2, 4, 5, 6, 8, 9]


def test_a_transaction_that_fails_changes_nothing(store: ContentStore) -> None:
    store.put([row(1)])

    def give_up() -> None:
        with store.transaction():
            store.delete([row(1).record_id])
            store.put([row(2)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert [one[0] for one in store] == [row(1).record_id]
    store.put([row(2)])  # and the store goes on


def test_no_trace_of_deleted_rows_is_left(tmp_path: Path) -> None:
    """`secure_delete` alone leaves some: stale copies of rows that were moved to another page."""
    rng = random.Random(2)
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.execute("PRAGMA secure_delete=ON")
    raw.execute("CREATE TABLE content(record_id TEXT PRIMARY KEY, salt BLOB, content BLOB)")
    live: dict[str, bytes] = {}
    for _ in range(300):
        for _ in range(rng.randrange(1, 40)):
            token = b"TOKEN%016x" % rng.getrandbits(64)
            text = token * (rng.choice([10, 50, 200, 800, 1500, 3000, 9000]) // len(token) + 1)
            record_id = str(uuid.UUID(int=rng.getrandbits(128)))
            raw.execute("INSERT INTO content VALUES (?, ?, ?)", (record_id, b"s" * 32, text))
            live[record_id] = token
        for one in rng.sample(sorted(live), min(len(live), rng.randrange(35))):
            raw.execute("DELETE FROM content WHERE record_id = ?", (one,))
            del live[one]
    path = tmp_path / "content.sqlite"
    path.write_bytes(raw.serialize())
    path.chmod(0o600)
    assert tokens_in(path) > set(live.values())  # else SQLite got better, and `wipe` can go

    last = min(live)
    with open_content(tmp_path) as store:
        assert store.delete([last]) == 1
        store.wipe()
        del live[last]
        assert {one[0] for one in store} == set(live)
    assert tokens_in(path) == set(live.values())
    assert last.encode() not in path.read_bytes()


def tokens_in(path: Path) -> set[bytes]:
    return set(re.findall(rb"TOKEN[0-9a-f]{16}", path.read_bytes()))


def test_a_wipe_that_was_cut_off_is_made_good_by_the_next(tmp_path: Path) -> None:
    with open_content(tmp_path) as store:
        store.put(row(number, 2000) for number in range(50))
        store.delete(row(number).record_id for number in range(40))
    path = tmp_path / "content.sqlite"
    size = path.stat().st_size
    with open_content(tmp_path) as store:
        assert store.wipe()
        assert path.stat().st_size < size / 2
        changed = path.read_bytes()
        assert not store.wipe()
    assert path.read_bytes() == changed


def test_a_copy_has_the_same_rows_and_the_same_bytes_each_time(
    store: ContentStore, tmp_path: Path
) -> None:
    store.put(row(number) for number in range(20))
    for name in ("one", "two"):
        store.copy_to(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    copy = sqlite3.connect(tmp_path / "one")
    found = copy.execute("SELECT record_id, salt, content FROM content ORDER BY rowid").fetchall()
    assert [Row(*one) for one in found] == [Row(*one) for one in store]
    with pytest.raises(LedgerError, match="one cannot be used: File exists"):
        store.copy_to(tmp_path / "one")


def test_reading_never_writes(tmp_path: Path) -> None:
    assert read_content(tmp_path) is None
    with open_content(tmp_path) as store:
        store.put([row(1)])
    before = (tmp_path / "content.sqlite").read_bytes()
    with read_content(tmp_path) as store:
        assert store.get(row(1).record_id) == (row(1).salt, row(1).content)
        with pytest.raises(LedgerError, match="readonly"):
            store.put([row(2)])
    assert (tmp_path / "content.sqlite").read_bytes() == before
    assert names_in(tmp_path) == ["content.sqlite"]


WRITER = """
import os, sys
from pathlib import Path
from tests.ledger.test_content import open_content, row
start = int(sys.argv[2])
with open_content(Path(sys.argv[1])) as store:
    for number in range(start, start + 100, 5):
        store.put(row(one) for one in range(number, number + 5))
"""

CUT_OFF = """
import os, sys
from pathlib import Path
from tests.ledger.test_content import open_content, row
store = open_content(Path(sys.argv[1]))
with store.transaction() as connection:
    connection.execute("PRAGMA cache_size=5")  # so that pages reach the file before the commit
    store.put(row(number, 3000) for number in range(100, 400))
    os._exit(9)
"""


def run(script: str, *args: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, args)], cwd=ROOT)


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    writers = [run(WRITER, tmp_path, start) for start in (0, 1000, 2000, 3000)]
    assert [one.wait(120) for one in writers] == [0, 0, 0, 0]
    with open_content(tmp_path) as store:
        assert len({one[0] for one in store}) == 400


def test_a_writer_that_was_cut_off_leaves_nothing_half(tmp_path: Path) -> None:
    with open_content(tmp_path) as store:
        store.put([row(1)])
    assert run(CUT_OFF, tmp_path).wait(60) == 9
    assert (tmp_path / "content.sqlite-journal").exists()
    with pytest.raises(LedgerError) as caught:
        read_content(tmp_path)
    assert "the next one repairs it" in (caught.value.hint or "")
    with open_content(tmp_path) as store:
        assert [one[0] for one in store] == [row(1).record_id]
    assert names_in(tmp_path) == ["content.sqlite"]


def test_threads_share_a_store(store: ContentStore) -> None:
    errors: list[Exception] = []

    def write(start: int) -> None:
        try:
            for number in range(start, start + 25):
                store.put([row(number)])
                assert store.get(row(number).record_id) is not None
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 100, 25)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert len(list(store)) == 100


def test_a_fork_goes_on_with_a_connection_of_its_own(store: ContentStore) -> None:
    store.put([row(1)])
    child = os.fork()
    if child == 0:
        try:
            store.put([row(2)])
            store.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.put([row(3)])
    assert len(list(store)) == 3


def test_another_process_that_never_lets_go_is_an_error(tmp_path: Path) -> None:
    with open_content(tmp_path) as holder, open_content(tmp_path, timeout_s=0.1) as store:
        with holder.transaction(), pytest.raises(LedgerError, match="locked") as caught:
            store.put([row(1)])
        assert caught.value.hint == "another process writes to it and does not let go"
        store.put([row(1)])


def test_a_full_disk_is_named(store: ContentStore) -> None:
    store.put([row(1)])
    with store.transaction() as connection:
        connection.execute("PRAGMA max_page_count=5")
    with pytest.raises(LedgerFullError, match="full"):
        store.put(row(number, 4000) for number in range(2, 20))
    assert len(list(store)) == 1


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"this is no database" * 300, "not a database"),
        (None, "no table of contents"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, data: bytes | None, match: str) -> None:
    path = tmp_path / "content.sqlite"
    if data is None:
        other = sqlite3.connect(path)
        other.execute("CREATE VIEW content AS SELECT 'x' AS record_id, x'00' salt, x'00' content")
        other.close()
    else:
        path.write_bytes(data)
    with pytest.raises(LedgerRefusedError, match=match):
        read_content(tmp_path)


def test_a_damaged_page_is_an_error_and_no_row(tmp_path: Path) -> None:
    with open_content(tmp_path) as store:
        store.put(row(number, 300) for number in range(200))
    path = tmp_path / "content.sqlite"
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = b"\xff" * (len(data) - 4096 * 2)
    path.write_bytes(data)
    with read_content(tmp_path) as store, pytest.raises(LedgerRefusedError, match="malformed"):
        list(store)


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_only_a_plain_file_of_one_name_is_opened(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "content.sqlite", tmp_path / "other"
    with open_content(tmp_path):
        pass
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "link":
        path.rename(other)
        path.symlink_to(other)
    else:
        other.hardlink_to(path)
    for function in (open_content, read_content):
        with pytest.raises(LedgerRefusedError, match="not a regular file of one name"):
            function(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        open_content(tmp_path / "nowhere")
