"""Bundles: read as the folder they were made of, and refused where they cannot be meant well."""

from __future__ import annotations

import io
import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.ledger.errors import LedgerError, LedgerFullError, LedgerRefusedError
from cert.ledger.findings import State
from cert.ledger.keys import PublicKey
from cert.ledger.proofs import prove_inclusion
from cert.ledger.reader import FolderReader
from cert.ledger.scan import scan_lines
from cert.ledger.verify import verify_ledger
from cert.ledger.zip_reader import ZipReader
from cert.ledger.zip_writer import Member, ledger_members, measure, member_of, zip_beside
from tests.ledger.ledgers import make, private, raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = PublicKey(raw(private("first")))


def pack(path: Path, folder: Path, extra: tuple[Member, ...] = ()) -> Path:
    def members() -> Iterator[Member]:
        yield from ledger_members(FolderReader(folder))
        yield from extra

    with zip_beside(path, members):
        pass
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make(40, seals=[12, 25, 40], cuts=[12, 25])
    folder = made.write(tmp_path / "ledger")
    (folder / "checkpoints" / "000000000025.tsr").write_bytes(b"a token")
    return folder


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Path:
    return pack(tmp_path / "bundle.zip", folder)


def test_it_is_the_ledger_that_was_packed(bundle: Path, folder: Path) -> None:
    plain = FolderReader(folder)
    with ZipReader(bundle) as reader:
        assert (reader.segments, reader.checkpoints) == (plain.segments, plain.checkpoints)
        assert list(scan_lines(reader)) == list(scan_lines(plain))
        assert list(scan_lines(reader, segment=12, offset=0)) == list(scan_lines(plain, segment=12))
        for size in plain.checkpoints:
            assert reader.read_checkpoint(size) == plain.read_checkpoint(size)
        assert reader.read_side_file("checkpoints/000000000025.tsr") == b"a token"
        assert reader.read_side_file("pruned.json") is None
        assert reader.open_content() is None
        assert verify_ledger(reader, KEY) == verify_ledger(plain, KEY)
        prove_inclusion(reader, 30).verify(KEY)


def test_reading_goes_on_in_the_middle(bundle: Path, folder: Path) -> None:
    plain = FolderReader(folder)
    with ZipReader(bundle) as reader, reader.open_segment(reader.segments[1]) as file:
        whole = plain.open_segment(plain.segments[1]).read()
        assert file.readable()
        assert file.seekable()
        assert file.seek(100) == file.tell() == 100
        assert file.read(50) == whole[100:150]
        assert file.seek(0) == 0
        assert file.read() == whole


def test_the_same_files_give_the_same_bytes_whenever(folder: Path, tmp_path: Path) -> None:
    one = pack(tmp_path / "one.zip", folder).read_bytes()
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert pack(tmp_path / "two.zip", folder).read_bytes() == one
    assert (tmp_path / "two.zip").stat().st_mode & 0o777 == 0o600
    infos = zipfile.ZipFile(tmp_path / "one.zip").infolist()
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {stat.filemode(info.external_attr >> 16) for info in infos} == {"-rw-------"}


def test_what_shrinks_too_far_is_stored_and_read_again(folder: Path, tmp_path: Path) -> None:
    large = member_of("ledger/large", b"a" * 3_000_000)
    path = pack(tmp_path / "large.zip", folder, (large,))
    with ZipReader(path) as reader:
        assert reader.open("ledger/large").read() == b"a" * 3_000_000
        assert verify_ledger(reader, KEY).state is State.UNANCHORED
    stored = {i.filename for i in zipfile.ZipFile(path).infolist() if i.compress_type == 0}
    assert stored == {"ledger/large"}


def test_a_file_that_shrinks_while_it_is_packed_is_an_error(folder: Path, tmp_path: Path) -> None:
    short = Member("ledger/short", 10, lambda: io.BytesIO(b"four"))
    with pytest.raises(LedgerError, match="ended 6 bytes too soon"):
        pack(tmp_path / "short.zip", folder, (short,))
    assert [one.name for one in tmp_path.iterdir()] == ["ledger"]


def test_what_is_found_wrong_while_it_is_read_back_leaves_nothing(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "bundle.zip"
    target.write_bytes(b"older")

    def write() -> None:
        with zip_beside(target, lambda: ledger_members(FolderReader(folder))):
            raise LedgerError("it is not what it should be")

    with pytest.raises(LedgerError, match="not what it should be"):
        write()
    assert target.read_bytes() == b"older"
    assert {one.name for one in tmp_path.iterdir()} == {"ledger", "bundle.zip"}


def test_places_that_cannot_be_written_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"nowhere/x.zip cannot be written: No such file"):
        pack(tmp_path / "nowhere" / "x.zip", folder)
    with pytest.raises(LedgerError, match="gone cannot be written: No such file"):
        measure(tmp_path / "gone")
    if Path("/dev/full").exists():

        def full() -> io.BufferedWriter:
            raise OSError(28, "No space left on device")

        with pytest.raises(LedgerFullError, match="No space left"):
            pack(tmp_path / "x.zip", folder, (Member("x", 1, full),))


def test_memory_is_bounded_however_large_a_segment_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cert.ledger.reader.MAX_SIDE_FILE_BYTES", 1 << 16)  # read(n) takes n bytes
    monkeypatch.setattr("cert.ledger.zip_reader.MAX_SIDE_FILE_BYTES", 1 << 16)
    made = make(4, seals=[14])
    for _ in range(10):
        made.add({"assessment": {}, "kind": "analysis", "text": os.urandom(1_000_000).hex()})
    folder = made.write(tmp_path / "ledger")
    tracemalloc.start()
    try:
        path = pack(tmp_path / "bundle.zip", folder)
        _, packing = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with ZipReader(path) as reader:
            assert verify_ledger(reader, KEY).state is State.UNANCHORED
        _, reading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert packing < 3_000_000
    assert reading < 12_000_000  # a few copies of one line of 2 MB, and never all 20 MB


