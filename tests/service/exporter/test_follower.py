"""Single cases that following a ledger meets, and what a hostile one can do."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cert.core.errors import ConfigurationError
from cert.core.health import HealthStatus
from cert.ledger.keys import Signer
from cert.ledger.reader import FolderReader
from cert.ledger.writer import Limits
from cert.service.exporter import follower as module
from cert.service.exporter.exporter import LedgerExporter
from cert.service.exporter.follower import Condition, Follower
from cert.service.exporter.state import LedgerState, StateFile
from cert.service.exporter.totals import MAX_OPEN_RUNS, MAX_POLICIES, Counter, Totals
from tests.ledger import opened
from tests.ledger.ledgers import begin, make, private
from tests.service.exporter.disk import Disk, analysis, any_record, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "ledger")


def follow(disk: Disk, **options: Any) -> Follower:  # noqa: ANN401 - the follower's
    follower = Follower(disk.folder, LedgerState(), **options)
    follower.look()
    return follower


def exposition(exporter: LedgerExporter) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and label values, `ledger` first."""
    registry = CollectorRegistry()
    registry.register(exporter)
    found = {}
    for family in parse_text(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            ledger = labels.pop("ledger", "")
            found[sample.name, (ledger, *labels.values())] = sample.value
    return found


def test_a_ledger_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "ledger", LedgerState())
    follower.look()
    assert follower.condition is Condition.MISSING
    (tmp_path / "ledger").mkdir()
    follower.look()
    assert follower.condition is Condition.MISSING
    disk = Disk(tmp_path / "ledger")
    follower.look()
    assert follower.condition is Condition.UNSEALED
    disk.seal()
    follower.look()
    assert (follower.condition, follower.unsealed) == (Condition.CONSISTENT, 0)
    assert follower.checkpoint_s is not None
    assert follower.state.errors == follower.state.restarts == 0


def test_one_that_goes_away_and_comes_back_is_counted_on(disk: Disk, tmp_path: Path) -> None:
    follower = follow(disk)
    disk.folder.rename(tmp_path / "away")
    follower.look()
    assert (follower.condition, follower.size_bytes) == (Condition.MISSING, 0)
    (tmp_path / "away").rename(disk.folder)
    disk.grow(range(3))
    follower.look()
    assert (follower.state.totals.records, follower.state.restarts) == (4, 0)


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "folder"])
def test_what_cannot_be_read_is_said_and_counted(disk: Disk, tmp_path: Path, kind: str) -> None:
    disk.grow(range(3))
    segment = next((disk.folder / "segments").iterdir())
    follower = follow(disk)
    data = segment.read_bytes()
    segment.unlink()
    if kind == "file":
        disk.folder.rename(tmp_path / "away")
        disk.folder.write_bytes(b"no folder")
    elif kind == "link":
        segment.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(segment)
    else:
        segment.mkdir()
    before = follower.state.totals.records
    follower.look()
    if kind == "file":
        assert follower.condition is Condition.UNREADABLE
        assert follower.state.errors == 1
        disk.folder.unlink()
        (tmp_path / "away").rename(disk.folder)
    else:
        # Nothing of it is there under this name any more: the whole history is gone.
        assert follower.condition is not Condition.CONSISTENT
        segment.rmdir() if kind == "folder" else segment.unlink()
    assert follower.state.totals.records in {0, before}
    segment.write_bytes(data)
    follower.look()
    assert follower.state.totals.records == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_unreadable(disk: Disk) -> None:
    disk.folder.chmod(0)
    try:
        follower = follow(disk)
    finally:
        disk.folder.chmod(0o700)
    assert follower.condition is Condition.UNREADABLE
    follower.look()
    assert follower.condition is Condition.UNSEALED


