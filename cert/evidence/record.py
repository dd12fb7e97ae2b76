"""Evidence records: one flat object for every prompt that was measured, failed or was refused.

Everything from which a verdict follows stands in the record: `cert.evidence.recompute` derives
summary, checks and verdict again from the tokens' numbers alone.

With `content="omitted"` a record holds no text, no token ids, no ranks (token ids by another
numbering) and no label; `cert.evidence.commitment` makes a record that is committed to them out of
a full one. A prompt id that follows from the prompt gives way to the prompt's place. The tokens'
logprobs and entropies stay, because they are the evidence: they do not spell the text, but whoever
has the model can test a guess against them. Omitting content is no anonymisation.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from cert.evidence.content import part_content
from cert.evidence.numbers import encode_number
from cert.evidence.parts import (
    describe_model,
    describe_sampling,
    encodable,
    message,
    run_head,
)
from cert.ledger.canonical import canonical_bytes

if TYPE_CHECKING:
    from cert.assessment.verdict import Assessment, Check
    from cert.backends.protocol import Generation, ModelIdentity
    from cert.core.errors import AnalysisError
    from cert.inputs.case import PromptCase, RefusedInput
    from cert.signals.summary import SignalSummary


def build_analysis_record(  # noqa: PLR0913 - everything that one record says
    *,
    run_id: str,
    case: PromptCase,
    generation: Generation,
    summary: SignalSummary,
    assessment: Assessment,
    identity: ModelIdentity,
    correlation_id: str | None,
    content: str,
    total_s: float,
    cached: bool,
    time: str | None = None,
) -> dict[str, object]:
    """Describe one measured text.

    Args:
        run_id: Of the run that this belongs to.
        case: The prompt and where it came from.
        generation: What was written or scored, with its trace.
        summary: Of that trace.
        assessment: Of that summary.
        identity: The model that measured.
        correlation_id: Ties the record to log lines.
        content: `full`, or `omitted` (see the module).
        total_s: Seconds from submission to the end.
        cached: Whether the generation came from the cache; its timings are then those of its
            making, and `total_s` is this request's own.
        time: RFC 3339; now where it is not given.

    Returns:
        The record, of JSON types only, as the schema says.

    Raises:
        ValueError: Another `content`.
    """
    trace = generation.trace
    prompt: dict[str, object] = {
        "id": case.id,
        "text": case.text,
        "token_ids": list(generation.prompt_token_ids),
    }
    if case.group is not None:
        prompt["group"] = case.group
    if case.label is not None:
        prompt["label"] = case.label
    record = {
        **run_head("analysis", run_id, correlation_id, time),
        "content": "full",
        "input": {"source": encodable(case.source), "line": case.line},
        "prompt": prompt,
        "generation": {
            "text": generation.text,
            "token_ids": list(trace.token_ids),
            "logprobs": [encode_number(one) for one in trace.logprobs],
            "entropies": list(trace.entropies),
            "top_k_entropies": list(trace.top_k_entropies),
            "logit_margins": [encode_number(one) for one in trace.logit_margins],
            "probability_margins": list(trace.probability_margins),
            "ranks": list(trace.ranks),
            "finish_reason": generation.finish_reason.value,
        },
        "signals": describe_signals(summary),
        "assessment": describe_assessment(assessment),
        "provenance": {
            **_instrument(identity),
            "device": generation.device,
            "sampling": _sampling(generation),
            "fallbacks": list(generation.fallbacks),
        },
        "timing": {
            "queued_s": _microseconds(generation.queued_s),
            "generate_s": _microseconds(generation.generate_s),
            "total_s": _microseconds(total_s),
            "cached": cached,
        },
    }
    return _with_content(record, content)


def build_error_record(  # noqa: PLR0913 - everything that one record says
    *,
    run_id: str,
    case: PromptCase,
    error: AnalysisError,
    identity: ModelIdentity | None,
    correlation_id: str | None,
    content: str,
    time: str | None = None,
) -> dict[str, object]:
    """Describe a prompt that was tried and not measured.

    Secrets are redacted from the message. Text that cannot be encoded (lone surrogates) has
    U+FFFD in its place, because such a prompt is one of the errors to be recorded.

    Raises:
        ValueError: Another `content` than `full` or `omitted`.
    """
    prompt: dict[str, object] = {"id": encodable(case.id), "text": encodable(case.text)}
    if case.group is not None:
        prompt["group"] = encodable(case.group)
    if case.response is not None:
        prompt["response"] = encodable(case.response)
    if case.label is not None:
        prompt["label"] = encodable(case.label)
    record = {
        **run_head("error", run_id, correlation_id, time),
        "content": "full",
        "input": {"source": encodable(case.source), "line": case.line},
        "prompt": prompt,
        "error": {
            "type": error.error_type,
            "message": message(error.message),
            "recoverable": error.recoverable,
            "retry_after_s": error.retry_after,
        },
        "provenance": (
            None if identity is None else {**_instrument(identity), "device": identity.device}
        ),
    }
    return _with_content(record, content)


def build_refused_record(
    *,
    run_id: str,
    refused: RefusedInput,
    correlation_id: str | None = None,
    time: str | None = None,
) -> dict[str, object]:
    """Describe an input line that never became a prompt."""
    return {
        **run_head("refused", run_id, correlation_id, time),
        "input": {"source": encodable(refused.source), "line": refused.line},
        "error": {
            "type": refused.error_type,
            "message": message(refused.message),
            "recoverable": False,
            "retry_after_s": None,
        },
    }


def encode_record(record: dict[str, object]) -> bytes:
    """Write a record as its canonical bytes (RFC 8785), without a newline.

    Raises:
        CanonicalError: It holds what has no canonical form.
    """
    return canonical_bytes(record)


def describe_signals(summary: SignalSummary) -> dict[str, object]:
    """The `signals` of a record: every field of the summary, infinite ones as strings."""
    values = {field.name: getattr(summary, field.name) for field in fields(summary)}
    return {name: None if value is None else encode_number(value) for name, value in values.items()}


def describe_assessment(assessment: Assessment) -> dict[str, object]:
    """The `assessment` of a record: the policy in full, every check, the verdict."""
    return {
        "policy": {
            "id": assessment.policy_id,
            "version": assessment.policy_version,
            "digest": assessment.policy_digest,
            "min_tokens": assessment.min_tokens,
            "incomplete": assessment.incomplete,
        },
        "verdict": assessment.verdict.value,
        "reasons": list(assessment.reasons),
        "checks": [_check(check) for check in assessment.checks],
    }


def _check(check: Check) -> dict[str, object]:
    return {
        "signal": check.signal,
        "op": check.op,
        "threshold": check.threshold,
        "observed": None if check.observed is None else encode_number(check.observed),
        "outcome": check.outcome.value,
    }


def _instrument(identity: ModelIdentity) -> dict[str, object]:
    return {
        "model": describe_model(identity),
        "tokenizer": {"digest": identity.tokenizer_digest},
        "dtype": identity.dtype,
        "quantization": identity.quantization,
        "attention": identity.attention,
        "versions": dict(identity.versions),
    }


def _sampling(generation: Generation) -> dict[str, object] | None:
    """How tokens were chosen; None where a given text was scored and none was."""
    if generation.finish_reason.value == "scored":
        return None
    return describe_sampling(generation.sampling)


def _with_content(record: dict[str, object], content: str) -> dict[str, object]:
    if content == "full":
        return record
    if content == "omitted":
        return part_content(record)[0] | {"content": content}
    raise ValueError(
        f"content is {content!r}; expected full or omitted (`commit` makes committed of full)"
    )


def _microseconds(seconds: float) -> float:
    return round(seconds, 6)
