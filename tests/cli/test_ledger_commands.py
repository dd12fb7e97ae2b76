"""`cert ledger prove`, `erase`, `prune` and `cert bundle`."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from cert.core.errors import ConfigurationError
from cert.ledger.appender import open_ledger
from cert.ledger.errors import LedgerError
from cert_cli import confirmation
from tests.cli.helpers import Processes, Program, Terminal
from tests.cli.ledgers import (
    digest_of_tree,
    leave_unsealed,
    make_ledger,
    newest_note,
    own_keys,
    segment_of,
)
from tests.ledger.committed import SIGNER, Made, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
SPEC = importlib.util.spec_from_file_location("cert_verify_for_commands", PROGRAM)
assert SPEC is not None
assert SPEC.loader is not None
second = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(second)


@pytest.fixture
def ledger(folder: Path) -> Path:
    return make_ledger(folder / "ledger")


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Two old runs and a recent one, as the settings' ledger with the settings' key."""
    (folder / "key.pem").write_bytes(SIGNER.to_pem())
    (folder / "key.pub").write_bytes(SIGNER.public.pem)
    monkeypatch.setenv("CERT_SIGNING_KEY", str(folder / "key.pem"))
    monkeypatch.setenv("CERT_VERIFY_KEY", str(folder / "key.pub"))
    monkeypatch.setenv("CERT_LEDGER", str(folder / "ledger"))
    made = Made(folder / "ledger")
    with monkeypatch.context() as patch:
        patch.setattr("cert.ledger.control.utc_now", lambda: "2020-01-01T00:00:00.000Z")
        made.run(range(8), run_id="run-1", time="2020-01-01T00:00:00.000Z")
        made.run(range(8, 16), run_id="run-2", time="2020-02-01T00:00:00.000Z")
    made.run(range(16, 20), run_id="run-3", time=datetime.now(UTC).isoformat()[:23] + "Z")
    return made


# prove


def test_prove_writes_what_the_second_verifier_takes(
    cert: Program, folder: Path, ledger: Path
) -> None:
    before = digest_of_tree(ledger)
    ran = cert("ledger", "prove", 2, "--ledger", ledger)
    assert (ran.code, ran.err) == (0, "")
    key = own_keys().current()
    assert key is not None
    line = second.verify_proof(ran.out.encode(), key.raw)
    assert json.loads(line)["note"] == {"text": "two"}
    written = cert("ledger", "prove", 2, "--ledger", ledger, "-o", "two.tlog-proof")
    assert (written.code, written.out) == (0, "")
    assert "proves that record 2 is in the ledger of 4 records" in written.err
    assert (folder / "two.tlog-proof").read_text() == ran.out
    assert (folder / "two.tlog-proof").stat().st_mode & 0o777 == 0o600
    assert digest_of_tree(ledger) == before


def test_prove_from_a_head_shows_that_the_ledger_continues_it(
    cert: Program, folder: Path, ledger: Path
) -> None:
    (folder / "head.note").write_bytes(newest_note(ledger).read_bytes())
    cert("ledger", "note", "later", ledger)
    ran = cert("ledger", "prove", "--from", "head.note", "--ledger", ledger)
    assert ran.code == 0, ran.err
    key, old = own_keys().current(), second.parse_note((folder / "head.note").read_bytes())
    assert key is not None
    new, is_own = second.verify_consistency(ran.out.encode(), old, key.raw)
    assert (old.size, new.size, is_own) == (4, 5, True)
    written = cert("ledger", "prove", "--from", "head.note", "--ledger", ledger, "-o", "c.txt")
    assert (folder / "c.txt").read_text() == ran.out
    assert "the ledger of 5 records continues that head" in written.err


