"""Per-token signals against values worked out by hand and an one in decimals."""

from __future__ import annotations

import math
import random
from decimal import Decimal, localcontext

import numpy as np
import pytest

from cert.core.errors import NumericalError
from cert.signals.rows import TokenSignals, row_signals

INF = math.inf
SIGNALS = ("logprob", "entropy", "top_k_entropy", "logit_margin", "probability_margin")


def independent(logits: list[float], token_id: int, top_k: int) -> TokenSignals:
    """The textbook formulas as they stand, with digits enough for the smallest probability."""
    finite = [z for z in logits if z > -INF]
    digits = 40 + int((max(finite) - min(finite)) / math.log(10))
    with localcontext() as context:
        context.prec = digits
        masses = [Decimal(z).exp() if z > -INF else Decimal(0) for z in logits]

        def entropy(weights: list[Decimal]) -> float:
            shares = [w / sum(weights) for w in weights if w > 0]
            return float(-sum(p * p.ln() for p in shares))

        ordered = sorted(masses, reverse=True)
        descending = sorted(logits, reverse=True)
        own = masses[token_id] / sum(masses)
        return TokenSignals(
            logprob=float(own.ln()) if own > 0 else -INF,
            entropy=entropy(masses),
            top_k_entropy=entropy(ordered[:top_k]),
            logit_margin=float(Decimal(descending[0]) - Decimal(descending[1])),
            probability_margin=float((ordered[0] - ordered[1]) / sum(masses)),
            rank=sum(z > logits[token_id] for z in logits),
        )


@pytest.mark.parametrize("size", [2, 3, 10, 11, 4096, 151_936])
@pytest.mark.parametrize("level", [0.0, 7.25, -1e4, 1e4])
def test_uniform_logits(size: int, level: float) -> None:
    got = row_signals(np.full(size, level), size - 1)
    assert got.logprob == pytest.approx(-math.log(size), rel=1e-15)
    assert got.surprisal == -got.logprob
    assert got.entropy == pytest.approx(math.log(size), rel=1e-15)
    assert got.entropy <= math.log(size)
    assert got.top_k_entropy == pytest.approx(math.log(min(10, size)), rel=1e-15)
    assert (got.logit_margin, got.probability_margin, got.rank) == (0.0, 0.0, 0)


def test_one_hot_is_certain_and_every_other_token_impossible() -> None:
    logits = [-INF] * 50
    logits[3] = 2.0
    assert row_signals(logits, 3) == TokenSignals(0.0, 0.0, 0.0, INF, 1.0, 0)
    assert row_signals(logits, 4) == TokenSignals(-INF, 0.0, 0.0, INF, 1.0, 1)
    assert row_signals(logits, 4).surprisal == INF


def test_nearly_one_hot_keeps_a_surprisal_that_one_minus_p_would_lose() -> None:
    # With q = exp(-50): ln p = -ln(1 + q) = -q, entropy = q + 50 q, up to terms of q squared.
    got = row_signals([50.0, 0.0], 0)
    assert got.logprob == pytest.approx(-1.9287498479639178e-22, rel=1e-14)
    assert got.entropy == pytest.approx(51 * 1.9287498479639178e-22, rel=1e-14)
    assert got.probability_margin == 1.0


def test_two_points_of_three_quarters_and_one_quarter() -> None:
    got = row_signals([math.log(3.0), 0.0], 1)
    assert got.logprob == pytest.approx(-1.3862943611198906, rel=1e-15)  # ln 1/4
    assert got.entropy == pytest.approx(0.5623351446188083, rel=1e-15)
    assert got.top_k_entropy == got.entropy
    assert got.logit_margin == math.log(3.0)
    assert got.probability_margin == pytest.approx(0.5, rel=1e-15)
    assert got.rank == 1
    assert row_signals([math.log(3.0), 0.0], 0).logprob == pytest.approx(math.log(0.75), rel=1e-15)


def test_tokens_that_cannot_come_add_nothing() -> None:
    without = row_signals([1.0, 2.0, 0.5], 1)
    assert row_signals([1.0, 2.0, 0.5, -INF, -INF], 1) == without
    assert row_signals([1.0, 2.0, 0.5, -INF], 3).rank == 3


def test_ties_share_a_rank() -> None:
    logits = [1.0, 3.0, 3.0, 2.0, 1.0]
    assert [row_signals(logits, token).rank for token in range(5)] == [3, 0, 0, 2, 3]
    assert row_signals(logits, 1).logit_margin == 0.0
    assert row_signals(logits, 1).probability_margin == 0.0
    impossible = [0.0, -INF, -INF]
    assert [row_signals(impossible, token).rank for token in range(3)] == [0, 1, 1]


