"""The specification's snippets, taken out of docs/spec as they stand there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SPECIFICATION = Path(__file__).parents[2] / "docs" / "spec" / "cert-framework-v4.md"
_HEADING = re.compile(r"#{2,4} (.*)")
_LANGUAGES = ("python", "bash", "json", "text")


@dataclass(frozen=True, slots=True)
class Snippet:
    """One block of code.

    Attributes:
        heading: The heading that it stands under; no two Python snippets share one.
        language: The line before it.
        source: Its lines, as written.
        line: 1-based line of its first line in the specification.
    """

    heading: str
    language: str
    source: str
    line: int


def read_snippets() -> list[Snippet]:
    """Read every snippet: from the line that names its language to two empty lines."""
    lines = SPECIFICATION.read_text(encoding="utf-8").split("\n")
    snippets = []
    heading = ""
    place = 0
    while place < len(lines):
        found = _HEADING.fullmatch(lines[place])
        if found:
            heading = found[1]
        if lines[place] in _LANGUAGES:
            end = place + 1
            while lines[end : end + 2] != ["", ""] and end < len(lines):
                end += 1
            source = "\n".join(lines[place + 1 : end]) + "\n"
            snippets.append(Snippet(heading, lines[place], source, place + 2))
            place = end
        place += 1
    return snippets


def python_snippets() -> dict[str, Snippet]:
    """The Python snippets by heading, and the Python line that stands in a shell block."""
    found = {one.heading: one for one in read_snippets() if one.language == "python"}
    (shell,) = (
        one
        for one in read_snippets()
        if one.language == "bash" and "HamiltonianMonitor(" in one.source
    )
    place = shell.source.index("monitor = HamiltonianMonitor(")
    line = shell.line + shell.source[:place].count("\n")
    found[shell.heading] = Snippet(shell.heading, "python", shell.source[place:], line)
    return found
