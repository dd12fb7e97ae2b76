"""Prompt templates with id, version and digest, and the fence around what others wrote.

A template is YAML:

    id: refine
    version: 1
    digest: sha256:...        # of everything else; a change without a new one is an error
    system: ...               # optional
    user: "{{task}} ..."      # {{name}} is replaced, once: what is put in is not searched again

Text that a model or an outsider wrote is put in as `Untrusted`. It stands between
`<data-TAG>` and `</data-TAG>`, where TAG follows from the texts and occurs in none of them, so that
no text can close its fence, or open one that looks like another's; templates name the marks with
`{{open}}` and `{{close}}`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cert.coordination.digests import digest_of
from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.resources.abc import Traversable

MAX_UNTRUSTED_CHARS: Final = 20_000
"""Of a longer text the middle is left out, and said so."""

PLACES: Final[Mapping[str, frozenset[str]]] = {
    "answer_line": frozenset(),
    "answer_text": frozenset(),
    "solve": frozenset({"task", "form"}),
    "refine": frozenset({"task", "form", "previous"}),
    "self_refine": frozenset({"task", "form", "previous"}),
    "debate": frozenset({"task", "form", "own", "peers"}),
    "aggregate": frozenset({"task", "form", "peers"}),
    "judge": frozenset({"task", "reference", "rubric", "candidate"}),
    "judge_again": frozenset({"task", "reference", "rubric", "candidate", "fault"}),
    "judge_pair": frozenset({"task", "question", "first", "second"}),
    "judge_pair_again": frozenset({"task", "question", "first", "second", "fault"}),
}
"""What each template must have places for; `open` and `close` may be anywhere."""

_PLACE: Final = re.compile(r"\{\{(\w+)\}\}")
_TAG_CHARS: Final = 16
_FENCE_PLACES: Final = frozenset({"open", "close"})


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Text that somebody else wrote; never an instruction."""

    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, ready to be asked.

    Attributes:
        name: `id@version` of its template.
        digest: The template's.
        system: Instructions; None for none.
        user: The user's message.
    """

    name: str
    digest: str
    system: str | None
    user: str


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One template.

    Attributes:
        id: A key of `PLACES`.
        version: Counts up whenever anything else changes, >= 1.
        user: The user's message, with places.
        system: Instructions before it, with places.

    Raises:
        ValueError: Another id, a version below 1, a place that is missing or unknown.
    """

    id: str
    version: int
    user: str
    system: str | None = None

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if self.id not in PLACES:
            raise ValueError(f"there is no template {self.id!r}; ids: {', '.join(PLACES)}")
        if self.version < 1:
            raise ValueError(f"version is {self.version}; expected 1 or more")
        found = {match[1] for match in _PLACE.finditer(f"{self.system or ''}\n{self.user}")}
        wanted = PLACES[self.id]
        if missing := wanted - found:
            raise ValueError(f"no place for {', '.join(sorted(missing))}")
        if unknown := found - wanted - _FENCE_PLACES:
            raise ValueError(f"unknown places: {', '.join(sorted(unknown))}")

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical bytes (RFC 8785) of every field above."""
        return digest_of(msgspec.to_builtins(self))

    def render(self, values: Mapping[str, str | Untrusted | tuple[Untrusted, ...]]) -> Rendered:
        """Fill the places.

        Args:
            values: By place. A tuple becomes fences one after the other, in its order.

        Raises:
            KeyError: A place has no value.
        """
        groups = [one if isinstance(one, tuple) else (one,) for one in values.values()]
        untrusted = [part for group in groups for part in group if isinstance(part, Untrusted)]
        tag = _choose_tag(part.text for part in untrusted)
        texts = {name: _write(value, tag) for name, value in values.items()}
        texts |= {"open": f"<data-{tag}>", "close": f"</data-{tag}>"}

        def fill(text: str) -> str:
            return _PLACE.sub(lambda match: texts[match[1]], text)

        return Rendered(
            name=f"{self.id}@{self.version}",
            digest=self.digest,
            system=None if self.system is None else fill(self.system),
            user=fill(self.user),
        )


@dataclass(frozen=True, slots=True)
class Prompts:
    """All templates of a run, by id."""

    templates: Mapping[str, Template]

    def __getitem__(self, name: str) -> Template:
        return self.templates[name]

    @property
    def digests(self) -> dict[str, str]:
        """Digest by `id@version`, for the record of a run."""
        return {f"{one.id}@{one.version}": one.digest for one in self.templates.values()}


def load_prompts(folder: Path | None = None) -> Prompts:
    """Load the templates that come with the library, and those of a folder in their place.

    Raises:
        ConfigurationError: A file cannot be read, or is no template; the message names it.
    """
    templates = {
        name: parse_template(_read(_built_in(name)), source=f"built-in prompt {name}")
        for name in PLACES
    }
    if folder is not None:
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"})
        except OSError as error:
            raise ConfigurationError(f"prompts {folder}: {error.strerror}") from error
        for path in paths:
            template = parse_template(_read(path), source=str(path))
            templates[template.id] = template
    return Prompts(templates)


def parse_template(data: bytes, *, source: str) -> Template:
    """Read a template from YAML.

    Raises:
        ConfigurationError: It is none, or its `digest` is not that of what it says.
    """
    document = parse_yaml(data, source=source)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{source}: expected a mapping")
    said = document.pop("digest", None)
    try:
        template = msgspec.convert(document, Template)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    if said is not None and said != template.digest:
        raise ConfigurationError(
            f"{source}: the text is another than its digest says",
            hint=f"count up `version`, then write `digest:` anew; for what stands there now it is "
            f"{template.digest}",
        )
    return template


def coordination_file(name: str) -> Traversable:
    """A file of configs/coordination; a wheel carries it inside of the package."""
    package = resources.files("cert")
    installed = package / "_configs" / "coordination"
    if installed.is_dir():
        return installed / name
    return Path(str(package)).parent / "configs" / "coordination" / name


def _built_in(name: str) -> Traversable:
    return coordination_file(f"{name}.yaml")


def _read(path: Traversable) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"prompt {path} cannot be read: {error.strerror}") from error


def _choose_tag(texts: Iterable[str]) -> str:
    # A model may take another spelling of the mark for the mark.
    given = [unicodedata.normalize("NFKC", _clean(text)).casefold() for text in texts]
    digest = hashlib.sha256()
    for text in given:
        digest.update(hashlib.sha256(text.encode()).digest())
    for count in range(1 << 20):
        name = hashlib.sha256(digest.digest() + count.to_bytes(4, "big")).hexdigest()[:_TAG_CHARS]
        if not any(name in text for text in given):
            return name
    raise AssertionError("a text of 20,000 characters holds a million tags")  # pragma: no cover


def _write(value: str | Untrusted | tuple[Untrusted, ...], tag: str) -> str:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, tuple) else (value,)
    return "\n\n".join(f"<data-{tag}>\n{_clean(part.text)}\n</data-{tag}>" for part in parts)


def _clean(text: str) -> str:
    """Valid Unicode of bounded length."""
    if len(text) > MAX_UNTRUSTED_CHARS:
        half = MAX_UNTRUSTED_CHARS // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n[{left_out} characters left out]\n{text[-half:]}"
    return text.encode(errors="replace").decode()
