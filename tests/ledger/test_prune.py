"""Pruning: what goes, what stays, and that the ledger verifies before, after and in between."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError
from cert.ledger.checkpoint import parse_checkpoint, sign_checkpoint
from cert.ledger.errors import LedgerError, LedgerRefusedError, SigningKeyError
from cert.ledger.findings import State
from cert.ledger.kept import build_pruned_part
from cert.ledger.key_store import GivenKey
from cert.ledger.keys import Signer
from cert.ledger.proofs import prove_consistency, prove_inclusion
from cert.ledger.prune import Pruning, finish_pruning, prune
from cert.ledger.pruned import parse_pruned
from cert.ledger.pruning_plan import check_retention, parse_date, plan_pruning
from cert.ledger.reader import FolderReader
from cert.ledger.scan import scan_lines
from cert.ledger.verify import verify_ledger
from cert.ledger.zip_reader import ZipReader
from tests.ledger.committed import KEYS, SIGNER, Made, faults, second_opinion
from tests.ledger.killing import killed_at
from tests.ledger.ledgers import begin, control, frontier_of, leaf_of, make, path_of, private

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.keys import PublicKey
    from cert.ledger.pruning_plan import Plan

OLD, RECENT = "2030-05-01T00:00:00.000Z", "2034-05-01T00:00:00.000Z"
BETWEEN, NOW = parse_date("2032-01-01"), datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two runs that ended and one that goes on, all old; then two recent ones."""
    made = Made(tmp_path_factory.mktemp("whole") / "ledger")
    made.run(range(12), run_id="run-1", time=OLD)
    made.run(range(12, 18), run_id="run-2", time=OLD, ends=False)
    made.run(range(18, 30), run_id="run-3", time=OLD)
    made.run(range(30, 34), run_id="run-2", time=RECENT, begins=False)
    made.run(range(34, 40), run_id="run-4", time=RECENT)
    return made


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Made:
    shutil.copytree(whole.folder, tmp_path / "ledger")
    return Made(tmp_path / "ledger", whole.ids)


def prune_it(made: Made, *, before: datetime = BETWEEN, name: str = "export.zip") -> Pruning:
    return prune(
        made.folder,
        made.keys,
        before=before,
        retention_days=365,
        export=made.folder.parent / name,
        reason="retention is over",
        now=NOW,
    )


def lines_of(folder: Path) -> list[bytes]:
    return [one.line for one in scan_lines(FolderReader(folder))]


def segments_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "segments").iterdir())


def pruned_records(folder: Path) -> list[dict[str, object]]:
    records = map(orjson.loads, lines_of(folder))
    return [one["pruned"] for one in records if one["kind"] == "pruned"]


def test_the_old_goes_the_rest_stays_and_everything_verifies(made: Made) -> None:
    head = max((made.folder / "checkpoints").glob("*.note")).read_bytes()
    before = lines_of(made.folder)
    notes = {path.name for path in (made.folder / "checkpoints").iterdir()}
    pruning = prune_it(made)
    assert pruning.plan is not None
    size = pruning.plan.size
    kept_times = {orjson.loads(line)["time"] for line in before[:size]}
    assert max(kept_times) == OLD
    assert pruning.plan.newest == OLD

    after = lines_of(made.folder)
    assert after[:-1] == before[size:]
    assert segments_of(made.folder)[0] == f"{size:012d}.jsonl"
    assert notes < {path.name for path in (made.folder / "checkpoints").iterdir()}
    report = made.verify(head)
    assert (report.state, faults(report)) == (State.VALID, [])
    assert (report.pruned, report.records) == (size, len(after))
    assert second_opinion(made.folder) == "unanchored"

    part = parse_pruned((made.folder / "pruned.json").read_bytes())
    leaves = [leaf_of(line) for line in before[:size]]
    assert list(part.frontier) == frontier_of(leaves)
    assert part.last_leaf == leaves[-1]
    for one in part.kept:
        assert one.line == before[one.seq]
        assert list(one.proof) == path_of(one.seq, leaves)
    kept = [orjson.loads(one.line) for one in part.kept]
    shown = [(one["kind"], one.get("run_id")) for one in kept]
    assert shown == [("genesis", None), ("policy", None), ("run", "run-2")]


