"""Schemas of comparisons of arms: the plan, calls, replicates, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.evidence.coordination_plan import CANARY_ARM, PLAN_ID, PLAN_VERSION
from cert.evidence.coordination_records import (
    CALL_CONTENT,
    COORDINATION_CONTENT_MODES,
    REPLICATE_CONTENT,
    REPLY_CONTENT,
)
from cert.evidence.parts import MAX_MESSAGE_CHARS
from cert.evidence.schema_parts import (
    COUNT,
    DIGEST,
    NAME,
    POSITIVE,
    SECONDS,
    TEXT,
    Schema,
    array,
    closed,
    or_null,
    ref,
    run_record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ARM_KINDS: Final = (
    "single",
    "sequential",
    "parallel",
    "debate",
    "self_consistency",
    "best_of_n",
    "self_refine",
    "placebo",
)
FAILURES: Final = ("transient", "invalid", "rejected", "fatal", "later", "budget")
STOP_REASONS: Final = ("end_turn", "max_tokens", "stop_sequence", "refusal")
USAGE: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")

CONTENT: Final[Schema] = {
    "enum": list(COORDINATION_CONTENT_MODES),
    "description": "omitted: nothing of what was asked and answered",
}
SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
LEVEL: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
USD: Final[Schema] = {"type": "number", "minimum": 0}
_LIMIT_S: Final[Schema] = {"type": "number", "exclusiveMinimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_NULL: Final[Schema] = {"type": "null"}
_INTEGER: Final[Schema] = {"type": "integer"}

_MODELS: Final[Schema] = array(NAME) | {"minItems": 1}


def definitions() -> Schema:
    """The definitions, by name."""
    return {
        "plan_policy": _plan_policy(),
        "plan": _plan(),
        "planned_arm": _planned_arm(),
        "call": run_record("call", {"content": CONTENT, "call": _call()})
        | _by_content("call", CALL_CONTENT, {"reply": REPLY_CONTENT}),
        "replicate": run_record("replicate", {"content": CONTENT, "replicate": _replicate()})
        | _by_content("replicate", REPLICATE_CONTENT),
    }


def _plan_policy() -> Schema:
    return closed(
        {
            "id": {"const": PLAN_ID},
            "version": {"const": PLAN_VERSION},
            "plan": ref("plan"),
            "rule": closed(
                {
                    "margin": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                    "confidence": LEVEL,
                    "min_tasks": POSITIVE,
                    "max_missing": SHARE,
                    "missing_alpha": LEVEL,
                }
            ),
            "prices": or_null(DIGEST),
            "endpoints": array({"oneOf": [_remote_endpoint(), _local_endpoint()]})
            | {"minItems": 1},
            "digest": DIGEST,
        }
    )


def _plan() -> Schema:
    canary = {
        "id": NAME,
        "kind": {"enum": ["good", "bad", "injection"]},
        "digest": DIGEST,
        "least": SHARE,
        "most": SHARE,
    }
    return closed(
        {
            "tasks": array(closed({"id": NAME, "group": TEXT, "digest": DIGEST})) | {"minItems": 1},
            "arms": array(ref("planned_arm")) | {"minItems": 1},
            "prompts": {"type": "object", "additionalProperties": DIGEST},
            "seed": COUNT,
            "panel": or_null(
                closed(
                    {
                        "models": array(NAME) | {"minItems": 1},
                        "repeats": POSITIVE,
                        "max_tokens": POSITIVE,
                        "timeout_s": _LIMIT_S,
                    }
                )
            ),
            "canaries": array(closed(canary)),
            "labels": or_null(array(TEXT)),
            "splits": {"type": "integer", "minimum": 1, "maximum": 10_000},
        }
    )


def _planned_arm() -> Schema:
    agent = {"model": NAME, "max_tokens": POSITIVE, "timeout_s": _LIMIT_S}
    return closed(
        {
            "name": {
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$",
                "maxLength": 64,
                "not": {"const": CANARY_ARM},
            },
            "kind": {"enum": list(ARM_KINDS)},
            "agents": array(closed(agent)) | {"minItems": 1, "maxItems": 64},
            "rounds": {"type": "integer", "minimum": 1, "maximum": 32},
            "decide": {"enum": ["vote", "aggregate"]},
            "replicates": {"type": "integer", "minimum": 1, "maximum": 1000},
            "reference": or_null(NAME),
            "max_samples": {"type": "integer", "minimum": 1, "maximum": 640},
        }
    )


def _remote_endpoint() -> Schema:
    return closed(
        {
            "kind": {"const": "messages"},
            "models": _MODELS,
            "base_url": TEXT,
            "api_version": TEXT,
            "sdk": TEXT,
        }
    )


def _local_endpoint() -> Schema:
    return closed(
        {
            "kind": {"const": "local"},
            "models": _MODELS,
            "model": DIGEST,
            "dtype": TEXT,
            "quantization": or_null(TEXT),
            "temperature": {"type": "number", "minimum": 0},
            "seed": _INTEGER,
            "chat": TEXT,
        }
    )


def _call() -> Schema:
    message = {"role": {"enum": ["user", "assistant"]}, "text": TEXT}
    request = {
        "system": or_null(TEXT),
        "messages": array(closed(message)) | {"minItems": 1},
        "schema": or_null({"type": "object"}),
    }
    members = closed(
        {
            "key": NAME,
            "task": NAME,
            "arm": NAME,
            "replicate": COUNT,
            "round": NAME,
            "agent": NAME,
            "purpose": {"enum": ["arm", "judge"]},
            "model": NAME,
            "max_tokens": POSITIVE,
            "timeout_s": _LIMIT_S,
            "template": closed({"name": NAME, "digest": DIGEST}),
            "request_digest": DIGEST,
            "request": closed(request),
            "is_reused": _FLAG,
            "attempts": array(closed(_attempt())),
            "latency_s": or_null(SECONDS),
            "usage": or_null(closed(dict.fromkeys(USAGE, COUNT))),
            "is_unknown_billed": _FLAG,
            "cost_usd": or_null(USD),
            "reply": or_null(closed(_reply(), optional=REPLY_CONTENT)),
            "failure": or_null(
                closed(
                    {
                        "kind": {"enum": list(FAILURES)},
                        "message": {"type": "string", "maxLength": MAX_MESSAGE_CHARS},
                    }
                )
            ),
        },
        optional=CALL_CONTENT,
    )
    return members | _one_of("reply", "failure")


def _attempt() -> Schema:
    return {
        "status": or_null(COUNT),
        "error": or_null(TEXT),
        "latency_s": SECONDS,
        "waited_s": SECONDS,
        "request_id": or_null(TEXT),
    }


def _reply() -> Schema:
    return {
        "model": TEXT,
        "message_id": or_null(TEXT),
        "stop_reason": {"enum": list(STOP_REASONS)},
        "rate_limits": {"type": "object", "additionalProperties": TEXT},
        "signals": or_null(ref("signals")),
        "text": TEXT,
    }


def _replicate() -> Schema:
    answer = closed({"label": or_null(COUNT), "score": or_null(SHARE)})
    verdict = {"judge": NAME, "answered_by": TEXT, "value": SHARE}
    members = closed(
        {
            "task": NAME,
            "arm": NAME,
            "replicate": COUNT,
            "score": or_null(SHARE),
            "unscored": or_null(closed({"reason": NAME, "detail": TEXT})),
            "flags": array(NAME),
            "verdicts": or_null(array(closed(verdict))),
            "evidence": {"type": "object"},
            "text": or_null(TEXT),
            "labels": array(TEXT),
            "tokens": or_null(COUNT),
            "cost_usd": or_null(USD),
            "members": array(
                closed({"agent": NAME, "model": NAME, "first": answer, "last": answer})
            ),
            "calls": array(NAME),
        },
        optional=REPLICATE_CONTENT,
    )
    return members | _one_of("score", "unscored")


def _one_of(first: str, second: str) -> Schema:
    """Exactly one of two members is null."""
    some: Schema = {"not": _NULL}
    return {
        "oneOf": [
            {"properties": {first: some, second: _NULL}},
            {"properties": {first: _NULL, second: some}},
        ]
    }


def _by_content(
    part: str, names: tuple[str, ...], within: Mapping[str, tuple[str, ...]] | None = None
) -> Schema:
    """Full content requires some members of a part, omitted content forbids them.

    Args:
        part: The record's.
        names: Of that part.
        within: Of objects in that part that may be null, by name.
    """
    inner = within or {}
    required = {one: {"required": list(members)} for one, members in inner.items()}
    forbidden = {one: {"properties": dict.fromkeys(names_, False)} for one, names_ in inner.items()}
    return {
        "if": {"properties": {"content": {"const": "full"}}},
        "then": {"properties": {part: {"required": list(names), "properties": required}}},
        "else": {
            "properties": {part: {"properties": dict.fromkeys(names, False) | forbidden}},
        },
    }
