"""YAML read strictly: plain data, no surprises, bounded work.

Plain scalars follow the core schema of YAML 1.2, so `no`, `on`, `012` and `2026-01-01` are what
they look like: two words, the number twelve, and a text. Refused, each with its line: a key that
stands twice, tags (`!!python/object`), several documents, more than `MAX_ALIASES` aliases, what
grows beyond `MAX_NODES` once they are expanded, and numbers that are not finite.

Source: YAML 1.2.2, section 10.3 (core schema).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import yaml

from cert.core.errors import ConfigurationError
from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_ALIASES = 32
MAX_NODES = 20_000

_TAG = "tag:yaml.org,2002:"


def parse_yaml(data: bytes, *, source: str) -> object:
    """Parse one YAML document.

    Args:
        data: At most `MAX_BYTES` of UTF-8, with or without a byte order mark.
        source: Names the document in errors, for example its path.

    Returns:
        None (also for an empty document), bool, int, float, str, list, or dict with str keys.

    Raises:
        ConfigurationError: It is not such a document; the message has source and line.
    """
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source}: not UTF-8 at byte {error.start}") from error
    try:
        _check_events(text)
        node = _CoreLoader(text).get_single_node()
        return None if node is None else _Builder().build(node, 0)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" line {error.problem_mark.line + 1}"
        raise ConfigurationError(
            f"{source}{line}: {escape_controls(error.problem or 'not YAML')}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source}: {escape_controls(str(error))}") from error


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes under the core schema; values are built by `_Builder`."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the library's attribute


for _kind, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)\Z", [*"~nN", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", [*"tTfF"]),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", [*"-+0123456789"]),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?i:inf)|\.(?i:nan))\Z",
        [*"-+.0123456789"],
    ),
):
    _CoreLoader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), _first)


def _check_events(text: str) -> None:
    """Refuse what would make composing expensive or unsafe, in one flat pass."""
    depth = aliases = 0
    for event in _events(text):
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                raise _problem(f"more than {MAX_ALIASES} aliases", event)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _problem(f"nested deeper than {MAX_DEPTH}", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _problem(f"tags are not allowed: {tag}", event)


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_CoreLoader)


def _problem(text: str, where: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark = where.start_mark
    return yaml.MarkedYAMLError(
        problem=text, problem_mark=mark if isinstance(mark, yaml.Mark) else None
    )


class _Builder:
    """Builds plain values from nodes; an alias is built again, and counted again."""

    def __init__(self) -> None:
        self._nodes = 0

    def build(self, node: yaml.Node, depth: int) -> object:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _problem(f"more than {MAX_NODES} values", node)
        if depth > MAX_DEPTH:
            raise _problem(f"nested deeper than {MAX_DEPTH}", node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, object]:
        built: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self.build(key_node, depth + 1)
            if not isinstance(key, str):
                raise _problem(f"a key is a text, got {type(key).__name__}", key_node)
            if key in built:
                raise _problem(f"the key {key!r} stands twice", key_node)
            built[key] = self.build(value_node, depth + 1)
        return built


def _scalar(node: yaml.Node) -> object:
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text[0] in "tT"
        case "int":
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            try:
                return int(text[2:] if base != 10 else text, base)  # noqa: PLR2004 - decimal
            except ValueError:
                raise _problem("an integer of too many digits", node) from None
        case "float":
            named = text.strip("+-").lower() in {".inf", ".nan"}
            number = math.nan if named else float(text)
            if not math.isfinite(number):
                raise _problem(f"{text} is not a finite number", node)
            return number
    return text
