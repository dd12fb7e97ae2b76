"""Measured texts and their records, for the tests of evidence."""

from __future__ import annotations

import math
from typing import Any

from cert.assessment.assess import assess
from cert.assessment.policy import Policy, load_policy
from cert.backends.protocol import FinishReason, Generation, SamplingParams
from cert.core.errors import AnalysisError
from cert.core.health import CheckResult, HealthReport, HealthStatus
from cert.evidence.commitment import commit
from cert.evidence.health_record import build_health_record
from cert.evidence.note_record import build_note_record
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import build_analysis_record, build_error_record, build_refused_record
from cert.evidence.run_record import (
    Host,
    RunBegin,
    RunCounts,
    RunInput,
    build_run_record,
)
from cert.inputs.case import PromptCase, RefusedInput
from cert.signals.summary import summarize
from cert.signals.trace import SignalTrace, build_trace
from tests.fakes import fake_identity

CASE = PromptCase(
    id="p-1", text="How sure is it?", group="plain", label="very", source="prompts.txt", line=7
)
TRACE = build_trace(
    [5, 9, 4095],
    [-0.1, -2.5, -0.0],
    [0.3, 2.0, 1.0],
    [0.2, 1.5, 1.0],
    [3.0, 0.7, math.inf],
    [0.9, 0.25, 1.0],
    [0, 1, 0],
)
IMPOSSIBLE = build_trace(
    [5, 9], [-0.1, -math.inf], [0.3, 2.0], [0.2, 1.5], [math.inf, 0.7], [1.0, 0.25], [0, 4095]
)
EMPTY = build_trace([], [], [], [], [], [], [])


def generation(
    trace: SignalTrace = TRACE, finish: FinishReason = FinishReason.EOS, **more: object
) -> Generation:
    values: dict[str, Any] = {
        "prompt_token_ids": (1, 2, 3),
        "text": "very sure",
        "finish_reason": finish,
        "trace": trace,
        "sampling": SamplingParams(max_new_tokens=8, temperature=1.0, seed=2**53 - 1, stop=("\n",)),
        "device": "cpu",
        "queued_s": 0.0,
        "generate_s": 0.123456789,
        "fallbacks": ("batch_rows:16->8",),
    }
    return Generation(**(values | more))


def analysis(
    made: Generation | None = None,
    *,
    policy: Policy | None = None,
    content: str = "full",
    case: PromptCase = CASE,
    **more: object,
) -> dict[str, Any]:
    made = made or generation()
    summary = summarize(made.trace)
    given = policy or load_policy("default")
    values: dict[str, Any] = {
        "run_id": "run-1",
        "case": case,
        "generation": made,
        "summary": summary,
        "assessment": assess(summary, given, finish_reason=made.finish_reason),
        "identity": fake_identity(),
        "correlation_id": "req-123",
        "content": content,
        "total_s": 0.2,
        "cached": False,
    }
    return build_analysis_record(**(values | more))


def error(*, content: str = "full", case: PromptCase = CASE, **more: object) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run_id": "run-1",
        "case": case,
        "error": AnalysisError("ModelNotLoaded", "still loading", True, 5.0),
        "identity": fake_identity(),
        "correlation_id": None,
        "content": content,
    }
    return build_error_record(**(values | more))


def refused(message: str = "empty line", source: str = "-") -> dict[str, Any]:
    return build_refused_record(
        run_id="run-1",
        refused=RefusedInput(source=source, line=3, error_type="InvalidInput", message=message),
    )


HOST = Host("linux", "x86_64", {"cert": "4.0", "python": "3.11.7"})


def begin(
    *, phase: str = "begin", run_id: str = "run-1", time: str | None = None, **more: object
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "command": "batch",
        "job": "sha256:" + "1" * 64,
        "inputs": (RunInput("prompts.txt", "2" * 64, 120), RunInput("-")),
        "policy": load_policy("default"),
        "content": "full",
        "sampling": SamplingParams(max_new_tokens=8),
        "limit": None,
        "identity": fake_identity(),
        "host": HOST,
    }
    chosen: Any = phase
    return build_run_record(
        run_id=run_id,
        phase=chosen,
        details=RunBegin(**(values | more)),
        correlation_id="req-123",
        time=time,
    )


