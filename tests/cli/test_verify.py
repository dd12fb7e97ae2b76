"""`cert verify`: states and exit codes, keys and heads, and that it writes nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from cert.core.places import known_keys_file, ledger_folder
from cert.ledger.appender import open_ledger
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.keys import Signer
from cert.ledger.proofs import prove_consistency, prove_inclusion
from cert.ledger.reader import FolderReader
from cert_cli import byte_meter
from cert_cli.byte_meter import ByteMeter
from tests.cli.helpers import Processes, Program, Terminal
from tests.cli.ledgers import (
    digest_of_tree,
    foreign_keys,
    leave_unsealed,
    make_ledger,
    newest_note,
    own_keys,
    segment_of,
)
from tests.ledger.tsa import authority_of_tests

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = "example.com/tests"


@pytest.fixture
def ledger(folder: Path) -> Path:
    return make_ledger(folder / "ledger")


@pytest.fixture
def head(folder: Path, ledger: Path) -> Path:
    path = folder / "head.note"
    path.write_bytes(newest_note(ledger).read_bytes())
    return path


def said(cert: Program, *args: str | Path) -> dict[str, Any]:
    """What --json says, whose exit code is that of the process."""
    ran = cert("verify", *args, "--json")
    value = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    assert value["exit_code"] == ran.code
    assert isinstance(value, dict)
    return value


def unwrapped(text: str) -> str:
    """A page's text as one line."""
    return " ".join(text.split())


# States


def forget_heads() -> None:
    """As on a machine that verifies and never wrote."""
    shutil.rmtree(own_keys().folder / "heads")


def test_unanchored_says_so_and_how_to_get_a_head(cert: Program, ledger: Path) -> None:
    forget_heads()
    ran = cert("verify", ledger)
    assert ran.code == 0
    assert ran.out.startswith(f"UNANCHORED  {ledger}\n")
    assert "all 4 records" in ran.out
    assert "nothing outside the evidence pins its end" in ran.out
    assert "cert ledger head > FILE" in ran.out
    assert "1 genesis, 3 note" in ran.out
    assert "do" not in ran.err
    assert "\x1b" not in ran.out
    value = said(cert, ledger)
    assert (value["state"], value["mode"], value["kind"]) == ("unanchored", "deep", "ledger")
    assert (value["records"], value["sealed"], value["origin"]) == (4, 4, ORIGIN)
    assert (value["first"], value["findings"], value["head"]) == (None, [], None)
    assert value["kinds"] == {"genesis": 1, "note": 3}


def test_what_ones_own_key_signed_last_is_remembered(
    cert: Program, folder: Path, ledger: Path
) -> None:
    shutil.copytree(ledger, folder / "old")
    make_ledger(ledger, ["four"])
    ran = cert("verify", ledger)
    assert (ran.code, ran.out.split()[0]) == (0, "VALID")
    assert "the head of 5 records that was remembered when your key signed" in unwrapped(ran.out)
    assert "cert ledger head > FILE" in ran.out
    value = said(cert, ledger)
    (note,) = (own_keys().folder / "heads").iterdir()
    assert value["head"] == {"size": 5, "path": str(note), "is_remembered": True}
    assert note.read_bytes() == newest_note(ledger).read_bytes()
    ran = cert("verify", folder / "old")
    assert (ran.code, ran.out.split()[0]) == (5, "ROLLED-BACK")
    assert "if this is meant to be an older copy, give the head" in unwrapped(ran.out)
    kept = newest_note(folder / "old")
    assert said(cert, folder / "old", "--head", kept)["state"] == "valid"
    assert cert("verify", ledger, "--require-head").code == 5


def test_a_cut_ledger_without_its_checkpoints_is_found_without_a_head(
    cert: Program, ledger: Path
) -> None:
    segment = segment_of(ledger)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    newest_note(ledger).unlink()
    (ledger / "tail.json").unlink()
    assert said(cert, ledger)["state"] == "rolled-back"
    forget_heads()
    assert said(cert, ledger)["state"] == "unsealed"


