"""A ledger whose records are committed to content that is kept apart, and what can be done to it.

line 1  genesis       line 3     begin of a run      line 7  end of the run
line 2  policy        lines 4-6  errors, committed   line 8  the content of line 6 is erased
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import TYPE_CHECKING

from cert.assessment.policy import Policy, Threshold
from cert.core.errors import AnalysisError
from cert.evidence.commitment import CommittedContent, commit
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import build_error_record
from cert.evidence.run_record import Host, RunBegin, RunCounts, build_run_record
from cert.inputs.case import PromptCase
from cert.ledger.canonical import canonical_bytes
from tools.vectors.forge import Scene, chained, genesis, image_of, note_of, record, tail_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tools.vectors.image import Image

CONTENT = "content.sqlite"
FIRST, SECOND, ERASED = 3, 4, 5
"""`_seq` of the committed records; the content of the last one is erased."""

_RUN = "run-1"


def committed(
    scene: Scene, change: Callable[[list[CommittedContent]], Sequence[CommittedContent]]
) -> Image:
    """The ledger, with other rows than the two that are not erased."""
    records = [_error(seq) for seq in (FIRST, SECOND, ERASED)]
    rows = [content for _, content in records]
    erased = {
        "record_id": rows[2].record_id,
        "seq": ERASED,
        "commitment": records[2][0]["commitment"],
        "reason": "asked for",
    }
    bodies = [
        _fixed(build_policy_record(_policy(), time=_time(1)), 1),
        _fixed(_begin(), 2),
        *(_fixed(one, seq) for seq, (one, _) in enumerate(records, FIRST)),
        _fixed(_end(), 6),
        record("erased", 7, erased=erased),
    ]
    lines = chained([genesis(scene.origin, scene.old)], *bodies)
    image = image_of(lines, [0], {len(lines): note_of(lines, scene.origin, scene.old)})
    return image.put("tail.json", tail_of(image)).put(CONTENT, database(change(rows[:2])))


def database(rows: Sequence[CommittedContent]) -> bytes:
    """A `content.sqlite` with some rows; its bytes depend on SQLite's version."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute(
            "CREATE TABLE content(record_id TEXT PRIMARY KEY, salt BLOB NOT NULL, "
            "content BLOB NOT NULL)"
        )
        values = [(one.record_id, one.salt, one.content) for one in rows]
        connection.executemany("INSERT INTO content VALUES (?, ?, ?)", values)
        connection.commit()
        data = connection.serialize()
    connection.close()
    return data


def rows_of(data: bytes) -> list[tuple[str, bytes, bytes]]:
    """The rows of a `content.sqlite`, in order."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    rows = connection.execute("SELECT * FROM content ORDER BY record_id").fetchall()
    connection.close()
    return rows


def _time(seq: int) -> str:
    return f"2026-11-23T10:00:{seq:02d}.000Z"


def _fixed(one: Mapping[str, object], seq: int) -> bytes:
    """The canonical bytes of a record with a fixed id."""
    return canonical_bytes({**one, "id": f"00000000-0000-4000-8000-{seq:012d}"})


def _error(seq: int) -> tuple[dict[str, object], CommittedContent]:
    full = build_error_record(
        run_id=_RUN,
        case=PromptCase(id=f"p-{seq}", text=f"prompt {seq}", source="prompts.txt", line=seq),
        error=AnalysisError("ModelNotLoaded", "still loading", recoverable=True, retry_after=5.0),
        identity=None,
        correlation_id=None,
        content="full",
        time=_time(seq),
    )
    full["id"] = f"00000000-0000-4000-8000-{seq:012d}"
    return commit(full, salt=hashlib.sha256(f"salt {seq}".encode()).digest())


def _policy() -> Policy:
    return Policy("vectors", 1, (Threshold("perplexity", "<", 50.0),))


def _begin() -> dict[str, object]:
    details = RunBegin(
        command="batch",
        job="sha256:" + 64 * "1",
        inputs=(),
        policy=_policy(),
        content="committed",
        sampling=None,
        limit=None,
        identity=None,
        host=Host("linux", "x86_64", {}),
    )
    return build_run_record(run_id=_RUN, phase="begin", details=details, time=_time(2))


def _end() -> dict[str, object]:
    details = RunCounts(errors=3)
    return build_run_record(run_id=_RUN, phase="end", details=details, exit_code=1, time=_time(6))