def test_the_record_of_it_says_what_the_export_is(made: Made) -> None:
    pruning = prune_it(made)
    export = made.folder.parent / "export.zip"
    assert pruning.plan is not None
    note = (made.folder / "checkpoints" / f"{pruning.plan.size:012d}.note").read_bytes()
    (said,) = pruned_records(made.folder)
    assert said == {
        "size": pruning.plan.size,
        "root": note.split(b"\n")[2].decode(),
        "before": "2032-01-01T00:00:00.000Z",
        "export": {
            "sha256": hashlib.sha256(export.read_bytes()).hexdigest(),
            "bytes": export.stat().st_size,
        },
        "reason": "retention is over",
    }
    assert export.stat().st_mode & 0o777 == 0o600


def test_the_export_is_a_ledger_by_itself(made: Made) -> None:
    before = lines_of(made.folder)
    pruning = prune_it(made)
    export = made.folder.parent / "export.zip"
    head = made.folder / "checkpoints" / f"{pruning.plan.size:012d}.note"
    with ZipReader(export) as reader:
        report = verify_ledger(reader, SIGNER.public, head=head.read_bytes())
        assert [one.line for one in scan_lines(reader)] == before[: pruning.plan.size]
        assert reader.open_content() is None
        last = pruning.plan.size - 1
        prove_inclusion(reader, last).verify(SIGNER.public)
    assert report.state is State.VALID
    assert second_opinion(export, head) == "valid"
    readme = zipfile.ZipFile(export).read("README.txt").decode()
    assert f"RECORDS 0 TO {last} OF THE LEDGER example.com/ledger" in readme
    assert SIGNER.public.fingerprint in readme


def test_texts_go_with_their_records(made: Made) -> None:
    pruning = prune_it(made)
    left = {orjson.loads(line)["id"] for line in lines_of(made.folder)}
    expected = {number for number, record_id in made.ids.items() if record_id in left}
    assert made.texts_in_files() == expected
    assert pruning.texts == len(made.ids) - len(expected) > 20
    with zipfile.ZipFile(made.folder.parent / "export.zip") as export:
        everything = b"".join(export.read(name) for name in export.namelist())
    assert b"SECRET" not in everything


def test_later_records_and_heads_are_proven_as_before(made: Made) -> None:
    head = parse_checkpoint(max((made.folder / "checkpoints").glob("*.note")).read_bytes())
    pruning = prune_it(made)
    reader = FolderReader(made.folder)
    prove_consistency(reader, head).verify(head, SIGNER.public)
    for seq in (pruning.plan.size, head.checkpoint.size - 1, head.checkpoint.size):
        prove_inclusion(reader, seq).verify(SIGNER.public)


def test_a_pruned_ledger_goes_on(made: Made) -> None:
    prune_it(made)
    made.run(range(40, 44), run_id="run-5", time="2034-06-01T00:00:00.000Z")
    assert (made.verify().state, faults(made.verify())) == (State.UNANCHORED, [])
    (made.folder / "tail.json").unlink()  # and a writer finds its end without its notes
    made.run(range(44, 46), run_id="run-6", time="2034-06-01T00:00:00.000Z")
    assert made.verify().state is State.UNANCHORED
    assert second_opinion(made.folder) == "unanchored"


class Ring:
    """Two keys; the first is the one of new ledgers."""

    heads = None

    signers = SIGNER, Signer(private("second"))

    def default(self) -> Signer:
        return self.signers[0]

    def find(self, public: PublicKey) -> Signer:
        return next(one for one in self.signers if one.public == public)