def stop(
    phase: str = "end",
    *,
    run_id: str = "run-1",
    exit_code: int | None = None,
    time: str | None = None,
    **counts: int,
) -> dict[str, Any]:
    chosen: Any = phase
    return build_run_record(
        run_id=run_id, phase=chosen, details=RunCounts(**counts), exit_code=exit_code, time=time
    )


def bare(kind: str, members: dict[str, Any]) -> dict[str, Any]:
    """A record of the ledger's own, built elsewhere."""
    return {
        "kind": kind,
        "schema": "1.0",
        "id": "0b4f2a56-6ea0-4f0b-8a5b-3a1f0e5c7d21",
        "time": "2026-11-23T10:30:45.123Z",
        "clock": "system",
        kind if kind != "genesis" else "ledger": members,
    }


KEY = "A" * 43 + "="
SIGNATURE = "A" * 86 + "=="
ALL: dict[str, dict[str, Any]] = {
    "full": analysis(),
    "omitted": analysis(content="omitted"),
    "impossible token": analysis(generation(IMPOSSIBLE)),
    "no token": analysis(generation(EMPTY, FinishReason.CANCELLED, text="")),
    "timeout": analysis(generation(finish=FinishReason.TIMEOUT)),
    "scored": analysis(generation(finish=FinishReason.SCORED), correlation_id=None),
    "strict policy": analysis(policy=load_policy("strict")),
    "no group, no label": analysis(case=PromptCase(id="p", text="x")),
    "omitted, impossible": analysis(generation(IMPOSSIBLE), content="omitted"),
    "error": error(),
    "error, omitted": error(content="omitted"),
    "error, no model": error(identity=None),
    "error, scored": error(case=PromptCase(id="p", text="x", response="y")),
    "refused": refused(),
    "committed": commit(analysis())[0],
    "error, committed": commit(error())[0],
    "policy": build_policy_record(load_policy("default")),
    "begin": begin(),
    "begin, nothing known": begin(identity=None, sampling=None, inputs=(), limit=3),
    "resumed": begin(phase="resumed"),
    "interrupted": stop("interrupted", passed=1),
    "end": stop(passed=1, failed=2, inconclusive=3, errors=4, refused=5, exit_code=1),
    "end, no process": stop(),
    "note": build_note_record("the model was updated today"),
    "health": build_health_record(
        HealthReport(HealthStatus.DEGRADED, {"disk": CheckResult.degraded("little room")}, 0.5),
        model="reference",
        host=Host("linux", "x86_64", {"cert": "4.0", "python": "3.11.7"}),
    ),
    "genesis": bare("genesis", {"format": "1", "origin": "example.org/a", "public_key": KEY}),
    "key": bare(
        "key",
        {"previous": KEY, "public_key": KEY, "signature": SIGNATURE, "proof": SIGNATURE},
    ),
    "recovered": bare(
        "recovered",
        {
            "segment": "000000000000.jsonl",
            "offset": 4096,
            "bytes": 17,
            "sha256": "0" * 64,
            "copy": "000000000000.jsonl.torn-4096-" + "0" * 64,
        },
    ),
    "erased": bare(
        "erased",
        {
            "record_id": "0b4f2a56-6ea0-4f0b-8a5b-3a1f0e5c7d21",
            "seq": 3,
            "commitment": "sha256:" + "0" * 64,
            "reason": "asked for",
        },
    ),
    "pruned": bare(
        "pruned",
        {
            "size": 3,
            "root": KEY,
            "before": "2026-01-01",
            "export": {"sha256": "0" * 64, "bytes": 9000},
            "reason": "retention is over",
        },
    ),
}
