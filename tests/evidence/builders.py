"""Measured texts and their records, for the tests of evidence."""

from __future__ import annotations

import math
from typing import Any

from cert.assessment.assess import assess
from cert.assessment.policy import Policy, load_policy
from cert.backends.protocol import FinishReason, Generation, SamplingParams
from cert.core.errors import AnalysisError
from cert.evidence.record import build_analysis_record, build_error_record, build_refused_record
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
}
