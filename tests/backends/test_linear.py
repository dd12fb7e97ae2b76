"""Linear layers for CPUs: each product against a float64 one, and which weight gets which."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cert.backends import linear
from cert.backends.linear import (
    HalfLinear,
    PackedLinear,
    PlainLinear,
    build_linear,
    gelu_of,
    layer_bytes,
)

SHAPES = [(1, 1), (3, 5), (64, 33), (300, 128), (96, 700)]
# Sums of up to 700 products of numbers around 1, in float32: measured 2e-5 at most.
TOLERANCE = 1e-4


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias.double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_is_that_of_the_stored_weights(
    shape: tuple[int, int], stored: torch.dtype, has_bias: bool
) -> None:
    weight = draw(*shape).to(stored)
    bias = draw(shape[0], seed=1) if has_bias else None
    layer = build_linear(weight, bias, torch.float32)
    for rows in (1, 2, 7, 16, 33):
        x = draw(rows, shape[1], seed=2)
        got = layer(x)
        assert got.dtype is torch.float32
        assert (got - exact(x, weight, bias)).abs().max() < TOLERANCE
    x = draw(2, 3, shape[1], seed=3)
    assert (layer(x) - exact(x, weight, bias)).abs().max() < TOLERANCE


@pytest.mark.parametrize("layer", [PackedLinear, PlainLinear])
def test_a_gelu_is_that_of_the_exact_product(layer: type[PackedLinear | PlainLinear]) -> None:
    weight, bias, x = draw(40, 30), draw(40, seed=1), draw(5, 30, seed=2)
    got = gelu_of(layer(weight, bias), x)
    product = exact(x, weight, bias)
    inner = math.sqrt(2 / math.pi) * (product + 0.044715 * product**3)
    assert (got - 0.5 * product * (1 + inner.tanh())).abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_rounded_to_the_type_that_was_asked_for(dtype: torch.dtype) -> None:
    weight, bias, x = draw(40, 30), draw(40, seed=1), draw(5, 30, seed=2)
    layer = build_linear(weight, bias, dtype)
    got = layer(x)
    assert got.dtype is torch.float32
    wanted = exact(x, weight.to(dtype), bias.to(dtype))
    # Where the processor multiplies bfloat16, inputs and outputs of up to 30 are rounded to it.
    allowed = 0.1 if dtype is torch.bfloat16 and linear.multiplies_bfloat16() else TOLERANCE
    assert (got - wanted).abs().max() < allowed


@pytest.mark.skipif(not linear.has_fbgemm(), reason="this torch has no FBGEMM")
@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.zeros(6, 4), HalfLinear),
        (draw(6, 4).half(), HalfLinear),
        (draw(6, 4).bfloat16() * 1e-6, HalfLinear),
        (draw(6, 4).bfloat16() * 1e9, HalfLinear),
        (draw(6, 4), PackedLinear),
        (torch.full((6, 4), torch.inf), PackedLinear),
        (torch.full((6, 4), torch.nan), PackedLinear),
        (torch.tensor([[1.0, 2.0**-36]] * 6).bfloat16(), HalfLinear),
        (torch.tensor([[1.0, 2.0**-60]] * 6).bfloat16(), PackedLinear),
        # Only a later row needs more than float16 has.
        (torch.cat([torch.ones(9, 2), torch.tensor([[1.0, 1.0 + 2.0**-20]])]), PackedLinear),
    ],
)
def test_what_float16_holds_exactly_is_kept_so(weight: torch.Tensor, kind: type) -> None:
    layer = build_linear(weight, None, torch.float32)
    assert type(layer) is kind
    assert layer_bytes(layer) == (2 * 16 * 512 if kind is HalfLinear else 4 * weight.numel())


@given(exponent=st.integers(-100, 100), rows=st.integers(1, 5))
def test_scaling_by_a_power_of_two_rounds_nothing(exponent: int, rows: int) -> None:
    """The same weight times a power of two gives the same product times that power."""
    weight, x = draw(8, 12, seed=rows).bfloat16().float(), draw(rows, 12)
    plain = build_linear(weight, None, torch.float32)(x)
    scaled = build_linear(weight * 2.0**exponent, None, torch.float32)(x)
    assert torch.allclose(scaled * 2.0**-exponent, plain, rtol=1e-5, atol=1e-6)


def test_nan_and_infinity_reach_the_result() -> None:
    for weight in (draw(8, 8), draw(8, 8).half()):
        x = draw(3, 8)
        x[1, 2] = torch.nan
        found = build_linear(weight, None, torch.float32)(x)
        assert found.isnan().all(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("has_onednn", [True, False])
def test_without_a_library_the_next_one_is_used(
    has_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "has_fbgemm", lambda: False)
    monkeypatch.setattr(linear, "_has_onednn", lambda: has_onednn)
    weight, bias, x = draw(6, 4).half(), draw(6), draw(3, 4)
    layer = build_linear(weight, bias, torch.float32)
    assert type(layer) is (PackedLinear if has_onednn else PlainLinear)
    assert layer_bytes(layer) == 6 * 4 * 4
    assert (layer(x) - exact(x, weight, bias)).abs().max() < TOLERANCE


@pytest.mark.parametrize("has_amx", [True, False])
def test_bfloat16_is_multiplied_where_the_processor_does(
    has_amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx, raising=False)
    weight = draw(6, 4)
    rounded = build_linear(weight, None, torch.bfloat16)
    # float16 weights at 2 bytes would be kept in whole blocks.
    assert (layer_bytes(rounded) == 6 * 4 * 2) is has_amx
    assert layer_bytes(build_linear(weight, None, torch.float32)) == 6 * 4 * 4


@pytest.mark.skipif(not linear.has_fbgemm(), reason="this torch has no FBGEMM")
def test_memory_is_counted_in_whole_blocks() -> None:
    layer = build_linear(torch.ones(33, 513), None, torch.float32)
    assert layer_bytes(layer) == 2 * 48 * 1024


def test_a_module_s_memory_is_that_of_its_parameters() -> None:
    assert layer_bytes(torch.nn.Linear(3, 4)) == 4 * (3 * 4 + 4)
