"""What the schemas of all kinds are put together from."""

from __future__ import annotations

from typing import Any, Final

from cert.ledger.canonical import MAX_SAFE_INTEGER
from cert.ledger.control import SCHEMA_VERSION

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NAME: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER}
POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
NATS: Final[Schema] = {"type": "number", "minimum": 0}


def exactly(pattern: str, length: int) -> Schema:
    """A text of a pattern that fixes its length: `$` of some engines passes a final newline."""
    return {"type": "string", "pattern": f"^{pattern}$", "maxLength": length}


DIGEST: Final = exactly("sha256:[0-9a-f]{64}", 71)
HEX_DIGEST: Final = exactly("[0-9a-f]{64}", 64)
HASH: Final = exactly("[A-Za-z0-9+/]{43}=", 44) | {"description": "base64 of 32 bytes"}
SIGNATURE: Final = exactly("[A-Za-z0-9+/]{86}==", 88) | {"description": "base64 of 64 bytes"}
UUID: Final = exactly("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", 36)


def closed(properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    """An object of these members and no others, so that a misspelt one is found."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def ref(definition: str) -> Schema:
    """One of the document's definitions."""
    return {"$ref": f"#/$defs/{definition}"}


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """What may be null, too."""
    return {"anyOf": [schema, {"type": "null"}]}


def infinite_or(schema: Schema, infinite: str) -> Schema:
    """What may be an infinity, too, as a string."""
    return {"anyOf": [schema, {"const": infinite}]}


def record(kind: str, members: Schema) -> Schema:
    """A record of no run; more members may stand at the top."""
    head = {
        "_prev": HEX_DIGEST | {"description": "in a ledger: leaf hash of the line before"},
        "_seq": COUNT | {"description": "in a ledger: place of the line, from 0"},
        "kind": {"const": kind},
        "schema": {"const": SCHEMA_VERSION},
        "id": UUID,
        "time": exactly("[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}[.][0-9]{3}Z", 24)
        | {"description": "RFC 3339, UTC, milliseconds"},
        "clock": {"enum": ["system"], "description": "where the time was read"},
    }
    properties = head | members
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if not name.startswith("_")],
    }


def run_record(kind: str, members: Schema) -> Schema:
    """A record that belongs to a run."""
    return record(kind, {"run_id": NAME, "correlation_id": or_null(TEXT)} | members)