def test_a_second_pruning_merges_with_the_first(made: Made) -> None:
    head = max((made.folder / "checkpoints").glob("*.note")).read_bytes()
    first = prune_it(made)
    made.keys = Ring()
    with made.open() as ledger:
        ledger.rotate(Ring.signers[1])
    made.run(range(40, 50), run_id="run-5", time=RECENT)
    gone = [*range(first.plan.size), *lines_of(made.folder)]  # index is the record's number
    second = prune_it(made, before=parse_date("2036-01-01"), name="second.zip")
    part = parse_pruned((made.folder / "pruned.json").read_bytes())
    assert part.size == second.plan.size > first.plan.size
    kept = [orjson.loads(one.line) for one in part.kept]
    assert [one["kind"] for one in kept] == ["genesis", "policy", "pruned", "key", "run"]
    assert kept[-1]["run_id"] == "run-5"  # whose end is still there; that of run-2 is not
    assert [one.size for one in part.kept] == [first.plan.size] * 2 + [second.plan.size] * 3
    assert [one.line for one in part.kept[2:]] == [gone[one.seq] for one in part.kept[2:]]
    report = made.verify(head)
    assert (report.state, faults(report)) == (State.VALID, [])
    assert report.key == Ring.signers[1].public.text
    assert second_opinion(made.folder) == "unanchored"

    export = made.folder.parent / "second.zip"
    with ZipReader(export) as reader:
        assert reader.segments[0].first == first.plan.size
        for signer in Ring.signers:
            assert verify_ledger(reader, signer.public).state is State.UNANCHORED
    assert second_opinion(export) == "unanchored"
    with pytest.raises(ConfigurationError, match="was removed with all before"):
        prove_inclusion(FolderReader(made.folder), first.plan.size + 1)


@pytest.fixture
def yearly(tmp_path: Path) -> Made:
    """Pruned once; another pruning would not reach the record of that."""
    made = Made(tmp_path / "yearly" / "ledger")
    for year in range(2030, 2034):
        numbers = range((year - 2030) * 12, (year - 2029) * 12)
        made.run(numbers, run_id=f"run-{year}", time=f"{year}-05-01T00:00:00.000Z")
    prune_it(made, before=parse_date("2031-01-01"))
    return made


def unpacked(export: Path, folder: Path) -> Path:
    with zipfile.ZipFile(export) as archive:
        archive.extractall(folder)
    return folder / "ledger"


@pytest.mark.parametrize("rotates", [False, True])
def test_an_export_that_ends_before_the_record_of_an_earlier_pruning(
    yearly: Made, tmp_path: Path, *, rotates: bool
) -> None:
    """A pruning a year: what was removed before is accounted for beside the export."""
    if rotates:
        yearly.keys = Ring()
        with yearly.open() as ledger:
            ledger.rotate(Ring.signers[1])
    pruning = prune_it(yearly, before=parse_date("2032-01-01"), name="second.zip")
    assert pruning.plan is not None
    assert yearly.verify().state is State.UNANCHORED
    assert second_opinion(yearly.folder) == "unanchored"
    export = yearly.folder.parent / "second.zip"
    with ZipReader(export) as reader:
        assert verify_ledger(reader, SIGNER.public).state is State.UNANCHORED
    assert second_opinion(export) == "unanchored"

    # Anything else is no account.
    folder = unpacked(export, tmp_path / "unpacked")
    whole = {name: (folder / name).read_bytes() for name in ("pruning.json", "pruning.note")}
    part = parse_pruned(whole["pruning.json"])
    said = next(one for one in part.kept if b'"kind":"pruned"' in one.line)
    silent = replace(part, kept=tuple(one for one in part.kept if one is not said))
    stranger = Signer.generate()
    signed = parse_checkpoint(whole["pruning.note"]).checkpoint
    for name, data in (
        ("pruning.json", None),
        ("pruning.note", None),
        ("pruning.json", b"{}"),
        ("pruning.note", b""),
        ("pruning.json", (folder / "pruned.json").read_bytes()),
        ("pruning.json", silent.encode()),
        ("pruning.json", whole["pruning.json"].replace(b"retention is over", b"retention is ovex")),
        ("pruning.note", (folder / "checkpoints" / f"{pruning.plan.size:012d}.note").read_bytes()),
        ("pruning.note", sign_checkpoint(signed, stranger)),
    ):
        for one, content in (whole | {name: data}).items():
            (folder / one).unlink(missing_ok=True)
            if content is not None:
                (folder / one).write_bytes(content)
        report = verify_ledger(FolderReader(folder), SIGNER.public)
        assert (report.state, faults(report)[0][0]) == (State.INVALID, "pruned"), (name, data)
        assert second_opinion(folder) == "invalid"