def test_a_remembered_head_that_cannot_be_read_is_said(cert: Program, ledger: Path) -> None:
    (note,) = (own_keys().folder / "heads").iterdir()
    note.write_text("x")
    ran = cert("verify", ledger)
    assert ran.code == 2
    assert f"the remembered head of this ledger, {note}, cannot be read" in ran.err


def test_require_head(cert: Program, ledger: Path, head: Path) -> None:
    ran = cert("verify", ledger, "--require-head")
    assert ran.code == 5
    assert "--require-head was given" in ran.out
    assert cert("verify", ledger, "--require-head", "--head", head).code == 0


def test_valid_with_a_head(cert: Program, ledger: Path, head: Path) -> None:
    make_ledger(ledger, ["four"])
    ran = cert("verify", ledger, "--head", head)
    assert ran.code == 0
    assert ran.out.startswith("VALID")
    assert "continue the head of 4 records that was kept elsewhere" in unwrapped(ran.out)
    assert "Next:" not in ran.out
    expected = {"size": 4, "path": str(head), "is_remembered": False}
    assert said(cert, ledger, "--head", head)["head"] == expected


def test_unsealed_warns_and_strict_fails(cert: Program, ledger: Path, head: Path) -> None:
    leave_unsealed(ledger, ["late", "later"])
    ran = cert("verify", ledger)
    assert ran.code == 0
    assert "warning: records are not sealed" in ran.err
    assert "the last 2 yet" in " ".join(ran.out.split())
    assert "`cert ledger head > FILE` signs" in " ".join(ran.out.split())
    assert cert("verify", ledger, "-q").err == ""
    strict = cert("verify", ledger, "--strict", "--head", head)
    assert strict.code == 5
    assert "--strict was given" in strict.out
    first = said(cert, ledger)["first"]
    assert (first["state"], first["line"]) == ("unsealed", 5)


def test_torn(cert: Program, ledger: Path) -> None:
    path = segment_of(ledger)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"_prev":')
    ran = cert("verify", ledger)
    assert ran.code == 5
    assert ran.out.startswith("TORN")
    assert f"line 5, segments/000000000000.jsonl, byte {size}" in ran.out
    assert "signatures cover 4 of the 4 complete records" in " ".join(ran.out.split())
    assert "sets the incomplete end aside" in " ".join(ran.out.split())


def test_rolled_back(cert: Program, folder: Path, ledger: Path) -> None:
    shutil.copytree(ledger, folder / "old")
    make_ledger(ledger, ["four"])
    head = newest_note(ledger)
    ran = cert("verify", "old", "--head", head)
    assert ran.code == 5
    assert ran.out.startswith("ROLLED-BACK")
    assert "expected  5\nfound     4\n" in ran.out
    assert "Find the copy that continues the head" in ran.out


def test_invalid_names_the_line(cert: Program, ledger: Path) -> None:
    path = segment_of(ledger)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"TWO"'))
    ran = cert("verify", ledger)
    assert ran.code == 5
    assert ran.out.startswith("INVALID")
    offset = len(lines[0]) + len(lines[1]) + 2
    assert f"where     line 3, segments/000000000000.jsonl, byte {offset}\n" in ran.out
    assert "(link)" in ran.out
    assert "Keep a copy as it is" in ran.out
    value = said(cert, ledger, "--fast")
    assert (value["first"]["line"], value["first"]["offset"]) == (3, offset)
    assert len(value["first"]["expected"]) == 64
    assert value["mode"] == "fast"


def test_deep_finds_what_fast_does_not(cert: Program, folder: Path) -> None:
    with open_ledger(folder / "ledger", own_keys(), origin=ORIGIN) as ledger:
        ledger.append([b'{"clock":"system","kind":"note"}', b'{"a": 1}'])
    fast, deep = said(cert, "ledger", "--fast"), said(cert, "ledger", "--deep")
    assert (fast["state"], fast["exit_code"]) == ("valid", 0)
    assert (deep["state"], deep["exit_code"]) == ("invalid", 5)
    assert [one["code"] for one in deep["findings"]][:1] == ["schema"]
    text = cert("verify", "ledger")
    assert "\ninvalid     line 3" in text.out
    assert "(--fast)" in cert("verify", "ledger", "--fast").out


