"""A ledger of each test's own, whose writers don't outlive it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.helpers import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made there


@pytest.fixture
def place() -> Iterator[Place]:
    """In memory where that is possible: what a disk forgets is test_power_cut.py's subject."""
    root = Path(tempfile.mkdtemp(prefix="faults-", dir=MEMORY if MEMORY.is_dir() else None))
    made = Place(root, root / "ledger")
    made.make_keys()
    yield made
    made.end_all()
    shutil.rmtree(root)
