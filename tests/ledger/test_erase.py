"""Erasing: the text is gone everywhere, the ledger verifies, and a crash is made good."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import orjson
import pytest

from cert.core.errors import ConfigurationError
from cert.evidence.note_record import build_note_record
from cert.evidence.record import encode_record
from cert.ledger.content import ContentStore, open_content
from cert.ledger.erase import erase
from cert.ledger.errors import LedgerError
from cert.ledger.findings import State
from cert.ledger.reader import FolderReader
from cert.ledger.scan import scan_lines
from tests.ledger.committed import Made, faults, second_opinion
from tests.ledger.killing import killed_at

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "ledger")
    made.run(range(12), run_id="run-1", time="2026-11-01T00:00:00.000Z")
    return made


def erased_records(made: Made) -> list[dict[str, object]]:
    records = [orjson.loads(one.line) for one in scan_lines(FolderReader(made.folder))]
    return [one["erased"] for one in records if one["kind"] == "erased"]


def record_of(made: Made, number: int) -> dict[str, object]:
    records = [orjson.loads(one.line) for one in scan_lines(FolderReader(made.folder))]
    return next(one for one in records if one["id"] == made.ids[number])


def test_the_text_is_gone_everywhere_and_the_ledger_verifies(made: Made) -> None:
    head = max((made.folder / "checkpoints").glob("*.note")).read_bytes()
    assert made.texts_in_files() == set(range(12))
    with made.open() as ledger:
        seqs = erase(ledger, made.ids[7], "asked for, case 12")
    record = record_of(made, 7)
    assert seqs == [record["_seq"]]
    assert made.texts_in_files() == set(range(12)) - {7}
    assert erased_records(made) == [
        {
            "record_id": made.ids[7],
            "seq": record["_seq"],
            "commitment": record["commitment"],
            "reason": "asked for, case 12",
        }
    ]
    report = made.verify(head)
    assert (report.state, faults(report)) == (State.VALID, [])
    assert report.sealed == report.records
    assert second_opinion(made.folder) == "unanchored"


def test_all_texts_can_be_erased(made: Made) -> None:
    with made.open() as ledger:
        for number in range(12):
            erase(ledger, made.ids[number], "asked for")
    assert made.texts_in_files() == set()
    assert made.verify().state is State.UNANCHORED
    assert second_opinion(made.folder) == "unanchored"


def test_what_was_erased_is_not_erased_again(made: Made) -> None:
    with made.open() as ledger:
        erase(ledger, made.ids[3], "asked for")
        size = ledger.size
        with pytest.raises(ConfigurationError, match="was erased already"):
            erase(ledger, made.ids[3], "asked for")
        assert ledger.size == size


def test_only_records_that_commit_have_something_to_erase(made: Made) -> None:
    with made.open() as ledger:
        note = build_note_record("nothing to hide")
        ledger.append([encode_record(note)])
        with pytest.raises(ConfigurationError, match="has no commitment"):
            erase(ledger, str(note["id"]), "asked for")
        with pytest.raises(ConfigurationError, match="there is no record unknown"):
            erase(ledger, "unknown", "asked for")
        with pytest.raises(ConfigurationError, match="there is no record"):
            erase(ledger, 'a"quoted\udc80 one', "asked for")
        assert erased_records(made) == []


def test_contents_that_are_kept_elsewhere_are_not_said_to_be_erased(made: Made) -> None:
    (made.folder / "content.sqlite").rename(made.folder.parent / "elsewhere.sqlite")
    with made.open() as ledger, pytest.raises(ConfigurationError, match="there is no content"):
        erase(ledger, made.ids[3], "asked for")
    assert not (made.folder / "content.sqlite").exists()
    assert erased_records(made) == []


def test_a_text_that_is_gone_without_a_reason_is_not_explained_afterwards(made: Made) -> None:
    with open_content(made.folder) as store:
        store.delete([made.ids[3]])
    with made.open() as ledger, pytest.raises(LedgerError, match="and no record says why"):
        erase(ledger, made.ids[3], "asked for")
    assert erased_records(made) == []
    assert made.verify().state is State.INVALID
    assert second_opinion(made.folder) == "invalid"


def test_a_record_that_was_appended_twice_is_erased_twice(made: Made) -> None:
    twice = record_of(made, 5)
    body = encode_record({k: v for k, v in twice.items() if k not in {"_prev", "_seq"}})
    with made.open() as ledger:
        (again,) = ledger.append([body])
        assert erase(ledger, made.ids[5], "asked for") == [twice["_seq"], again.seq]
    assert len(erased_records(made)) == 2
    assert made.texts_in_files() == set(range(12)) - {5}


def test_the_ledger_is_written_before_the_text_goes(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: ContentStore, record_ids: object) -> int:
        raise LedgerError("the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr(ContentStore, "delete", fails)
        with made.open() as ledger, pytest.raises(LedgerError, match="the disk failed"):
            erase(ledger, made.ids[3], "asked for")
    assert len(erased_records(made)) == 1
    assert made.texts_in_files() == set(range(12))
    report = made.verify()
    assert report.state is State.UNANCHORED  # with the remark that the text is there still
    assert "is said to be erased, and it is still there" in str(report.findings)
    with made.open() as ledger:
        assert erase(ledger, made.ids[3], "asked for") == [record_of(made, 3)["_seq"]]
    assert len(erased_records(made)) == 1
    assert made.texts_in_files() == set(range(12)) - {3}


def erase_in(made: Made, number: int) -> None:
    with made.open() as ledger:
        erase(ledger, made.ids[number], "asked for")


def test_wherever_it_is_killed_doing_it_again_finishes_it(made: Made, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    made.folder.rename(whole)
    step = 0
    while True:
        shutil.rmtree(made.folder, ignore_errors=True)
        shutil.copytree(whole, made.folder)
        if not killed_at(step, lambda: erase_in(made, 7)):
            break
        assert made.verify().state in {State.UNANCHORED, State.UNSEALED}
        try:
            erase_in(made, 7)
        except ConfigurationError as error:  # it had come to its end
            assert "erased already" in error.message  # noqa: PT017 - it need not raise
        assert made.texts_in_files() == set(range(12)) - {7}
        assert len(erased_records(made)) == 1
        assert made.verify().state is State.UNANCHORED
        step += 1
    assert step > 6
