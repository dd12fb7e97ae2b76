"""The fast kernel against hand-worked values and against the float64 definition."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from cert.backends import kernels
from cert.backends.kernels import COLUMNS, is_finite, signals_of
from cert.signals.rows import row_signals

if TYPE_CHECKING:
    import numpy as np

# Sums of 4,096 float32 terms: relative error of a pairwise sum is below 1e-6; logits up to 60
# leave an absolute rounding of 4e-6 in z - max.
TOLERANCE = 2e-5


def measure(logits: torch.Tensor, chosen: list[int]) -> dict[str, np.ndarray]:
    measured = kernels.measure(logits, torch.tensor(chosen))
    signals = signals_of(measured)
    assert signals.shape == (len(COLUMNS), len(logits))
    return dict(zip(COLUMNS, signals, strict=True)) | {"finite": is_finite(measured)}


def test_uniform_logits_have_entropy_ln_v() -> None:
    got = measure(torch.full((3, 4096), 7.25), [0, 17, 4095])
    assert got["entropy"] == pytest.approx([math.log(4096)] * 3, abs=TOLERANCE)
    assert got["logprob"] == pytest.approx([-math.log(4096)] * 3, abs=TOLERANCE)
    assert got["top_k_entropy"] == pytest.approx([math.log(10)] * 3, abs=TOLERANCE)
    assert list(got["rank"]) == [0, 0, 0]
    assert list(got["logit_margin"]) == [0, 0, 0]
    assert list(got["probability_margin"]) == [0, 0, 0]


def test_one_hot_is_certain() -> None:
    logits = torch.full((1, 50), -torch.inf)
    logits[0, 3] = 2.0
    got = measure(logits, [3])
    assert got["logprob"][0] == 0.0
    assert got["entropy"][0] == 0.0
    assert got["probability_margin"][0] == 1.0
    assert got["logit_margin"][0] == math.inf
    impossible = measure(logits, [4])
    assert impossible["logprob"][0] == -math.inf
    assert impossible["rank"][0] == 1
    assert impossible["finite"][0] == 1


def test_two_points_of_three_quarters_and_one_quarter() -> None:
    got = measure(torch.tensor([[math.log(3.0), 0.0]]), [1])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert got["entropy"][0] == pytest.approx(expected, abs=1e-6)
    assert got["logprob"][0] == pytest.approx(math.log(0.25), abs=1e-6)
    assert got["logit_margin"][0] == pytest.approx(math.log(3.0), abs=1e-6)
    assert got["probability_margin"][0] == pytest.approx(0.5, abs=1e-6)
    assert got["rank"][0] == 1


def test_a_vocabulary_of_one() -> None:
    got = measure(torch.tensor([[5.0]]), [0])
    assert got["logprob"][0] == got["entropy"][0] == 0.0
    assert got["logit_margin"][0] == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_no_distribution_is_marked_and_the_others_are_right(bad: float) -> None:
    logits = torch.zeros(3, 8)
    logits[1, 5] = bad
    got = measure(logits, [0, 0, 0])
    assert list(got["finite"]) == [1, 0, 1]
    assert got["entropy"][[0, 2]] == pytest.approx([math.log(8)] * 2, abs=1e-6)
    assert list(measure(torch.full((1, 8), -torch.inf), [0])["finite"]) == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.1, 3.0, 15.0])
def test_equals_the_definition(dtype: torch.dtype, scale: float) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = (torch.randn((12, 4096), generator=generator) * scale).to(dtype)
    logits[3, 100:] = -torch.inf
    chosen = torch.randint(100, (12,), generator=generator).tolist()
    got = measure(logits, chosen)
    for row in range(12):
        want = row_signals(logits[row].double().numpy(), chosen[row])
        for name in COLUMNS[:-1]:
            assert got[name][row] == pytest.approx(getattr(want, name), abs=TOLERANCE), name
        assert got["rank"][row] == want.rank


def test_the_logits_are_left_as_they_were() -> None:
    logits = torch.randn(4, 32)
    before = logits.clone()
    kernels.measure(logits, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(logits, before)