@pytest.mark.parametrize("logit", [5.0, 0.0, -1e4])
def test_a_vocabulary_of_one(logit: float) -> None:
    assert row_signals([logit], 0) == TokenSignals(0.0, 0.0, 0.0, INF, 1.0, 0)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_huge_logits_lose_nothing(scale: float) -> None:
    base = row_signals([0.0, 1.0, 2.0, -3.0], 2)
    moved = row_signals([scale, scale + 1.0, scale + 2.0, scale - 3.0], 2)
    assert moved == base


def test_logits_further_apart_than_exp_reaches() -> None:
    got = row_signals([1e4, -1e4, 0.0], 1)
    assert got == TokenSignals(-2e4, 0.0, 0.0, 1e4, 1.0, 2)


def test_logits_further_apart_than_float64_reaches() -> None:
    assert row_signals([1.7e308, -1.7e308], 1) == TokenSignals(-INF, 0.0, 0.0, INF, 1.0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_real_dtype_is_computed_in_float64(dtype: type) -> None:
    logits = np.array([3, -2, 7, 7, 0], dtype=dtype)
    assert row_signals(logits, 0) == row_signals(logits.astype(np.float64), 0)


def test_float16_sums_do_not_saturate() -> None:
    # 70,000 equal terms: a float16 sum would stop at 2,048, and its largest number is 65,504.
    got = row_signals(np.zeros(70_000, dtype=np.float16), 0)
    assert got.entropy == pytest.approx(math.log(70_000), rel=1e-15)


def test_top_k_covers_the_k_largest_only_and_renormalises() -> None:
    logits = [math.log(p) for p in (0.4, 0.1, 0.2, 0.3)]
    expected = -(4 / 7 * math.log(4 / 7) + 3 / 7 * math.log(3 / 7))
    assert row_signals(logits, 1, top_k=2).top_k_entropy == pytest.approx(expected, rel=1e-14)
    assert row_signals(logits, 1, top_k=1).top_k_entropy == 0.0
    assert row_signals(logits, 1, top_k=99).top_k_entropy == row_signals(logits, 1).entropy


def test_the_logits_are_left_as_they_were() -> None:
    logits = np.array([1.0, -INF, 3.0])
    row_signals(logits, 0)
    assert logits.tolist() == [1.0, -INF, 3.0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("size", [2, 5, 9, 10, 11, 24])
def test_agrees_with_an_independent_implementation(size: int, scale: float) -> None:
    stream = random.Random(f"{size} {scale}")
    for _ in range(3):
        logits = [stream.gauss(0, scale) for _ in range(size)]
        if size > 5:
            logits[stream.randrange(size)] = -INF
            logits[0] = logits[1]
        token = stream.randrange(size)
        want = independent(logits, token, 10)
        got = row_signals(logits, token)
        for name in SIGNALS:
            assert getattr(got, name) == pytest.approx(
                getattr(want, name), rel=1e-12, abs=1e-300
            ), name
        assert got.rank == want.rank
        assert 0.0 <= got.entropy <= math.log(size)
        assert 0.0 <= got.top_k_entropy <= math.log(min(10, size))


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        ([0.0, math.nan], "NaN"),
        ([math.nan, INF], "NaN"),
        ([0.0, INF], r"\+inf"),
        ([-INF, -INF], "no logit is finite"),
        ([-INF], "no logit is finite"),
    ],
)
def test_what_is_no_distribution_is_refused(logits: list[float], says: str) -> None:
    with pytest.raises(NumericalError, match=says):
        row_signals(logits, 0)


@pytest.mark.parametrize(
    ("logits", "token", "k", "says"),
    [
        ([0.0, 0.0], 2, 10, "outside the vocabulary of 2"),
        ([0.0, 0.0], -1, 10, "outside the vocabulary"),
        ([], 0, 10, r"shape \(0,\)"),
        ([[0.0]], 0, 10, r"shape \(1, 1\)"),
        (1.0, 0, 10, r"shape \(\)"),
        ([0.0], 0, 0, "top_k is 0"),
        (["a"], 0, 10, "expected real numbers"),
        ([True], 0, 10, "expected real numbers"),
        ([1j], 0, 10, "expected real numbers"),
    ],
)
def test_arguments_outside_their_domain(logits: object, token: int, k: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        row_signals(logits, token, top_k=k)  # type: ignore[arg-type]
