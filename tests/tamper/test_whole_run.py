"""The whole way: a batch into a ledger by the program, then changed by hand, and looked at."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.helpers import ROOT, Processes
from tests.model_factory import build_tiny_model
from tests.tamper.verifiers import SECOND

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = 500
CHANGES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 500 prompts, its head, its key."""
    folder = tmp_path_factory.mktemp("whole")
    model = build_tiny_model(folder / "model", "llama", max_positions=128)
    (folder / "in.txt").write_text("".join(f"prompt number {n}\n" for n in range(PROMPTS)))
    cert(folder, "batch", "in.txt", "-m", model, "--max-new-tokens", "6", "-q", codes=(0, 1))
    (folder / "head.note").write_text(cert(folder, "ledger", "head"))
    (folder / "key.pem").write_text(cert(folder, "keys", "show", "--pem"))
    return folder


def cert(folder: Path, *args: object, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        Processes.command(*map(str, args)),
        cwd=folder,
        env={
            **Processes.environment(),
            "CERT_LEDGER": "ledger",
            "CERT_KEYS": "keys",
            "XDG_CONFIG_HOME": str(folder / "config"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


def second(folder: Path, ledger: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SECOND, ledger, "--key", "key.pem", "--deep", "--json", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 5}, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def ours(folder: Path, ledger: Path, *more: str, code: int) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(
        cert(folder, "verify", ledger, "--key", "key.pem", "--json", *more, codes=(code,))
    )
    return said


def place(said: dict[str, Any]) -> tuple[object, ...]:
    first = said.get("first") or said
    return said["state"], first.get("line"), first.get("segment"), first.get("offset")


def test_the_ledger_verifies(made: Path) -> None:
    head = ("--head", str(made / "head.note"))
    said = ours(made, made / "ledger", *head, code=0)
    assert said["state"] == second(made, made / "ledger", *head)["state"] == "valid"
    assert said["records"] == PROMPTS + 4
    assert said["kinds"]["analysis"] == PROMPTS


def test_any_changed_byte_is_found_with_its_line_and_offset(made: Path, tmp_path: Path) -> None:
    draw = random.Random(1689)
    name = "000000000000.jsonl"
    whole = (made / "ledger" / "segments" / name).read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(whole) if byte == ord("\n"))]
    places = [draw.randrange(len(whole)) for _ in range(CHANGES - 3)]
    # The first byte, one in the last record, and the very last newline.
    for number, at in enumerate([*places, 0, len(whole) - 20, len(whole) - 1]):
        ledger = tmp_path / f"ledger-{number}"
        shutil.copytree(made / "ledger", ledger)
        changed = bytearray(whole)
        changed[at] ^= 1 << draw.randrange(8)
        (ledger / "segments" / name).write_bytes(changed)
        said = ours(made, ledger, code=5)
        line = sum(start <= at for start in starts[:-1])
        assert place(said) == ("invalid", line, name, starts[line - 1]), at
        assert place(second(made, ledger)) == place(said)


def test_a_copy_cut_at_a_line_is_found_with_a_head_that_was_kept(
    made: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    shutil.copytree(made / "ledger", ledger)
    segment = ledger / "segments" / "000000000000.jsonl"
    lines = segment.read_bytes().split(b"\n")[:-1]
    segment.write_bytes(b"\n".join([*lines[:-2], b""]))
    (ledger / "tail.json").unlink()
    for note in sorted((ledger / "checkpoints").glob("*.note"))[-1:]:
        note.unlink()
    head = ("--head", str(made / "head.note"))
    # Without the head nothing shows it but that the last records have no signature (the control).
    alone = ours(made, ledger, code=0)
    assert alone["state"] in {"unsealed", "unanchored"}
    said = ours(made, ledger, *head, code=5)
    end = segment.stat().st_size
    assert place(said) == ("rolled-back", len(lines) - 1, segment.name, end)
    assert place(second(made, ledger, *head)) == place(said)


def test_an_old_copy_of_everything_is_found_only_with_a_head(made: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    shutil.copytree(made / "ledger", ledger)
    newest = max((ledger / "checkpoints").glob("*.note"))
    cert(made, "ledger", "note", "one more record")
    (made / "newer.note").write_text(cert(made, "ledger", "head"))
    assert newest.stem != max((made / "ledger" / "checkpoints").glob("*.note")).stem
    assert ours(made, ledger, code=0)["state"] == "unanchored"
    assert ours(made, ledger, "--head", str(made / "newer.note"), code=5)["state"] == "rolled-back"
    assert second(made, ledger, "--head", str(made / "newer.note"))["state"] == "rolled-back"


def test_the_verifier_is_one_file_of_the_checkout() -> None:
    assert SECOND == ROOT / "docs" / "verifier" / "cert_verify.py"
