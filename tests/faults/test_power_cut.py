"""The power goes: ext4 on a loop device is shut down amid writes, and mounted again.

What was not synced is gone then, as after a real cut; the controls show that it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.helpers import Place, needs, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# include/uapi/linux/fs.h and fs/ext4/ext4.h: _IOR('X', 125, __u32)
FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_JOURNAL = 2
IMAGE_BYTES = 48 << 20

pytestmark = [needs("mkfs.ext4", "losetup", "mount"), needs_root]


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "image"
        self._image.write_bytes(b"")
        os.truncate(self._image, IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        self.root = folder / "disk"
        self.root.mkdir()

    @contextmanager
    def mounted(self) -> Iterator[None]:
        done = subprocess.run(
            ["mount", "-o", "loop", self._image, self.root], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr.decode()}")
        try:
            yield
        finally:
            subprocess.run(["umount", self.root], check=True)

    def cut(self) -> None:
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(fd)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def write_until_cut(
    place: Place,
    disk: Disk,
    after_s: float,
    *,
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    place.ledger = disk.root / "a" / "b" / "ledger"
    options = (
        *("--records", -1, "--batch", 2, "--size-bytes", 700),
        *("--seal-records", 30, "--segment-bytes", 40_000),
    )
    with disk.mounted():
        for _ in range(3):
            place.start(*options, before=before, environment=environment)
        count = len(place.said().acks)
        while len(place.said().acks) == count:
            time.sleep(0.001)
        time.sleep(after_s)
        said_bytes = place.acks.stat().st_size
        disk.cut()
        time.sleep(0.05)
        place.end_all()
        place.processes.clear()
    # What is said once there is no power does not count. A real machine says nothing then; this one
    # goes on, and an fdatasync that was under way when ext4 was shut down can return 0.
    os.truncate(place.acks, said_bytes)


def cut_and_check(place: Place, disk: Disk, rounds: int) -> None:
    repairs = 0
    for number in range(rounds):
        write_until_cut(place, disk, 0.1 + 0.13 * (number % 7))
        with disk.mounted():
            repairs += place.check_nothing_lost()
    acks = len(place.said().acks)
    print(f"{rounds} cuts, {acks} acknowledged, {repairs} repairs")  # noqa: T201 - for the docs
    assert acks > 10 * rounds


def lost(place: Place) -> int:
    """How many acknowledged records are not there."""
    lines = b"".join(place.segments().values()).split(b"\n")
    there = {hashlib.sha256(line).hexdigest() for line in lines}
    return sum(digest not in there for _, digest in place.said().acks)


def test_acknowledged_records_survive_a_power_cut(place: Place, disk: Disk) -> None:
    cut_and_check(place, disk, 3)


@pytest.mark.slow
def test_acknowledged_records_survive_many_power_cuts(place: Place, disk: Disk) -> None:
    cut_and_check(place, disk, 40)


@needs("eatmydata")
def test_control_without_syncing_records_are_lost(place: Place, disk: Disk) -> None:
    write_until_cut(place, disk, 0.5, before=("eatmydata",))
    with disk.mounted():
        gone, acks = lost(place), len(place.said().acks)
    print(f"{gone} of {acks} acknowledged lost")  # noqa: T201 - for the docs
    assert gone


def test_a_new_ledger_survives_a_cut_right_after_it_was_opened(place: Place, disk: Disk) -> None:
    place.ledger = disk.root / "a" / "b" / "ledger"
    with disk.mounted():
        place.start("--records", -1, "--on-line")
        while "open" not in place.said().words:
            time.sleep(0.001)
        disk.cut()
        place.end_all()
    with disk.mounted():
        assert len(place.lines()) == 1
        assert place.check_nothing_lost() == 0
