"""The human view of a record: a line for a batch, a page for a single prompt.

It is drawn from the record alone, so it never shows more than the record does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cert.assessment.verdict import Verdict
from cert.evidence.numbers import decode_number
from cert.observability.controls import escape_controls
from cert_cli.drawing import console_of, draw_parts
from cert_cli.picture import draw, legend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType

    from cert_cli.terminal import Style

    Record = Mapping[str, Any]

_COLORS = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}
_WRONG = "bold magenta"
_PROMPT_CHARS = 300
_LINE_WIDTH = 72


def render_line(record: Record, style: Style) -> str:
    """Draw a record in one line: verdict, id, perplexity, beginning of the text."""
    kind = record["kind"]
    if kind == "refused":
        where = f"{record['input']['source']}:{record['input']['line']}"
        words = f" {_plain(where)}  {_plain(record['error']['message'])}"
        line = Text.assemble(("refused     ", _WRONG), words)
    elif kind == "error":
        error = record["error"]
        words = f" {_plain(record['prompt']['id'])}  {error['type']}: {_plain(error['message'])}"
        line = Text.assemble(("error       ", _WRONG), words)
    else:
        line = _verdict_line(record)
    line.truncate(
        max(style.width, _LINE_WIDTH) - 1, overflow="ellipsis" if style.unicode else "crop"
    )
    return draw_parts([line], style)


def render_page(
    record: Record, style: Style, *, split: Callable[[Sequence[int]], Sequence[str] | None]
) -> str:
    """Draw a record in full: verdict and reasons, the text token by token, the checks.

    Args:
        record: Of kind analysis, error or refused.
        style: How to draw.
        split: Returns each token's share of the text; None where nobody can tell, and the text
            is drawn without its tokens' surprise.
    """
    if record["kind"] != "analysis":
        return render_line(record, style)
    parts: list[RenderableType] = [_heading(record)]
    if _has_content(record):
        parts += [_prompt(record), *_text(record, style, split)]
    parts += [_checks(record["assessment"]["checks"]), _footer(record)]
    return draw_parts(parts, style) + "\n"


def _verdict_line(record: Record) -> Text:
    verdict = Verdict(record["assessment"]["verdict"])
    checks = record["assessment"]["checks"]
    failed = [one["signal"] for one in checks if one["outcome"] != Verdict.PASS]
    perplexity = _number(record["signals"]["perplexity"])
    words = f" {_plain(record['prompt']['id'])}  perplexity {perplexity}"
    line = Text.assemble((f"{verdict.value:<12}", _COLORS[verdict]), words)
    if failed:
        line.append(f"  ({', '.join(map(_plain, failed))})")
    if _has_content(record):
        line.append(f"  {_plain(record['generation']['text'])}", "dim")
    return line


def _heading(record: Record) -> Text:
    verdict = Verdict(record["assessment"]["verdict"])
    line = Text.assemble(
        (verdict.value.upper(), _COLORS[verdict]), f"  {_plain(record['prompt']['id'])}"
    )
    for reason in _reasons(record["assessment"]):
        line.append(f"\n  - {_plain(reason)}")
    return line


def _reasons(assessment: Record) -> list[str]:
    """Say which checks decided, and what else did."""
    reasons = [
        f"{check['signal']} is {_number(check['observed'])}; the policy asks for {check['op']} "
        f"{_number(check['threshold'])}"
        for check in assessment["checks"]
        if check["outcome"] != Verdict.PASS
    ]
    return [*reasons, *assessment["reasons"]] or ["every check passed"]


def _prompt(record: Record) -> Text:
    text = record["prompt"]["text"]
    shown = _plain(text)
    if len(shown) > _PROMPT_CHARS:
        shown = f"{shown[:_PROMPT_CHARS]} ... ({len(text)} characters)"
    return Text.assemble(("prompt  ", "bold"), shown)


def _text(
    record: Record, style: Style, split: Callable[[Sequence[int]], Sequence[str] | None]
) -> list[RenderableType]:
    generation, timing = record["generation"], record["timing"]
    reason = generation["finish_reason"]
    head = Text.assemble(
        ("response" if reason == "scored" else "output", "bold"),
        f"  {len(generation['token_ids'])} tokens, {_plain(reason)}, {timing['generate_s']:.2f} s"
        f"{', cached' if timing['cached'] else ''}",
    )
    pieces = split(generation["token_ids"])
    if pieces is None:
        picture = draw([generation["text"]], [0.0], style)
    else:
        picture = draw(pieces, [decode_number(one) for one in generation["logprobs"]], style)
    bar = "\u2502 " if style.unicode else "| "
    console = console_of(style)
    # The bar before every line: a text cannot pass itself off as a line of ours.
    lines = picture.wrap(console, style.width - len(bar))
    for line in lines:
        line.rstrip()
    drawn = [Text.assemble((bar, "dim"), line) for line in lines]
    return [head, *drawn, *([] if pieces is None else [legend(style)])]


def _checks(checks: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check")
    table.add_column("observed", justify="right")
    table.add_column("")
    table.add_column("threshold", justify="right")
    table.add_column("outcome")
    for check in checks:
        outcome = Verdict(check["outcome"])
        table.add_row(
            Text(_plain(check["signal"])),
            Text(_number(check["observed"])),
            Text(_plain(check["op"])),
            Text(_number(check["threshold"])),
            Text(outcome.value, _COLORS[outcome]),
        )
    return table


def _footer(record: Record) -> Text:
    made_by, policy = record["provenance"], record["assessment"]["policy"]
    model = made_by["model"]
    quantization = f", {_plain(made_by['quantization'])}" if made_by["quantization"] else ""
    line = (
        f"model {_plain(model['name'])} ({_plain(model['digest'][:19])}, "
        f"{_plain(made_by['dtype'])}{quantization}, {_plain(made_by['device'])}), "
        f"policy {_plain(policy['id'])}"
    )
    notes = (f"fallback {_plain(note)}" for note in made_by["fallbacks"])
    return Text("\n".join([line, *notes]), "dim")


def _has_content(record: Record) -> bool:
    """Whether the record shows texts."""
    return "text" in record["prompt"]


def _number(value: object) -> str:
    if value is None:
        return "not measured"
    number = decode_number(value)
    return "infinite" if math.isinf(number) else f"{number:.4g}"


def _plain(text: str) -> str:
    return escape_controls(text)
