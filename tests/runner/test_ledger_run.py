from __future__ import annotations

import os
from typing import TYPE_CHECKING

import orjson
import pytest

from cert.ledger.content import open_content
from cert.ledger.errors import LedgerError
from cert.runner.ledger_run import LedgerRun
from cert.runner.pipeline import run_cases
from tests.ledger.opened import begin, check_chain, lines_of
from tests.runner.helpers import cases, engine, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.runner.pipeline import Outcome


def measure(count: int, content: str = "full") -> list[Outcome]:
    with engine() as (running, _):
        return list(run_cases(iter(cases(count)), running, settings(content=content)))


def count_syncs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    seen: list[int] = []
    original = os.fdatasync

    def watched(fd: int) -> None:
        seen.append(fd)
        original(fd)

    monkeypatch.setattr(os, "fdatasync", watched)
    return lambda: len(seen)


def test_outcomes_that_are_written_together_share_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = measure(3)
    with begin(tmp_path / "ledger") as ledger:
        syncs = count_syncs(monkeypatch)
        recorded = LedgerRun(ledger).write_all(outcomes)
        assert syncs() == 1
        monkeypatch.undo()
    assert [one.line for one in recorded] == lines_of(tmp_path / "ledger")[1:]
    check_chain(tmp_path / "ledger")
    for one, before in zip(recorded, outcomes, strict=True):
        assert one.line.endswith(before.line[1:])
        assert one.record is before.record


def test_committed_contents_of_a_group_are_all_kept(tmp_path: Path) -> None:
    outcomes = measure(3, "committed")
    with begin(tmp_path / "ledger") as ledger:
        run = LedgerRun(ledger)
        run.write_all(outcomes)
        run.release()
    contents = open_content(tmp_path / "ledger")
    try:
        kept = [contents.get(str(one.record["id"])) for one in outcomes]
    finally:
        contents.close()
    texts = [orjson.loads(one[1])["prompt"]["text"] for one in kept if one is not None]
    assert texts == ["prompt 1", "prompt 2", "prompt 3"]


@pytest.mark.parametrize("warns_only", [False, True])
def test_a_group_that_cannot_be_written_is_in_no_ledger(tmp_path: Path, warns_only: bool) -> None:
    outcomes = measure(2)
    ledger = begin(tmp_path / "ledger")
    ledger.close()
    run = LedgerRun(ledger, warns_only=warns_only)
    if warns_only:
        assert run.write_all(outcomes) == outcomes
        assert run.is_failed
        assert run.write_all(outcomes) == outcomes
    else:
        with pytest.raises(LedgerError, match="is closed"):
            run.write_all(outcomes)
    assert len(lines_of(tmp_path / "ledger")) == 1
