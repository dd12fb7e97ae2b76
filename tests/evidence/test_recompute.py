"""A record's verdict follows from its own numbers, and every edit of them is found."""

from __future__ import annotations

import copy
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.assessment.policy import Policy, Threshold
from cert.backends.protocol import FinishReason
from cert.evidence.recompute import recompute
from cert.evidence.record import encode_record
from cert.ledger.canonical import parse_canonical
from cert.signals.trace import build_trace
from tests.evidence.builders import ALL, IMPOSSIBLE, analysis, generation

if TYPE_CHECKING:
    from collections.abc import Callable

readings = st.floats(0, 30, width=32)


@pytest.mark.parametrize("name", ALL)
def test_records_agree_with_themselves(name: str) -> None:
    assert recompute(ALL[name]) == []
    assert recompute(parse_canonical(encode_record(ALL[name]))) == []
    assert recompute(json.loads(encode_record(ALL[name]))) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            readings.map(lambda one: -one) | st.just(-math.inf),
            readings,
            readings,
            readings | st.just(math.inf),
            st.floats(0, 1, width=32),
        ),
        max_size=30,
    ),
    st.sampled_from(list(FinishReason)),
    st.sampled_from(["full", "omitted"]),
)
def test_any_measurement_agrees_with_its_record(
    rows: list[tuple[float, ...]], reason: FinishReason, content: str
) -> None:
    logprobs, entropies, top_k, margins, shares = zip(*rows, strict=True) if rows else [()] * 5
    count = len(rows)
    trace = build_trace(range(count), logprobs, entropies, top_k, margins, shares, [0] * count)
    record = analysis(generation(trace, reason), content=content)
    assert recompute(parse_canonical(encode_record(record))) == []


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a logprob": (lambda r: r["generation"]["logprobs"].__setitem__(0, -0.2), "signals.nll"),
    "an entropy": (lambda r: r["generation"]["entropies"].__setitem__(1, 2.25), "max_entropy"),
    "a top-k entropy": (
        lambda r: r["generation"]["top_k_entropies"].__setitem__(0, 0.25),
        "signals.mean_top_k_entropy: recorded 0.9, recomputed 0.91",
    ),
    "a margin": (
        lambda r: r["generation"]["logit_margins"].__setitem__(1, "inf"),
        "signals.min_logit_margin: recorded 0.7, recomputed 3.0",
    ),
    "a probability margin": (
        lambda r: r["generation"]["probability_margins"].__setitem__(1, 0.5),
        "signals.min_probability_margin",
    ),
    "the perplexity": (
        lambda r: r["signals"].__setitem__("perplexity", 2.0),
        "signals.perplexity: recorded 2.0",
    ),
    "the number of tokens": (
        lambda r: r["signals"].__setitem__("tokens", 2),
        "signals.tokens: recorded 2, recomputed 3",
    ),
    "true for 1": (lambda r: r["signals"].__setitem__("surprising_tokens", True), "recorded True"),
    "null": (lambda r: r["signals"].__setitem__("perplexity", None), "signals.perplexity"),
    "a signal more": (lambda r: r["signals"].__setitem__("beauty", 1), "beauty: recorded, but"),
    "a signal less": (lambda r: r["signals"].pop("nll"), "signals.nll: not recorded"),
    "an outcome": (
        lambda r: r["assessment"]["checks"][1].__setitem__("outcome", "fail"),
        "assessment.checks[1].outcome: recorded 'fail', recomputed 'pass'",
    ),
    "an observation": (
        lambda r: r["assessment"]["checks"][1].__setitem__("observed", 1.0),
        "assessment.checks[1].observed: recorded 1.0, recomputed 2.0",
    ),
    "a threshold": (
        lambda r: r["assessment"]["checks"][0].__setitem__("threshold", 51.0),
        "assessment.policy.digest",
    ),
    "a comparison": (
        lambda r: r["assessment"]["checks"][0].__setitem__("op", "<="),
        "assessment.policy.digest",
    ),
    "a check less": (lambda r: r["assessment"]["checks"].pop(), "assessment.policy.digest"),
    "the policy's rule": (
        lambda r: r["assessment"]["policy"].__setitem__("incomplete", "judge"),
        "assessment.policy.digest",
    ),
    "the policy's length": (
        lambda r: r["assessment"]["policy"].__setitem__("min_tokens", 2),
        "assessment.policy.digest",
    ),
    "the policy's id": (
        lambda r: r["assessment"]["policy"].__setitem__("id", "mild"),
        "assessment.policy.digest",
    ),
    "the policy's version": (
        lambda r: r["assessment"]["policy"].__setitem__("version", 2),
        "assessment.policy.digest",
    ),
    "the verdict": (
        lambda r: r["assessment"].__setitem__("verdict", "fail"),
        "assessment.verdict: recorded 'fail', recomputed 'pass'",
    ),
    "the reasons": (
        lambda r: r["assessment"]["reasons"].append("tired"),
        "assessment.reasons: recorded 1 items, recomputed 0",
    ),
    "the finish reason": (
        lambda r: r["generation"].__setitem__("finish_reason", "timeout"),
        "assessment.verdict: recorded 'pass', recomputed 'inconclusive'",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_found_and_named(edit: str) -> None:
    record = copy.deepcopy(ALL["full"])
    change, says = EDITS[edit]
    change(record)
    differences = [str(one) for one in recompute(record)]
    assert any(says in one for one in differences), differences


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no generation": (lambda r: r.pop("generation"), "KeyError: 'generation'"),
    "a list less": (lambda r: r["generation"].pop("entropies"), "KeyError: 'entropies'"),
    "an item less": (lambda r: r["generation"]["entropies"].pop(), "3 logprobs but 2 entropies"),
    "a token less": (lambda r: r["generation"]["token_ids"].pop(), "3 logprobs but 2 token_ids"),
    "NaN": (lambda r: r["generation"]["logprobs"].append("nan"), "found 'nan'"),
    "a list for a number": (lambda r: r["generation"]["logprobs"].append([]), "found []"),
    "sums beyond float64": (
        lambda r: r["generation"].__setitem__("logprobs", [-1.7e308, -1.7e308, -1.0]),
        "OverflowError",
    ),
    "no check": (lambda r: r["assessment"].__setitem__("checks", []), "0 checks"),
    "another signal": (
        lambda r: r["assessment"]["checks"][0].__setitem__("signal", "beauty"),
        "no signal 'beauty'",
    ),
    "a list for an object": (lambda r: r.__setitem__("assessment", []), "TypeError"),
    "a text for an object": (lambda r: r.__setitem__("generation", "x"), "TypeError"),
    "null for an object": (lambda r: r.__setitem__("signals", None), "TypeError"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_record_that_cannot_be_recomputed_says_why(broken: str) -> None:
    record = copy.deepcopy(ALL["full"])
    change, says = BREAKS[broken]
    change(record)
    (line,) = map(str, recompute(record))
    assert line.startswith("cannot be recomputed: ")
    assert says in line


def test_the_last_bits_of_exp_are_forgiven_and_no_more() -> None:
    record = copy.deepcopy(ALL["full"])
    perplexity = record["signals"]["perplexity"]
    for value, differs in (
        (math.nextafter(perplexity, math.inf), False),
        (perplexity * (1 + 1e-12), True),
    ):
        record["signals"]["perplexity"] = value
        record["assessment"]["checks"][0]["observed"] = value
        assert bool(recompute(record)) is differs


def test_the_recorded_perplexity_is_the_one_that_was_judged() -> None:
    exact = analysis()["signals"]["perplexity"]
    other = math.nextafter(exact, 0.0)
    at_the_limit = Policy("p", 1, (Threshold("perplexity", "<", exact),))
    record = copy.deepcopy(analysis(policy=at_the_limit))
    assert record["assessment"]["verdict"] == "fail"
    # Written where exp ends an ulp lower, the same text passed; that record stands as well.
    record["signals"]["perplexity"] = other
    record["assessment"]["checks"][0] |= {"observed": other, "outcome": "pass"}
    record["assessment"]["verdict"] = "pass"
    assert recompute(record) == []


def test_an_impossible_token_cannot_be_hidden() -> None:
    record = copy.deepcopy(analysis(generation(IMPOSSIBLE)))
    assert record["assessment"]["verdict"] == "fail"
    record["generation"]["logprobs"][1] = -30.0
    assert any("perplexity" in one.path for one in recompute(record))