# What is refused.


def write_raw(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return path


LEDGER = ("ledger/segments/000000000000.jsonl", b"{}\n")


@pytest.mark.parametrize(
    "name",
    [
        "ledger/../../etc/passwd",
        "..",
        "/etc/passwd",
        "ledger//segments/x",
        "ledger/./x",
        "C:/x",
        "ledger\\x",
        "ledger/a\0b",
    ],
)
def test_names_that_may_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    placeholder = "Q" * len(name.encode())  # `zipfile` writes no such names
    path = write_raw(tmp_path / "b.zip", LEDGER, (placeholder, b"x"))
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name.encode()))
    with pytest.raises(LedgerRefusedError, match="a name that may lead elsewhere"):
        ZipReader(path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_raw(tmp_path / "b.zip", LEDGER, LEDGER)
    with pytest.raises(LedgerRefusedError, match="there are two of this name"):
        ZipReader(path)
    path = write_raw(tmp_path / "c.zip", LEDGER, ("ledger/x", b""), ("ledger/x/", b""))
    with pytest.raises(LedgerRefusedError, match="there are two of this name"):
        ZipReader(path)


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ledger/pruned.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_raw(tmp_path / "b.zip", LEDGER, (link, b"/etc/passwd"))
    with pytest.raises(LedgerRefusedError, match="neither a file nor a folder"):
        ZipReader(path)


def test_encrypted_files_are_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "b.zip", LEDGER)
    data = bytearray(path.read_bytes())
    for at in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    path.write_bytes(data)
    with pytest.raises(LedgerRefusedError, match="it is encrypted"):
        ZipReader(path)


def test_sizes_that_no_evidence_has_are_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "b.zip", LEDGER, ("ledger/content.sqlite", bytes(50_000_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(LedgerRefusedError, match="bytes that claim to be 50000000"):
        ZipReader(path)
    small = write_raw(tmp_path / "c.zip", LEDGER, ("ledger/content.sqlite", bytes(1_000_000)))
    with ZipReader(small) as reader:
        assert reader.open_content().read() == bytes(1_000_000)


def test_files_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A zip bomb of many names for one piece of data."""
    block = os.urandom(100_000)
    path = write_raw(tmp_path / "b.zip", LEDGER, *((f"x{n}", block) for n in range(3)))
    data = path.read_bytes()
    infos = zipfile.ZipFile(path).infolist()
    for info in infos[2:]:
        at = data.index(info.filename.encode(), data.index(b"PK\x01\x02"))
        place = at - 4
        data = data[:place] + struct.pack("<I", infos[1].header_offset) + data[place + 4 :]
    start = infos[2].header_offset
    end = data.index(b"PK\x01\x02")
    directory = data[end:]
    footer = directory.rindex(b"PK\x05\x06") + 16
    directory = directory[:footer] + struct.pack("<I", start) + directory[footer + 4 :]
    path.write_bytes(data[:start] + directory)
    with pytest.raises(LedgerRefusedError, match=r"shares its bytes|Overlapped"):
        ZipReader(path)


def test_a_zip_without_a_ledger_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "b.zip", ("other/x", b"x"))
    with pytest.raises(LedgerRefusedError, match="holds no ledger/"):
        ZipReader(path)


def test_other_files_are_no_segments(tmp_path: Path, folder: Path) -> None:
    extra = tuple(
        member_of(name, b"x")
        for name in (
            "ledger/segments/12.jsonl",
            "ledger/segments/0000000000012.jsonl",
            "ledger/segments/000000000012.note",
            "ledger/segments/deeper/000000000099.jsonl",
            "other/segments/000000000099.jsonl",
            "segments/000000000099.jsonl",
            "ledger/checkpoints/000000000099.jsonl",
        )
    )
    with ZipReader(pack(tmp_path / "b.zip", folder, extra)) as reader:
        assert [one.first for one in reader.segments] == [0, 12, 25]
        assert reader.checkpoints == [12, 25, 40]
        assert "segments/000000000099.jsonl" in reader.names


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"no zip at all",
        lambda data: data[:-30],
        lambda data: data[: len(data) // 2],
    ],
)
def test_what_is_no_zip_is_refused(bundle: Path, change: Callable[[bytes], bytes]) -> None:
    bundle.write_bytes(change(bundle.read_bytes()))
    with pytest.raises(LedgerRefusedError, match="damaged, or no plain zip"):
        ZipReader(bundle)


def test_what_is_not_there_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        ZipReader(tmp_path / "gone.zip")
    with pytest.raises(LedgerError, match="Is a directory"):
        ZipReader(tmp_path)
    with ZipReader(bundle) as reader:
        with pytest.raises(LedgerError, match=r"has no ledger/checkpoints/000000000013.note"):
            reader.read_checkpoint(13)
        assert reader.read_side_file("content.sqlite") is None


def read_all(path: Path) -> None:
    with ZipReader(path) as reader:
        for name in reader.names:
            with reader.open(name) as file:
                while file.read(1 << 16):
                    pass
        verify_ledger(reader, KEY)


@settings(max_examples=300, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_changed_byte_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, at: float, value: int
) -> None:
    folder = make(40, seals=[40]).write(tmp_path_factory.mktemp("bytes") / "ledger")
    path = pack(folder.parent / "bundle.zip", folder)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        read_all(path)
    except LedgerError as error:
        assert error.hint is not None or "has no" in error.message  # noqa: PT017 - it need not raise
