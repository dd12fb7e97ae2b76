"""Summaries against values worked out by hand, in exact fractions, and by numpy's quantiles."""

from __future__ import annotations

import math
import random
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.signals.rows import row_signals
from cert.signals.summary import (
    SURPRISE_LOGPROB,
    SignalSummary,
    perplexity_of,
    quantile,
    summarize,
)
from cert.signals.trace import SignalTrace, build_trace

INF = math.inf


def trace_of(
    logprobs: list[float],
    *,
    entropies: list[float] | None = None,
    logit_margins: list[float] | None = None,
) -> SignalTrace:
    count = len(logprobs)
    return SignalTrace(
        token_ids=tuple(range(count)),
        logprobs=tuple(logprobs),
        entropies=tuple(entropies or [1.0] * count),
        top_k_entropies=tuple(0.5 * one for one in entropies or [1.0] * count),
        logit_margins=tuple(logit_margins or [2.0] * count),
        probability_margins=tuple(0.125 * (one + 1) for one in range(count)),
        ranks=(0,) * count,
    )


def test_worked_out_by_hand() -> None:
    got = summarize(
        trace_of(
            [-0.5, -3.0, -0.25, -2.25],
            entropies=[0.5, 4.0, 1.0, 2.5],
            logit_margins=[2.0, 0.25, INF, 1.0],
        )
    )
    assert got == SignalSummary(
        tokens=4,
        nll=6.0,
        mean_nll=1.5,
        perplexity=math.exp(1.5),
        mean_entropy=2.0,
        max_entropy=4.0,
        mean_top_k_entropy=1.0,
        max_surprisal=3.0,
        median_surprisal=1.375,  # halfway from 0.5 to 2.25
        p90_surprisal=pytest.approx(2.775),  # 0.7 of the way from 2.25 to 3
        p99_surprisal=pytest.approx(2.9775),
        cumulative_surprise=3.0,  # 2.25 is p = 0.105
        surprising_tokens=1,
        min_logit_margin=0.25,
        min_probability_margin=0.125,
    )


@pytest.mark.parametrize("size", [2, 10, 4096])
def test_uniform_logits_have_the_perplexity_of_their_number(size: int) -> None:
    one = row_signals(np.zeros(size), 0)
    count = 7
    got = summarize(
        build_trace(
            [0] * count,
            [one.logprob] * count,
            [one.entropy] * count,
            [one.top_k_entropy] * count,
            [one.logit_margin] * count,
            [one.probability_margin] * count,
            [one.rank] * count,
        )
    )
    assert got.perplexity == pytest.approx(size, rel=1e-6)
    assert got.mean_entropy == pytest.approx(math.log(size), rel=1e-6)
    assert got.max_entropy == pytest.approx(math.log(size), rel=1e-6)
    # Ten equal tokens have p = 0.1 exactly, which is not under 0.1.
    assert got.surprising_tokens == (count if size > 10 else 0)


def test_certain_tokens_have_perplexity_one() -> None:
    got = summarize(trace_of([0.0, 0.0], entropies=[0.0, 0.0]))
    assert (got.perplexity, got.nll, got.max_surprisal, got.cumulative_surprise) == (1, 0, 0, 0)
    assert math.copysign(1.0, got.max_surprisal or 0.0) == 1.0


def test_nothing_measured_is_none_and_never_zero() -> None:
    got = summarize(trace_of([]))
    assert got.tokens == 0
    assert {getattr(got, name) for name in SignalSummary.__slots__} == {0, None}
    assert got.perplexity is got.cumulative_surprise is got.surprising_tokens is None


def test_one_token() -> None:
    got = summarize(trace_of([-0.75]))
    assert got.median_surprisal == got.p90_surprisal == got.p99_surprisal == 0.75
    assert got.max_surprisal == got.nll == got.mean_nll == 0.75


def test_an_impossible_token_makes_the_score_worse_and_never_better() -> None:
    got = summarize(trace_of([-0.1, -INF, -0.1, -0.1]))
    for name in ("nll", "mean_nll", "perplexity", "max_surprisal", "cumulative_surprise"):
        assert getattr(got, name) == INF, name
    assert got.surprising_tokens == 1
    assert got.median_surprisal == 0.1
    assert got.p90_surprisal == INF


