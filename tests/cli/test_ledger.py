"""`cert ledger head`, `ls`, `note`, `attest`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from cert.evidence.attestation import verify_dsse
from cert.ledger.appender import open_ledger
from cert.ledger.keys import parse_public_key
from tests.cli.helpers import Processes, Program, records_of
from tests.cli.ledgers import (
    append,
    digest_of_tree,
    foreign_keys,
    leave_unsealed,
    make_ledger,
    newest_note,
    own_keys,
    segment_of,
)
from tests.ledger.tsa import authority_of_tests, send, serving

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path


@pytest.fixture
def ledger(folder: Path) -> Path:
    return make_ledger(folder / "ledger")


# head


def test_head_is_the_newest_note_and_nothing_else(
    cert: Program, folder: Path, ledger: Path
) -> None:
    before = digest_of_tree(folder)
    ran = cert("ledger", "head", ledger)
    assert ran.code == 0
    assert ran.out.encode() == newest_note(ledger).read_bytes()
    assert "the head of 4 records; keep it where" in ran.err
    assert "cert verify --head FILE" in ran.err
    assert digest_of_tree(folder) == before
    (folder / "head.note").write_text(ran.out)
    assert cert("verify", ledger, "--head", "head.note", "--require-head").code == 0


def test_head_seals_first(cert: Program, ledger: Path) -> None:
    leave_unsealed(ledger)
    ran = cert("ledger", "head", ledger)
    assert ran.code == 0
    assert ran.out.split("\n")[1] == "5"
    assert newest_note(ledger).name == "000000000005.note"
    assert "warning" not in ran.err
    assert cert("verify", ledger, "--strict").code == 0


def test_head_without_the_key_is_the_last_one_that_was_signed(
    cert: Program, folder: Path, ledger: Path
) -> None:
    leave_unsealed(ledger, ["one", "two"])
    own_keys().folder.rename(folder / "away")
    ran = cert("ledger", "head", ledger)
    assert ran.code == 0
    assert ran.out.split("\n")[1] == "4"
    assert "warning: the last 2 records are not covered by it" in ran.err
    shutil.rmtree(ledger / "checkpoints")
    (ledger / "checkpoints").mkdir()
    ran = cert("ledger", "head", ledger)
    assert (ran.code, ran.out) == (2, "")
    assert "has no checkpoint, and none can be signed" in ran.err
    assert cert("ledger", "head", ledger, "--keys", "away").code == 0


def test_head_of_a_damaged_ledger(cert: Program, ledger: Path) -> None:
    path = segment_of(ledger)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:2]) + b"\n")
    ran = cert("ledger", "head", ledger)
    assert (ran.code, ran.out) == (5, "")
    assert "has 2 records, and a signed checkpoint of 4" in ran.err
    path.write_bytes(b"\n".join([*lines[:4], b"{}", lines[3], b""]))
    assert cert("ledger", "head", ledger).code == 5
    path.write_bytes(b"\n".join(lines))
    newest_note(ledger).write_bytes(b"x")
    assert cert("ledger", "head", ledger).code == 5


def test_head_into_a_file(cert: Program, folder: Path, ledger: Path) -> None:
    ran = cert("ledger", "head", ledger, "-o", "head.note")
    assert (ran.code, ran.out) == (0, "")
    assert (folder / "head.note").read_bytes() == newest_note(ledger).read_bytes()
    inside = cert("ledger", "head", ledger, "-o", ledger / "checkpoints" / "x")
    assert inside.code == 2
    assert "inside of the ledger" in inside.err
    (folder / "link").symlink_to(ledger)
    assert cert("ledger", "head", ledger, "-o", "link/x").code == 2
    ran = cert("ledger", "head", ledger, "-o", "nowhere/x")
    assert ran.code == 2
    assert "cannot be written: No such file" in ran.err


def test_no_ledger_no_head(cert: Program, folder: Path) -> None:
    for args in (("nowhere",), (), (folder,)):
        ran = cert("ledger", "head", *args)
        assert ran.code == 2
        assert "segments/" in ran.err
    (folder / "file").write_text("")
    assert cert("ledger", "head", "file").code == 2


def test_head_with_a_time_stamp(
    cert: Program, folder: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cert("ledger", "head", ledger, "--timestamp")
    assert ran.code == 2
    assert "CERT_TIMESTAMP_URL" in ran.err
    (folder / "tsa").mkdir()
    authority = authority_of_tests(folder / "tsa")
    (folder / "roots.pem").write_bytes(authority.root.pem)

    def answer(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, authority.reply(query))

    with serving(answer) as site:
        monkeypatch.setenv("CERT_TIMESTAMP_URL", site.url)
        ran = cert("ledger", "head", ledger, "--timestamp")
        assert ran.code == 0, ran.err
        token = ledger / "checkpoints" / "000000000004.tsr"
        first = token.read_bytes()
        assert token.stat().st_mode & 0o777 == 0o600
        ran = cert("ledger", "head", ledger, "--timestamp")
        assert "has a time stamp already" in ran.err
        assert token.read_bytes() == first
        assert len(site.requests) == 1
    ran = cert("verify", ledger, "--tsa-roots", "roots.pem")
    assert ran.code == 0
    assert "the first 4 records existed at" in ran.out
    token.unlink()
    ran = cert("ledger", "head", ledger, "--timestamp")
    assert ran.code == 4
    assert "cannot be asked" in ran.err


# ls


def test_ls_of_notes(cert: Program, ledger: Path) -> None:
    before = digest_of_tree(ledger)
    ran = cert("ledger", "ls", ledger)
    assert ran.code == 0
    assert ran.err == ""
    assert f"ledger       example.com/tests ({ledger})" in ran.out
    assert "1 genesis, 3 note" in ran.out
    assert "checkpoints  1, the newest of 4 records\n" in ran.out
    size = segment_of(ledger).stat().st_size
    assert f"segment      000000000000.jsonl  4 records, {size} bytes, 20" in ran.out
    assert "Nothing was verified" in ran.out
    assert digest_of_tree(ledger) == before


def test_ls_of_runs(cert: Program, folder: Path) -> None:
    (folder / "in.txt").write_text("one\ntwo\nthree\n")
    cert("batch", "in.txt", "--ledger", "ledger")
    records = records_of(segment_of(folder / "ledger"))
    value = json.loads(cert("ledger", "ls", "ledger", "--json").out)
    (run,) = value["runs"]
    begin = next(one for one in records if one["kind"] == "run")
    verdicts = [one["assessment"]["verdict"] for one in records if one["kind"] == "analysis"]
    assert run["run_id"] == begin["run_id"]
    assert (run["command"], run["phase"]) == ("batch", "end")
    assert run["exit_code"] == records[-1]["run"]["exit_code"]
    assert run["counts"] == {
        "passed": verdicts.count("pass"),
        "failed": verdicts.count("fail"),
        "inconclusive": verdicts.count("inconclusive"),
        "errors": 0,
        "refused": 0,
    }
    assert (run["began"], run["ended"]) == (begin["time"], records[-1]["time"])
    (policy,) = value["policies"]
    registered = next(one for one in records if one["kind"] == "policy")
    assert policy["seq"] == registered["_seq"]
    assert policy["digest"] == registered["policy"]["digest"]
    assert value["keys"] == [records[0]["ledger"]["public_key"]]
    text = cert("ledger", "ls", "ledger").out
    assert f"run          {begin['run_id']}  batch, policy " in text
    assert "finished" in text
    assert "UNFINISHED" not in text
    # The same without the run's end, and with errors: what it was doing last is said.
    path = segment_of(folder / "ledger")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:-2]) + b"\n")
    text = cert("ledger", "ls", "ledger").out
    assert "UNFINISHED (last: begin)" in text


def test_ls_counts_errors_and_refusals(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"prompt":"a"}\n{\n{"prompt":""}\n')
    cert("batch", "in.jsonl", "--ledger", "ledger", "--max-errors", "100%")
    kinds = [one["kind"] for one in records_of(segment_of(folder / "ledger"))]
    (run,) = json.loads(cert("ledger", "ls", "ledger", "--json").out)["runs"]
    assert run["counts"]["errors"] == kinds.count("error")
    assert run["counts"]["refused"] == kinds.count("refused") > 0


def test_ls_of_what_is_damaged(cert: Program, ledger: Path) -> None:
    cert("keys", "rotate", ledger)
    leave_unsealed(ledger)
    path = segment_of(ledger)
    with path.open("ab") as file:
        file.write(b'{"kind":"x\\u001b","time":"t"}\n')
        file.write(b'not json\n[]\n{"kind":"policy","time":"t"}\n{"ha')
    value = json.loads(cert("ledger", "ls", ledger, "--json").out)
    assert (value["unreadable"], value["torn_bytes"], value["records"]) == (3, 4, 10)
    assert len(value["keys"]) == 2
    text = cert("ledger", "ls", ledger).out
    assert "rotated 1 times" in text
    assert "3 lines" in text
    assert "4 bytes at the end are no complete line" in text
    assert "the newest of 5 records; 5 records after it" in text
    assert "\x1b" not in text
    (ledger / "pruned.json").write_bytes(b"{}")
    assert json.loads(cert("ledger", "ls", ledger, "--json").out)["unreadable"] == 4


def test_ls_of_an_empty_segment(cert: Program, folder: Path) -> None:
    (folder / "ledger" / "segments").mkdir(parents=True)
    (folder / "ledger" / "segments" / "000000000000.jsonl").touch()
    text = cert("ledger", "ls", "ledger").out
    assert "without a name" in text
    assert "0 records, 0 bytes, empty" in text
    assert "checkpoints  none" in text


def test_ls_in_a_pipe_that_closes(processes: Processes, ledger: Path) -> None:
    command = processes.command("ledger", "ls", ledger)
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "cert", *command],
        env=processes.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 4}
    assert done.stderr == b""


# note


def test_a_note_is_on_record(cert: Program, ledger: Path) -> None:
    ran = cert("ledger", "note", "reviewed, minutes 14 ✓", ledger)
    assert ran.code == 0
    assert ran.out.encode() == segment_of(ledger).read_bytes().split(b"\n")[-2] + b"\n"
    record = json.loads(ran.out)
    assert (record["kind"], record["_seq"]) == ("note", 4)
    assert record["note"] == {"text": "reviewed, minutes 14 ✓"}
    assert cert("verify", ledger, "--strict").code == 0


def test_notes_that_are_none_and_ledgers_that_are_none(
    cert: Program, folder: Path, ledger: Path
) -> None:
    before = digest_of_tree(ledger)
    for text in ("", "x" * 2001):
        ran = cert("ledger", "note", text, ledger)
        assert ran.code == 2
        assert "a note has 1 to 2000 characters" in ran.err
    assert digest_of_tree(ledger) == before
    assert cert("ledger", "note", "x", "nowhere").code == 2
    assert not (folder / "nowhere").exists()


def test_a_note_without_the_key_is_there_and_not_sealed(
    cert: Program, folder: Path, ledger: Path
) -> None:
    own_keys().folder.rename(folder / "away")
    ran = cert("ledger", "note", "x", ledger)
    assert ran.code == 2
    assert "is not in" in ran.err
    (folder / "away").rename(own_keys().folder)
    assert cert("verify", ledger).code == 0


def test_a_note_into_a_full_disk(processes: Processes, ledger: Path) -> None:
    size = segment_of(ledger).stat().st_size
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "cert"]
    done = subprocess.run(
        [*limited, *processes.command("ledger", "note", "x" * 1500, ledger)],
        env=processes.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4, done.stderr
    assert b"Traceback" not in done.stderr
    assert segment_of(ledger).stat().st_size == size


# attest


def run_of(cert: Program, folder: Path, text: str = "one\ntwo\n") -> str:
    (folder / "in.txt").write_text(text)
    cert("batch", "in.txt", "--ledger", "ledger")
    runs = json.loads(cert("ledger", "ls", "ledger", "--json").out)["runs"]
    return str(runs[-1]["run_id"])


def statement_in(data: bytes) -> dict[str, Any]:
    current = own_keys().current()
    assert current is not None
    value = orjson.loads(verify_dsse(data, current.raw))
    assert isinstance(value, dict)
    return value


def test_a_run_is_attested(cert: Program, folder: Path) -> None:
    run_of(cert, folder, "first\n")
    run_id = run_of(cert, folder)
    ran = cert("ledger", "attest", run_id, "--ledger", "ledger")
    assert ran.code == 0, ran.err
    statement = statement_in(ran.out.encode())
    records = records_of(segment_of(folder / "ledger"))
    mine = [one for one in records if one.get("run_id") == run_id and one["kind"] == "analysis"]
    predicate = statement["predicate"]
    assert predicate["certRun"]["id"] == run_id
    listed = [*predicate["passedTests"], *predicate["warnedTests"], *predicate["failedTests"]]
    assert sorted(listed) == sorted(one["prompt"]["id"] for one in mine)
    note = newest_note(folder / "ledger").read_text().split("\n")
    assert statement["subject"][1]["name"] == note[0]
    assert statement["subject"][1]["annotations"] == {"treeSize": int(note[1])}
    assert statement["subject"][1]["digest"]["sha256"] == base64.b64decode(note[2]).hex()
    assert predicate["result"] in ran.err
    current = own_keys().current()
    assert current is not None
    (signature,) = orjson.loads(ran.out)["signatures"]
    assert signature["keyid"] == current.fingerprint
    ran = cert("ledger", "attest", run_id, "--ledger", "ledger", "-o", "run.json")
    assert (ran.code, ran.out) == (0, "")
    assert statement_in((folder / "run.json").read_bytes()) == statement
    assert cert("ledger", "attest", run_id, "--ledger", "ledger", "-o", "ledger/x").code == 2


def test_the_key_in_force_attests(cert: Program, folder: Path) -> None:
    run_id = run_of(cert, folder)
    new = cert("keys", "rotate", "ledger").out.strip()
    ran = cert("ledger", "attest", run_id, "--ledger", "ledger")
    verify_dsse(ran.out.encode(), parse_public_key(new.encode(), source="stdout").raw)


def test_what_cannot_be_attested(cert: Program, folder: Path) -> None:
    run_id = run_of(cert, folder)
    ran = cert("ledger", "attest", "nobody", "--ledger", "ledger")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no run nobody" in ran.err
    assert cert("ledger", "attest", run_id).code == 2
    path = segment_of(folder / "ledger")
    data = path.read_bytes()
    own_keys().folder.rename(folder / "away")
    assert cert("ledger", "attest", run_id, "--ledger", "ledger").code == 2
    (folder / "away").rename(own_keys().folder)
    path.write_bytes(data.replace(b'"cpu"', b'"cpx"', 1))
    ran = cert("ledger", "attest", run_id, "--ledger", "ledger")
    assert (ran.code, ran.out) == (5, "")
    assert "nothing was attested" in ran.err


def test_an_unfinished_run_is_not_attested(cert: Program, folder: Path) -> None:
    run_id = run_of(cert, folder)
    lines = segment_of(folder / "ledger").read_bytes().split(b"\n")[:-1]
    bodies = [b"{" + line.partition(b',"_seq":')[2].partition(b",")[2] for line in lines[1:-1]]
    with_key = foreign_keys(folder / "their.pem")
    with open_ledger(folder / "copy", with_key) as copy:
        copy.append(bodies)
        append(copy, ["after"])
    ran = cert(
        *("ledger", "attest", run_id, "--ledger", "copy", "--config", write_key_setting(folder))
    )
    assert (ran.code, ran.out) == (4, "")
    assert "the run has not ended" in ran.err


def write_key_setting(folder: Path) -> Path:
    path = folder / "their.yaml"
    path.write_text("signing_key: their.pem\n")
    return path


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "nothing"])
@pytest.mark.parametrize(
    "command", [("ledger", "head"), ("ledger", "prove", "0"), ("bundle",)], ids=lambda one: one[-1]
)
def test_only_regular_files_are_replaced(
    cert: Program, folder: Path, ledger: Path, kind: str, command: tuple[str, ...]
) -> None:
    """As root, a device would be replaced, too."""
    target = folder / "out"
    if kind == "link":
        (folder / "kept").write_text("kept")
        target.symlink_to(folder / "kept")
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    before = digest_of_tree(folder)
    ran = cert(*command, ledger, "-o", "" if kind == "nothing" else "out")
    assert ran.code == 2, ran.err
    assert "-o" in ran.err
    assert digest_of_tree(folder) == before


def test_a_ledger_without_any_signature_is_not_to_be_signed_blindly(
    cert: Program, ledger: Path
) -> None:
    key = own_keys().current()
    assert key is not None
    for path in (ledger / "checkpoints").iterdir():
        path.unlink()
    ran = cert("verify", ledger, "--key", key.text)
    said = " ".join(ran.out.split())
    assert ran.code == 0
    assert said.startswith("UNSEALED")
    assert "nothing in this ledger is signed" in said
    assert "Do not sign them" in said
    assert cert("verify", ledger, "--key", key.text, "--strict").code == 5
