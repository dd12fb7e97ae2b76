"""Verdicts: by hand for complete texts, and by what more tokens could change for the others."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.assessment.assess import INCOMPLETE, assess
from cert.assessment.policy import SIGNALS, Policy, Threshold, load_policy
from cert.assessment.verdict import Check, Verdict
from cert.signals.summary import SignalSummary, summarize
from cert.signals.trace import SignalTrace

INF = math.inf
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE

Token = tuple[float, float, float, float]
"""logprob, entropy, logit margin, probability margin"""


def summary_of(tokens: list[Token]) -> SignalSummary:
    columns = list(zip(*tokens, strict=True)) if tokens else [()] * 4
    count = len(tokens)
    return summarize(
        SignalTrace(
            token_ids=(0,) * count,
            logprobs=columns[0],
            entropies=columns[1],
            top_k_entropies=columns[1],
            logit_margins=columns[2],
            probability_margins=columns[3],
            ranks=(0,) * count,
        )
    )


GOOD = summary_of([(-0.5, 1.0, 2.0, 0.5)] * 4)
DEFAULT = load_policy("default")


def policy(signal: str, op: str, threshold: float, **more: object) -> Policy:
    return Policy("p", 1, (Threshold(signal, op, threshold),), **more)  # type: ignore[arg-type]


def outcome(summary: SignalSummary, signal: str, op: str, threshold: float, reason: str) -> Verdict:
    return assess(summary, policy(signal, op, threshold), finish_reason=reason).checks[0].outcome


def test_a_good_text_passes_and_says_why() -> None:
    got = assess(GOOD, DEFAULT, finish_reason="eos")
    assert got.verdict is PASS
    assert got.reasons == ()
    assert got.checks == (
        Check("perplexity", "<", 50.0, math.exp(0.5), PASS),
        Check("max_entropy", "<", 2.5, 1.0, PASS),
        Check("cumulative_surprise", "<", 10.0, 0.0, PASS),
    )
    assert (got.policy_id, got.policy_version, got.policy_digest) == ("default", 1, DEFAULT.digest)
    assert (got.min_tokens, got.incomplete) == (1, "inconclusive")


def test_one_failed_check_fails_and_the_others_keep_their_outcomes() -> None:
    got = assess(replace(GOOD, max_entropy=2.5), DEFAULT, finish_reason="length")
    assert got.verdict is FAIL
    assert [check.outcome for check in got.checks] == [PASS, FAIL, PASS]


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        ("<", PASS, FAIL, FAIL),
        ("<=", PASS, PASS, FAIL),
        (">", FAIL, FAIL, PASS),
        (">=", FAIL, PASS, PASS),
    ],
)
def test_comparisons(op: str, below: Verdict, equal: Verdict, above: Verdict) -> None:
    outcomes = [outcome(GOOD, "max_entropy", op, limit, "eos") for limit in (1.5, 1.0, 0.5)]
    assert outcomes == [below, equal, above]


@pytest.mark.parametrize("reason", ["eos", "timeout"])
def test_an_infinite_perplexity_fails_every_upper_limit(reason: str) -> None:
    summary = summary_of([(-0.1, 1.0, 2.0, 0.5), (-INF, 1.0, 2.0, 0.5)])
    for signal in ("perplexity", "mean_nll", "nll", "max_surprisal", "cumulative_surprise"):
        assert outcome(summary, signal, "<", 1e300, reason) is FAIL, signal


def test_nothing_measured_is_inconclusive_whatever_is_asked() -> None:
    got = assess(summary_of([]), DEFAULT, finish_reason="eos")
    assert got.verdict is INCONCLUSIVE
    assert {check.outcome for check in got.checks} == {INCONCLUSIVE}
    assert {check.observed for check in got.checks} == {None}
    assert got.reasons == ("0 tokens; the policy asks for 1",)


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
def test_a_pass_on_a_text_that_was_cut_off_is_inconclusive(reason: str) -> None:
    got = assess(GOOD, DEFAULT, finish_reason=reason)
    assert got.verdict is INCONCLUSIVE
    assert {check.outcome for check in got.checks} == {INCONCLUSIVE}
    assert got.reasons == (f"the text is not complete: {reason}",)
    assert [check.observed for check in got.checks] == [math.exp(0.5), 1.0, 0.0]


@pytest.mark.parametrize("reason", ["eos", "length", "stop", "scored"])
def test_a_text_that_ended_as_was_agreed_is_complete(reason: str) -> None:
    assert assess(GOOD, DEFAULT, finish_reason=reason).verdict is PASS


def test_a_failure_that_no_further_token_heals_stays_one() -> None:
    summary = summary_of([(-0.5, 3.0, 2.0, 0.5), (-11.0, 1.0, 0.1, 0.5)])
    got = assess(summary, DEFAULT, finish_reason="timeout")
    assert got.verdict is FAIL
    # Perplexity exp(5.75) may still come down.
    assert [check.outcome for check in got.checks] == [INCONCLUSIVE, FAIL, FAIL]
    assert got.reasons == ("the text is not complete: timeout",)


def test_a_perplexity_beyond_float64_can_come_down_and_an_infinite_nll_cannot() -> None:
    overflown = summary_of([(-800.0, 1.0, 2.0, 0.5)])
    assert overflown.perplexity == INF
    assert outcome(overflown, "perplexity", "<", 50, "timeout") is INCONCLUSIVE
    assert outcome(overflown, "perplexity", "<", 50, "eos") is FAIL


def test_a_policy_may_judge_what_there_is() -> None:
    judging = policy("perplexity", "<", 50, incomplete="judge")
    got = assess(GOOD, judging, finish_reason="timeout")
    assert (got.verdict, got.reasons, got.incomplete) == (PASS, (), "judge")


def test_too_few_tokens_carry_no_decision() -> None:
    asking = policy("perplexity", "<", 1.1, min_tokens=5)
    got = assess(GOOD, asking, finish_reason="eos")
    assert got.verdict is INCONCLUSIVE
    assert got.reasons == ("4 tokens; the policy asks for 5",)
    assert (
        assess(GOOD, policy("perplexity", "<", 1.1, min_tokens=4), finish_reason="eos").verdict
        is FAIL
    )
    both = assess(GOOD, asking, finish_reason="timeout")
    assert len(both.reasons) == 2


HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
token = st.tuples(
    st.sampled_from([-INF, -3.0, -2.5, -0.5, 0.0]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0.0, 1.0, INF]),
    st.sampled_from([0.0, 0.5, 1.0]),
)


@given(
    st.lists(token, min_size=1, max_size=4),
    st.lists(token, max_size=6),
    st.sampled_from(SIGNALS),
    st.sampled_from(sorted(HOLDS)),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 5.0, 100.0]),
)
def test_what_is_decided_early_is_what_the_whole_text_gives(
    start: list[Token], rest: list[Token], signal: str, op: str, limit: float
) -> None:
    early = outcome(summary_of(start), signal, op, limit, "timeout")
    whole = outcome(summary_of(start + rest), signal, op, limit, "eos")
    if early is not INCONCLUSIVE:
        assert early is whole


def test_sums_and_maxima_are_decided_as_early_as_they_can_be() -> None:
    summary = summary_of([(-3.0, 3.0, 0.5, 0.1)])
    for signal, reason in itertools.product(
        ("nll", "max_entropy", "max_surprisal", "cumulative_surprise"), INCOMPLETE
    ):
        assert outcome(summary, signal, "<", 2.0, reason) is FAIL
        assert outcome(summary, signal, ">", 2.0, reason) is PASS
        assert outcome(summary, signal, "<", 4.0, reason) is INCONCLUSIVE
        assert outcome(summary, signal, ">", 4.0, reason) is INCONCLUSIVE
    for signal in ("min_logit_margin", "min_probability_margin"):
        assert outcome(summary, signal, ">", 0.75, "timeout") is FAIL
        assert outcome(summary, signal, "<", 0.75, "timeout") is PASS
        assert outcome(summary, signal, ">", 0.05, "timeout") is INCONCLUSIVE
        assert outcome(summary, signal, "<", 0.05, "timeout") is INCONCLUSIVE
    assert outcome(summary, "tokens", "<", 1, "timeout") is FAIL


def test_a_text_that_was_cut_off_never_passes_even_where_every_check_is_decided() -> None:
    got = assess(GOOD, policy("tokens", ">=", 3), finish_reason="timeout")
    assert [check.outcome for check in got.checks] == [PASS]
    assert got.verdict is INCONCLUSIVE
