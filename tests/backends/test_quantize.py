"""Quantized layers: known answers, rows that don't see each other, and the error in the signals."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from model_factory import FAMILIES, build_tiny_model

from cert.backends import int8_linear, quantize
from cert.backends.folder import inspect_folder
from cert.backends.int8_linear import Int8Linear
from cert.backends.loading import load_model
from cert.backends.quantize import (
    _import_bitsandbytes,
    _llm_int8,
    _nf4,
    _without_kernels,
    built_bytes,
    choose_quantization,
    swap_layers,
)
from cert.backends.transformers_lm import TransformersLM
from cert.core.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from cert.backends.loading import LoadedModel

CPU = torch.device("cpu")

INT8_MEAN_NATS = 0.04
INT8_MAX_NATS = 0.2
NF4_MEAN_NATS = 0.35
"""Errors of surprisals allowed on random models of width 64. Measured: 8 bits 0.012 to 0.020 in the
mean, 0.09 at most; 4 bits 0.12 to 0.19 in the mean (bfloat16 for comparison: 0.009)."""


def load(folder: Path, quantize: str, dtype: str = "auto") -> LoadedModel:
    return load_model(
        inspect_folder(folder),
        name="tiny",
        device="cpu",
        dtype=dtype,
        quantize=quantize,
        own_decoder=False,
    )


def inside(loaded: LoadedModel) -> PreTrainedModel:
    assert isinstance(loaded.model, TransformersLM)
    return loaded.model.model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the layer


def test_products_that_8_bits_hold_are_exact() -> None:
    weight = torch.tensor([[127.0, -1.0, 0.0], [2.0, 127.0, 64.0]])
    bias = torch.tensor([0.5, -0.25])
    levels = float(int8_linear.activation_levels())
    x = torch.tensor([[levels, 3.0, -7.0], [-1.0, levels, 0.0]])
    expected = x @ weight.T + bias
    assert torch.allclose(Int8Linear(weight, bias)(x), expected, rtol=1e-6)
    assert torch.allclose(Int8Linear(weight, None)(x), expected - bias, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (30, 7), (96, 33), (300, 64), (5, 257)])
@pytest.mark.parametrize("levels", [127, 63])
def test_the_error_is_that_of_rounding(
    shape: tuple[int, int], levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if levels > int8_linear.activation_levels():
        pytest.skip("this processor has no VNNI: so many levels overflow")
    monkeypatch.setattr(int8_linear, "activation_levels", lambda: levels)
    outputs, inputs = shape
    weight, bias, x = draw(outputs, inputs), draw(outputs, seed=1), draw(9, inputs, seed=2)
    exact = x.double() @ weight.double().T + bias.double()
    error = (Int8Linear(weight, bias)(x).double() - exact).abs()
    half_x = x.abs().amax(1, keepdim=True).double() / levels / 2
    half_w = weight.abs().amax(1).double() / 127 / 2
    bound = half_x * weight.abs().sum(1).double() + half_w * x.abs().sum(1, keepdim=True).double()
    bound += inputs * half_x * half_w + 1e-4
    assert (error <= bound).all()


def test_a_transposed_weight_is_the_same_weight() -> None:
    weight, x = draw(64, 300), draw(3, 64, seed=1)
    expected = Int8Linear(weight.T.contiguous(), None)(x)
    assert torch.equal(Int8Linear(weight.T, None)(x), expected)


def test_a_row_does_not_depend_on_its_neighbours_to_the_last_bit() -> None:
    layer = Int8Linear(draw(300, 64), draw(300, seed=1))
    x = draw(64, 64, seed=2)
    x[3] *= 1_000
    together = layer(x)
    for row in (0, 3, 40):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])
    assert torch.equal(layer(x[:17]), together[:17])
    assert torch.equal(layer(x.reshape(4, 16, 64)), together.reshape(4, 16, 300))


def test_the_extremes_of_a_row_do_not_overflow() -> None:
    layer = Int8Linear(torch.ones(4, 4096), None)
    assert torch.allclose(layer(torch.ones(2, 4096)), torch.full((2, 4), 4096.0))
    assert torch.allclose(layer(-torch.ones(2, 4096)), torch.full((2, 4), -4096.0))


def test_zeros_give_the_bias() -> None:
    bias = draw(8)
    assert torch.equal(Int8Linear(draw(8, 16), bias)(torch.zeros(3, 16)), bias.expand(3, 8))
    assert torch.equal(Int8Linear(torch.zeros(8, 16), bias)(draw(3, 16)), bias.expand(3, 8))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_none_in_its_row_alone(bad: float) -> None:
    layer = Int8Linear(draw(8, 16), None)
    x = draw(3, 16)
    expected = layer(x)
    x[1, 5] = bad
    result = layer(x)
    assert not result[1].isfinite().any()
    assert torch.equal(result[[0, 2]], expected[[0, 2]])


def test_the_input_type_is_kept() -> None:
    layer = Int8Linear(draw(8, 16).bfloat16(), draw(8))
    assert layer(draw(2, 16).bfloat16()).dtype is torch.bfloat16
    assert repr(layer) == "Int8Linear(in_features=16, out_features=8)"


def test_the_first_layer_says_nothing_on_stderr() -> None:
    program = "import torch; from cert.backends.int8_linear import Int8Linear as I; "
    program += "print(I(torch.eye(2), None)(torch.ones(1, 2)).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == "[[1.0, 1.0]]\n"


# --- models


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param) / "model"
    return build_tiny_model(place, request.param, hidden_size=64, intermediate_size=128, scale=0.1)


@torch.inference_mode()
def surprisals(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.randint(300, (4, 40), generator=torch.Generator().manual_seed(3))
    logprobs = inside(loaded)(input_ids=ids).logits.float().log_softmax(-1)
    return -logprobs[:, :-1].gather(-1, ids[:, 1:, None])


def linear_layers(model: torch.nn.Module) -> list[str]:
    kinds = [type(module).__name__ for module in model.modules()]
    return [kind for kind in kinds if "Linear" in kind or kind == "Conv1D"]


def test_8_bits_on_a_cpu(folder: Path) -> None:
    exact, loaded = load(folder, "none"), load(folder, "8bit")
    error = (surprisals(loaded) - surprisals(exact)).abs()
    assert 0 < error.mean() < INT8_MEAN_NATS
    assert error.max() < INT8_MAX_NATS
    assert set(linear_layers(inside(loaded))) == {"Int8Linear"}
    assert len(linear_layers(inside(loaded))) == len(linear_layers(inside(exact)))
    assert set(linear_layers(inside(exact))) == {"BuiltLinear"}
    assert loaded.identity.quantization == "dynamic-int8"
    assert loaded.identity.parameters == exact.identity.parameters
    assert loaded.identity.vocab_size == 300
    assert 0 < built_bytes(inside(loaded)) <= built_bytes(inside(exact)) / 2


def test_4_bits_on_a_cpu(folder: Path) -> None:
    exact, loaded = load(folder, "none"), load(folder, "4bit")
    error = (surprisals(loaded) - surprisals(exact)).abs()
    assert 0 < error.mean() < NF4_MEAN_NATS
    assert loaded.identity.quantization == "bitsandbytes-nf4"
    assert "bitsandbytes" in loaded.identity.versions
    kinds = linear_layers(inside(loaded))
    assert kinds.count("Linear") == 1  # the projection to the vocabulary
    assert set(kinds) == {"Linear", "Linear4bit"}


def test_tied_embeddings_stay_exact_beside_a_quantized_projection(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", tie_embeddings=True)
    exact, loaded = load(folder, "none"), load(folder, "8bit")
    embedding = inside(loaded).get_input_embeddings().weight
    assert torch.equal(embedding, inside(exact).get_input_embeddings().weight)
    assert torch.isfinite(surprisals(loaded)).all()


def test_8_bits_over_bfloat16(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "qwen2")
    loaded = load(folder, "8bit", dtype="bfloat16")
    assert loaded.identity.dtype == "bfloat16"
    assert torch.isfinite(surprisals(loaded)).all()


@pytest.mark.parametrize("bias", [None, draw(96, seed=1)])
def test_the_layers_for_a_gpu_hold_the_weights(bias: torch.Tensor | None) -> None:
    """bitsandbytes runs them on a CPU, too."""
    library, weight, x = _import_bitsandbytes(), draw(96, 64), draw(5, 64, seed=2)
    exact = torch.nn.functional.linear(x, weight, bias)
    for build, kind, bound in ((_llm_int8, torch.int8, 0.3), (_nf4, torch.uint8, 3.0)):
        layer = build(library, CPU, weight, bias).eval()
        assert layer.weight.dtype is kind
        with torch.inference_mode():
            assert 0 < (layer(x) - exact).abs().max() < bound


def test_other_words_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="there is no quantization '2bit'"):
        choose_quantization("2bit", CPU, torch.float32)


def test_on_a_gpu_nothing_is_replaced_unasked() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    swap_layers(model, choose_quantization("none", torch.device("cuda"), torch.float32))
    assert type(model[0]) is torch.nn.Linear


def test_quantized_weights_do_not_leave_the_gpu() -> None:
    plain = choose_quantization("none", torch.device("cuda"), torch.bfloat16).on_cpu()
    assert (plain.device, plain.name, plain.dtype) == (CPU, None, torch.bfloat16)
    with pytest.raises(ConfigurationError, match="do not leave the GPU"):
        choose_quantization("8bit", torch.device("cuda"), torch.bfloat16).on_cpu()


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="needs bitsandbytes") as caught:
        choose_quantization("4bit", CPU, torch.float32)
    assert caught.value.hint == "pip install 'cert-framework[quantize]'"


def test_without_onednn_8_bits_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "has_fbgemm", lambda: False)
    with pytest.raises(ConfigurationError, match="no FBGEMM"):
        choose_quantization("8bit", CPU, torch.float32)


def test_bitsandbytes_is_kept_from_asking_a_hub_for_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    kernels = ModuleType("kernels")
    kernels.get_kernel = asked.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    with _without_kernels(), pytest.raises(ImportError):
        import_module("kernels")
    assert sys.modules["kernels"] is kernels
    assert not asked
    assert logging.getLogger("bitsandbytes").level == logging.ERROR