def test_a_pruned_ledger_that_a_stranger_accounts_for(yearly: Made, tmp_path: Path) -> None:
    """The account has the keys of the ledger, or is none."""
    prune_it(yearly, before=parse_date("2032-01-01"), name="second.zip")
    folder = unpacked(yearly.folder.parent / "second.zip", tmp_path / "unpacked")
    part = parse_pruned((folder / "pruned.json").read_bytes())
    said = {"size": part.size, "root": base64.b64encode(part.tree().root()).decode()}
    own = begin(private("stranger"), origin="example.com/ledger")
    own.grow(part.size)
    own.add(control("pruned", pruned=said))
    size = len(own.lines)
    (folder / "pruning.json").write_bytes(rfc8785.dumps(own.pruned(size, [0, size - 1])))
    (folder / "pruning.note").write_bytes(own.note(size))
    report = verify_ledger(FolderReader(folder), SIGNER.public)
    assert [code for code, _ in faults(report)] == ["pruned"]
    assert second_opinion(folder) == "invalid"


@pytest.mark.parametrize("sizes", [(1, 2), (5, 6), (6, 16), (16, 17), (13, 29), (31, 33)])
def test_what_is_kept_is_proven_whatever_the_sizes(tmp_path: Path, sizes: tuple[int, int]) -> None:
    hand = make(sizes[1] + 3, seals=[*sizes, sizes[1] + 3], cuts=[*sizes])
    reader = FolderReader(hand.write(tmp_path / "ledger"))
    first = build_pruned_part(reader, None, sizes[0])
    expected = hand.pruned(sizes[0], [0])
    assert first.encode() == rfc8785.dumps(expected)
    second = build_pruned_part(reader, first, sizes[1])
    expected = hand.pruned(sizes[1], [0])
    expected["kept"] = hand.pruned(sizes[0], [0])["kept"]
    assert second.encode() == rfc8785.dumps(expected)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_any_lines_can_be_kept_at_any_time(
    tmp_path_factory: pytest.TempPathFactory, size: int, more: int, data: st.DataObject
) -> None:
    hand = begin()
    policies = data.draw(st.sets(st.integers(1, size + more)))
    for seq in range(1, size + more + 1):
        hand.add({"assessment": {"n": seq}, "kind": "policy" if seq in policies else "analysis"})
    hand.seals, hand.cuts = [size, size + more], [size, size + more]
    folder = hand.write(tmp_path_factory.mktemp("kept") / "ledger")
    reader = FolderReader(folder)
    first = build_pruned_part(reader, None, size)
    second = build_pruned_part(reader, first, size + more)
    older = hand.pruned(size, sorted({0} | {one for one in policies if one < size}))["kept"]
    newer = hand.pruned(size + more, sorted(one for one in policies if size <= one < size + more))
    assert second.encode() == rfc8785.dumps({**newer, "kept": [*older, *newer["kept"]]})


def test_others_append_meanwhile(made: Made) -> None:
    child = os.fork()
    if child == 0:
        try:
            for number in range(50, 70):
                made.run(range(number, number + 1), run_id=f"run-{number}", time=RECENT)
            os._exit(0)
        finally:
            os._exit(1)
    while True:
        try:
            pruning = prune_it(made)
            break
        except LedgerRefusedError as error:  # just then a record was not sealed yet
            if "unsealed" not in error.message:
                raise
    assert os.waitpid(child, 0)[1] == 0
    report = made.verify()
    assert (report.state, faults(report)) == (State.UNANCHORED, [])
    assert report.pruned == pruning.plan.size
    assert report.kinds["analysis"] >= 20
    assert second_opinion(made.folder) == "unanchored"


# What is refused.


def test_nothing_younger_than_the_retention_goes(made: Made) -> None:
    before = lines_of(made.folder)
    with pytest.raises(ConfigurationError, match="are kept for 365 days") as caught:
        prune_it(made, before=NOW - timedelta(days=364))
    assert caught.value.hint == (
        "--before 2039-01-01 would be allowed; the setting is retention_days"
    )
    check_retention(parse_date("2039-01-01"), retention_days=365, now=NOW)
    assert lines_of(made.folder) == before
    assert not (made.folder.parent / "export.zip").exists()


