"""write() that writes one byte, or half of what it is given, and processes killed amid that."""

from __future__ import annotations

import signal
import subprocess
from itertools import count
from pathlib import Path

import pytest

from tests.faults.helpers import Place, needs

SHIM = Path(__file__).with_name("shim.c")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, SHIM, "-ldl"], check=True)
    return built


@needs("cc")
@pytest.mark.parametrize("how", ["one", "half"])
def test_short_writes_are_gone_on_with(place: Place, shim: Path, how: str) -> None:
    variables = {"LD_PRELOAD": str(shim), "SHIM_WRITE": how}
    session = ("--records", 6, "--batch", 2, "--seal-records", 4, "--segment-bytes", 2000)
    assert place.write(*session, environment=variables) == 0
    assert len(place.said().acks) == 12
    assert place.check_nothing_lost() == 0


@needs("cc", "strace")
@pytest.mark.parametrize("step", [40, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_between_two_parts_of_a_record(place: Place, shim: Path, step: int) -> None:
    """Torn lines for certain: strace kills at the Nth write of one byte."""
    place.open().close()
    repairs = 0
    for number in count(1, step):
        inject = ("-e", "trace=write", "-e", f"inject=write:signal=KILL:when={number}")
        code = place.write(
            *("--records", 1, "--size-bytes", 60),
            before=("strace", "-f", "-qq", "-o", "/dev/null", *inject),
            environment={"LD_PRELOAD": str(shim), "SHIM_WRITE": "one"},
        )
        repairs += place.check_nothing_lost()
        if code == 0 or number > 260:
            break
        assert code == -signal.SIGKILL
    print(f"{repairs} repairs")  # noqa: T201 - the figure in docs/reliability.md
    assert repairs >= 200 // step
    assert len(place.recovered()) == repairs
