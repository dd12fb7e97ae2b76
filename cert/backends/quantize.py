"""How the linear layers of a model are made: what is used where.

| device | none | 8bit | 4bit |
|---|---|---|---|
| GPU | as they are | bitsandbytes LLM.int8 | bitsandbytes NF4 |
| CPU | `build_linear` | `Int8Linear` | bitsandbytes NF4 |

Embeddings, norms and biases keep their type. On a CPU the projection to the vocabulary is quantized
too, since most of the time goes there; bitsandbytes leaves it, as transformers does.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cert.backends.int8_linear import Int8Linear
from cert.backends.linear import (
    Linear,
    PlainLinear,
    build_linear,
    has_fbgemm,
    layer_bytes,
)
from cert.core.errors import ConfigurationError
from cert.core.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUANTIZATIONS = ("none", "8bit", "4bit")


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the linear layers of one model are made.

    Attributes:
        name: What the record says: None, `dynamic-int8`, `bitsandbytes-int8` or `bitsandbytes-nf4`.
        device: Where the model runs.
        dtype: What the weights are rounded to first.
        build: Makes a layer there of a weight, shape (outputs, inputs), and a bias or None.
        leaves_head: Whether the projection to the vocabulary stays as it is.
    """

    name: str | None
    device: torch.device
    dtype: torch.dtype
    build: Callable[[torch.Tensor, torch.Tensor | None], Linear]
    leaves_head: bool

    def on_cpu(self) -> Quantization:
        """The same for a model that leaves the GPU.

        Raises:
            ConfigurationError: It is quantized, and would be so in another way on a CPU.
        """
        if self.name is not None:
            message = f"weights quantized by {self.name} do not leave the GPU"
            raise ConfigurationError(message)
        return choose_quantization("none", torch.device("cpu"), self.dtype)