def test_many_findings_are_cut_for_people_only(cert: Program, folder: Path) -> None:
    with open_ledger(folder / "ledger", own_keys()) as ledger:
        ledger.append([b'{"a":1}'] * 30)
    text = cert("verify", "ledger").out
    assert "and " in text
    assert "more (--json lists" in text
    assert len(said(cert, "ledger")["findings"]) >= 30


def test_an_empty_folder_is_invalid_and_a_missing_one_a_usage_error(
    cert: Program, folder: Path
) -> None:
    (folder / "empty").mkdir()
    key = Signer.generate().public.text
    assert said(cert, "empty", "--key", key)["first"]["line"] == 1
    ran = cert("verify", "missing")
    assert ran.code == 2
    assert "missing cannot be read: No such file" in ran.err
    assert cert("verify", "a\0b").code == 2


# Which key


def test_the_configured_ledger_and_ones_own_key_are_the_default(cert: Program) -> None:
    ran = cert("verify")
    assert ran.code == 2
    assert "there is no ledger yet" in ran.err
    folder = ledger_folder("auto")
    assert folder is not None
    make_ledger(folder)
    ran = cert("verify")
    assert ran.code == 0
    assert f"your own key in {own_keys().folder}" in ran.out
    value = said(cert)
    current = own_keys().current()
    assert current is not None
    assert value["pinned"] == {
        "key": current.text,
        "fingerprint": current.fingerprint,
        "kind": "own",
        "source": f"your own key in {own_keys().folder}",
    }


def test_no_ledger_is_configured(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_LEDGER", "none")
    ran = cert("verify")
    assert ran.code == 2
    assert "the setting `ledger` is none" in ran.err


@pytest.fixture
def foreign(folder: Path) -> Path:
    """Somebody else's ledger; their public key is in their.pub."""
    return make_ledger(folder / "foreign", keys=foreign_keys(folder / "their.pem"))


def test_without_any_key_there_is_no_verdict(cert: Program, foreign: Path, ledger: Path) -> None:
    ran = cert("verify", foreign)
    assert ran.code == 2
    assert ran.out == ""
    assert "no key is pinned" in ran.err
    assert "which proves nothing by itself" in ran.err
    assert "--key FILE|ed25519:" in ran.err
    assert "--trust-on-first-use" in ran.err


def test_a_key_of_the_command_line(cert: Program, folder: Path, foreign: Path) -> None:
    text = said(cert, foreign, "--key", "their.pub")["pinned"]["key"]
    assert said(cert, foreign, "--key", text)["state"] == "unanchored"
    (folder / "text.pub").write_text(f"{text}\n")
    assert said(cert, foreign, "--key", "text.pub")["pinned"]["kind"] == "flag"
    other = Signer.generate().public.text
    value = said(cert, foreign, "--key", other)
    assert (value["state"], value["first"]["code"]) == ("invalid", "key")
    assert value["first"]["expected"] == other


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("their.pem", "is a private key"),
        ("missing.pub", "No such file"),
        ("ed25519:AAAA", "is no public key"),
        (".", "Is a directory"),
        ("a\0b", "null byte"),
    ],
)
def test_keys_that_are_none(cert: Program, foreign: Path, text: str, words: str) -> None:
    ran = cert("verify", foreign, "--key", text)
    assert ran.code == 2
    assert words in ran.err
    assert "PRIVATE KEY" not in ran.err + ran.out


