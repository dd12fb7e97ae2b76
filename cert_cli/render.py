"""The human view of an outcome: a line for a batch, a page for a single prompt."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cert.assessment.verdict import Verdict
from cert.core.errors import AnalysisError
from cert.inputs.case import PromptCase, RefusedInput
from cert.observability.controls import escape_controls
from cert_cli.picture import draw, legend, split_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from cert.assessment.verdict import Check
    from cert.runner.pipeline import Outcome
    from cert.trajectory.types import AnalysisResult
    from cert_cli.terminal import Style

_COLORS = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}
_WRONG = "bold magenta"
_PROMPT_CHARS = 300
_LINE_WIDTH = 72


def render_line(outcome: Outcome, style: Style) -> str:
    """Draw an outcome in one line: verdict, id, perplexity, beginning of the text."""
    case, result = outcome.case, outcome.result
    if isinstance(case, RefusedInput):
        where = f"{case.source}:{case.line}"
        line = Text.assemble(("refused     ", _WRONG), f" {_plain(where)}  {_plain(case.message)}")
    elif isinstance(result, AnalysisError):
        words = f" {_plain(case.id)}  {result.error_type}: {_plain(result.message)}"
        line = Text.assemble(("error       ", _WRONG), words)
    elif result is not None:
        verdict = result.verdict
        failed = [one.signal for one in result.assessment.checks if one.outcome is not Verdict.PASS]
        words = f" {_plain(case.id)}  perplexity {_number(result.summary.perplexity)}"
        line = Text.assemble((f"{verdict.value:<12}", _COLORS[verdict]), words)
        if failed:
            line.append(f"  ({', '.join(failed)})")
        if _has_content(outcome):
            line.append(f"  {_plain(result.generated_text)}", "dim")
    line.truncate(
        max(style.width, _LINE_WIDTH) - 1, overflow="ellipsis" if style.unicode else "crop"
    )
    return _export([line], style)


def render_page(outcome: Outcome, style: Style, *, decode: Callable[[Sequence[int]], str]) -> str:
    """Draw an outcome in full: verdict and reasons, the text token by token, the checks."""
    case, result = outcome.case, outcome.result
    if result is None or isinstance(result, AnalysisError) or isinstance(case, RefusedInput):
        return render_line(outcome, style)
    parts: list[RenderableType] = [_heading(case, result)]
    if _has_content(outcome):
        parts += [_prompt(case), *_text(result, style, decode)]
    parts += [_checks(result.assessment.checks), _footer(result)]
    return _export(parts, style) + "\n"


def _heading(case: PromptCase, result: AnalysisResult) -> Text:
    verdict = result.verdict
    line = Text.assemble((verdict.value.upper(), _COLORS[verdict]), f"  {_plain(case.id)}")
    for reason in _reasons(result):
        line.append(f"\n  - {_plain(reason)}")
    return line


def _reasons(result: AnalysisResult) -> list[str]:
    """Say which checks decided, and what else did."""
    reasons = [
        f"{check.signal} is {_number(check.observed)}; the policy asks for {check.op} "
        f"{_number(check.threshold)}"
        for check in result.assessment.checks
        if check.outcome is not Verdict.PASS
    ]
    return [*reasons, *result.assessment.reasons] or ["every check passed"]


def _prompt(case: PromptCase) -> Text:
    shown = _plain(case.text)
    if len(shown) > _PROMPT_CHARS:
        shown = f"{shown[:_PROMPT_CHARS]} ... ({len(case.text)} characters)"
    return Text.assemble(("prompt  ", "bold"), shown)


def _text(
    result: AnalysisResult, style: Style, decode: Callable[[Sequence[int]], str]
) -> list[RenderableType]:
    generation = result.generation
    trace = generation.trace
    title = "response" if generation.finish_reason == "scored" else "output"
    head = Text.assemble(
        (title, "bold"),
        f"  {len(trace)} tokens, {generation.finish_reason.value}, {generation.generate_s:.2f} s"
        f"{', cached' if result.cached else ''}",
    )
    picture = draw(split_tokens(decode, trace.token_ids), trace.logprobs, style)
    bar = "\u2502 " if style.unicode else "| "
    console = _console(style)
    # The bar before every line: a text cannot pass itself off as a line of ours.
    lines = picture.wrap(console, style.width - len(bar))
    for line in lines:
        line.rstrip()
    return [head, *(Text.assemble((bar, "dim"), line) for line in lines), legend(style)]


def _checks(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check")
    table.add_column("observed", justify="right")
    table.add_column("")
    table.add_column("threshold", justify="right")
    table.add_column("outcome")
    for check in checks:
        table.add_row(
            Text(check.signal),
            Text(_number(check.observed)),
            Text(check.op),
            Text(_number(check.threshold)),
            Text(check.outcome.value, _COLORS[check.outcome]),
        )
    return table


def _footer(result: AnalysisResult) -> Text:
    identity, notes = result.identity, list(result.generation.fallbacks)
    quantization = f", {identity.quantization}" if identity.quantization else ""
    line = (
        f"model {_plain(identity.name)} ({identity.digest[:19]}, {identity.dtype}{quantization}, "
        f"{result.generation.device}), policy {_plain(result.assessment.policy_id)}"
    )
    return Text("\n".join([line, *(f"fallback {_plain(note)}" for note in notes)]), "dim")


def _has_content(outcome: Outcome) -> bool:
    """Whether the record shows texts; the view never shows more than the record."""
    prompt = outcome.record.get("prompt")
    return isinstance(prompt, dict) and "text" in prompt


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    if math.isinf(value):
        return "infinite"
    return f"{value:.4g}"


def _plain(text: str) -> str:
    return escape_controls(text)


def _console(style: Style) -> Console:
    return Console(
        file=io.StringIO(),
        width=style.width,
        force_terminal=style.color,
        color_system="256" if style.color else None,
        no_color=not style.color,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _export(parts: Sequence[RenderableType], style: Style) -> str:
    console = _console(style)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    written = console.file
    return written.getvalue() if isinstance(written, io.StringIO) else ""