def choose_quantization(quantize: str, device: torch.device, dtype: torch.dtype) -> Quantization:
    """Find how linear layers are made.

    Args:
        quantize: `none`, `8bit` or `4bit`.
        device: Where the model will run.
        dtype: What weights are rounded to.

    Raises:
        ConfigurationError: There is no such quantization, or not on this machine.
        MissingExtraError: bitsandbytes is not installed.
    """
    if quantize not in QUANTIZATIONS:
        message = f"there is no quantization {quantize!r}"
        raise ConfigurationError(message, hint=f"use --quantize {', '.join(QUANTIZATIONS)}")
    is_cpu = device.type == "cpu"
    if quantize == "none":
        build = _cpu_layer(dtype) if is_cpu else _gpu_layer(dtype, device)
        return Quantization(None, device, dtype, build, leaves_head=not is_cpu)
    if quantize == "8bit" and is_cpu:
        if not has_fbgemm():
            raise ConfigurationError("this torch has no FBGEMM: --quantize 8bit cannot run here")
        return Quantization("dynamic-int8", device, dtype, _int8_layer(dtype), leaves_head=False)
    library = _import_bitsandbytes()
    name, make = ("int8", _llm_int8) if quantize == "8bit" else ("nf4", _nf4)

    def build_quantized(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        rounded = None if bias is None else bias.to(dtype)
        return make(library, device, weight.to(dtype), rounded).eval()

    return Quantization(f"bitsandbytes-{name}", device, dtype, build_quantized, leaves_head=True)


def _cpu_layer(dtype: torch.dtype) -> Callable[[torch.Tensor, torch.Tensor | None], Linear]:
    return lambda weight, bias: build_linear(weight, bias, dtype)


def _int8_layer(dtype: torch.dtype) -> Callable[[torch.Tensor, torch.Tensor | None], Linear]:
    return lambda weight, bias: Int8Linear(weight.to(dtype), bias).eval()


def _gpu_layer(
    dtype: torch.dtype, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor | None], Linear]:
    def build(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        moved = None if bias is None else bias.to(device, dtype)
        return PlainLinear(weight.to(device, dtype).contiguous(), moved)

    return build


class BuiltLinear(torch.nn.Module):
    """A layer of `Quantization.build` in the place of a model's own.

    It has no attribute `weight`: a model that multiplies by it on its own must fail, not go wrong.
    """

    def __init__(self, layer: Linear, shape: torch.Size) -> None:
        """Take a layer of a weight of this shape."""
        super().__init__()
        self.out_features, self.in_features = shape
        self.weight_bytes = layer_bytes(layer)
        self._layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: shape (..., inputs) to (..., outputs), in the input's type."""
        return self._layer(x.float()).to(x.dtype)


def swap_layers(model: torch.nn.Module, quantization: Quantization) -> None:
    """Replace a model's linear layers; the model is changed in place.

    Quantized layers are moved to the device one by one, the rest is left to the caller; so the
    model never lies there unquantized. A layer's old weights are freed as it goes.

    Args:
        model: On the CPU.
        quantization: How.
    """
    if quantization.name is None and quantization.device.type != "cpu":
        return
    keep = _head(model) if quantization.leaves_head else None
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            weight = _weight_of(child)
            if weight is not None and child is not keep:
                bias: torch.Tensor | None = getattr(child, "bias", None)
                layer: Any = quantization.build(
                    weight.detach(), None if bias is None else bias.detach()
                )
                if not isinstance(layer, torch.nn.Module):
                    layer = BuiltLinear(layer, weight.shape)
                setattr(parent, name, layer.eval())


def built_bytes(model: torch.nn.Module) -> int:
    """Memory of laid out weights that are neither parameters nor buffers of the model."""
    layers = (module for module in model.modules() if isinstance(module, (Int8Linear, BuiltLinear)))
    return sum(layer.weight_bytes for layer in layers)


def _head(model: torch.nn.Module) -> torch.nn.Module | None:
    find: Any = getattr(model, "get_output_embeddings", None)
    head: torch.nn.Module | None = find() if find is not None else None
    return head


def _weight_of(layer: torch.nn.Module) -> torch.Tensor | None:
    """The weight of a linear layer, shape (outputs, inputs); None of any other layer."""
    if type(layer) is torch.nn.Linear:
        return layer.weight
    if type(layer).__name__ == "Conv1D" and isinstance(layer.weight, torch.Tensor):
        return layer.weight.T  # GPT-2's, which keeps it as (inputs, outputs)
    return None


def _import_bitsandbytes() -> Any:  # noqa: ANN401 - a module without types
    try:
        with _without_kernels():
            import bitsandbytes  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("this quantization needs bitsandbytes", "quantize") from error
    return bitsandbytes


@contextmanager
def _without_kernels() -> Iterator[None]:
    """While it is imported, bitsandbytes asks a hub for compiled code if `kernels` is there."""
    before = {"kernels": sys.modules["kernels"]} if "kernels" in sys.modules else {}
    # None is how an import is made to fail.
    sys.modules["kernels"] = None  # type: ignore[assignment]
    # It also warns about its own casts at every call of every layer.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    finally:
        del sys.modules["kernels"]
        sys.modules.update(before)


def _llm_int8(
    library: Any,  # noqa: ANN401 - a module without types
    device: torch.device,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.nn.Module:
    layer: torch.nn.Module = library.nn.Linear8bitLt(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        has_fp16_weights=False,
        device="meta",
    )
    # Moving the parameter is what quantizes it.
    layer.weight = library.nn.Int8Params(
        weight.detach().contiguous(), requires_grad=False, has_fp16_weights=False
    ).to(device)
    return _with_bias(layer, bias, device)


def _nf4(
    library: Any,  # noqa: ANN401 - a module without types
    device: torch.device,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.nn.Module:
    layer: torch.nn.Module = library.nn.Linear4bit(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        compute_dtype=weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = library.nn.Params4bit(
        weight.detach().contiguous(), requires_grad=False, quant_type="nf4", module=layer
    ).to(device)
    return _with_bias(layer, bias, device)


def _with_bias(
    layer: torch.nn.Module, bias: torch.Tensor | None, device: torch.device
) -> torch.nn.Module:
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach().to(device), requires_grad=False)
    return layer
