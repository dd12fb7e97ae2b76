"""The JSON Schema (2020-12) of evidence records, as `cert schema` prints it.

It describes version 1.0 to the letter: members of inner objects are listed and nothing else may
stand there, so that a misspelt one is found. At the top more fields may be added; the ledger adds
its links there.
"""

from __future__ import annotations

from typing import Any, Final

from cert.assessment.policy import OPERATORS, SIGNALS
from cert.assessment.verdict import Verdict
from cert.evidence.record import CONTENT_MODES, MAX_MESSAGE_CHARS, SCHEMA_VERSION
from cert.ledger.canonical import MAX_SAFE_INTEGER

_Schema = dict[str, Any]

FINISH_REASONS: Final = ("eos", "length", "stop", "timeout", "cancelled", "scored")

_TEXT: Final[_Schema] = {"type": "string"}
_DIGEST: Final[_Schema] = {
    "type": "string",
    "pattern": "^sha256:[0-9a-f]{64}$",
    "maxLength": 71,  # `$` of some engines also matches before a final newline
}
_COUNT: Final[_Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER}
_POSITIVE: Final[_Schema] = {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER}
_SECONDS: Final[_Schema] = {"type": "number", "minimum": 0}
_NATS: Final[_Schema] = {"type": "number", "minimum": 0}


