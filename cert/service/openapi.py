"""The API's description, OpenAPI 3.1, built from what the parsers know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cert
from cert.evidence.schema import record_schema
from cert.inputs.rows import MAX_NAME_CHARS
from cert.ledger.canonical import MAX_SAFE_INTEGER
from cert.service.requests import MAX_STOP_CHARS, MAX_STOPS, MAX_TOKEN_IDS

if TYPE_CHECKING:
    from cert.core.config import CERTConfig

_Json = dict[str, Any]


def build_openapi(config: CERTConfig) -> _Json:
    """Build the document.

    Args:
        config: Whose limits stand in it.
    """
    record, definitions = _record_schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cert",
            "version": cert.__version__,
            "summary": "Measures how sure a language model is of every token, judges and records.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/analyze": {"post": _analyze(config)},
            "/v1/batch": {"post": _batch(config)},
            "/v1/tokens": {"post": _tokens()},
            "/v1/server": {"get": _get("What runs here, and its limits.", "ServerInfo", 503)},
            "/openapi.json": {"get": _get("This document.", "Document")},
            "/livez": {"get": _probe("Whether the process goes round.")},
            "/readyz": {"get": _probe("Whether requests are taken.")},
            "/healthz": {"get": _probe("What the health checks find.")},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Record": record,
                "Problem": _problem(),
                "Sampling": _object(_sampling()),
                "ServerInfo": {"type": "object", "required": ["cert", "model", "policy"]},
                "Document": {"type": "object", "required": ["openapi"]},
                "Status": {
                    "type": "object",
                    "required": ["status"],
                    "properties": {"status": {"type": "string"}},
                },
                **definitions,
            },
        },
    }


def _analyze(config: CERTConfig) -> _Json:
    text = {"type": "string", "maxLength": config.max_prompt_chars}
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
    body = _object(
        {
            "prompt": text | {"minLength": 1},
            "response": text | {"minLength": 1, "description": "measured instead of a generated"},
            "id": name,
            "label": text,
            "group": name,
            "sampling": _ref("Sampling"),
            "timeout_s": {"type": "number", "exclusiveMinimum": 0},
            "chat": {"enum": ["auto", "always", "never"]},
            "policy": {
                "description": "id of a built-in policy, or a policy document",
                "type": ["string", "object"],
            },
        },
        required=["prompt"],
    )
    record = _content("application/json", _ref("Record"))
    return {
        "operationId": "analyze",
        "summary": "Measure and judge one prompt; the reply is its record.",
        "parameters": [_correlation()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "analysed", **record},
            "422": {"description": "refused, and recorded as such", **record},
            "500": {"description": "failed, and recorded as such", **record},
            "504": {"description": "too late, and recorded as such", **record},
            "503": _either("not ready, or failed and recorded as such"),
            **_problems(400, 401, 408, 413, 415, 421, 429),
        },
    }


def _batch(config: CERTConfig) -> _Json:
    query = [
        {"name": name, "in": "query", "schema": schema} for name, schema in _sampling().items()
    ]
    query += [
        {"name": "timeout_s", "in": "query", "schema": {"type": "number", "exclusiveMinimum": 0}},
        {"name": "chat", "in": "query", "schema": {"enum": ["auto", "always", "never"]}},
        {"name": "policy", "in": "query", "schema": {"type": "string"}},
        {
            "name": "Cert-Policy",
            "in": "header",
            "description": "a policy document, JSON in base64",
            "schema": {"type": "string"},
        },
    ]
    lines = {"application/x-ndjson": {"schema": {"type": "string"}}}
    return {
        "operationId": "batch",
        "summary": "Measure many prompts; one record a line, while lines still come in.",
        "description": f"A line has at most {config.max_body_bytes} bytes; a body has no limit. "
        "`input` {source, line} says where a line stands in the client's files; `refused` "
        "{type, message} in place of a prompt, why the client's reader refused it.",
        "parameters": [_correlation(), *query],
        "requestBody": {"required": True, "content": lines},
        "responses": {
            "200": {
                "description": "records in input order, one a line",
                "headers": {"Cert-Run": {"schema": {"type": "string", "format": "uuid"}}},
                "content": lines,
            },
            **_problems(400, 401, 415, 421, 429, 503),
        },
    }


def _tokens() -> _Json:
    ids = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER},
        "maxItems": MAX_TOKEN_IDS,
    }
    pieces = _object({"pieces": {"type": "array", "items": {"type": "string"}}})
    body = _object({"token_ids": ids}, required=["token_ids"])
    return {
        "operationId": "tokens",
        "summary": "The text of each token.",
        "parameters": [_correlation()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "their texts", **_content("application/json", pieces)},
            **_problems(400, 401, 408, 413, 415, 421, 429, 503),
        },
    }


def _sampling() -> _Json:
    stop = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
    return {
        "max_new_tokens": {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER},
        "temperature": {"type": "number", "minimum": 0},
        "top_k": {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER},
        "stop": {"type": "array", "items": stop, "maxItems": MAX_STOPS},
    }


def _record_schemas() -> tuple[_Json, _Json]:
    """The schema of records, with its definitions among the document's components."""
    text = json.dumps(record_schema()).replace("#/$defs/", "#/components/schemas/record_")
    schema: _Json = json.loads(text)
    definitions = {f"record_{name}": one for name, one in schema.pop("$defs").items()}
    return {key: schema[key] for key in schema if key not in {"$schema", "$id"}}, definitions


def _get(summary: str, schema: str, *problems: int) -> _Json:
    return {
        "summary": summary,
        "parameters": [_correlation()],
        "responses": {
            "200": {"description": "it", **_content("application/json", _ref(schema))},
            **_problems(401, 415, 421, *problems),
        },
    }


def _probe(summary: str) -> _Json:
    status = _content("application/json", _ref("Status"))
    return {
        "summary": summary,
        "security": [],
        "parameters": [_correlation()],
        "responses": {
            "200": {"description": "yes", **status},
            "503": {"description": "no", **status},
            **_problems(421),
        },
    }


def _correlation() -> _Json:
    return {
        "name": "X-Correlation-ID",
        "in": "header",
        "description": "ties the reply, its record and log lines together; drawn where none is "
        "given, or one of more than 200 characters or with control characters",
        "schema": {"type": "string"},
    }


def _problem() -> _Json:
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }


def _problems(*codes: int) -> _Json:
    problem = _content("application/problem+json", _ref("Problem"))
    return {
        str(code): {"description": "a problem; nothing was recorded", **problem} for code in codes
    }


def _either(description: str) -> _Json:
    content = {
        "application/json": {"schema": _ref("Record")},
        "application/problem+json": {"schema": _ref("Problem")},
    }
    return {"description": description, "content": content}


def _content(media_type: str, schema: _Json) -> _Json:
    return {"content": {media_type: {"schema": schema}}}


def _object(properties: _Json, *, required: list[str] | None = None) -> _Json:
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}
