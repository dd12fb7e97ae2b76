"""Files that `cert init` prints: templates, with the paths of this installation filled in.

A path is data wherever it lands. Each format quotes in its own way, and what it cannot hold is
refused rather than escaped into something else.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

UNITS: Final = {
    "nightly": ("cert-nightly.service", "cert-nightly.timer", "cert-failure@.service"),
    "health": ("cert-health.service", "cert-health.timer", "cert-failure@.service"),
    "serve": ("cert-serve.service",),
    "serve-metrics": ("cert-serve-metrics.service",),
}
"""Files of each service, by what `cert init systemd` calls it."""

_PROGRAM: Final = "/opt/cert/bin/cert"  # where the shipped units have it


def find_program() -> tuple[str, ...]:
    """The command that starts this very installation, whatever PATH is.

    >>> find_program()[0].startswith("/")
    True
    """
    script = Path(sysconfig.get_path("scripts")) / "cert"
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "cert_cli")


def build_ci(source: str, *, version: str) -> str:
    """Build a workflow for GitHub Actions.

    Args:
        source: Prompts, relative to the repository.
        version: Of the distribution that is installed there.

    Raises:
        ConfigurationError: The path cannot stand in a workflow.
    """
    _refuse_controls(source)
    # Expressions are replaced before YAML or a shell ever sees the text.
    if "${{" in source:
        raise ConfigurationError(
            f"{source!r} has the mark of a workflow's expression in it", hint="rename the file"
        )
    path = f"./{source}" if source.startswith("-") else source
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    text = _template("ci.yml").read_text(encoding="utf-8")
    return text.replace("@VERSION@", version).replace("@INPUT@", quoted)


def build_crontab(program: Sequence[str], *, source: Path, ledger: Path) -> str:
    """Build a line for a crontab, with a comment over it.

    Args:
        program: The command, absolute.
        source: Prompts.
        ledger: Where the evidence goes; the lock lies beside it.

    Raises:
        ConfigurationError: A path cannot stand in a crontab.
    """
    lock = ledger.absolute().with_name(f"{ledger.name}.lock")
    words = {
        "@LOCK@": (str(lock),),
        "@PROGRAM@": program,
        "@INPUT@": (str(source.absolute()),),
        "@LEDGER@": (str(ledger.absolute()),),
    }
    head, line = _template("crontab").read_text(encoding="utf-8").rsplit("17 3 * * *", 1)
    # Split first: a path that holds a mark of the template is not replaced again.
    filled = [
        " ".join(map(_quote_cron, words[word])) if word in words else word for word in line.split()
    ]
    return f"{head}17 3 * * * {' '.join(filled)}\n"


def build_units(name: str, program: Sequence[str]) -> dict[str, str]:
    """Build the units of a service.

    Args:
        name: A key of `UNITS`.
        program: The command, absolute.

    Returns:
        Content by file name.

    Raises:
        ConfigurationError: The program's path cannot stand in a unit.
    """
    command = " ".join(map(_quote_systemd, program))
    folder = _template("systemd")
    return {
        file: (folder / file).read_text(encoding="utf-8").replace(_PROGRAM, command)
        for file in UNITS[name]
    }


def _template(name: str) -> Traversable:
    """A wheel carries the templates inside the package; a checkout has them beside it."""
    package = resources.files("cert")
    installed = package / "_configs" / "templates"
    if not installed.is_dir():
        installed = Path(str(package)).parent / "configs" / "templates"
    return installed / name


def _quote_cron(word: str) -> str:
    # cron turns % into a newline before any shell reads the line, also inside of quotes.
    _refuse_controls(word)
    if "\\" in word and "%" in word:
        raise ConfigurationError(
            f"{word!r} cannot stand in a crontab: cron reads backslashes before % in its own way",
            hint="rename the file",
        )
    return shlex.quote(word).replace("%", r"\%")


def _quote_systemd(word: str) -> str:
    _refuse_controls(word)
    # A variable's mark; and what systemd refuses in a program's path, quoted or not.
    if any(mark in word for mark in "$\"'\\"):
        raise ConfigurationError(
            f"{word!r} cannot stand in a unit: systemd takes no $, quote or backslash there",
            hint="install cert in a folder without such a mark in its name",
        )
    escaped = word.replace("%", "%%")
    return escaped if re.fullmatch(r"[\w./%-]+", word) else f'"{escaped}"'


def _refuse_controls(word: str) -> None:
    if not word.isprintable():
        raise ConfigurationError(
            f"{word!r} has characters in it that do not print", hint="rename the file"
        )