def test_reading_errors_leave_the_count_where_it_was(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(disk)
    disk.grow(range(5))

    def fail(_self: object, _segment: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(FolderReader, "open_segment", fail)
        follower.look()
    assert (follower.condition, follower.state.totals.records) == (Condition.UNREADABLE, 1)
    follower.look()
    assert (follower.condition, follower.state.totals.records) == (Condition.UNSEALED, 6)


def test_nothing_is_written_to_the_ledger(disk: Disk) -> None:
    disk.grow(range(10))
    disk.seal()

    def listing() -> list[tuple[str, int, int]]:
        found = [(str(one), one.lstat()) for one in sorted(disk.folder.rglob("*"))]
        return [(name, status.st_mtime_ns, status.st_size) for name, status in found]

    before = listing()
    follow(disk)
    assert listing() == before


def test_a_writer_at_work_is_followed_without_a_false_alarm(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    limits = Limits(segment_bytes=3000, seal_records=7, seal_s=1e9)
    seen: set[Condition] = set()
    follower = Follower(folder, LedgerState())
    done = threading.Event()

    def write() -> None:
        try:
            for part in range(8):
                with opened.begin(folder, limits) as ledger:
                    for number in range(25):
                        bodies = [opened.body(part * 100 + number, text="x" * number)]
                        ledger.append(bodies, is_durable=False)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        follower.look()
        seen.add(follower.condition)
    writer.join()
    follower.look()
    assert seen <= {Condition.MISSING, Condition.UNSEALED, Condition.CONSISTENT}
    assert follower.condition is Condition.CONSISTENT, follower.state.fault
    assert follower.state.totals.kinds == {"genesis": 1, "note": 200}
    assert len(list((folder / "segments").iterdir())) > 5
    assert (follower.state.errors, follower.state.restarts) == (0, 0)


def test_only_what_is_new_is_read(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.grow(range(300))
    disk.cut()
    disk.grow(range(300, 400))
    follower = follow(disk)
    read = []
    real = module.read_blocks

    def counting(file: Any, size_bytes: int) -> Any:  # noqa: ANN401 - as the real one
        for block in real(file, size_bytes):
            read.append(block.size_bytes)
            yield block

    monkeypatch.setattr(module, "read_blocks", counting)
    follower.look()
    assert read == []
    disk.grow([400])
    follower.look()
    assert read == [len(disk.made.lines[-1]) + 1]


def test_a_long_piece_of_a_line_is_not_read_again_and_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write(torn=b"x" * (module.CHUNK_BYTES * 3))
    follower = follow(disk)
    assert follower.condition is Condition.UNSEALED

    def fail(_file: object, _size: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_blocks", fail)
        follower.look()
    disk.grow(range(3))
    follower.look()
    assert (follower.condition, follower.state.totals.records) == (Condition.UNSEALED, 4)


@pytest.mark.parametrize("what", ["link", "number", "form", "junk", "joined"])
def test_a_broken_chain_is_seen_as_it_is_read(disk: Disk, what: str) -> None:
    disk.grow(range(5))
    disk.seal()
    lines = disk.made.lines
    lines[3] = {
        "link": lines[3].replace(b'"_prev":"', b'"_prev":"0')[:-1],
        "number": lines[3].replace(b'"_seq":3', b'"_seq":4'),
        "form": b" " + lines[3],
        "junk": b"\x00\xff\xfe",
        "joined": lines[3] + lines[4],
    }[what]
    disk.write()
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert follower.state.totals.records == 6
    disk.seal()
    follower.look()
    assert follower.condition is Condition.BROKEN


def test_a_record_that_was_changed_shows_at_the_link_or_the_checkpoint(disk: Disk) -> None:
    disk.grow(range(4))
    disk.seal()
    lines = disk.made.lines
    lines[-1] = lines[-1].replace(b'"kind":', b'"kinds":')
    segment = disk.folder / "segments" / "000000000000.jsonl"
    segment.write_bytes(b"".join(line + b"\n" for line in lines))
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert "checkpoint 5" in follower.state.fault


def test_a_checkpoint_by_another_key_breaks_it(disk: Disk) -> None:
    disk.made.turns = [(0, private("stranger"))]
    disk.seal()
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert "checkpoint 1" in follower.state.fault


def test_a_ledger_without_genesis_is_broken_and_counted(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "ledger", make(4))
    del disk.made.lines[0]
    disk.made.seals = [3]
    disk.write()
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert "no good genesis" in follower.state.fault
    assert follower.state.totals.records == 3


def test_a_closed_file_ends_with_a_newline(disk: Disk) -> None:
    disk.grow(range(3))
    disk.cut()
    disk.grow(range(3, 5))
    first = disk.folder / "segments" / "000000000000.jsonl"
    first.write_bytes(first.read_bytes() + b'{"_prev":"')
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert "closed" in follower.state.fault


def test_a_missing_file_in_the_middle_breaks_it(disk: Disk) -> None:
    disk.grow(range(3))
    disk.cut()
    disk.grow(range(3, 5))
    disk.cut()
    disk.grow(range(5, 7))
    (disk.folder / "segments" / "000000000004.jsonl").unlink()
    assert follow(disk).condition is Condition.BROKEN


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"size":1}'])
def test_a_bad_pruned_file_breaks_it(disk: Disk, data: bytes) -> None:
    disk.grow(range(3))
    (disk.folder / "pruned.json").write_bytes(data)
    assert follow(disk).condition is Condition.BROKEN


def test_a_pruned_part_that_is_not_proven_breaks_it(disk: Disk) -> None:
    disk.grow(range(5))
    disk.cut()
    disk.grow(range(5, 8))
    disk.prune()
    path = disk.folder / "pruned.json"
    part = json.loads(path.read_bytes())
    part["last_leaf"], part["frontier"] = "ab" * 32, ["cd" * 32] * len(part["frontier"])
    path.write_bytes(json.dumps(part, separators=(",", ":"), sort_keys=True).encode())
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert follower.state.totals.records == 3


def test_the_pinned_key_must_be_of_its_lineage(disk: Disk) -> None:
    disk.rotate("second")
    disk.seal()
    for name, condition in [
        ("first", Condition.CONSISTENT),
        ("second", Condition.CONSISTENT),
        ("stranger", Condition.BROKEN),
    ]:
        assert follow(disk, pinned=Signer(private(name)).public).condition is condition


def test_a_wrong_key_is_not_held_against_the_ledger(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.seal()
    follower = follow(disk, pinned=Signer(private("stranger")).public)
    follower.look()
    assert caplog.messages.count("a ledger is not of the key that is pinned") == 1
    right = Follower(disk.folder, follower.state, pinned=Signer(private("first")).public)
    right.look()
    assert right.condition is Condition.CONSISTENT


def test_a_rotation_by_a_stranger_breaks_it(disk: Disk) -> None:
    disk.made.turns = [(0, private("stranger"))]
    disk.rotate("second")
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    assert "no rotation" in follower.state.fault


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ({"passed": 2}, "pass"),
        ({"passed": 2, "inconclusive": 1}, "inconclusive"),
        ({"passed": 2, "inconclusive": 1, "failed": 1}, "fail"),
        ({"failed": 1, "errors": 1}, "incomplete"),
        ({"passed": 1, "refused": 1}, "incomplete"),
        ({}, "other"),
    ],
)
def test_a_run_that_a_server_made_ends_as_its_counts_say(
    disk: Disk, counts: dict[str, int], outcome: str
) -> None:
    end = run("end", "r", code=None)
    end["run"]["counts"] = counts
    disk.add(run("begin", "r"), end)
    exporter = LedgerExporter({"a": disk.folder})
    exporter.look()
    found = exposition(exporter)
    assert found["cert_runs_total", ("a", "batch", outcome)] == 1
    has_success = ("cert_run_last_success_timestamp_seconds", ("a", "batch")) in found
    assert has_success == (outcome == "pass")


def test_runs_are_counted_by_command_and_outcome(disk: Disk) -> None:
    codes = (0, 1, 3, 4, 130, None)
    for number, code in enumerate(codes):
        disk.add(run("begin", f"r{number}"), run("end", f"r{number}", code=code))
    disk.add(run("begin", "s", "serve"), run("begin", "x", "rm -rf /"), run("begin", "y", "x"))
    disk.add(run("interrupted", "y"), run("resumed", "y", "batch"), run("end", "unknown", code=0))
    exporter = LedgerExporter({"a": disk.folder})
    exporter.look()
    found = exposition(exporter)
    runs = {labels[1:]: n for (name, labels), n in found.items() if name == "cert_runs_total" and n}
    assert runs == {
        ("batch", "pass"): 1,
        ("batch", "fail"): 1,
        ("batch", "inconclusive"): 1,
        ("batch", "incomplete"): 1,
        ("batch", "other"): 2,
        ("other", "incomplete"): 1,
        ("other", "pass"): 1,
    }
    assert found["cert_run_open", ("a",)] == 3
    assert found["cert_run_last_exit_code", ("a", "other")] == 0
    assert found["cert_run_last_exit_code", ("a", "batch")] == 130  # the one after it had none
    stamp = found["cert_run_last_success_timestamp_seconds", ("a", "batch")]
    assert stamp == 1793613600.0  # 2026-11-02T10:00:00Z, by `date +%s`


NASTY = [
    {"kind": "analysis"},
    {"kind": 'a\nb"} 1\ncert_evil 1'},
    {"kind": 7},
    {"kind": None, "a": "\ud83d"[:0]},
    analysis(assessment={"policy": {"id": 'x",evil="1'}, "verdict": "pass"}),
    analysis(assessment={"policy": {"id": "x" * 65}, "verdict": "pass"}),
    analysis(assessment={"policy": {"id": "p\u00e9"}, "verdict": "pass"}),
    analysis(assessment={"policy": {"id": "default"}, "verdict": "maybe\n"}),
    analysis(timing={"total_s": -1, "cached": False}),
    analysis(timing={"total_s": 1e300, "cached": False}),
    analysis(timing={"total_s": "1", "cached": False}),
    analysis(signals={"perplexity": 0.5}),
    analysis(signals={"perplexity": "nan"}),
    analysis(signals={"perplexity": "-inf"}),
    analysis(signals={"perplexity": 1e308}),
    analysis(signals={"perplexity": True}),
    analysis(correlation_id='"} 1 # {a="b"} 1\n'),
    analysis(correlation_id="x" * 10_000),
    analysis(correlation_id=5),
    {"kind": "error", "error": {"type": "\u202e"}},
    {"kind": "error", "error": {}},
    {"kind": "error"},
    run("begin", "x" * 10_000),
    run("nowhere", "x"),
    run("begin", "r\u0000\u202e"),
    run("end", "z", code=10**9),
    {**run("end", "z"), "time": "9999-99-99"},
    {**run("end", "z"), "time": "0001-01-01T00:00:00+23:59"},
    {**run("end", "z"), "time": "2026-11-02"},
    {"kind": "run", "run": [], "run_id": "x"},
    {"kind": "run", "run": {"phase": "begin"}},
    {"kind": "x" * 100_000},
    {"kind": "note", "run": 5, "timing": []},
    {"kind": "refused", "error": 5},
    {"kind": "analysis", "deep": json.loads("[" * 50 + "]" * 50)},
]


def test_hostile_records_break_no_scrape_and_make_no_series(disk: Disk) -> None:
    clean = LedgerExporter({"a": Disk(disk.folder.parent / "clean").folder})
    clean.look()
    disk.grow(range(20))
    disk.add(run("begin", "z"), run("end", "z"))
    disk.made.lines += [b"\xff\xfe" * 10, b"[" * 100_000, b"", b"{}", b'{"kind":"\\ud800"}']
    disk.made.lines.append(b'{"kind":"run","run":{"phase":"begin"},"run_id":"\\ud800"}')
    disk.add(*NASTY)
    state_file = StateFile(disk.folder.parent / "state.json")
    exporter = LedgerExporter({"a": disk.folder}, state_file=state_file)
    exporter.look()
    exporter.save()
    assert state_file.load()["a"] == exporter.followers["a"].state
    registry = CollectorRegistry()
    registry.register(exporter)
    plain = generate_latest(registry).decode()
    families = list(parse_text(plain))
    assert "evil" not in plain
    rich = generate_openmetrics(registry).decode()
    names = {family.name for family in parse_openmetrics(rich)}
    assert len(names) == len({family.name for family in families})
    values = {v for f in families for s in f.samples for v in s.labels.values()}
    allowed = {"a", "default", "strict", "other", "batch"}
    expected = {v for f in clean.collect() for s in f.samples for v in s.labels.values()}
    edges = {s.labels["le"] for f in families for s in f.samples if "le" in s.labels}
    enumerations = {"analyze", "score", "pass", "fail", "inconclusive", "incomplete"}
    assert values <= allowed | expected | edges | enumerations
    found = exposition(exporter)
    assert found["cert_ledger_records", ("a",)] == len(disk.made.lines)
    assert found["cert_ledger_records_by_kind", ("a", "note")] == 1
    sum_s = found["cert_request_duration_seconds_sum", ("a", "analyze", "hamiltonian")]
    assert 0 < sum_s < 1e6


def test_any_number_of_policies_and_of_open_runs_is_bounded() -> None:
    counter = Counter(Totals())
    for number in range(300):
        policy = {"policy": {"id": f"p{number}"}, "verdict": "pass"}
        counter.count(json.dumps(analysis(assessment=policy)).encode())
    verdicts = counter.totals.verdicts
    assert len(verdicts) == MAX_POLICIES + 1
    assert verdicts["other"] == {"pass": 200}
    for number in range(MAX_OPEN_RUNS + 5):
        counter.count(json.dumps(run("begin", f"r{number}")).encode())
    assert len(counter.totals.open_runs) == MAX_OPEN_RUNS
    assert "r4" not in counter.totals.open_runs
    assert "r5" in counter.totals.open_runs


def test_exemplars_lead_from_a_bucket_to_a_request(disk: Disk) -> None:
    disk.add(analysis(), analysis(correlation_id="req-2"), analysis(correlation_id="no no"))
    disk.add(analysis(correlation_id="slow", timing={"total_s": 250, "cached": True}))
    exporter = LedgerExporter({"a": disk.folder})
    exporter.look()
    registry = CollectorRegistry()
    registry.register(exporter)
    assert b"req-2" not in generate_latest(registry)
    found = {
        (sample.name, sample.labels["le"]): (sample.exemplar.labels, sample.exemplar.value)
        for family in parse_openmetrics(generate_openmetrics(registry).decode())
        for sample in family.samples
        if sample.exemplar
    }
    duration = "cert_request_duration_seconds_bucket"
    assert found == {
        (duration, "1.0"): ({"correlation_id": "req-2"}, 0.75),
        (duration, "300.0"): ({"correlation_id": "slow"}, 250),
        ("cert_hamiltonian_perplexity_bucket", "5.0"): ({"correlation_id": "slow"}, 4.5),
    }


def test_ledgers_are_apart_and_their_number_is_bounded(tmp_path: Path) -> None:
    folders = {name: Disk(tmp_path / name) for name in ("a", "b")}
    folders["a"].grow(range(7))
    exporter = LedgerExporter({name: one.folder for name, one in folders.items()})
    exporter.look()
    found = exposition(exporter)
    assert found["cert_ledger_records", ("a",)] == 8
    assert found["cert_ledger_records", ("b",)] == 1
    assert exporter.check().status is HealthStatus.HEALTHY
    for wrong in ({}, {str(number): tmp_path for number in range(51)}):
        with pytest.raises(ConfigurationError, match="follows 1 to 50"):
            LedgerExporter(wrong)


def test_health_is_that_of_the_worst(disk: Disk, tmp_path: Path) -> None:
    exporter = LedgerExporter({"a": disk.folder, "b": tmp_path / "nowhere"})
    exporter.look()
    result = exporter.check()
    assert result.status is HealthStatus.DEGRADED
    assert result.reason == "a unsealed, b missing"


def test_a_look_that_is_stopped_says_no_new_time(disk: Disk) -> None:
    exporter = LedgerExporter({"a": disk.folder})
    exporter.look(stopped=lambda: True)
    assert ("cert_exporter_last_update_timestamp_seconds", ("",)) not in exposition(exporter)


def test_records_pruned_before_they_were_counted_are_said(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.grow(range(3))
    follower = follow(disk)
    disk.grow(range(3, 9))
    disk.cut()
    disk.grow(range(9, 11))
    disk.prune()
    follower.look()
    assert "records were pruned before they were counted" in caplog.messages
    assert follower.state.totals.records == 4 + 2
    assert follower.state.restarts == 0


def prune_without_an_earlier_seal(disk: Disk) -> Follower:
    """A segment was closed without a checkpoint, and got one when it was pruned."""
    disk.cut()
    disk.rotate("second")
    follower = follow(disk)
    assert follower.unsealed == 2
    disk.prune()
    return follower


def test_a_pruning_seals_what_it_removed(disk: Disk) -> None:
    follower = prune_without_an_earlier_seal(disk)
    follower.look()
    assert (follower.unsealed, follower.condition) == (1, Condition.UNSEALED)
    assert follower.state.totals.records == 2


def test_a_pruning_whose_checkpoint_is_gone_seals_nothing(disk: Disk) -> None:
    follower = prune_without_an_earlier_seal(disk)
    (disk.folder / "checkpoints" / "000000000001.note").unlink()
    follower.look()
    assert (follower.unsealed, follower.condition) == (2, Condition.BROKEN)


def test_a_line_that_is_too_long_is_a_fault_and_passed_over(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write(torn=b"x" * (17 << 20) + b"\n")
    follower = follow(disk)
    assert follower.condition is Condition.BROKEN
    disk.made.lines.append(b"x" * (17 << 20))
    disk.add(any_record(1))
    follower.look()
    follower.look()
    assert (follower.state.totals.records, follower.state.restarts) == (3, 0)


def kept_at(leaf: str) -> bytes:
    position = {"size": 3, "seq": 3, "last_leaf": leaf, "frontier": [], "segment": 0}
    ledger = {"position": position | {"start": 0, "end": 5}}
    return json.dumps({"format": 1, "ledgers": {"a": ledger}}).encode()


class TestStateFile:
    def test_what_is_kept_is_what_goes_on(self, disk: Disk, tmp_path: Path) -> None:
        disk.grow(range(30))
        disk.add(run("begin", "z"), run("end", "z"), run("begin", "y"))
        file = StateFile(tmp_path / "deep" / "state.json")
        first = LedgerExporter({"a": disk.folder}, state_file=file)
        first.look()
        first.save()
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        again = LedgerExporter({"a": disk.folder}, state_file=StateFile(file.path))
        before, after = exposition(first), exposition(again)
        again.look()
        assert {k: v for k, v in exposition(again).items() if "timestamp" not in k[0]} == {
            k: v for k, v in before.items() if "timestamp" not in k[0]
        }
        assert after["cert_ledger_records", ("a",)] == before["cert_ledger_records", ("a",)]

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"\xff",
            b'{"format":2,"ledgers":{}}',
            kept_at("x"),
            kept_at("00" * 32),
            b'{"format":1,"ledgers":{"a":{"totals":{"perplexity":{"counts":[1]}}}}}',
            b"[" * 100_000,
        ],
    )
    def test_a_file_that_is_none_of_ours_is_not_used(
        self, disk: Disk, tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "state.json"
        path.write_bytes(data)
        exporter = LedgerExporter({"a": disk.folder}, state_file=StateFile(path))
        assert caplog.messages == [
            "the state file is not used: ledgers are counted from their beginning"
        ]
        exporter.look()
        assert exposition(exporter)["cert_ledger_records", ("a",)] == 1

    @pytest.mark.parametrize("kind", ["folder", "link", "below a file"])
    def test_a_place_that_cannot_be_used_is_an_error_at_once(
        self, disk: Disk, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "state.json"
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / "elsewhere")
            (tmp_path / "elsewhere").write_bytes(b"{}")
        else:
            (tmp_path / "file").write_bytes(b"")
            path = tmp_path / "file" / "state.json"
        with pytest.raises(ConfigurationError, match="state file"):
            LedgerExporter({"a": disk.folder}, state_file=StateFile(path))

    def test_a_full_disk_later_is_logged_and_tried_again(
        self,
        disk: Disk,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        from cert.service.exporter import state

        exporter = LedgerExporter({"a": disk.folder}, state_file=StateFile(tmp_path / "s.json"))
        exporter.look()

        def fail(_path: object, _data: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(state, "write_file", fail)
            exporter.save()
        assert "the state is not kept" in caplog.messages[-1]
        exporter.save()
        assert StateFile(tmp_path / "s.json").load()["a"].totals.records == 1

    def test_a_state_of_another_ledger_is_noticed(self, disk: Disk, tmp_path: Path) -> None:
        disk.grow(range(5))
        file = StateFile(tmp_path / "state.json")
        first = LedgerExporter({"a": disk.folder}, state_file=file)
        first.look()
        first.save()
        other = Disk(tmp_path / "other", begin(private("other")))
        again = LedgerExporter({"a": other.folder}, state_file=file)
        again.look()
        found = exposition(again)
        assert found["cert_ledger_records", ("a",)] == 1
        assert found["cert_exporter_restarts_total", ("a",)] == 1
        assert found["cert_ledger_state", ("a", "unsealed")] == 1
