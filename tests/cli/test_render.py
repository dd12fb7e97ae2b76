from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from cert.assessment.verdict import Check, Verdict
from cert.backends.protocol import SamplingParams
from cert.core.errors import NumericalError
from cert.inputs.case import PromptCase, RefusedInput
from cert.runner.pipeline import run_cases
from cert_cli.render import render_line, render_page
from cert_cli.terminal import Style
from tests.runner.helpers import engine, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

Record = dict[str, Any]

CASE = PromptCase(id="case-1", text="Explain AI", source="in.txt", line=3)
HOSTILE = "\x1b]0;title\x07\x1b[2J\u202eabc\x9b31m[red]PASS[/red]\nPASS  forged"


def measured(case: PromptCase | RefusedInput = CASE, **backend: Any) -> Record:  # noqa: ANN401
    content = backend.pop("content", "full")
    with engine(**{"logprob": -0.5, **backend}) as (running, _):
        chosen = settings(content=content, sampling=SamplingParams(max_new_tokens=4))
        (outcome,) = run_cases(iter([case]), running, chosen)
        # As it comes from a file or a server: JSON types only.
        return json.loads(outcome.line)


def page(record: Record, style: Style | None = None) -> str:
    def split(ids: Sequence[int]) -> list[str]:
        return [f" word{one}" for one in ids]

    return render_page(record, style or Style(), split=split)


def test_a_page_says_verdict_reasons_text_checks_and_model() -> None:
    shown = page(measured())
    first = shown.splitlines()[0]
    assert first.split()[0] in {"PASS", "FAIL"}
    assert "case-1" in first
    assert "prompt  Explain AI" in shown
    assert "4 tokens, length, " in shown
    assert "│  word" in shown
    assert "perplexity" in shown
    assert "model fake (sha256:" in shown
    assert "policy default" in shown
    assert "\x1b" not in shown


def test_every_check_says_observed_comparison_threshold_and_record() -> None:
    record = measured(logprob=-5.0)
    shown = page(record)
    assert shown.startswith("FAIL")
    assert "  - perplexity is 148.4; the policy asks for < 50\n" in shown
    row = next(line for line in shown.splitlines() if line.startswith("perplexity"))
    assert row.split() == ["perplexity", "148.4", "<", "50", "fail"]


def test_a_text_without_failed_checks_says_so() -> None:
    passed = Check("perplexity", "<", 50.0, 1.5, Verdict.PASS)
    record = measured()
    record["assessment"] |= {"checks": [asdict(passed)], "verdict": "pass"}
    shown = page(record)
    assert shown.startswith("PASS  case-1\n  - every check passed\n")


def test_infinite_and_missing_readings_are_named() -> None:
    shown = page(measured(logprob=-math.inf))
    assert "perplexity is infinite" in shown


def test_a_response_is_called_a_response() -> None:
    shown = page(measured(replace(CASE, response="a model measures")))
    assert "response  3 tokens, scored" in shown


def test_fallbacks_are_shown() -> None:
    assert "fallback device:cuda->cpu" in page(measured(fallbacks=("device:cuda->cpu",)))


def test_hostile_texts_neither_steer_nor_forge() -> None:
    shown = page(measured(replace(CASE, text=HOSTILE, id="i\x1bd")))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\x9b" not in shown
    assert "[red]PASS[/red]" in shown
    assert not any(line.startswith("PASS  forged") for line in shown.splitlines())


def test_generated_line_breaks_cannot_pass_for_lines_of_ours() -> None:
    shown = render_page(measured(), Style(), split=lambda ids: ["\nPASS  forged"] * len(ids))
    assert not any(line.startswith("PASS  forged") for line in shown.splitlines())
    assert any(line.startswith("│ PASS  forged") for line in shown.splitlines())


def test_a_text_that_nobody_can_split_is_drawn_without_surprise() -> None:
    record = measured(logprob=-9.0)
    shown = render_page(record, Style(), split=lambda _: None)
    text = record["generation"]["text"]
    assert text
    assert f"\u2502 {text}\n" in shown
    assert "surprise:" not in shown
    assert "[4:" not in shown


def test_nothing_is_wider_than_the_terminal() -> None:
    record = measured()
    for width in (40, 60):
        lines = page(record, Style(width=width)).splitlines()
        picture = [line for line in lines if line.startswith("│")]
        assert picture
        assert all(len(line) <= width for line in picture)


def test_an_ascii_terminal_gets_ascii() -> None:
    page(measured(), Style(unicode=False)).encode("ascii")
    long = replace(CASE, id="x" * 200)
    render_line(measured(long), Style(unicode=False)).encode("ascii")


def test_colour_is_used_only_where_it_is_wanted() -> None:
    record = measured()
    assert "\x1b[" in page(record, Style(color=True))
    assert "\x1b[" in render_line(record, Style(color=True))
    assert "\x1b" not in render_line(record, Style())


def test_a_long_prompt_is_cut_with_its_length() -> None:
    assert "(5000 characters)" in page(measured(replace(CASE, text="x" * 5000)))


def test_omitted_content_is_not_shown() -> None:
    record = measured(content="omitted")
    assert "Explain AI" not in page(record)
    assert "word" not in page(record).split("policy")[0]
    assert len(render_line(record, Style()).split("perplexity")[1].split()) <= 3


@pytest.mark.parametrize("draw", [page, lambda one: render_line(one, Style())])
def test_errors_and_refusals_are_one_line(draw: Any) -> None:  # noqa: ANN401 - two signatures
    failed = measured(replace(CASE, text="bad"), errors={"bad": NumericalError("it is NaN\x1b")})
    assert draw(failed).split() == ["error", "case-1", "NumericalError:", "it", "is", "NaN\\x1b"]
    refused = measured(RefusedInput("in\x07.txt", 9, "InvalidInput", "not UTF-8"))
    assert draw(refused).split() == ["refused", "in\\x07.txt:9", "not", "UTF-8"]


def test_a_line_is_one_line_whatever_the_text() -> None:
    record = measured(replace(CASE, id="a\nb", text=HOSTILE))
    for width in (40, 100, 200):
        shown = render_line(record, Style(width=width))
        assert shown.count("\n") == 1
        assert len(shown) <= max(width, 72) + 1
