"""Draws are pure functions of their key, and follow the distribution that they should."""

from __future__ import annotations

import math

import pytest
import torch

from cert.backends import sampling
from cert.backends.protocol import SamplingParams
from cert.backends.sampling import draw, uniform

_UNIFORM_7_P_0 = 0.11127037228820813


def choose(
    logits: torch.Tensor, params: list[SamplingParams], ids: list[str], steps: list[int]
) -> torch.Tensor:
    return sampling.choose(logits, logits.argmax(dim=-1), params, ids, steps)


def test_uniform_is_a_function_of_its_key_alone() -> None:
    assert uniform(1, "a", 0) == uniform(1, "a", 0)
    assert len({uniform(s, i, t) for s in range(5) for i in "abc" for t in range(5)}) == 75


def test_uniform_equals_the_digest_worked_out_elsewhere() -> None:
    # printf '7\0000\000p' | sha256sum | cut -c1-16, shifted right by 11, over 2^53
    assert uniform(7, "p", 0) == pytest.approx(_UNIFORM_7_P_0, abs=1e-15)


def test_uniform_covers_the_unit_interval_evenly() -> None:
    draws = [uniform(3, "x", step) for step in range(20_000)]
    assert min(draws) >= 0.0
    assert max(draws) < 1.0
    for tenth in range(10):
        share = sum(tenth / 10 <= u < (tenth + 1) / 10 for u in draws) / len(draws)
        # Standard error of a share of .1 in 20,000 draws is .0021; five of them.
        assert share == pytest.approx(0.1, abs=0.0106)


def test_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    for u, want in [(0.0, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 0), (0.999999, 0)]:
        assert int(draw(logits, 1.0, 0, 1.0, u)) == want


def test_top_k_keeps_the_k_most_probable_and_renormalises() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    # .5/.8 = .625
    assert int(draw(logits, 1.0, 2, 1.0, 0.62)) == 1
    assert int(draw(logits, 1.0, 2, 1.0, 0.63)) == 2
    assert int(draw(logits, 1.0, 2, 1.0, 0.99999)) == 2
    assert int(draw(logits, 1.0, 1, 1.0, 0.99999)) == 1


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    assert int(draw(logits, 1.0, 0, 0.4, 0.99999)) == 1
    assert int(draw(logits, 1.0, 0, 0.6, 0.99999)) == 2
    assert int(draw(logits, 1.0, 0, 0.95, 0.99999)) == 0


def test_temperature_divides_the_logits() -> None:
    # At temperature 2 odds of 9 to 1 become 3 to 1.
    logits = torch.tensor([math.log(9.0), 0.0])
    assert int(draw(logits, 2.0, 0, 1.0, 0.74)) == 0
    assert int(draw(logits, 2.0, 0, 1.0, 0.76)) == 1


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    assert {int(draw(logits, 1.0, 0, 1.0, u / 100)) for u in range(100)} == {1}


def test_equal_logits_are_taken_in_order_of_id() -> None:
    logits = torch.zeros(4)
    assert [int(draw(logits, 1.0, 0, 1.0, u)) for u in (0.1, 0.3, 0.6, 0.9)] == [0, 1, 2, 3]
    assert choose(logits[None], [SamplingParams()], ["a"], [0]).tolist() == [0]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((6, 500), generator=generator)
    params = [SamplingParams(temperature=t, seed=9, top_p=0.9) for t in (0, 0.5, 1, 2, 1, 0)]
    ids = [f"p{row}" for row in range(6)]
    together = choose(logits, params, ids, [3] * 6).tolist()
    alone = [
        int(choose(logits[row : row + 1], [params[row]], [ids[row]], [3])[0]) for row in range(6)
    ]
    assert together == alone
    backwards = choose(logits.flip(0), params[::-1], ids[::-1], [3] * 6).tolist()
    assert backwards == together[::-1]
    assert together[0] == int(logits[0].argmax())


def test_temperature_zero_is_greedy_even_with_a_seed() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.5]])
    params = [SamplingParams(temperature=0.0, seed=5)]
    assert {int(choose(logits, params, ["a"], [step])[0]) for step in range(50)} == {1}


def test_whoever_samples_leaves_the_largest_as_they_were() -> None:
    logits = torch.tensor([[0.0, 1.0], [-torch.inf, 0.0]])
    largest = torch.tensor([0, 0])  # not the largest: what is drawn differs from it
    params = [SamplingParams(), SamplingParams(temperature=1.0, seed=1)]
    assert sampling.choose(logits, largest, params, ["a", "b"], [0, 0]).tolist() == [0, 1]
    assert largest.tolist() == [0, 0]
    assert sampling.choose(logits, largest, [SamplingParams()] * 2, ["a", "b"], [0, 0]) is largest
