"""Members of the records of a comparison, as small as a test needs them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cert.statistics.verdict import VerdictRule

Members = dict[str, Any]


def planned_arm(name: str, kind: str = "", agents: int = 1, **given: object) -> Members:
    return {
        "name": name,
        "kind": kind or name,
        "agents": [
            {"model": f"m{number}", "max_tokens": 100, "timeout_s": 60.0}
            for number in range(agents)
        ],
        "rounds": 1,
        "decide": "vote",
        "replicates": 1,
        "reference": None,
        "max_samples": 64,
        **given,
    }


def policy(
    *arms: Members, tasks: int = 1, rule: VerdictRule | None = None, **plan: object
) -> Members:
    return {
        "id": "coordination",
        "version": 1,
        "plan": {
            "tasks": [
                {"id": f"t{number}", "group": f"g{number}", "digest": f"sha256:{number:064}"}
                for number in range(tasks)
            ],
            "arms": [planned_arm("single"), *arms],
            "prompts": {},
            "seed": 1,
            "panel": None,
            "canaries": [],
            "labels": None,
            "splits": 50,
            **plan,
        },
        "rule": asdict(rule or VerdictRule()),
        "prices": None,
        "endpoints": [
            {"kind": "messages", "models": ["m"], "base_url": "", "api_version": "", "sdk": ""}
        ],
    }


def replicate(
    task: int | str, arm: str, score: float | None, number: int = 0, **given: object
) -> Members:
    return {
        "task": task if isinstance(task, str) else f"t{task}",
        "arm": arm,
        "replicate": number,
        "score": score,
        "unscored": None if score is not None else {"reason": "call_failed", "detail": "transient"},
        "flags": [],
        "verdicts": None,
        "tokens": 100,
        "cost_usd": None,
        "members": [],
        **given,
    }


def member(
    agent: int,
    first: tuple[int | None, float | None],
    last: tuple[int | None, float | None] | None = None,
) -> Members:
    """An agent with (label, score) of its first answer and of its last one."""
    pair = [dict(zip(("label", "score"), one, strict=True)) for one in (first, last or first)]
    return {"agent": str(agent), "model": f"m{agent}", "first": pair[0], "last": pair[1]}


def call(**given: object) -> Members:
    return {
        "is_reused": False,
        "purpose": "arm",
        "failure": None,
        "is_unknown_billed": False,
        "usage": dict.fromkeys(
            ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 1
        ),
        "cost_usd": None,
        **given,
    }
