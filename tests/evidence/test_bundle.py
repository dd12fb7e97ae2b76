"""Bundles: everything an auditor needs, verified by both verifiers, and honest in its words."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from cert.assessment.policy import load_policy
from cert.core.errors import ConfigurationError
from cert.evidence import bundle as bundle_module
from cert.evidence.bundle import write_bundle
from cert.evidence.law import load_law_mapping
from cert.evidence.policy_record import build_policy_record, read_policy
from cert.evidence.record import encode_record
from cert.evidence.schema import record_schema
from cert.ledger.appender import open_ledger
from cert.ledger.erase import erase
from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.findings import State
from cert.ledger.keys import parse_public_key
from cert.ledger.prune import prune
from cert.ledger.pruning_plan import parse_date
from cert.ledger.scan import scan_lines
from cert.ledger.zip_reader import ZipReader
from tests.evidence.compared import compared
from tests.ledger.committed import KEYS, SIGNER, Made, answer_of, second_opinion, text_of

if TYPE_CHECKING:
    from cert.ledger.reader import Reader

ROOT = Path(__file__).parents[2]
TIME = "2030-05-01T00:00:00.000Z"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("whole") / "ledger")
    made.run(range(10), run_id="run-1", time=TIME)
    with made.open() as ledger:
        policy = build_policy_record(load_policy("strict"), time=TIME)
        ledger.append([encode_record(policy)])
    return made


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Made:
    shutil.copytree(whole.folder, tmp_path / "ledger")
    return Made(tmp_path / "ledger", whole.ids)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "evidence.zip"


def lines_in(reader: Reader) -> list[bytes]:
    return [one.line for one in scan_lines(reader)]


def test_it_holds_what_it_says_and_verifies(made: Made, target: Path) -> None:
    written = write_bundle(made.folder, target)
    archive = zipfile.ZipFile(target)
    names = archive.namelist()
    outside = [name for name in names if not name.startswith(("ledger/", "policies/"))]
    assert outside == [
        "README.txt",
        "cert_verify.py",
        "record-format.md",
        "record.schema.json",
        "public-key.pem",
        "head.note",
    ]
    for name in ("record-format.md", "verifier/cert_verify.py"):
        packed = archive.read(name.rpartition("/")[2])
        assert packed == (ROOT / "docs" / name).read_bytes()
    assert json.loads(archive.read("record.schema.json")) == record_schema()
    assert parse_public_key(archive.read("public-key.pem"), source="x") == SIGNER.public
    newest = max((made.folder / "checkpoints").glob("*.note"))
    assert archive.read("head.note") == newest.read_bytes()
    for path in made.folder.rglob("*"):
        if path.is_file() and path.name != "content.sqlite":
            assert archive.read(f"ledger/{path.relative_to(made.folder)}") == path.read_bytes()

    assert written.report.state is State.UNANCHORED
    assert written.key == SIGNER.public
    assert written.packed.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert written.packed.size_bytes == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert second_opinion(target, newest) == "valid"


def test_every_registered_policy_is_there(made: Made, target: Path) -> None:
    write_bundle(made.folder, target)
    archive = zipfile.ZipFile(target)
    names = [name for name in archive.namelist() if name.startswith("policies/")]
    policies = [read_policy(json.loads(archive.read(name))) for name in names]
    assert policies == [load_policy("default"), load_policy("strict")]
    assert names == [
        f"policies/{one.id}-v{one.version}-{one.digest.removeprefix('sha256:')}.json"
        for one in policies
    ]


def test_the_same_ledger_gives_the_same_bytes(made: Made, target: Path, tmp_path: Path) -> None:
    for with_content in (False, True):
        one = write_bundle(made.folder, target, with_content=with_content)
        copy = tmp_path / "copy"
        shutil.copytree(made.folder, copy, dirs_exist_ok=True)
        again = write_bundle(copy, tmp_path / "again.zip", with_content=with_content)
        assert one == again
        assert target.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_texts_stay_unless_they_are_asked_for(made: Made, target: Path, tmp_path: Path) -> None:
    write_bundle(made.folder, target)
    archive = zipfile.ZipFile(target)
    everything = b"".join(map(archive.read, archive.namelist()))
    assert b"SECRET" not in everything
    assert b"were kept back" in archive.read("README.txt")

    write_bundle(made.folder, target, with_content=True)
    archive = zipfile.ZipFile(target)
    content = tmp_path / "content.sqlite"
    content.write_bytes(archive.read("ledger/content.sqlite"))
    rows = sqlite3.connect(content).execute("SELECT record_id, content FROM content").fetchall()
    assert {one[0] for one in rows} == set(made.ids.values())
    found = b"".join(one[1] for one in rows)
    assert all(text_of(n).encode() in found and answer_of(n).encode() in found for n in range(10))
    assert second_opinion(target) == "unanchored"
    assert {path.name for path in tmp_path.iterdir()} == {
        "ledger",
        "evidence.zip",
        "content.sqlite",
    }


def test_erased_texts_are_in_no_bundle(made: Made, target: Path) -> None:
    with made.open() as ledger:
        erase(ledger, made.ids[4], "asked for")
    write_bundle(made.folder, target, with_content=True)
    archive = zipfile.ZipFile(target)
    everything = b"".join(map(archive.read, archive.namelist()))
    assert answer_of(4).encode() not in everything
    assert answer_of(5).encode() in everything
    assert second_opinion(target) == "unanchored"


def test_texts_are_of_the_same_moment_as_the_records(
    made: Made, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing waits while the contents are copied, and so is in both or in neither."""
    copy = bundle_module._copy
    eraser: list[threading.Thread] = []

    def erase_one() -> None:
        with made.open() as ledger:
            erase(ledger, made.ids[4], "asked for")

    def slowly(folder: Path, to: Path) -> None:
        eraser.append(threading.Thread(target=erase_one))
        eraser[0].start()
        eraser[0].join(0.5)
        copy(folder, to)

    monkeypatch.setattr(bundle_module, "_copy", slowly)
    write_bundle(made.folder, target, with_content=True)
    eraser[0].join(60)
    assert second_opinion(target) == "unanchored"
    archive = zipfile.ZipFile(target)
    assert answer_of(4).encode() in archive.read("ledger/content.sqlite")
    assert made.texts_in_files() == set(range(10)) - {4}


