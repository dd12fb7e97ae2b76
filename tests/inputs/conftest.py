from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.inputs.options import ReadOptions
from cert.inputs.reader import read_cases

if TYPE_CHECKING:
    from pathlib import Path

    from tests.inputs.helpers import Item, Read


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(data: bytes, name: str = "input.txt", **options: object) -> list[Item]:
        path = tmp_path / name
        path.write_bytes(data)
        return list(read_cases([str(path)], ReadOptions(**options)))  # type: ignore[arg-type]

    return write_and_read
