"""The JSON Schema (2020-12) of evidence records, as `cert schema` prints it.

It describes version 1.0 to the letter: members of inner objects are listed and nothing else may
stand there, so that a misspelt one is found. At the top more fields may be added.
"""

from __future__ import annotations

from typing import Any, Final

from cert.evidence import (
    schema_coordination,
    schema_coordination_result,
    schema_ledger,
    schema_measured,
)
from cert.ledger.control import SCHEMA_VERSION

KINDS: Final = {
    "analysis": "analysis",
    "error": "error_record",
    "refused": "refused",
    "policy": "policy",
    "run": "run",
    "call": "call",
    "replicate": "replicate",
    "coordination": "coordination",
    "note": "note",
    "health": "health",
    "genesis": "genesis",
    "key": "key",
    "recovered": "recovered",
    "erased": "erased",
    "pruned": "pruned",
}
"""Every kind of record there is, and its definition."""


def record_schema() -> dict[str, Any]:
    """Build the schema of every kind of record there is.

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
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{definition}"},
            }
            for kind, definition in KINDS.items()
        ],
        "$defs": schema_measured.definitions()
        | schema_coordination.definitions()
        | schema_coordination_result.definitions()
        | schema_ledger.definitions(),
    }