def test_a_configured_key(
    cert: Program, folder: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cert.yaml").write_text("verify_key: their.pub\n")
    value = said(cert, foreign)
    assert value["pinned"]["kind"] == "setting"
    assert value["pinned"]["source"] == "the setting verify_key (file cert.yaml)"
    monkeypatch.setenv("CERT_VERIFY_KEY", "nowhere.pub")
    ran = cert("verify", foreign)
    assert ran.code == 2
    assert "verify_key (environment CERT_VERIFY_KEY)" in ran.err
    assert cert("verify", foreign, "--key", "their.pub").code == 0


def test_settings_are_read_only_where_needed_but_a_named_file_always_is(
    cert: Program, folder: Path, foreign: Path
) -> None:
    (folder / "cert.yaml").write_text("no_such_setting: 1\n")
    assert cert("verify", foreign, "--key", "their.pub").code == 0
    assert cert("verify", foreign).code == 2
    assert cert("verify", foreign, "--key", "their.pub", "--config", "cert.yaml").code == 2


def test_an_old_key_of_ones_own_still_fits_after_a_rotation(cert: Program, ledger: Path) -> None:
    assert cert("keys", "rotate", ledger).code == 0
    current = own_keys().current()
    value = said(cert, ledger)
    assert current is not None
    assert value["pinned"]["key"] == value["key"] == current.text
    shutil.rmtree(own_keys().folder / "nothing", ignore_errors=True)
    (own_keys().folder / f"{current.fingerprint}.pub").unlink()
    (own_keys().folder / "current").unlink()
    value = said(cert, ledger)
    assert value["state"] == "valid"
    assert value["pinned"]["key"] != value["key"]


def test_where_nothing_can_be_read_of_the_ledger_ones_own_key_shows_that(
    cert: Program, ledger: Path
) -> None:
    segment_of(ledger).write_bytes(b"{}\n")
    newest_note(ledger).write_bytes(b"")
    value = said(cert, ledger)
    assert (value["state"], value["first"]["line"]) == ("invalid", 1)
    assert value["origin"] is None
    assert cert("verify", ledger).code == 5


def test_ones_own_ledger_resealed_by_another_key_is_not_valid(
    cert: Program, folder: Path, ledger: Path
) -> None:
    shutil.rmtree(ledger)
    make_ledger(ledger, keys=foreign_keys(folder / "attacker.pem"))
    assert cert("verify", ledger).code == 2
    own = own_keys().current()
    assert own is not None
    assert cert("verify", ledger, "--key", own.text).code == 5


# Trust on first use


def test_trust_on_first_use_remembers_and_refuses_another_key_later(
    cert: Program, folder: Path, foreign: Path
) -> None:
    ran = cert("verify", foreign, "--trust-on-first-use")
    assert ran.code == 0
    assert "trusted on first use and remembered in" in ran.err
    assert "the evidence alone, on first use" in ran.out
    path = known_keys_file()
    assert path.stat().st_mode & 0o777 == 0o600
    remembered = json.loads(path.read_bytes())
    assert list(remembered) == [ORIGIN]
    value = said(cert, foreign)
    assert value["pinned"]["kind"] == "known"
    assert value["pinned"]["key"] == remembered[ORIGIN]["key"]
    shutil.rmtree(foreign)
    make_ledger(foreign, keys=foreign_keys(folder / "attacker.pem"))
    for flags in ((), ("--trust-on-first-use",)):
        value = said(cert, foreign, *flags)
        assert (value["exit_code"], value["first"]["code"]) == (5, "key")
    assert json.loads(path.read_bytes()) == remembered


def test_bad_evidence_is_not_remembered(cert: Program, foreign: Path) -> None:
    path = segment_of(foreign)
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"TWO"'))
    ran = cert("verify", foreign, "--trust-on-first-use")
    assert ran.code == 5
    assert "was not remembered" in ran.err
    assert not known_keys_file().exists()


def test_evidence_without_a_genesis_cannot_be_trusted_on_first_use(
    cert: Program, folder: Path
) -> None:
    (folder / "empty").mkdir()
    ran = cert("verify", "empty", "--trust-on-first-use")
    assert ran.code == 2
    assert "the evidence names none" in ran.err


def test_a_broken_file_of_known_keys(cert: Program, foreign: Path) -> None:
    path = known_keys_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    for content, words in (
        (b"{", "cannot be read"),
        (b"[]", "it is no object"),
        (b'{"example.com/tests": 1}', "an entry is no key"),
        (b'{"example.com/tests": {"key": "x", "since": "y"}}', "is no public key"),
    ):
        path.write_bytes(content)
        ran = cert("verify", foreign, "--trust-on-first-use")
        assert (ran.code, words in ran.err) == (2, True), ran.err
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    assert cert("verify", foreign).code == 2


# The head


def test_a_head_that_is_unusable_is_a_usage_error(
    cert: Program, folder: Path, ledger: Path, foreign: Path
) -> None:
    (folder / "bad.note").write_text("no note")
    (folder / "large.note").write_bytes(b"x" * (1 << 21))
    for name, words in (
        ("bad.note", "no signed note"),
        ("nowhere.note", "No such file"),
        ("large.note", "too large"),
        (str(newest_note(foreign)), "not signed by the pinned key"),
    ):
        ran = cert("verify", ledger, "--head", name)
        assert (ran.code, words in ran.err, ran.out) == (2, True, "")


# Bundles and plain files


def test_a_bundle_is_verified_as_the_ledger_is(cert: Program, folder: Path, ledger: Path) -> None:
    with zipfile.ZipFile("bundle.zip", "w") as bundle:
        for path in ledger.rglob("*"):
            bundle.write(path, f"ledger/{path.relative_to(ledger)}")
    forget_heads()
    bundled, plain = said(cert, "bundle.zip"), said(cert, ledger)
    assert bundled.pop("kind") == "bundle"
    assert bundled.pop("path") == "bundle.zip"
    assert bundled == {name: plain[name] for name in bundled}
    data = Path("bundle.zip").read_bytes()
    Path("half.zip").write_bytes(data[: len(data) // 2])
    ran = cert("verify", "half.zip")
    assert ran.code == 2
    assert "half.zip" in ran.err


def test_contents_of_a_bundle_are_checked_and_nothing_stays_behind(
    cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = committed(cert, folder)
    temporary = folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for name in ("good.zip", "bad.zip"):
        with zipfile.ZipFile(name, "w") as bundle:
            for path in ledger.rglob("*"):
                bundle.write(path, f"ledger/{path.relative_to(ledger)}")
        spoil_content(ledger)
    assert said(cert, "good.zip")["state"] == "unanchored"
    bad = said(cert, "bad.zip")
    assert (bad["state"], bad["first"]["code"]) == ("invalid", "content")
    assert said(cert, "bad.zip", "--fast")["state"] == "unanchored"
    assert list(temporary.iterdir()) == []


def test_a_plain_file_needs_no_key_without_a_head(
    cert: Program, ledger: Path, head: Path, foreign: Path
) -> None:
    shutil.copy(segment_of(ledger), "records.jsonl")
    ran = cert("verify", "records.jsonl")
    assert ran.code == 0
    assert ran.out.startswith("UNSEALED")
    assert "nothing in this file is signed" in ran.out
    assert "no key: none was needed" in ran.out
    assert "verify the ledger that the lines are from" in " ".join(ran.out.split())
    assert said(cert, "records.jsonl")["pinned"] is None
    assert said(cert, "records.jsonl", "--strict")["exit_code"] == 5
    value = said(cert, "records.jsonl", "--head", head)
    assert (value["state"], value["pinned"]["kind"], value["kind"]) == ("valid", "own", "file")
    leave_unsealed(ledger)
    shutil.copy(segment_of(ledger), "records.jsonl")
    assert "The first 4 records" in cert("verify", "records.jsonl", "--head", head).out
    shutil.copy(segment_of(foreign), "records.jsonl")
    their = newest_note(foreign)
    assert cert("verify", "records.jsonl", "--head", their).code == 2
    assert cert("verify", "records.jsonl", "--head", their, "--key", "their.pub").code == 0
    assert cert("verify", "records.jsonl", "--key", "nowhere").code == 2


def test_what_a_run_wrote_with_o_is_verified_line_by_line(cert: Program, folder: Path) -> None:
    (folder / "in.txt").write_text("one\ntwo\n")
    cert("batch", "in.txt", "--ledger", "ledger", "-o", "out.jsonl")
    cert("batch", "in.txt", "--no-ledger", "-o", "bare.jsonl")
    for name in ("out.jsonl", "bare.jsonl"):
        value = said(cert, name)
        assert (value["state"], value["kinds"]) == ("unsealed", {"analysis": 2}), value
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b'"tokens":', b'"tokens":1', 1))
        assert said(cert, name)["state"] == "invalid"


def test_neither_folder_nor_file(cert: Program, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    ran = cert("verify", "fifo")
    assert ran.code == 2
    assert "neither a folder nor a regular file" in ran.err
    assert cert("verify", "/dev/null").code == 2


# Contents behind commitments


def committed(cert: Program, folder: Path) -> Path:
    (folder / "in.txt").write_text("one\ntwo\n")
    ran = cert("batch", "in.txt", "--ledger", "ledger", "--content", "committed")
    assert "ledger" not in ran.err or ran.code in {0, 1, 3}
    return folder / "ledger"


def spoil_content(ledger: Path) -> None:
    connection = sqlite3.connect(ledger / "content.sqlite")
    with connection:
        connection.execute("UPDATE content SET content = content || x'20'")
    connection.close()


def test_contents_are_held_against_their_commitments(cert: Program, folder: Path) -> None:
    ledger = committed(cert, folder)
    assert said(cert, ledger)["state"] == "valid"
    spoil_content(ledger)
    value = said(cert, ledger)
    assert (value["state"], value["first"]["code"]) == ("invalid", "content")
    assert said(cert, ledger, "--fast")["state"] == "valid"


def test_contents_that_were_kept_back_are_a_remark(cert: Program, folder: Path) -> None:
    ledger = committed(cert, folder)
    (ledger / "content.sqlite").unlink()
    value = said(cert, ledger)
    assert value["state"] == "valid"
    (remark,) = [one for one in value["findings"] if one["code"] == "content"]
    assert "the content of 2 records was kept back" in remark["message"]


def test_contents_that_cannot_be_read_match_no_commitment(cert: Program, folder: Path) -> None:
    ledger = committed(cert, folder)
    (ledger / "content.sqlite").write_bytes(b"no database" * 1000)
    value = said(cert, ledger)
    assert value["exit_code"] == 5
    assert any("not a database" in one["message"] for one in value["findings"])


# Time stamps


def test_time_stamps(cert: Program, folder: Path, ledger: Path) -> None:
    assert said(cert, ledger)["timestamp"] == {"size": None, "fault": None, "verified": None}
    (folder / "tsa").mkdir()
    authority = authority_of_tests(folder / "tsa")
    roots = folder / "roots.pem"
    roots.write_bytes(authority.root.pem)
    assert "no time stamp is there" in cert("verify", ledger, "--tsa-roots", roots).out
    note = newest_note(ledger)
    token = note.with_suffix(".tsr")
    token.write_bytes(authority.token(note.read_bytes()))
    ran = cert("verify", ledger)
    assert ran.code == 0
    assert "a time stamp of 4 records is there, not checked: give --tsa-roots" in ran.out
    ran = cert("verify", ledger, "--tsa-roots", roots)
    assert ran.code == 0
    assert "the first 4 records existed at 20" in ran.out
    verified = said(cert, ledger, "--tsa-roots", roots)["timestamp"]["verified"]
    assert verified["time"].endswith("Z")
    token.write_bytes(authority.token(b"something else"))
    ran = cert("verify", ledger, "--tsa-roots", roots)
    assert ran.code == 5
    assert "the time stamp of 4 records does not hold" in ran.out
    assert cert("verify", ledger, "--tsa-roots", "nowhere.pem").code == 2
    (folder / "none.pem").write_text("x")
    assert cert("verify", ledger, "--tsa-roots", "none.pem").code == 2


# Proofs


def test_a_proof_of_a_record_prints_the_record(cert: Program, folder: Path, ledger: Path) -> None:
    proof = folder / "record.tlog-proof"
    proof.write_bytes(prove_inclusion(FolderReader(ledger), 2).encode())
    ran = cert("verify", "--proof", proof)
    assert ran.code == 0
    assert ran.out == segment_of(ledger).read_text().split("\n")[2] + "\n"
    assert "record 2 is one of the 4 records of example.com/tests" in ran.err
    assert cert("verify", "--proof", proof, "-q").err == ""
    other = Signer.generate().public.text
    ran = cert("verify", "--proof", proof, "--key", other)
    assert (ran.code, ran.out) == (5, "")
    proof.write_bytes(proof.read_bytes().replace(b"index 2", b"index 1"))
    assert cert("verify", "--proof", proof).code == 5
    proof.write_bytes(b"c2sp")
    assert cert("verify", "--proof", proof).code == 5
    assert cert("verify", "--proof", "nowhere").code == 2
    assert cert("verify", ledger, "--proof", proof).code == 2


def test_a_proof_that_a_head_is_continued(
    cert: Program, folder: Path, ledger: Path, head: Path
) -> None:
    make_ledger(ledger, ["four"])
    old = parse_checkpoint(head.read_bytes())
    proof = folder / "proof.txt"
    proof.write_bytes(prove_consistency(FolderReader(ledger), old).encode())
    ran = cert("verify", "--proof", proof, "--head", head)
    assert ran.code == 0
    assert ran.out.startswith("the first 4 of 5 records of example.com/tests are those of the head")
    assert ran.err == ""
    assert cert("verify", "--proof", proof).code == 2
    (folder / "bad.note").write_text("x")
    assert cert("verify", "--proof", proof, "--head", "bad.note").code == 2
    forget_heads()
    other = newest_note(make_ledger(folder / "other", ["a", "b", "c"]))
    assert cert("verify", "--proof", proof, "--head", other).code == 5
    record = folder / "record"
    record.write_bytes(prove_inclusion(FolderReader(ledger), 0).encode())
    assert cert("verify", "--proof", record, "--head", head).code == 2


def test_a_rotation_between_head_and_proof_is_said(
    cert: Program, folder: Path, ledger: Path, head: Path
) -> None:
    cert("keys", "rotate", ledger)
    old = parse_checkpoint(head.read_bytes())
    proof = folder / "proof.txt"
    proof.write_bytes(prove_consistency(FolderReader(ledger), old).encode())
    ran = cert("verify", "--proof", proof, "--head", head)
    assert ran.code == 0
    assert "did not sign the head itself" in ran.err


# What is shown


def test_colour_where_it_is_asked_for(cert: Program, ledger: Path) -> None:
    assert cert("verify", ledger, "--color").out.startswith("\x1b[1;32mVALID\x1b[0m")
    assert "\x1b" not in cert("verify", ledger, "--no-color").out
    assert "\x1b" not in cert("verify", ledger, "--json", "--color").out


def test_evidence_does_not_steer_a_terminal(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(b'{"a":"\\u001b[2J"}\n{"a": "\x1b[31m"}\n')
    ran = cert("verify", "in.jsonl")
    assert ran.code == 5
    assert "\x1b" not in ran.out + ran.err
    strange = folder / "a\x1b[2Jb"
    strange.mkdir()
    assert "\x1b" not in cert("verify", strange, "--key", Signer.generate().public.text).out


def test_progress_on_a_terminal_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(byte_meter, "_PATIENCE_S", 0)
    monkeypatch.setattr(byte_meter, "_INTERVAL_S", 0)
    meter = ByteMeter(4_000_000, is_wanted=True, color=None)
    with meter.running():
        meter.advance(1_000_000)
        meter.advance(1_000_000)
    assert "1.9/3.8 MiB" in terminal.text()
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    patient = ByteMeter(10, is_wanted=False, color=None)
    with patient.running():
        patient.advance(5)
    assert quiet.text() == ""


def test_no_progress_for_a_short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    meter = ByteMeter(10, is_wanted=True, color=None)
    with meter.running():
        meter.advance(5)
    assert terminal.text() == ""


# Nothing is written, nothing heavy imported; processes


@pytest.mark.parametrize("mode", ["--deep", "--fast"])
def test_nothing_is_written_whatever_is_wrong(
    cert: Program, folder: Path, tmp_path: Path, mode: str
) -> None:
    ledger = committed(cert, folder)

    def spoil_wal() -> None:
        connection = sqlite3.connect(ledger / "content.sqlite")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()

    def spoil_end() -> None:
        with segment_of(ledger).open("ab") as file:
            file.write(b"{")

    def spoil_tail() -> None:
        (ledger / "tail.json").write_bytes(b"{}")

    spoilers: list[Callable[[], object]] = [
        lambda: None,
        lambda: spoil_content(ledger),
        spoil_wal,
        spoil_tail,
        spoil_end,
    ]
    for spoil in spoilers:
        spoil()
        before = digest_of_tree(tmp_path)
        ran = cert("verify", ledger, mode)
        assert ran.code in {0, 5}, ran.err
        assert digest_of_tree(tmp_path) == before


def test_nothing_heavy_is_imported(
    processes: Processes, cert: Program, folder: Path, ledger: Path, head: Path
) -> None:
    (folder / "in.txt").write_text("one\n")
    cert("batch", "in.txt", "--ledger", "run")
    assert said(cert, "run")["kinds"]["analysis"] == 1
    key = own_keys().current()
    assert key is not None
    heavy = ("torch", "transformers", "numpy", "tokenizers", "scipy")
    program = (
        "import sys\nfrom cert_cli.app import app\n"
        "try:\n    app(sys.argv[1:], prog_name='cert')\nexcept SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    for args in (
        ["verify", "run", "--key", key.text],
        ["verify", "run", "--fast", "--key", key.text, "--json"],
        ["verify", "ledger", "--fast", "--head", "head.note"],
        ["verify", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *args],
            capture_output=True,
            text=True,
            check=False,
            env=processes.environment(),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == ""


def large_ledger(folder: Path) -> Path:
    text = "x" * 1900
    with open_ledger(folder, own_keys()) as ledger:
        for _ in range(30):
            ledger.append([_note(text)] * 1000, is_durable=False)
    return folder


def _note(text: str) -> bytes:
    return (
        b'{"clock":"system","id":"00000000-0000-4000-8000-000000000000","kind":"note",'
        b'"note":{"text":"%b"},"schema":"1.0","time":"2026-11-23T10:30:45.123Z"}' % text.encode()
    )


def test_ctrl_c_ends_it(processes: Processes, folder: Path) -> None:
    large_ledger(folder / "ledger")
    process = processes.start("verify", "ledger")
    opened = str(segment_of(folder / "ledger"))
    deadline = time.monotonic() + 60
    while opened not in {one.path for one in psutil.Process(process.pid).open_files()}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == b""
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_a_closed_pipe_and_a_full_disk(processes: Processes, folder: Path, ledger: Path) -> None:
    command = processes.command("verify", ledger, "--json")
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "cert", *command],
        env=processes.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 4}
    assert done.stderr == b""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        ran = processes.run("verify", ledger, stdout=full)
    assert ran.code == 4
    assert "Traceback" not in ran.err


# The interpreter may lie where nobody may read, so everything is imported before.
AS_NOBODY = """
import contextlib, io, os, sys
from cert_cli.app import app
os.environ["XDG_CONFIG_HOME"] = sys.argv[1]
for flags in (["--key", sys.argv[3]], ["--trust-on-first-use"]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        app(["verify", sys.argv[2], *flags])
sys.stdout = sys.__stdout__
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
app(["verify", sys.argv[2], *sys.argv[4:]], prog_name="cert")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_a_read_only_folder_is_enough(
    processes: Processes, folder: Path, tmp_path: Path, ledger: Path
) -> None:
    key = own_keys().current()
    assert key is not None
    for path in [folder, *folder.parents]:
        if path.owner() == "root" and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    for path in [ledger, *ledger.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = digest_of_tree(ledger)

    def verify(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", AS_NOBODY, tmp_path / "roots", ledger, key.text, *flags],
            env=processes.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    ran = verify("--key", key.text)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("UNANCHORED")
    ran = verify("--trust-on-first-use")
    assert ran.returncode == 2
    assert "the key cannot be remembered" in ran.stderr
    assert ran.stdout.startswith("UNANCHORED")
    (ledger / "segments").chmod(0o000)
    ran = verify("--key", key.text)
    assert ran.returncode == 2
    assert "Permission denied" in ran.stderr
    (ledger / "segments").chmod(0o555)
    assert digest_of_tree(ledger) == before


def test_debug_shows_a_traceback(cert: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" in cert("verify", "missing", "--debug").err
    assert isinstance(sys.stderr, io.TextIOBase)
