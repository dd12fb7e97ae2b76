from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from cert.assessment.verdict import Assessment, Verdict
from cert.backends.protocol import FinishReason, Generation, SamplingParams
from cert.core.errors import AnalysisError
from cert.inputs.case import PromptCase
from cert.signals.summary import summarize
from cert.trajectory.types import AnalysisResult
from tests.fakes import fake_identity, fake_trace


def result(
    words: list[str], verdict: Verdict = Verdict.PASS, *, logprob: float | None = None
) -> AnalysisResult:
    trace = fake_trace(words, logprob=logprob)
    generation = Generation(
        (0,), " ".join(words), FinishReason.EOS, trace, SamplingParams(), "cpu", 0.0, 0.1
    )
    assessment = Assessment(
        "p", "sha256:0", verdict, (), policy_version=1, min_tokens=0, incomplete="inconclusive"
    )
    case = PromptCase(id="1", text="Hello")
    return AnalysisResult(
        case, generation, summarize(trace), assessment, fake_identity(), False, 0.1, "c"
    )


def test_the_specified_names() -> None:
    one = result(["every", "word"], logprob=-math.log(4.0))
    assert one.prompt == "Hello"
    assert one.generated_text == "every word"
    assert one.avg_perplexity == pytest.approx(4.0)
    entropies = one.generation.trace.entropies
    assert one.avg_entropy == sum(entropies) / len(entropies)
    assert one.verdict is Verdict.PASS


@pytest.mark.parametrize("verdict", Verdict)
def test_only_a_pass_passes(verdict: Verdict) -> None:
    assert result(["a"], verdict).passed_quality_check is (verdict is Verdict.PASS)


def test_an_error_did_not_pass() -> None:
    assert AnalysisError("InvalidInput", "", recoverable=False).passed_quality_check is False


def test_without_tokens_there_are_no_numbers() -> None:
    one = result([], Verdict.INCONCLUSIVE)
    assert math.isnan(one.avg_perplexity)
    assert math.isnan(one.avg_entropy)


def test_an_impossible_token_makes_the_perplexity_infinite() -> None:
    assert result(["a"], Verdict.FAIL, logprob=-math.inf).avg_perplexity == math.inf


def test_a_result_shows_its_outcome_and_not_its_texts() -> None:
    text = repr(result(["a", "model"], logprob=-math.log(4.0)))
    assert text.startswith("<AnalysisResult pass: 2 tokens, perplexity 4, mean entropy ")
    assert "Hello" not in text


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        result(["a"]).cached = True  # type: ignore[misc]
