"""Log records as one JSON object a line, or as one line for people.

Neither can be made to forge a line, to steer a terminal, or to write a secret that `redact`
knows. The record itself is left alone, so handlers of the embedding program see it unchanged.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from cert.observability.controls import escape_controls
from cert.observability.correlation import get_correlation_id
from cert.observability.redaction import MASK, is_secret_name, redact

if TYPE_CHECKING:
    from pythonjsonlogger.core import LogData

MAX_CHARS = 8_192
MAX_ITEMS = 64
MAX_DEPTH = 6

OWN_FIELDS = frozenset({"timestamp", "level", "logger", "message", "correlation_id"})
# What every record carries; `taskName` is listed by the library from Python 3.12 on only.
_RECORD_ATTRIBUTES = frozenset({*RESERVED_ATTRS, "taskName"})
RESERVED_FIELDS = frozenset({*_RECORD_ATTRIBUTES, *OWN_FIELDS})


def extra_name(name: str) -> str:
    """Return the name under which an extra field is written; a reserved one gets `extra_`.

    >>> extra_name("model"), extra_name("message")
    ('model', 'extra_message')
    """
    return f"extra_{name}" if name in RESERVED_FIELDS else name


def timestamp(record: logging.LogRecord) -> str:
    """Format a record's time in UTC with milliseconds, as in `2025-10-26T10:30:45.123Z`."""
    # Cut rather than rounded: isoformat truncates, so a second never becomes the next one.
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(value: object, *, depth: int = MAX_DEPTH) -> object:
    """Turn any value into redacted, bounded JSON without NaN.

    Numbers that JSON cannot hold become their names (`"NaN"`, `"Infinity"`); objects become their
    `str`; long texts are cut and say so; what is nested too deeply becomes `"..."`.
    """
    if isinstance(value, str):
        return _cut(redact(value))
    if value is None or isinstance(value, bool | int | float):
        return _clean_number(value)
    if isinstance(value, Mapping):
        return _clean_mapping(value, depth) if depth > 0 else "..."
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, _BYTES):
        return _clean_items(value, depth) if depth > 0 else "..."
    try:
        return _cut(redact(str(value)))
    except Exception:  # noqa: BLE001 - a broken __str__ must not lose the log line
        return f"(unprintable {type(value).__name__})"


_BYTES = bytes | bytearray | memoryview


def _clean_number(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    # The standard library refuses to write larger ones, for fear of quadratic time.
    if isinstance(value, int) and value.bit_length() > MAX_CHARS:
        return "(huge integer)"
    return value


def _clean_items(value: Sequence[object] | AbstractSet[object], depth: int) -> list[object]:
    items = [clean(item, depth=depth - 1) for item in islice(value, MAX_ITEMS)]
    if len(value) > MAX_ITEMS:
        items.append(f"... {len(value) - MAX_ITEMS} more")
    return items


def _clean_mapping(value: Mapping[Any, object], depth: int) -> dict[str, object]:
    cleaned: dict[str, object] = {}
    for key, item in value.items():
        if len(cleaned) == MAX_ITEMS:
            cleaned["..."] = f"{len(value) - MAX_ITEMS} more"
            break
        name = str(clean(key, depth=0))
        cleaned[name] = (
            MASK if item is not None and is_secret_name(name) else clean(item, depth=depth - 1)
        )
    return cleaned


def _cut(text: str) -> str:
    if len(text) > MAX_CHARS:
        # The end of a traceback says most, so the middle goes.
        half = MAX_CHARS // 2
        left = len(text) - 2 * half
        text = f"{text[:half]} ... ({left} characters left out) ... {text[-half:]}"
    # A lone surrogate would make the line invalid for every strict JSON reader.
    return text.encode("utf-8", "replace").decode("utf-8")


def _settled(record: logging.LogRecord) -> logging.LogRecord:
    """Copy a record with its message made, so that wrong arguments lose no line."""
    settled = copy.copy(record)
    if isinstance(record.msg, dict):
        return settled
    try:
        settled.msg = record.getMessage()
    except Exception as error:  # noqa: BLE001 - any __str__ may run here
        settled.msg = f"{clean(record.msg)} (arguments do not fit: {type(error).__name__})"
    settled.args = None
    return settled


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {
        extra_name(str(name)): value
        for name, value in vars(record).items()
        if name not in _RECORD_ATTRIBUTES and not str(name).startswith("_")
    }


class JSONFormatter(JsonFormatter):
    """One JSON object a line, its field names as in the specification, extras flat beside them.

    `timestamp`, `level`, `logger`, `message` come first, then `correlation_id` where there is one,
    then the extras in the order given, then `exc_info` and `stack_info`. The output is ASCII, so
    nothing in it steers a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as one line."""
        return super().format(_settled(record))

    def add_fields(
        self, log_data: LogData, record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        """Lay out the fields; the base class calls it with the exception in `message_dict`."""
        log_data["timestamp"] = timestamp(record)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.message
        correlation_id = get_correlation_id()
        if correlation_id is not None:
            log_data["correlation_id"] = correlation_id
        log_data.update(_extras(record))
        for name, value in message_dict.items():
            exception = name in {"exc_info", "stack_info"}
            log_data[str(name) if exception else extra_name(str(name))] = value

    def process_log_record(self, log_data: LogData) -> LogData:
        """Redact and bound every value before it is serialised."""
        return _clean_mapping(log_data, MAX_DEPTH)


class HumanFormatter(logging.Formatter):
    """One line for people: `TIME LEVEL LOGGER [ID] MESSAGE key=value`, no colour.

    Lines of a traceback follow, each indented behind a bar, so that none can pass for a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        settled = _settled(record)
        correlation_id = get_correlation_id()
        parts = [
            timestamp(settled),
            f"{settled.levelname:<8}",
            escape_controls(settled.name),
            *([] if correlation_id is None else [f"[{correlation_id}]"]),
            escape_controls(str(clean(str(settled.msg)))),
        ]
        extras = _clean_mapping(_extras(settled), MAX_DEPTH)
        parts += [f"{escape_controls(name)}={_plain(value)}" for name, value in extras.items()]
        lines = [" ".join(parts)]
        if settled.exc_info:
            lines += _quoted(self.formatException(settled.exc_info))
        elif settled.exc_text:
            lines += _quoted(settled.exc_text)
        if settled.stack_info:
            lines += _quoted(settled.stack_info)
        return "\n".join(lines)


def _quoted(text: str) -> list[str]:
    return [f"    | {escape_controls(line)}" for line in str(clean(text)).split("\n")]


def _plain(value: object) -> str:
    """Write a value so that where it ends stays visible."""
    if isinstance(value, str) and value and not any(c in value for c in ' ="[]{}'):
        return escape_controls(value)
    return escape_controls(json.dumps(value, ensure_ascii=False))