def test_perplexity_is_pooled_and_not_a_mean_of_one_over_p() -> None:
    probabilities = [0.5, 0.01]
    got = summarize(trace_of([math.log(p) for p in probabilities]))
    assert got.perplexity == pytest.approx(math.sqrt(2 * 100))
    assert got.perplexity != pytest.approx((2 + 100) / 2)


@pytest.mark.parametrize(
    ("logprob", "counts"),
    [
        (float(np.float32(math.log(0.1)).astype(str)), False),  # p = 0.1 as a reading
        (float(str(np.nextafter(np.float32(math.log(0.1)), np.float32(-9)))), True),
        (float(str(np.nextafter(np.float32(math.log(0.1)), np.float32(0)))), False),
        (-2.31, True),
        (-2.30, False),
    ],
)
def test_surprise_counts_probabilities_strictly_under_a_tenth(logprob: float, counts: bool) -> None:
    got = summarize(trace_of([logprob, -0.5]))
    assert got.surprising_tokens == int(counts)
    assert got.cumulative_surprise == (-logprob if counts else 0.0)
    assert float(str(np.float32(math.log(0.1)))) == SURPRISE_LOGPROB


@given(st.lists(st.floats(-50, 0, width=32), min_size=1, max_size=200))
def test_sums_are_exact_and_do_not_depend_on_the_order(logprobs: list[float]) -> None:
    got = summarize(trace_of(logprobs))
    exact = -sum(map(Fraction, logprobs))
    assert got.nll == float(exact)
    assert got.mean_nll == float(exact) / len(logprobs)
    shuffled = random.Random(1).sample(logprobs, len(logprobs))
    again = summarize(trace_of(shuffled))
    assert (again.nll, again.perplexity, again.p90_surprisal, again.cumulative_surprise) == (
        got.nll,
        got.perplexity,
        got.p90_surprisal,
        got.cumulative_surprise,
    )


@given(
    st.lists(st.floats(-50, 0, width=32) | st.just(-INF) | st.integers(-9, 0), min_size=1),
)
def test_signs_are_turned_without_loss(logprobs: list[float]) -> None:
    got = summarize(trace_of(logprobs))
    surprisals = sorted(0.0 - one for one in logprobs)
    surprising = [0.0 - one for one in logprobs if one < SURPRISE_LOGPROB]
    want = (
        math.fsum(surprisals),
        surprisals[-1],
        quantile(surprisals, 0.5),
        quantile(surprisals, 0.9),
        quantile(surprisals, 0.99),
        math.fsum(surprising),
        len(surprising),
    )
    # By their text, which tells 0.0 from -0.0.
    assert repr(want) == repr(
        (
            got.nll,
            got.max_surprisal,
            got.median_surprisal,
            got.p90_surprisal,
            got.p99_surprisal,
            got.cumulative_surprise,
            got.surprising_tokens,
        )
    )


@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=60))
def test_quantiles_are_those_of_numpy_and_of_statistics(surprisals: list[float]) -> None:
    ordered = sorted(surprisals)
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        want = float(np.quantile(ordered, share, method="linear"))
        assert quantile(ordered, share) == pytest.approx(want, rel=1e-12, abs=1e-300)
    if len(ordered) > 1:
        cut = statistics.quantiles(ordered, n=100, method="inclusive")
        assert quantile(ordered, 0.9) == pytest.approx(cut[89], rel=1e-12, abs=1e-300)


def test_quantiles_beside_infinity_are_never_nan() -> None:
    assert quantile([0.0, INF], 0.5) == INF
    assert quantile([0.0, 1.0, INF], 0.5) == 1.0
    assert quantile([INF, INF], 0.3) == INF


def test_perplexities_beyond_float64_are_infinite() -> None:
    assert perplexity_of(709.0) < INF
    assert perplexity_of(710.0) == INF
    assert perplexity_of(INF) == INF
    got = summarize(trace_of([-2e4]))
    assert (got.perplexity, got.mean_nll) == (INF, 2e4)
