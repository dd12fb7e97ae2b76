"""The largest logits of a row against a plain sort, and both ways of measuring one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.backends.kernels import COLUMNS, is_finite, measure, measure_tensor, signals_of
from cert.backends.top_logits import TOP_K, top_logits
from cert.signals.rows import row_signals

SIZES = [1, 2, 9, 10, 11, 127, 1000, 4096, 33_000, 50_257, 151_936]
TOLERANCE = 2e-5
"""As in test_kernels.py; logits up to 1e4 leave their own rounding in z - max."""


def draw(rows: int, size: int, kind: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((rows, size), generator=generator)
    if kind == "wide":
        return logits * 3000.0
    if kind == "equal":
        return torch.full((rows, size), -3.5)
    if kind == "few values":
        return torch.randint(4, (rows, size), generator=generator).float()
    if kind == "mostly impossible":
        keep = torch.rand((rows, size), generator=generator) < 0.001
        keep[:, seed % size] = True
        return logits.masked_fill(~keep, -torch.inf)
    if kind == "one possible":
        return logits.masked_fill(torch.arange(size) != seed % size, -torch.inf)
    return logits


KINDS = ["normal", "wide", "equal", "few values", "mostly impossible", "one possible"]


@settings(deadline=None)
@given(
    size=st.sampled_from(SIZES),
    rows=st.integers(1, 5),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_values_and_the_first_are_those_of_a_sort(
    size: int, rows: int, kind: str, seed: int, dtype: torch.dtype
) -> None:
    logits = draw(rows, size, kind, seed).to(dtype)
    top = top_logits(logits)
    exact = logits.double().numpy()
    expected = -np.sort(-exact, axis=1)[:, :TOP_K]
    assert np.array_equal(top.values.double().numpy(), expected)
    assert top.values.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert top.first.tolist() == exact.argmax(axis=1).tolist()
    assert top.first.dtype is torch.int64


@pytest.mark.parametrize("size", [8, 1000, 50_257])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_with_nan_or_infinity_says_so_and_the_others_are_right(size: int, bad: float) -> None:
    logits = draw(3, size, "normal", 1)
    logits[1, 5] = bad
    top = top_logits(logits)
    assert top.first[1] == 5
    assert not math.isfinite(top.values[1, 0])
    for row in (0, 2):
        assert top.first[row] == logits[row].argmax()
        assert torch.equal(top.values[row], logits[row].topk(min(TOP_K, size)).values)
    top = top_logits(torch.full((2, size), -torch.inf))
    assert top.values[:, 0].tolist() == [-math.inf] * 2


@settings(deadline=None)
@given(
    size=st.sampled_from(SIZES),
    rows=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    is_greedy=st.booleans(),
)
def test_both_ways_of_measuring_equal_the_definition(  # noqa: PLR0917 - Hypothesis gives names
    size: int, rows: int, kind: str, seed: int, dtype: torch.dtype, is_greedy: bool
) -> None:
    logits = draw(rows, size, kind, seed).to(dtype)
    top = top_logits(logits)
    drawn = torch.randint(size, (rows,), generator=torch.Generator().manual_seed(seed))
    chosen = top.first if is_greedy else drawn
    for measured in (
        measure(logits, chosen),
        measure(logits, chosen, top),
        measure_tensor(logits, chosen).numpy(),
    ):
        assert is_finite(measured).all()
        got = dict(zip(COLUMNS, signals_of(measured), strict=True))
        for row in range(rows):
            exact = logits[row].double().numpy()
            want = row_signals(exact, int(chosen[row]))
            spread = np.ptp(exact[np.isfinite(exact)])
            allowed = TOLERANCE + 2.0**-22 * spread
            for name in COLUMNS[:-1]:
                assert got[name][row] == pytest.approx(getattr(want, name), abs=allowed), name
            assert got["rank"][row] == want.rank