def test_a_head_that_the_ledger_does_not_continue_is_an_integrity_failure(
    cert: Program, folder: Path, ledger: Path
) -> None:
    shutil.rmtree(own_keys().folder / "heads")  # which know that there is another of this name
    make_ledger(folder / "fork", ("another", "history", "of", "the", "same", "name"))
    (folder / "head.note").write_bytes(newest_note(folder / "fork").read_bytes())
    ran = cert("ledger", "prove", "--from", "head.note", "--ledger", ledger)
    assert (ran.code, ran.out) == (5, "")
    assert "the head is of 7 records, the newest checkpoint of 4" in ran.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give a record's number, or --from HEADFILE, and not both"),
        ((1, "--from", "head.note"), "give a record's number, or --from HEADFILE, and not both"),
        ((9,), "covers the records 0 to 3, and not 9"),
        (("--from", "gone.note"), "--from gone.note is no head: No such file"),
        (("--from", "ledger"), "--from ledger is no head: Is a directory"),
        (("--from", "no.note"), "--from no.note is no head: no signed note"),
        ((1, "-o", "ledger/proof"), "is inside of the ledger"),
        ((1, "-o", "nowhere/proof"), "cannot be written"),
    ],
)
def test_prove_says_what_it_needs(
    cert: Program, folder: Path, ledger: Path, args: tuple[str | int, ...], words: str
) -> None:
    (folder / "no.note").write_text("nothing")
    ran = cert("ledger", "prove", *map(str, args), "--ledger", ledger)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_prove_of_what_is_not_sealed_says_how_to_seal(cert: Program, ledger: Path) -> None:
    leave_unsealed(ledger)
    ran = cert("ledger", "prove", 4, "--ledger", ledger)
    assert ran.code == 2
    assert "`cert ledger head` signs one of all records" in ran.err


# erase


def test_erase_takes_the_text_away_and_says_so(cert: Program, made: Made) -> None:
    ran = cert("ledger", "erase", made.ids[3], "--reason", "  asked for  ", "--yes")
    assert ran.code == 0, ran.err
    assert ran.out == f"erased the content of record 6 ({made.ids[3]})\n"
    assert "backups, and bundles made with --with-content, still hold" in ran.err
    assert made.texts_in_files() == set(range(20)) - {3}
    listed = cert("verify")
    assert listed.code == 0, listed.out
    again = cert("ledger", "erase", made.ids[3], "--reason", "asked for", "--yes")
    assert again.code == 2
    assert "was erased already" in again.err


@pytest.mark.parametrize("flags", [[], ["--no-input"]])
def test_nothing_is_erased_where_nobody_can_be_asked(
    cert: Program, made: Made, flags: list[str]
) -> None:
    before = digest_of_tree(made.folder)
    ran = cert("ledger", "erase", made.ids[3], "--reason", "x", *flags, stdin="y\n")
    assert (ran.code, ran.out) == (2, "")
    assert "nobody can be asked; nothing was changed" in ran.err
    assert "say --yes" in ran.err
    assert digest_of_tree(made.folder) == before


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001, "two\nlines", "\x1b[2J"])
def test_a_reason_is_one_line_that_can_be_kept(cert: Program, made: Made, reason: str) -> None:
    ran = cert("ledger", "erase", made.ids[3], "--reason", reason, "--yes")
    assert ran.code == 2
    assert "--reason takes 1 to 2000 characters on one line" in ran.err


def test_erase_without_a_reason_or_a_ledger_is_a_usage_error(cert: Program, folder: Path) -> None:
    assert cert("ledger", "erase", "some-id", "--yes").code == 2
    ran = cert("ledger", "erase", "some-id", "--reason", "x", "--yes", "--ledger", "nowhere")
    assert ran.code == 2
    assert "there is no ledger: nowhere does not exist" in ran.err
    assert not (folder / "nowhere").exists()