def test_only_whole_closed_files_go(made: Made) -> None:
    with pytest.raises(ConfigurationError, match="nothing is to be removed"):
        prune_it(made, before=parse_date("2030-05-01"))  # the very day of the oldest records
    newest = prune_it(made, before=parse_date("2038-01-01"))
    assert newest.plan.size == int(segments_of(made.folder)[0].removesuffix(".jsonl"))
    assert len(segments_of(made.folder)) >= 1
    assert made.verify().state is State.UNANCHORED


@pytest.mark.parametrize("how", ["edited", "torn off", "no checkpoints"])
def test_a_ledger_that_does_not_verify_is_left_alone(made: Made, how: str) -> None:
    segment = made.folder / "segments" / segments_of(made.folder)[1]
    if how == "edited":
        data = segment.read_bytes()
        segment.write_bytes(data.replace(b'"outcome":"pass"', b'"outcome":"fail"', 1))
    elif how == "torn off":
        segment.write_bytes(segment.read_bytes()[:-40])
    else:
        shutil.rmtree(made.folder / "checkpoints")
        (made.folder / "checkpoints").mkdir()
    files = segments_of(made.folder)
    with pytest.raises((LedgerRefusedError, ConfigurationError)) as caught:
        prune_it(made)
    expected = ConfigurationError if how == "no checkpoints" else LedgerRefusedError
    assert type(caught.value) is expected
    assert segments_of(made.folder) == files
    assert not (made.folder / "pruned.json").exists()
    assert not (made.folder.parent / "export.zip").exists()


