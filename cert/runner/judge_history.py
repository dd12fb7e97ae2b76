"""What judges said to the same canaries in the earlier comparisons of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.ledger.reader import FolderReader
from cert.ledger.scan import scan_lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cert.evidence.coordination_plan import PlanPolicy

_POLICY: Final = b'"kind":"policy"'
_COORDINATION: Final = b'"kind":"coordination"'
_JUDGING: Final = ("judge", "judge_again")
"""Templates that a reading depends on."""


def load_earlier_readings(folder: Path, policy: PlanPolicy) -> list[Mapping[str, Any]]:
    """Collect the readings of runs that asked the same judges about the same canaries.

    One pass over the ledger: that is what it takes to find them.

    Args:
        folder: Of the ledger.
        policy: Of the run to come; readings count if canaries, panel and the judges' prompts are
            the same.

    Raises:
        LedgerError: A file cannot be read.
    """
    wanted = _judging(policy.members["plan"])
    alike: set[str] = set()
    readings: list[Mapping[str, Any]] = []
    for one in scan_lines(FolderReader(folder)):
        if _POLICY not in one.line and _COORDINATION not in one.line:
            continue
        match orjson.loads(one.line):
            case {"kind": "policy", "policy": {"plan": dict(plan), "digest": str(digest)}}:
                if _judging(plan) == wanted:
                    alike.add(digest)
            case {
                "kind": "coordination",
                "coordination": {
                    "policy": {"digest": str(digest)},
                    "judges": {"readings": list(found)},
                },
            }:
                readings += found if digest in alike else []
    return readings


def _judging(plan: Mapping[str, Any]) -> tuple[object, ...]:
    """What a reading depends on, of a plan."""
    prompts = sorted(
        (name, digest) for name, digest in plan["prompts"].items() if name.split("@")[0] in _JUDGING
    )
    return plan["canaries"], plan["panel"], prompts
