"""The process that renders chat templates; started by `chat_template`, never imported.

A template is a program from a stranger. Jinja's sandbox keeps it from Python's objects, but not
from looping and not from building texts without end; a process of its own has limits and can be
killed.

Protocol, one JSON document a line: first the set-up {"template", "memory_bytes", "seconds",
"max_chars"}, answered by {} or {"error"}; then requests, each the template's variables, answered by
{"text"}, {"refused"} (the template itself says no) or {"error"}. Where time runs out the process
ends without an answer. What a template finds is what transformers' `apply_chat_template` gives it.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.parser import Parser

_MAX_ERROR_CHARS = 300


class RefusedByTemplateError(TemplateError):
    """The template called `raise_exception`."""


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's words; it prints its body."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        """Keep the body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def raise_exception(message: str) -> NoReturn:
    """Let a template refuse what it is given."""
    raise RefusedByTemplateError(str(message))


def to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - the filter's signature in templates
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - the same
) -> str:
    """Write JSON as it is; Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def strftime_now(pattern: str) -> str:
    """Format the current local time, for templates that tell the model the date."""
    return datetime.now().astimezone().strftime(pattern)


def compile_template(source: str) -> Template:
    """Compile a template with transformers' names and settings."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(source)


def render(template: Template, variables: dict[str, object], max_chars: int) -> dict[str, str]:
    """Render piece by piece, so that a text without end is not collected first."""
    pieces: list[str] = []
    chars = 0
    for piece in template.generate(variables):
        chars += len(piece)
        if chars > max_chars:
            return {"error": f"it writes more than {max_chars} characters"}
        pieces.append(piece)
    return {"text": "".join(pieces)}


def described(error: Exception) -> dict[str, str]:
    """Turn an exception into an answer."""
    if isinstance(error, RefusedByTemplateError):
        return {"refused": str(error)[:_MAX_ERROR_CHARS]}
    if isinstance(error, MemoryError):
        return {"error": "it needs too much memory"}
    return {"error": f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]}


def answer(document: dict[str, str]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def serve() -> None:
    """Answer until the parent closes the pipe."""
    setup = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (setup["memory_bytes"], setup["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Time counts while the processor is used, so a busy machine ends nobody's template early. The
    # signal ends the process even inside one long operation.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_PROF, setup["seconds"])
    try:
        template = compile_template(setup["template"])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the template's
        answer(described(error))
        return
    signal.setitimer(signal.ITIMER_PROF, 0)
    answer({})
    for line in sys.stdin:
        variables = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, setup["seconds"])
        try:
            reply = render(template, variables, setup["max_chars"])
        except Exception as error:  # noqa: BLE001 - the same
            reply = described(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer(reply)


if __name__ == "__main__":
    serve()
