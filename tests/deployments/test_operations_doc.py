"""docs/operations.md: every alert has its section, and every command and file in it exists."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import typer

from cert_cli.app import app
from tests.deployments.ops_tools import ROOT, alerts

if TYPE_CHECKING:
    from collections.abc import Iterator

DOC = ROOT / "docs" / "operations.md"
TEXT = DOC.read_text()


def test_every_alert_has_its_section_and_no_section_is_of_another() -> None:
    sections = re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)
    assert sorted(sections) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / path) == DOC
        assert anchor in {section.lower() for section in sections}
    for part in re.split(r"^### \w+$", TEXT, flags=re.MULTILINE)[1:]:
        assert len(part.split()) >= 12, "a section says what to do"


def test_every_command_of_cert_is_one_that_there_is() -> None:
    checked = 0
    for words in _commands():
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            assert words, "a command without its subcommand"
            command = command.commands[words.pop(0)]
        known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert flags <= known, (words, flags - known)
        checked += 1
    assert checked >= 12


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"deployments/[\w./-]*\w/?", TEXT) + re.findall(r"sample_prompts/\S+", TEXT)
    assert len(named) >= 8
    for one in named:
        path = one.removesuffix("/*.yml").rstrip("/")
        assert (ROOT / path).exists(), one
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (DOC.parent / link).exists(), link
    for folder in re.findall(
        r"`(overlays/[a-z]+|[a-z]+/)`", TEXT.split("| folder |")[1].split("\n\n")[0]
    ):
        assert (ROOT / "deployments" / "kubernetes" / folder / "Kustomization").exists(), folder


def _commands() -> Iterator[list[str]]:
    """The `cert` commands of the code blocks: what follows the program's name."""
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.partition("  #")[0], posix=True, punctuation_chars=True)
            lexer.wordchars += "$=,:@{}[]"
            words: list[str] = []
            for word in (*lexer, ";"):
                if re.fullmatch(r"[();&|<>]+", word) or word == "do":
                    if words and words[0] in {"cert", "/opt/cert/bin/cert"}:
                        yield ["serve" if one == "$unit" else one for one in words[1:]]
                    words = []
                elif words or not re.match(r"[A-Z_]+=", word):
                    words.append(word)