def record_schema() -> dict[str, Any]:
    """Build the schema of every kind of record there is: analysis, error and refused.

    Infinite numbers are the strings `"inf"` and `"-inf"`; NaN does not occur.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cert-framework:record:{SCHEMA_VERSION}",
        "title": "cert evidence record",
        "description": (
            "One line of JSON Lines: the RFC 8785 bytes of one object. Nats and seconds throughout."
        ),
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": ["analysis", "error", "refused"]}},
        "allOf": [
            _when_kind("analysis", "analysis"),
            _when_kind("error", "error_record"),
            _when_kind("refused", "refused"),
        ],
        "$defs": {
            "analysis": _analysis(),
            "error_record": _error_record(),
            "refused": _refused(),
            "prompt": _prompt(),
            "generation": _generation(),
            "signals": _signals(),
            "assessment": _assessment(),
            "check": _check(),
            "model": _model(),
            "sampling": _sampling(),
            "error": _error(),
            "input": _closed({"source": _TEXT, "line": _POSITIVE}),
            "non_negative": _infinite_or({"type": "number", "minimum": 0}, "inf"),
            "logprob": _infinite_or({"type": "number", "maximum": 0}, "-inf"),
        },
    }


def _when_kind(kind: str, definition: str) -> _Schema:
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": {"$ref": f"#/$defs/{definition}"},
    }


def _closed(properties: _Schema, *, optional: tuple[str, ...] = ()) -> _Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _open(properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(definition: str) -> _Schema:
    return {"$ref": f"#/$defs/{definition}"}


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _or_null(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _infinite_or(schema: _Schema, *infinite: str) -> _Schema:
    return {"anyOf": [schema, {"enum": list(infinite)}]}


def _head(kind: str) -> _Schema:
    return {
        "kind": {"const": kind},
        "schema": {"const": SCHEMA_VERSION},
        "id": {
            "type": "string",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        },
        "time": {
            "type": "string",
            "description": "RFC 3339, UTC, milliseconds",
            "pattern": "^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}[.][0-9]{3}Z$",
            "maxLength": 24,
        },
        "clock": {"enum": ["system"], "description": "where the time was read"},
        "run_id": {"type": "string", "minLength": 1},
        "correlation_id": _or_null(_TEXT),
    }


_CONTENT: Final[_Schema] = {
    "enum": list(CONTENT_MODES),
    "description": "omitted: no text, no token ids, no ranks, no label",
}


def _analysis() -> _Schema:
    record = _open(
        _head("analysis")
        | {
            "content": _CONTENT,
            "input": _ref("input"),
            "prompt": _ref("prompt"),
            "generation": _ref("generation"),
            "signals": _ref("signals"),
            "assessment": _ref("assessment"),
            "provenance": _closed(
                _model_properties()
                | {"sampling": _or_null(_ref("sampling")), "fallbacks": _list(_TEXT)}
            ),
            "timing": _closed(
                {
                    "queued_s": _SECONDS,
                    "generate_s": _SECONDS,
                    "total_s": _SECONDS,
                    "cached": {"type": "boolean"},
                }
            ),
        }
    )
    return record | _by_content(
        prompt=("text", "token_ids"),
        generation=("text", "token_ids", "ranks"),
        only_full={"prompt": ("label",)},
    )


def _error_record() -> _Schema:
    record = _open(
        _head("error")
        | {
            "content": _CONTENT,
            "input": _ref("input"),
            "prompt": _ref("prompt"),
            "error": _ref("error"),
            "provenance": _or_null(_closed(_model_properties())),
        }
    )
    return record | _by_content(
        prompt=("text",), generation=(), only_full={"prompt": ("label", "response")}
    )


def _refused() -> _Schema:
    return _open(_head("refused") | {"input": _ref("input"), "error": _ref("error")})


def _by_content(
    *, prompt: tuple[str, ...], generation: tuple[str, ...], only_full: dict[str, tuple[str, ...]]
) -> _Schema:
    """Full content requires the members that omitted content forbids."""
    members = {"prompt": prompt, "generation": generation}
    return {
        "if": {"properties": {"content": {"const": "full"}}},
        "then": {
            "properties": {part: {"required": list(names)} for part, names in members.items()}
        },
        "else": {
            "properties": {
                part: {"properties": dict.fromkeys((*names, *only_full.get(part, ())), False)}
                for part, names in members.items()
            }
        },
    }


def _prompt() -> _Schema:
    optional = ("group", "label", "text", "response", "token_ids")
    return _closed(
        {
            "id": {"type": "string", "minLength": 1},
            "group": _TEXT,
            "label": _TEXT,
            "text": _TEXT,
            "response": _TEXT,
            "token_ids": _list(_COUNT),
        },
        optional=optional,
    )


def _generation() -> _Schema:
    return _closed(
        {
            "text": _TEXT,
            "token_ids": _list(_COUNT),
            "logprobs": _list(_ref("logprob")),
            "entropies": _list(_NATS),
            "top_k_entropies": _list(_NATS),
            "logit_margins": _list(_ref("non_negative")),
            "probability_margins": _list({"type": "number", "minimum": 0, "maximum": 1}),
            "ranks": _list(_COUNT),
            "finish_reason": {"enum": list(FINISH_REASONS)},
        },
        optional=("text", "token_ids", "ranks"),
    )


def _signals() -> _Schema:
    counts = {"tokens": _COUNT, "surprising_tokens": _or_null(_COUNT)}
    bounded = {"perplexity": _infinite_or({"type": "number", "minimum": 1}, "inf")}
    return _closed(
        {
            name: counts.get(name) or _or_null(bounded.get(name) or _ref("non_negative"))
            for name in SIGNALS
        }
    )


def _assessment() -> _Schema:
    return _closed(
        {
            "policy": _closed(
                {
                    "id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
                    "version": _POSITIVE,
                    "digest": _DIGEST,
                    "min_tokens": _POSITIVE,
                    "incomplete": {"enum": ["inconclusive", "judge"]},
                }
            ),
            "verdict": {"enum": [verdict.value for verdict in Verdict]},
            "reasons": _list(_TEXT),
            "checks": _list(_ref("check")) | {"minItems": 1},
        }
    )


def _check() -> _Schema:
    return _closed(
        {
            "signal": {"enum": list(SIGNALS)},
            "op": {"enum": list(OPERATORS)},
            "threshold": {"type": "number"},
            "observed": _or_null(_ref("non_negative")),
            "outcome": {"enum": [verdict.value for verdict in Verdict]},
        }
    )


def _model_properties() -> _Schema:
    return {
        "model": _ref("model"),
        "tokenizer": _closed({"digest": _DIGEST}),
        "dtype": _TEXT,
        "device": _TEXT,
        "quantization": _or_null(_TEXT),
        "attention": _TEXT,
        "versions": {"type": "object", "additionalProperties": _TEXT},
    }


def _model() -> _Schema:
    return _closed(
        {
            "name": _TEXT,
            "digest": _DIGEST,
            "architecture": _TEXT,
            "parameters": _COUNT,
            "vocab_size": _POSITIVE,
            "max_context_tokens": _POSITIVE,
        }
    )


def _sampling() -> _Schema:
    return _closed(
        {
            "max_new_tokens": _POSITIVE,
            "temperature": {"type": "number", "minimum": 0},
            "top_k": _COUNT,
            "top_p": {"type": "number", "minimum": 0, "maximum": 1},
            "seed": _or_null({"type": "integer"}),
            "stop": _list(_TEXT),
        }
    )


def _error() -> _Schema:
    return _closed(
        {
            "type": {"type": "string", "minLength": 1},
            "message": {"type": "string", "maxLength": MAX_MESSAGE_CHARS},
            "recoverable": {"type": "boolean"},
            "retry_after_s": _or_null(_SECONDS),
        }
    )
