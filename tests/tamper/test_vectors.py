"""docs/vectors/: made again byte for byte, small, and both verifiers say what they should."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from cert.evidence.content_check import ContentCheck
from cert.evidence.deep import DeepCheck
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.content import read_content
from cert.ledger.errors import ProofError
from cert.ledger.keys import PublicKey, parse_public_key
from cert.ledger.proofs import parse_consistency, parse_inclusion
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from cert.ledger.verify_plain import verify_plain
from tests.tamper.verifiers import second
from tools.make_vectors import all_files, differences, is_same

FOLDER = Path(__file__).parents[2] / "docs" / "vectors"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
AT_THE_END = ("committed-row-missing",)
"""`cert` finds these after the last line, when it no longer knows where a line began."""

Answer = tuple[str | None, int | None, str | None, int | None]


def load(name: str) -> tuple[dict[str, Any], Answer, dict[str, Any]]:
    expected = json.loads((FOLDER / name / "expected.json").read_bytes())
    answer = (expected["state"], expected["line"], expected["segment"], expected["offset"])
    return expected, answer, expected["args"]


def test_they_are_up_to_date() -> None:
    assert differences(FOLDER) == []


def test_they_come_out_the_same_twice() -> None:
    files, again = all_files(), all_files()
    assert files.keys() == again.keys()
    assert all(is_same(name, files[name], again[name]) for name in files)


def test_a_change_is_noticed(tmp_path: Path) -> None:
    for name, data in all_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert differences(tmp_path) == []
    (tmp_path / "README.md").write_bytes(b"")
    (tmp_path / "genuine" / "expected.json").unlink()
    (tmp_path / "more").write_bytes(b"")
    assert differences(tmp_path) == ["README.md", "genuine/expected.json", "more"]


def test_they_are_few_and_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < 1_000_000
    assert len(NAMES) > 150
    states = {load(name)[0]["state"] for name in NAMES}
    assert states == {
        "valid", "unanchored", "unsealed", "torn", "rolled-back", "invalid", None
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_cert_says_what_it_should(name: str) -> None:
    _, (state, *place), args = load(name)
    key = parse_public_key(args["key"].encode(), source="vector")
    try:
        answer = ask(FOLDER / name, args, key)
    except ProofError:
        is_proof = args.keys() & {"proof", "consistency"}
        answer = ("invalid" if is_proof else None, None, None, None)
    if name in AT_THE_END:
        assert answer[:2] == (state, place[0])
        return
    assert answer == (state, *place)


def ask(folder: Path, args: dict[str, Any], key: PublicKey) -> Answer:
    head = (folder / args["head"]).read_bytes() if "head" in args else None
    if "proof" in args:
        parse_inclusion((folder / args["proof"]).read_bytes()).verify(key)
        return "valid", None, None, None
    if "consistency" in args:
        old = parse_checkpoint((folder / args["old"]).read_bytes())
        parse_consistency((folder / args["consistency"]).read_bytes()).verify(old, key)
        return "valid", None, None, None
    if "file" in args:
        data = (folder / args["file"]).read_bytes()
        report = verify_plain(io.BytesIO(data), len(data), pinned=key, head=head)
        first = report.first
        return (report.state.value, *((first.line, None, first.offset) if first else 3 * [None]))
    ledger = folder / args["ledger"]
    store = read_content(ledger)
    deep = None
    if "deep" in args:
        deep = DeepCheck() if store is None else ContentCheck(store)
    report = verify_ledger(FolderReader(ledger), key, head=head, deep=deep)
    if store is not None:
        store.close()
    first = report.first
    if first is None:
        return report.state.value, None, None, None
    offset = None if first.segment is None else first.offset
    return report.state.value, first.line, first.segment, offset


@pytest.mark.parametrize("name", NAMES)
def test_the_second_verifier_says_what_it_should(name: str) -> None:
    expected, answer, args = load(name)
    folder = FOLDER / name
    is_proof = bool(args.keys() & {"proof", "consistency"})
    arguments = ["--key", args["key"], *(["--deep"] if "deep" in args else [])]
    for option in ("head", "proof", "consistency", "old"):
        arguments += [f"--{option}", str(folder / args[option])] if option in args else []
    target = args.get("ledger") or args.get("file")
    arguments += [str(folder / target), "--json"] if target else []
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        assert second.main(arguments) == expected["exit"]
    out.seek(0)
    if is_proof or expected["state"] is None:
        return
    said = json.loads(out.read())
    is_nowhere = said["segment"] is None and "file" not in args
    offset = None if is_nowhere else said["offset"]
    assert (said["state"], said["line"], said["segment"], offset) == answer