def test_erase_without_the_key_changes_nothing(
    cert: Program, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CERT_SIGNING_KEY")
    ran = cert("ledger", "erase", made.ids[3], "--reason", "x", "--yes")
    assert ran.code == 2
    assert "that signs this ledger is not in" in ran.err


# confirm


@pytest.mark.parametrize(
    ("answer", "goes_on"),
    [("y\n", True), (" Yes \n", True), ("\n", False), ("n\n", False), ("", False)],
)
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    stdin, stderr = Terminal(), Terminal()
    stdin.write(answer)
    stdin.seek(0)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stderr", stderr)
    if goes_on:
        confirmation.confirm("It goes.\x1b[2J", yes=False, no_input=False)
    else:
        with pytest.raises(ConfigurationError, match="not confirmed; nothing was changed"):
            confirmation.confirm("It goes.\x1b[2J", yes=False, no_input=False)
    asked = stderr.text()
    assert asked.endswith("That cannot be undone. Go on? [y/N] ")
    assert "\x1b" not in asked


@pytest.mark.parametrize(("key", "code"), [("y\n", 0), ("n\n", 2), ("\x03", 130)])
def test_at_a_real_terminal(made: Made, key: str, code: int) -> None:
    command = Processes.command(
        "ledger", "erase", made.ids[3], "--reason", "x", "--ledger", made.folder
    )
    environment = Processes.environment({"CERT_SIGNING_KEY": str(made.folder.parent / "key.pem")})
    child = pexpect.spawn(command[0], command[1:], env=environment, timeout=60, encoding="utf-8")
    child.expect_exact("will be erased. That cannot be undone. Go on? [y/N]")
    child.send(key)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == code
    assert (3 in made.texts_in_files()) == (code != 0)


# prune


def test_prune_removes_the_old_and_exports_it(cert: Program, folder: Path, made: Made) -> None:
    (folder / "head.note").write_bytes(newest_note(made.folder).read_bytes())
    args = ["ledger", "prune", "--before", "2021-01-01", "--export", "old.zip"]
    args += ["--reason", "retention is over"]
    env_days = ["--config", "cert.yaml"]
    (folder / "cert.yaml").write_text("retention_days: 365\n")
    before = digest_of_tree(folder)
    dry = cert(*args, *env_days, "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.out.startswith("would remove ")
    assert "(0 to " in dry.out
    asked = cert(*args, *env_days)
    assert asked.code == 2
    assert "will be removed, after they were exported to old.zip" in asked.err
    assert digest_of_tree(folder) == before

    ran = cert(*args, *env_days, "--yes")
    assert ran.code == 0, ran.err
    assert ran.out.startswith(dry.out.replace("would remove", "removed").rstrip("\n"))
    assert "it is the only copy of what was removed" in ran.err
    assert cert("verify", "--head", "head.note", "--require-head").code == 0
    export = cert("verify", "old.zip")
    assert export.code == 0, export.err
    assert text_of(0).encode() not in b"".join(p.read_bytes() for p in folder.rglob("*.sqlite"))
    nothing = cert(*args, *env_days, "--yes")
    assert nothing.code == 2
    assert "nothing is to be removed" in nothing.err
    assert cert(*args, *env_days, "--dry-run").out == "would remove no record\n"


def test_prune_keeps_what_the_retention_says(cert: Program, folder: Path, made: Made) -> None:
    before = digest_of_tree(made.folder)
    args = ["ledger", "prune", "--before", "2021-01-01", "--export", "old.zip", "--reason", "x"]
    ran = cert(*args, "--yes")
    assert ran.code == 2
    allowed = datetime.now(UTC) - timedelta(days=3653)
    assert f"--before {allowed:%Y-%m-%d} would be allowed" in ran.err
    assert digest_of_tree(made.folder) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--before": "yesterday"}, "'yesterday' is no date"),
        ({"--export": "old.tar"}, "has to be a .zip"),
        ({"--export": "ledger/old.zip"}, "inside of the ledger"),
        ({"--reason": " "}, "--reason takes 1 to 2000 characters"),
    ],
)
def test_prune_says_what_it_needs(
    cert: Program, folder: Path, made: Made, changed: dict[str, str], words: str
) -> None:
    (folder / "cert.yaml").write_text("retention_days: 365\n")
    flags = {"--before": "2021-01-01", "--export": "old.zip", "--reason": "x"} | changed
    flat = [word for pair in flags.items() for word in pair]
    ran = cert("ledger", "prune", *flat, "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_prune_of_what_does_not_verify_is_an_integrity_failure(
    cert: Program, folder: Path, made: Made
) -> None:
    (folder / "cert.yaml").write_text("retention_days: 365\n")
    segment = sorted((made.folder / "segments").iterdir())[2]
    data = segment.read_bytes()
    assert b'"outcome":"pass"' in data
    segment.write_bytes(data.replace(b'"outcome":"pass"', b'"outcome":"fail"', 1))
    ran = cert(
        "ledger", "prune", "--before", "2021-01-01", "--export", "old.zip", "--reason", "x", "--yes"
    )
    assert ran.code == 5
    assert "is invalid: line" in ran.err
    assert "nothing was removed" in ran.err
    assert not (folder / "old.zip").exists()


