"""Ledgers on disk that grow, are cut, pruned and swapped, and the count of them by other means."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import rfc8785

from tests.ledger.ledgers import Made, begin, control, private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FINISHES = ("eos", "length", "timeout", "cancelled", "scored")
ERRORS = ("InvalidInput", "PromptTooLong", "GenerationTimeout", "GenerationCancelled", "Whatever")
VERDICTS = ("pass", "fail", "inconclusive")


def analysis(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    record = {
        "assessment": {"policy": {"id": "default"}, "verdict": "pass"},
        "correlation_id": "req-1",
        "generation": {"finish_reason": "eos"},
        "kind": "analysis",
        "run_id": "run-1",
        "signals": {"perplexity": 4.5},
        "time": "2026-11-01T00:00:00.000Z",
        "timing": {"total_s": 0.75, "cached": False},
    }
    return record | changed


def run(phase: str, run_id: str, command: str = "batch", code: int | None = 0) -> dict[str, Any]:
    said: dict[str, Any] = {"phase": phase}
    if phase in {"begin", "resumed"}:
        said["command"] = command
    if phase == "end":
        said["exit_code"] = code
    time = "2026-11-02T10:00:00.000Z"
    return {"correlation_id": None, "kind": "run", "run": said, "run_id": run_id, "time": time}


def any_record(number: int) -> dict[str, Any]:
    """Some record, always the same one for a number."""
    draw = random.Random(number)
    kind = draw.choice(("analysis", "analysis", "analysis", "error", "refused", "policy"))
    if kind == "analysis":
        return analysis(
            assessment={
                "policy": {"id": draw.choice(("default", "strict"))},
                "verdict": draw.choice(VERDICTS),
            },
            generation={"finish_reason": draw.choice(FINISHES)},
            signals={"perplexity": draw.choice((1, 2.5, 60.25, "inf", None))},
            timing={"total_s": draw.choice((0, 0.5, 7.25, 1000)), "cached": draw.random() < 0.5},
            text=f"{number}" * draw.randrange(50),
        )
    if kind == "error":
        return {"correlation_id": None, "error": {"type": draw.choice(ERRORS)}, "kind": "error"}
    return {"a": number, "kind": kind}


class Disk:
    """A ledger in memory, and as far as it is there in a folder."""

    def __init__(self, folder: Path, made: Made | None = None) -> None:
        self.folder = folder
        self.made = made or begin()
        self.pruned = 0
        self.write()

    def write(self, torn: bytes = b"") -> None:
        """Bring the folder to what is in memory."""
        segments, checkpoints = self.folder / "segments", self.folder / "checkpoints"
        segments.mkdir(parents=True, exist_ok=True)
        checkpoints.mkdir(exist_ok=True)
        made = self.made
        starts = [0, *made.cuts]
        wanted = set()
        for start, end in zip(starts, [*made.cuts, len(made.lines)], strict=True):
            if start < self.pruned:
                continue
            path = segments / f"{start:012d}.jsonl"
            wanted.add(path)
            is_last = start == starts[-1]
            data = b"".join(line + b"\n" for line in made.lines[start:end])
            path.write_bytes(data + (torn if is_last else b""))
        for path in set(segments.iterdir()) - wanted:
            path.unlink()
        for path in checkpoints.iterdir():
            if int(path.stem) not in made.seals:
                path.unlink()
        for size in made.seals:
            path = checkpoints / f"{size:012d}.note"
            if not path.exists():
                path.write_bytes(made.note(size))

    def add(self, *records: dict[str, Any]) -> None:
        for one in records:
            self.made.add(one)
        self.write()

    def grow(self, numbers: Iterable[int]) -> None:
        self.add(*map(any_record, numbers))

    def seal(self) -> None:
        if len(self.made.lines) not in self.made.seals:
            self.made.seal()
        self.write()

    def cut(self) -> None:
        if len(self.made.lines) not in self.made.cuts:
            self.made.cut()
        self.write()

    def rotate(self, name: str) -> None:
        self.made.rotate(private(name))
        self.write()

    def prune(self) -> None:
        """Remove all closed segments; the records of the open one stay."""
        made = self.made
        size = made.cuts[-1] if made.cuts else 0
        if size <= self.pruned:
            return
        if size not in made.seals:
            made.seals.append(size)
        keys = [seq for seq in range(size) if b'"kind":"key"' in made.lines[seq]]
        (self.folder / "pruned.json").write_bytes(rfc8785.dumps(made.pruned(size, [0, *keys])))
        self.pruned = size
        self.write()

    def truncate(self, size: int) -> None:
        made = self.made
        del made.lines[size:]
        made.cuts[:] = [one for one in made.cuts if one <= size]
        made.seals[:] = [one for one in made.seals if one <= size]
        made.turns[:] = [one for one in made.turns if one[0] <= size]
        self.write()

    def swap(self, name: str) -> None:
        shutil.rmtree(self.folder)
        self.made, self.pruned = begin(private(name)), 0
        self.write()


def fold(lines: Iterable[bytes]) -> dict[str, Any]:
    """Count lines without the code under test."""
    kinds: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    verdicts: Counter[tuple[str, str]] = Counter()
    caches: Counter[bool] = Counter()
    perplexities, durations = [], []
    by_reason = {"timeout": "timeout", "cancelled": "cancelled"}
    by_error = dict(zip(ERRORS, ("refused", "refused", "timeout", "cancelled"), strict=False))
    for line in lines:
        record = json.loads(line)
        kind = record["kind"]
        kinds[kind] += 1
        if kind == "analysis":
            statuses[by_reason.get(record["generation"]["finish_reason"], "success")] += 1
            verdicts[record["assessment"]["policy"]["id"], record["assessment"]["verdict"]] += 1
            caches[record["timing"]["cached"]] += 1
            durations.append(record["timing"]["total_s"])
            perplexity = record["signals"]["perplexity"]
            if perplexity is not None:
                perplexities.append(math.inf if perplexity == "inf" else perplexity)
        elif kind == "error":
            statuses[by_error.get(record["error"]["type"], "error")] += 1
        elif kind == "refused":
            statuses["refused"] += 1
    return {
        "kinds": dict(kinds),
        "statuses": dict(statuses),
        "verdicts": dict(verdicts),
        "hits": caches[True],
        "misses": caches[False],
        "durations": (len(durations), sum(durations), sum(one <= 10 for one in durations)),
        "perplexities": (
            len(perplexities),
            sum(perplexities),
            sum(one <= 50 for one in perplexities),
        ),
    }


__all__ = ["Disk", "analysis", "any_record", "control", "fold", "run"]