def test_a_pruned_ledger_is_packed_with_what_stands_for_the_rest(made: Made, target: Path) -> None:
    made.run(range(10, 12), run_id="run-2", time="2034-01-01T00:00:00.000Z")
    pruning = prune(
        made.folder,
        KEYS,
        before=parse_date("2032-01-01"),
        retention_days=365,
        export=made.folder.parent / "export.zip",
        reason="over",
        now=parse_date("2040-01-01"),
    )
    written = write_bundle(made.folder, target)
    assert pruning.plan is not None
    assert written.report.pruned == pruning.plan.size
    names = zipfile.ZipFile(target).namelist()
    assert "ledger/pruned.json" in names
    assert any(name.startswith("policies/default-v1-") for name in names)
    assert second_opinion(target) == "unanchored"
    readme = zipfile.ZipFile(target).read("README.txt").decode()
    assert f", after {pruning.plan.size} that were removed" in readme


def test_what_is_unsealed_or_broken_is_packed_and_said(made: Made, target: Path) -> None:
    for path in (made.folder / "checkpoints").iterdir():
        path.unlink()
    written = write_bundle(made.folder, target)
    assert written.report.state is State.UNSEALED
    archive = zipfile.ZipFile(target)
    assert "head.note" not in archive.namelist()
    readme = archive.read("README.txt").decode()
    assert "the newest checkpoint (there is none yet)" in readme
    assert "unsealed: line 1: no checkpoint covers the last" in readme

    segment = min((made.folder / "segments").iterdir())
    segment.write_bytes(segment.read_bytes().replace(b'"outcome":"pass"', b'"outcome":"fail"', 1))
    written = write_bundle(made.folder, target)
    assert written.report.state is State.INVALID
    assert second_opinion(target) == "invalid"
    with ZipReader(target) as reader:
        assert len(lines_in(reader)) == written.report.records