def test_a_pruning_that_was_cut_off_is_finished(
    cert: Program, folder: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cert.yaml").write_text("retention_days: 365\n")
    args = ["ledger", "prune", "--before", "2021-01-01", "--export", "old.zip", "--reason", "x"]

    def fails(*_: object) -> None:
        raise LedgerError("cut off", hint="run it again")

    with monkeypatch.context() as patch:
        patch.setattr("cert.ledger.prune._unlink", fails)
        assert cert(*args, "--yes").code == 4
    ran = cert(*args, "--yes")
    assert ran.code == 0, ran.err
    assert ran.out == "finished a pruning that had been cut off; nothing else is old enough\n"
    assert cert("verify").code == 0


# bundle


def test_bundle_packs_the_configured_ledger(cert: Program, folder: Path, made: Made) -> None:
    before = digest_of_tree(made.folder)
    ran = cert("bundle", "-o", "evidence.zip")
    assert ran.code == 0, ran.err
    assert SIGNER.public.fingerprint in ran.out
    assert "unanchored" in ran.out
    assert digest_of_tree(made.folder) == before
    assert cert("verify", "evidence.zip").code == 0
    assert "ledger/content.sqlite" not in zipfile.ZipFile("evidence.zip").namelist()
    full = cert("bundle", made.folder, "-o", "full.zip", "--with-content")
    assert full.code == 0, full.err
    assert "ledger/content.sqlite" in zipfile.ZipFile("full.zip").namelist()
    deep = cert("verify", "full.zip")
    assert deep.code == 0, deep.out


def test_bundle_warns_of_what_is_not_signed_and_fails_on_what_is_broken(
    cert: Program, ledger: Path
) -> None:
    leave_unsealed(ledger)
    ran = cert("bundle", ledger, "-o", "evidence.zip")
    assert ran.code == 0
    assert "warning: no checkpoint covers the last records" in ran.err
    segment = segment_of(ledger)
    segment.write_bytes(segment.read_bytes().replace(b'"text":"two"', b'"text":"TWO"'))
    ran = cert("bundle", ledger, "-o", "evidence.zip")
    assert ran.code == 5
    assert "the ledger is invalid; it was packed as it is" in ran.err


def test_bundle_says_what_it_needs(cert: Program, folder: Path, ledger: Path) -> None:
    assert cert("bundle", ledger).code == 2
    inside = cert("bundle", ledger, "-o", ledger / "evidence.zip")
    assert (inside.code, "inside of the ledger" in inside.err) == (2, True)
    lacking = cert("bundle", ledger, "-o", "evidence.zip", "--with-content")
    assert lacking.code == 2
    assert "leave out --with-content" in lacking.err
    nowhere = cert("bundle", ledger, "-o", "nowhere/evidence.zip")
    assert nowhere.code == 4
    assert "cannot be written: No such file" in nowhere.err


@pytest.mark.parametrize(
    "command", [["bundle"], *(["ledger", x] for x in ("prove", "erase", "prune"))]
)
def test_help_has_examples_and_exit_codes(cert: Program, command: list[str]) -> None:
    ran = cert(*command, "--help")
    assert ran.code == 0
    assert "Examples:" in ran.out
    assert "Exit codes" in ran.out
    assert f"cert {' '.join(command)}" in ran.out


def test_a_ledger_is_never_begun_by_these(cert: Program, folder: Path) -> None:
    (folder / "empty").mkdir()
    for args in (
        ["ledger", "prove", "0", "--ledger", "empty"],
        ["ledger", "erase", "x", "--reason", "x", "--yes", "--ledger", "empty"],
        ["bundle", "empty", "-o", "evidence.zip"],
    ):
        ran = cert(*args)
        assert ran.code == 2
        assert "is no ledger: it holds no records" in ran.err
    assert list((folder / "empty").iterdir()) == []
    with open_ledger(folder / "empty", own_keys()):
        pass
