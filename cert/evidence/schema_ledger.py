"""Schemas of what stands in a ledger beside measurements: runs, policies, health, its own."""

from __future__ import annotations

from cert.assessment.policy import MAX_CHECKS
from cert.core.health import HealthStatus
from cert.evidence.note_record import MAX_NOTE_CHARS
from cert.evidence.schema_measured import CONTENT, threshold
from cert.evidence.schema_parts import (
    COUNT,
    DIGEST,
    HASH,
    HEX_DIGEST,
    NAME,
    POSITIVE,
    SECONDS,
    SIGNATURE,
    TEXT,
    UUID,
    Schema,
    array,
    closed,
    or_null,
    record,
    ref,
    run_record,
)


def definitions() -> Schema:
    """The definitions, by name."""
    return {
        "policy": record(
            "policy",
            {
                "policy": {
                    "if": {"required": ["plan"]},
                    "then": ref("plan_policy"),
                    "else": ref("thresholds"),
                }
            },
        ),
        "thresholds": _thresholds(),
        "run": run_record("run", {"run": _run()}),
        "note": record(
            "note",
            {
                "note": closed(
                    {"text": {"type": "string", "minLength": 1, "maxLength": MAX_NOTE_CHARS}}
                )
            },
        ),
        "health": record("health", {"health": _health()}),
        "genesis": record("genesis", {"ledger": _ledger()}),
        "key": record(
            "key",
            {
                "key": closed(
                    {
                        "previous": HASH,
                        "public_key": HASH,
                        "signature": SIGNATURE,
                        "proof": SIGNATURE,
                    }
                )
            },
        ),
        "recovered": record(
            "recovered",
            {
                "recovered": closed(
                    {
                        "segment": NAME,
                        "offset": COUNT,
                        "bytes": POSITIVE,
                        "sha256": HEX_DIGEST,
                        "copy": NAME,
                    }
                )
            },
        ),
        "erased": record(
            "erased",
            {
                "erased": closed(
                    {"record_id": UUID, "seq": COUNT, "commitment": DIGEST, "reason": TEXT}
                )
            },
        ),
        "pruned": record(
            "pruned",
            {
                "pruned": closed(
                    {
                        "size": POSITIVE,
                        "root": HASH,
                        "before": NAME,
                        "export": closed({"sha256": HEX_DIGEST, "bytes": POSITIVE}),
                        "reason": TEXT,
                    }
                )
            },
        ),
    }


def _thresholds() -> Schema:
    return closed(
        {
            "id": ref("policy_id"),
            "version": POSITIVE,
            "checks": array(closed(threshold())) | {"minItems": 1, "maxItems": MAX_CHECKS},
            "min_tokens": POSITIVE,
            "incomplete": ref("incomplete"),
            "digest": DIGEST,
        }
    )


def _health() -> Schema:
    status: Schema = {"enum": [one.value for one in HealthStatus]}
    check = {"name": NAME, "status": status, "reason": TEXT, "duration_s": SECONDS}
    return closed(
        {
            "status": status,
            "duration_s": SECONDS,
            "checks": array(closed(check)),
            "model": NAME,
            "versions": {"type": "object", "additionalProperties": TEXT},
            "host": closed({"platform": TEXT, "arch": TEXT}),
        }
    )


def _ledger() -> Schema:
    return closed(
        {
            "format": {"const": "1"},
            "origin": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "not": {"pattern": "[^!-*,-~]"},
                "description": "printable ASCII without +",
            },
            "public_key": HASH,
        }
    )


def _run() -> Schema:
    begin = {
        "command": NAME,
        "job": DIGEST,
        "inputs": array(
            closed({"source": TEXT, "sha256": or_null(HEX_DIGEST), "bytes": or_null(COUNT)})
        ),
        "policy": closed({"id": ref("policy_id"), "version": POSITIVE, "digest": DIGEST}),
        "content": CONTENT,
        "sampling": or_null(ref("sampling")),
        "limit": or_null(COUNT),
        "model": or_null(ref("model")),
        "device": or_null(TEXT),
        "versions": {"type": "object", "additionalProperties": TEXT},
        "host": closed({"platform": TEXT, "arch": TEXT}),
    }
    counts = closed(dict.fromkeys(("passed", "failed", "inconclusive", "errors", "refused"), COUNT))
    end = {"counts": counts, "exit_code": or_null(COUNT)}
    return {
        "oneOf": [
            closed({"phase": {"enum": ["begin", "resumed"]}} | begin),
            closed({"phase": {"const": "interrupted"}, "counts": counts}),
            closed({"phase": {"const": "end"}} | end),
        ]
    }