def test_a_bundle_grows_no_records_while_it_is_written(
    made: Made, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = bundle_module.build_readme

    def append_first(*args: object, **named: object) -> str:
        made.run(range(20, 23), run_id="run-9", time=TIME)
        return readme(*args, **named)

    monkeypatch.setattr(bundle_module, "build_readme", append_first)
    written = write_bundle(made.folder, target)
    with ZipReader(target) as reader:
        assert len(lines_in(reader)) == written.report.records
    assert made.verify().records > written.report.records
    assert second_opinion(target) == "unanchored"


def test_places_that_make_no_sense_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="inside of the ledger"):
        write_bundle(made.folder, made.folder / "evidence.zip")
    with pytest.raises(ConfigurationError, match="inside of the ledger"):
        write_bundle(made.folder, tmp_path / "x" / ".." / "ledger" / "evidence.zip")
    with pytest.raises(LedgerError, match="No such file"):
        write_bundle(made.folder, tmp_path / "nowhere" / "evidence.zip")
    with pytest.raises(LedgerError, match="No such file"):
        write_bundle(tmp_path / "nowhere", tmp_path / "evidence.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LedgerRefusedError, match="has no genesis"):
        write_bundle(tmp_path / "empty", tmp_path / "evidence.zip")
    (made.folder / "content.sqlite").unlink()
    with pytest.raises(ConfigurationError, match=r"has no content.sqlite"):
        write_bundle(made.folder, tmp_path / "evidence.zip", with_content=True)
    assert {path.name for path in tmp_path.iterdir()} == {"ledger", "empty"}


def test_a_bundle_that_reads_back_differently_is_not_kept(
    made: Made, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying(ZipReader):
        def read_checkpoint(self, size: int) -> bytes:
            return super().read_checkpoint(size)[:-1]

    target.write_bytes(b"older")
    monkeypatch.setattr(bundle_module, "ZipReader", Lying)
    with pytest.raises(LedgerError, match="the bundle is invalid when it is read back"):
        write_bundle(made.folder, target)
    assert target.read_bytes() == b"older"
    assert sorted(path.name for path in target.parent.iterdir()) == ["evidence.zip", "ledger"]


def test_records_that_call_themselves_policies_do_no_harm(made: Made, target: Path) -> None:
    bodies = [
        {"kind": "policy"},
        {"kind": "policy", "policy": {"id": "../../x", "digest": "sha256:" + "0" * 64}},
        {"kind": "policy", "policy": ["x"]},
        {"kind": "note", "nested": {"kind": "policy"}, "policy": {}},
    ]
    with made.open() as ledger:
        ledger.append([orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in bodies])
    write_bundle(made.folder, target)
    names = [n for n in zipfile.ZipFile(target).namelist() if n.startswith("policies/")]
    assert len(names) == 2


# README.txt


def test_the_readme_says_what_is_shown_and_what_is_not(made: Made, target: Path) -> None:
    written = write_bundle(made.folder, target)
    text = zipfile.ZipFile(target).read("README.txt").decode()
    flat = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    for words in (
        "It does not show that the records are true, nor that they are complete",
        "A key that came with the evidence proves nothing",
        *(one.article for one in load_law_mapping().articles),
        f"Mapping of {load_law_mapping().mapped_on}",
        "None of these asks for hashes or signatures",
        "an older copy of the ledger would look the same",
        "SIGNATURE OF THE RESPONSIBLE PERSON (Annex IV(2)(g))",
        SIGNER.public.fingerprint,
        SIGNER.public.text,
        "ledger example.com/ledger",
        f"records {written.report.records} ",
        hashlib.sha256((ROOT / "docs/verifier/cert_verify.py").read_bytes()).hexdigest(),
    ):
        assert words in flat, words
    for word in ("compliant", "compliance", "certified", "certif", "guarantee", "proof that"):
        assert word not in text.lower()


def test_the_commands_of_the_readme_work_as_they_stand(
    made: Made, target: Path, tmp_path: Path
) -> None:
    write_bundle(made.folder, target, with_content=True)
    text = zipfile.ZipFile(target).read("README.txt").decode()
    (tmp_path / "KEY.pem").write_bytes(SIGNER.public.pem)
    newest = max((made.folder / "checkpoints").glob("*.note"))
    shutil.copy(newest, tmp_path / "HEAD.note")
    target.rename(tmp_path / "BUNDLE.zip")
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    unpack = next(one for one in commands if "-m zipfile" in one)
    check = next(one for one in commands if "cert_verify.py BUNDLE" in one)
    program = next(one for one in commands if one.startswith("cert verify"))
    for command in (unpack, check, program):
        words = command.split()
        if words[0] == "python3":
            words[0] = sys.executable
        else:
            words[:1] = [sys.executable, "-m", "cert_cli"]
        ran = subprocess.run(
            words,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, (command, ran.stderr)
    assert ran.stdout.startswith("VALID")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_openssl_finds_the_same_fingerprint(made: Made, target: Path, tmp_path: Path) -> None:
    write_bundle(made.folder, target)
    archive = zipfile.ZipFile(target)
    (tmp_path / "public-key.pem").write_bytes(archive.read("public-key.pem"))
    text = archive.read("README.txt").decode()
    command = next(line.strip() for line in text.splitlines() if "openssl" in line)
    ran = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split()[0] == SIGNER.public.fingerprint


def test_the_documents_are_found_in_a_wheel_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "cert" / "_docs"
    (installed / "verifier").mkdir(parents=True)
    (installed / "record-format.md").write_bytes(b"from the wheel")
    monkeypatch.setattr(bundle_module.resources, "files", lambda _: tmp_path / "cert")
    assert bundle_module._document("record-format.md") == b"from the wheel"


def test_a_plan_is_packed_as_it_is_registered(tmp_path: Path, target: Path) -> None:
    with open_ledger(tmp_path / "compared", KEYS) as ledger:
        ledger.append([encode_record(record) for record in compared()])
    write_bundle(tmp_path / "compared", target)
    with zipfile.ZipFile(target) as archive:
        (name,) = [one for one in archive.namelist() if one.startswith("policies/coordination-v1-")]
        assert json.loads(archive.read(name)) == compared()[0]["policy"]