def test_an_export_that_is_something_else_is_not_overwritten(made: Made) -> None:
    export = made.folder.parent / "export.zip"
    export.write_bytes(b"something dear")
    with pytest.raises(ConfigurationError, match="is there already"):
        prune_it(made)
    assert export.read_bytes() == b"something dear"
    assert pruned_records(made.folder) == []
    assert sorted(path.name for path in export.parent.iterdir()) == ["export.zip", "ledger"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("export.tar", "has to be a .zip"),
        ("ledger/export.zip", "inside of the ledger"),
        ("nowhere/export.zip", "there is no folder"),
    ],
)
def test_an_export_goes_where_it_can(made: Made, name: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        prune_it(made, name=name)
    assert pruned_records(made.folder) == []


def test_an_export_that_reads_back_differently_stops_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying(ZipReader):
        def read_checkpoint(self, size: int) -> bytes:
            return super().read_checkpoint(size).replace(b"\n\n", b"x\n\n", 1)

    monkeypatch.setattr("cert.ledger.export.ZipReader", Lying)
    with pytest.raises(LedgerError, match="is invalid when it is read back"):
        prune_it(made)
    assert pruned_records(made.folder) == []
    assert not (made.folder / "pruned.json").exists()
    assert not (made.folder.parent / "export.zip").exists()


def test_another_pruning_meanwhile_stops_this_one(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*args: object) -> object:
        monkeypatch.undo()
        prune_it(made, before=parse_date("2036-01-01"), name="other.zip")
        return part

    part = build_pruned_part(FolderReader(made.folder), None, plan_of(made).size)
    monkeypatch.setattr("cert.ledger.prune.build_pruned_part", build)
    with pytest.raises(LedgerError):
        prune_it(made)
    assert made.verify().state is State.UNANCHORED


def plan_of(made: Made) -> Plan:
    return plan_pruning(FolderReader(made.folder), BETWEEN)


@pytest.mark.parametrize(
    "text", ["", "2032", "2032-1-1", "2032-13-01", "01.01.2032", "\uff12\uff10\uff13\uff12-01-01"]
)
def test_a_date_is_a_date(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no date"):
        parse_date(text)


def test_records_without_a_time_are_never_old_enough(tmp_path: Path) -> None:
    for number, time in enumerate(("", "yesterday", "2020-01-01T00:00:00.000+00:00", 5)):
        hand = begin()
        hand.add({"assessment": {}, "kind": "analysis", "time": time})
        hand.grow(2)
        hand.seals, hand.cuts = [2, 4], [2]
        reader = FolderReader(hand.write(tmp_path / str(number)))
        assert plan_pruning(reader, NOW).segments == ()


# Killed in between.


def test_wherever_it_is_killed_doing_it_again_finishes_it(made: Made, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    made.folder.rename(whole)
    export, step = tmp_path / "export.zip", 0
    expected: dict[str, object] = {}
    while True:
        shutil.rmtree(made.folder, ignore_errors=True)
        export.unlink(missing_ok=True)
        shutil.copytree(whole, made.folder)
        if not killed_at(step, lambda: prune_it(made)):
            break
        assert made.verify().state in {State.UNANCHORED, State.UNSEALED}
        assert second_opinion(made.folder) in {"unanchored", "unsealed"}
        with suppress(ConfigurationError):  # nothing else is old enough, once it had ended
            prune_it(made)
        report = made.verify()
        assert (report.state, faults(report)) == (State.UNANCHORED, []), step
        (said,) = pruned_records(made.folder)
        expected = expected or said
        assert said == expected
        assert hashlib.sha256(export.read_bytes()).hexdigest() == said["export"]["sha256"]
        assert (made.folder / "pruned.json").exists()
        assert segments_of(made.folder)[0] == f"{said['size']:012d}.jsonl"
        left = {orjson.loads(line)["id"] for line in lines_of(made.folder)}
        assert made.texts_in_files() == {
            number for number, record_id in made.ids.items() if record_id in left
        }
        step += 1
    assert step > 12


def cut_off(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a ledger with `pruned.json` in place and every segment still there."""

    def fails(*_: object) -> None:
        raise LedgerError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr("cert.ledger.prune._unlink", fails)
        with pytest.raises(LedgerError, match="cut off"):
            prune_it(made)


def test_a_pruning_that_was_cut_off_is_finished_by_the_next(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(made, monkeypatch)
    part = parse_pruned((made.folder / "pruned.json").read_bytes())
    assert segments_of(made.folder)[0] == "000000000000.jsonl"
    made.keys = GivenKey(Signer.generate())
    with pytest.raises(SigningKeyError, match="the ledger is signed by"):
        finish_pruning(made.folder, made.keys)
    assert segments_of(made.folder)[0] == "000000000000.jsonl"
    assert finish_pruning(made.folder, KEYS) is not None
    assert segments_of(made.folder)[0] == f"{part.size:012d}.jsonl"
    assert made.verify().state is State.UNANCHORED
    assert finish_pruning(made.folder, KEYS) is None


def test_whoever_cannot_sign_cannot_have_records_removed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `pruned.json` that holds takes no key to make; a `pruned` record does."""
    reader = FolderReader(made.folder)
    part = build_pruned_part(reader, None, plan_of(made).size)
    (made.folder / "pruned.json").write_bytes(part.encode())
    files, texts = segments_of(made.folder), made.texts_in_files()
    with pytest.raises(LedgerRefusedError, match="no signed `pruned` record says"):
        prune_it(made)
    assert (segments_of(made.folder), made.texts_in_files()) == (files, texts)

    (made.folder / "pruned.json").unlink()
    cut_off(made, monkeypatch)
    smaller = build_pruned_part(reader, None, reader.segments[2].first)
    (made.folder / "pruned.json").write_bytes(smaller.encode())  # of another size than was said
    with pytest.raises(LedgerRefusedError, match="no signed `pruned` record says"):
        prune_it(made)
    assert segments_of(made.folder)[: len(files)] == files


def test_records_that_nobody_signed_away_are_missed(made: Made) -> None:
    part = build_pruned_part(FolderReader(made.folder), None, plan_of(made).size)
    (made.folder / "pruned.json").write_bytes(part.encode())
    for name in segments_of(made.folder):
        if int(name.removesuffix(".jsonl")) < part.size:
            (made.folder / "segments" / name).unlink()
    assert made.verify().state is State.INVALID
    assert second_opinion(made.folder) == "invalid"


def test_what_a_forged_pruned_json_stands_for_is_not_removed(made: Made) -> None:
    reader = FolderReader(made.folder)
    part = build_pruned_part(reader, None, plan_of(made).size)
    forged = part.encode().replace(part.frontier[0].hex().encode(), b"0" * 64)
    (made.folder / "pruned.json").write_bytes(forged)
    files = segments_of(made.folder)
    with pytest.raises(LedgerError, match="the frontier is not that of the checkpoint"):
        finish_pruning(made.folder, KEYS)
    assert segments_of(made.folder) == files
