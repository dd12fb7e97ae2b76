"""Records held to the schema: fast, and open to what newer minor versions add."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from cert.evidence.schema import KINDS, record_schema
from cert.ledger.control import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION: Final = re.compile(r"1\.(?:0|[1-9][0-9]{0,8})")
_MAX_CHARS: Final = 300


class Validation:
    """The schema, compiled kind by kind as kinds come up."""

    def __init__(self) -> None:
        self._schema = record_schema()
        self._validators: dict[tuple[str, bool], jsonschema_rs.Draft202012Validator] = {}
        self._is_valid: dict[str, Callable[[Any], bool]] = {}

    def fault_of(self, record: dict[str, Any], kind: str) -> str | None:
        """Say where a record leaves the schema.

        Args:
            record: Anything. Of another minor version than 1.0 it may have more members anywhere,
                and be of a kind that 1.0 does not know.
            kind: Its `kind`.

        Returns:
            The first fault, without the record's own values; None where there is none.
        """
        version = record.get("schema")
        if version == SCHEMA_VERSION:
            is_valid = self._is_valid.get(kind)
            if is_valid is not None and is_valid(record):
                return None
        elif not (isinstance(version, str) and _VERSION.fullmatch(version)):
            return f"schema is no version of 1, of which {SCHEMA_VERSION} is known here"
        is_newer = version != SCHEMA_VERSION
        if kind not in KINDS:
            return None if is_newer else "there is no such kind of record"
        error = next(self._validator(kind, is_newer=is_newer).iter_errors(record), None)
        if error is None:
            return None
        path = ".".join(map(str, error.instance_path))
        return (f"{path}: {error.message}" if path else error.message)[:_MAX_CHARS]

    def _validator(self, kind: str, *, is_newer: bool) -> jsonschema_rs.Draft202012Validator:
        known = self._validators.get((kind, is_newer))
        if known is not None:
            return known
        definitions = self._schema["$defs"]
        if is_newer:
            definitions = {name: _open(one) for name, one in definitions.items()}
            definitions[KINDS[kind]]["properties"]["schema"] = True
        validator = jsonschema_rs.Draft202012Validator(
            {"$ref": f"#/$defs/{KINDS[kind]}", "$defs": definitions}, mask="this"
        )
        self._validators[kind, is_newer] = validator
        if not is_newer:
            self._is_valid[kind] = validator.is_valid
        return validator


def _open(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """The schema with objects that may hold more members."""
    if isinstance(schema, list):
        return [_open(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _open(one)
        for name, one in schema.items()
        if name != "additionalProperties" or one is not False
    }
