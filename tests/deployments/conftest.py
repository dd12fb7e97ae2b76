"""Fixtures that the program's own tests have, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def processes() -> Iterator[Processes]:
    running = Processes()
    yield running
    for process in running.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
