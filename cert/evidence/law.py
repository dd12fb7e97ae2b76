"""Which articles evidence may support: one dated mapping, printed with its date."""

from __future__ import annotations

import textwrap
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from cert.core.strict_yaml import parse_yaml

_WIDTH: Final = 100
_FILE: Final = "law/eu-2024-1689.yaml"


class Article(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One article.

    Attributes:
        article: For example `Art. 12`.
        about: What it asks for, in a few words.
    """

    article: str
    about: str


class Applies(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from"}):
    """From when on a part applies.

    Attributes:
        what: The part.
        since: ISO 8601 date.
    """

    what: str
    since: str


class LawMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mapping.

    Attributes:
        regulation: Its name.
        amended_by: Name of the amending one.
        mapped_on: ISO 8601 date on which this was written down.
        source: Where it was read.
        applies: From when on.
        articles: What evidence may support.
    """

    regulation: str
    amended_by: str
    mapped_on: str
    source: str
    applies: tuple[Applies, ...]
    articles: tuple[Article, ...]


def load_law_mapping() -> LawMapping:
    """Load the mapping that comes with the program."""
    package = resources.files("cert")
    installed = package / "_configs" / _FILE
    file = installed if installed.is_file() else Path(str(package)).parent / "configs" / _FILE
    return msgspec.convert(parse_yaml(file.read_bytes(), source=_FILE), LawMapping)


def describe_law(mapping: LawMapping) -> str:
    """Put it into words, with its date; every sentence says `may support`."""
    lines = [f"Such evidence may support what {mapping.regulation} asks for in"]
    lines += [f"    {one.article}: {one.about}" for one in mapping.articles]
    lines += [
        f"As amended by {mapping.amended_by}, these apply:",
        *(f"    {one.what}: from {one.since}" for one in mapping.applies),
        *textwrap.wrap(f"(Mapping of {mapping.mapped_on}. {mapping.source})", _WIDTH),
    ]
    return "\n".join(lines)
