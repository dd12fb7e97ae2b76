"""What a ledger holds: in words for a person, as one object for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.evidence.overview import Overview, RunView

_DIGEST_CHARS = 19
_SHOWN_CHARS = 120


def to_json(overview: Overview) -> str:
    """One object: everything of the overview."""
    return json.dumps(asdict(overview), indent=2) + "\n"


def to_text(overview: Overview, path: str) -> str:
    """A page."""
    blocks = [
        [*_heading(overview, path)],
        [*_segments(overview)],
        [*_policies(overview)],
        [*_runs(overview)],
        ["Nothing was verified: `cert verify` does that."],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _heading(overview: Overview, path: str) -> Iterator[str]:
    yield f"ledger       {_plain(overview.origin or 'without a name')} ({_plain(path)})"
    if overview.keys:
        rotated = f", rotated {len(overview.keys) - 1} times" if len(overview.keys) > 1 else ""
        yield f"key          ed25519:{_plain(overview.keys[-1])}{rotated}"
    size = sum(one.bytes for one in overview.segments)
    kinds = ", ".join(f"{count} {_plain(kind)}" for kind, count in sorted(overview.kinds.items()))
    yield f"records      {overview.records} ({size} bytes){f': {kinds}' if kinds else ''}"
    if overview.pruned:
        yield f"pruned       the first {overview.pruned} records were removed"
    if overview.unreadable:
        yield f"unreadable   {overview.unreadable} lines"
    if overview.torn_bytes:
        yield f"incomplete   {overview.torn_bytes} bytes at the end are no complete line"
    newest = overview.checkpoints[-1] if overview.checkpoints else 0
    unsealed = overview.pruned + overview.records - newest
    open_end = f"; {unsealed} records after it" if unsealed > 0 and newest else ""
    named = f"{len(overview.checkpoints)}, the newest of {newest} records{open_end}"
    yield f"checkpoints  {named if newest else 'none'}"


def _segments(overview: Overview) -> Iterator[str]:
    for one in overview.segments:
        times = (
            f"{_plain(one.began)} to {_plain(one.ended)}" if one.began and one.ended else "empty"
        )
        yield f"segment      {one.name}  {one.records} records, {one.bytes} bytes, {times}"


def _policies(overview: Overview) -> Iterator[str]:
    for one in overview.policies:
        name = f"{_plain(one.id)}@{one.version}"
        yield f"policy       {name}  {_plain(one.digest)[:_DIGEST_CHARS]}, record {one.seq}"


def _runs(overview: Overview) -> Iterator[str]:
    for one in overview.runs:
        yield f"run          {_plain(one.run_id)}  {_state(one)}"
        counts = ", ".join(f"{count} {name}" for name, count in one.counts.items())
        yield f"             {_plain(one.began)} to {_plain(one.ended)}: {counts}"


def _state(run: RunView) -> str:
    what = _plain(run.command or "unknown")
    policy = f", policy {_plain(run.policy)}" if run.policy else ""
    if run.is_finished:
        code = "" if run.exit_code is None else f" (exit {run.exit_code})"
        return f"{what}{policy}, finished{code}"
    return f"{what}{policy}, UNFINISHED (last: {_plain(run.phase or 'no run record')})"


def _plain(text: str) -> str:
    return escape_controls(text)[:_SHOWN_CHARS]
