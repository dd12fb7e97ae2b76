"""What a writer remembers of the lines: policies that are registered, runs that have not ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(slots=True)
class Index:
    """Grows with the lines; a part of `tail.json`, so that a ledger opens without being read.

    Attributes:
        policies: `_seq` of the `policy` record by digest of the policy.
        runs: By run id: where its first record is (`seq`, `segment`, `offset`), and its `job`.
    """

    policies: dict[str, int] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, line: bytes, seq: int, segment: int, offset: int) -> None:
        """Look at a line; what is neither a policy's nor a run's leaves no trace."""
        if b'"kind":"policy"' not in line and b'"kind":"run"' not in line:
            return
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # Links are looked at without reading JSON, so such a line can be there.
        match record:
            case {"kind": "policy", "policy": {"digest": str(digest)}}:
                self.policies.setdefault(digest, seq)
            case {"kind": "run", "run_id": str(run_id), "run": {"phase": "begin", "job": job}}:
                self.runs[run_id] = {"seq": seq, "segment": segment, "offset": offset, "job": job}
            case {"kind": "run", "run_id": str(run_id), "run": {"phase": "end"}}:
                self.runs.pop(run_id, None)
            case _:
                pass
