"""Schemas of what was measured, tried or refused, and of the parts of those records."""

from __future__ import annotations

from typing import Final

from cert.assessment.policy import OPERATORS, SIGNALS
from cert.assessment.verdict import Verdict
from cert.evidence.content import CONTENT_MEMBERS, CONTENT_MODES
from cert.evidence.parts import MAX_MESSAGE_CHARS
from cert.evidence.schema_parts import (
    COUNT,
    DIGEST,
    NAME,
    NATS,
    POSITIVE,
    SECONDS,
    TEXT,
    Schema,
    array,
    closed,
    infinite_or,
    or_null,
    ref,
    run_record,
)

FINISH_REASONS: Final = ("eos", "length", "stop", "timeout", "cancelled", "scored")

CONTENT: Final[Schema] = {
    "enum": list(CONTENT_MODES),
    "description": (
        "committed, omitted: no text, no token ids, no ranks, no label; "
        "committed: a salted commitment to them"
    ),
}
_VERDICT: Final[Schema] = {"enum": [verdict.value for verdict in Verdict]}
_COMMITMENT: Final = DIGEST | {"description": "SHA-256 over salt and content"}


def definitions() -> Schema:
    """The definitions, by name."""
    return {
        "analysis": _analysis(),
        "error_record": _error_record(),
        "refused": run_record("refused", {"input": ref("input"), "error": ref("error")}),
        "prompt": _prompt(),
        "generation": _generation(),
        "signals": _signals(),
        "assessment": _assessment(),
        "check": _check(),
        "policy_id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "incomplete": {"enum": ["inconclusive", "judge"]},
        "model": _model(),
        "sampling": _sampling(),
        "error": _error(),
        "input": closed({"source": TEXT, "line": POSITIVE}),
        "non_negative": infinite_or({"type": "number", "minimum": 0}, "inf"),
        "logprob": infinite_or({"type": "number", "maximum": 0}, "-inf"),
    }


def _analysis() -> Schema:
    record = run_record(
        "analysis",
        {
            "content": CONTENT,
            "input": ref("input"),
            "prompt": ref("prompt"),
            "generation": ref("generation"),
            "signals": ref("signals"),
            "assessment": ref("assessment"),
            "provenance": closed(
                _instrument() | {"sampling": or_null(ref("sampling")), "fallbacks": array(TEXT)}
            ),
            "timing": closed(
                {
                    "queued_s": SECONDS,
                    "generate_s": SECONDS,
                    "total_s": SECONDS,
                    "cached": {"type": "boolean"},
                }
            ),
        },
    )
    always = {"prompt": ["text", "token_ids"], "generation": ["text", "token_ids", "ranks"]}
    return record | _by_content(always)


def _error_record() -> Schema:
    record = run_record(
        "error",
        {
            "content": CONTENT,
            "input": ref("input"),
            "prompt": ref("prompt"),
            "error": ref("error"),
            "provenance": or_null(closed(_instrument())),
        },
    )
    return record | _by_content({"prompt": ["text"]})


def _by_content(always: dict[str, list[str]]) -> Schema:
    """Full content requires some members; the other modes forbid every one of them."""
    left_out: Schema = {
        part: {"properties": dict.fromkeys(CONTENT_MEMBERS[part], False)} for part in always
    }
    return {
        "if": {"properties": {"content": {"const": "full"}}},
        "then": {
            "properties": {part: {"required": names} for part, names in always.items()}
            | {"commitment": False}
        },
        "else": {
            "if": {"properties": {"content": {"const": "committed"}}},
            "then": {"properties": left_out | {"commitment": _COMMITMENT}}
            | {"required": ["commitment"]},
            "else": {"properties": left_out | {"commitment": False}},
        },
    }


def _prompt() -> Schema:
    return closed(
        {
            "id": NAME,
            "group": TEXT,
            "label": TEXT,
            "text": TEXT,
            "response": TEXT,
            "token_ids": array(COUNT),
        },
        optional=("group", *CONTENT_MEMBERS["prompt"]),
    )


def _generation() -> Schema:
    return closed(
        {
            "text": TEXT,
            "token_ids": array(COUNT),
            "logprobs": array(ref("logprob")),
            "entropies": array(NATS),
            "top_k_entropies": array(NATS),
            "logit_margins": array(ref("non_negative")),
            "probability_margins": array({"type": "number", "minimum": 0, "maximum": 1}),
            "ranks": array(COUNT),
            "finish_reason": {"enum": list(FINISH_REASONS)},
        },
        optional=CONTENT_MEMBERS["generation"],
    )


def _signals() -> Schema:
    counts = {"tokens": COUNT, "surprising_tokens": or_null(COUNT)}
    bounded = {"perplexity": infinite_or({"type": "number", "minimum": 1}, "inf")}
    return closed(
        {
            name: counts.get(name) or or_null(bounded.get(name) or ref("non_negative"))
            for name in SIGNALS
        }
    )


def _assessment() -> Schema:
    return closed(
        {
            "policy": closed(
                {
                    "id": ref("policy_id"),
                    "version": POSITIVE,
                    "digest": DIGEST,
                    "min_tokens": POSITIVE,
                    "incomplete": ref("incomplete"),
                }
            ),
            "verdict": _VERDICT,
            "reasons": array(TEXT),
            "checks": array(ref("check")) | {"minItems": 1},
        }
    )


def threshold() -> Schema:
    """Members of a check that are the policy's."""
    return {
        "signal": {"enum": list(SIGNALS)},
        "op": {"enum": list(OPERATORS)},
        "threshold": {"type": "number"},
    }


def _check() -> Schema:
    observed = {"observed": or_null(ref("non_negative")), "outcome": _VERDICT}
    return closed(threshold() | observed)


def _instrument() -> Schema:
    return {
        "model": ref("model"),
        "tokenizer": closed({"digest": DIGEST}),
        "dtype": TEXT,
        "device": TEXT,
        "quantization": or_null(TEXT),
        "attention": TEXT,
        "versions": {"type": "object", "additionalProperties": TEXT},
    }


def _model() -> Schema:
    return closed(
        {
            "name": TEXT,
            "digest": DIGEST,
            "architecture": TEXT,
            "parameters": COUNT,
            "vocab_size": POSITIVE,
            "max_context_tokens": POSITIVE,
        }
    )


def _sampling() -> Schema:
    return closed(
        {
            "max_new_tokens": POSITIVE,
            "temperature": {"type": "number", "minimum": 0},
            "top_k": COUNT,
            "top_p": {"type": "number", "minimum": 0, "maximum": 1},
            "seed": or_null({"type": "integer"}),
            "stop": array(TEXT),
        }
    )


def _error() -> Schema:
    return closed(
        {
            "type": NAME,
            "message": {"type": "string", "maxLength": MAX_MESSAGE_CHARS},
            "recoverable": {"type": "boolean"},
            "retry_after_s": or_null(SECONDS),
        }
    )
