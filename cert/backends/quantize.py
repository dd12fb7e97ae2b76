"""Weights in 8 or 4 bits: what is used where.

| device | 8bit | 4bit |
|---|---|---|
| GPU | bitsandbytes LLM.int8 | bitsandbytes NF4 |
| CPU | `Int8Linear` | bitsandbytes NF4 |

Embeddings, norms and biases keep their type. On a CPU the projection to the vocabulary is quantized
too, since most of the time goes there; bitsandbytes leaves it, as transformers does.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from cert.backends.int8_linear import Int8Linear
from cert.core.errors import ConfigurationError
from cert.core.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUANTIZATIONS = ("none", "8bit", "4bit")


def quantize_model(model: torch.nn.Module, quantize: str, device: torch.device) -> str | None:
    """Replace a model's linear layers by quantized ones; the model is changed in place.

    Args:
        model: On the CPU. Quantized layers are moved to `device` one by one, the rest is left to
            the caller; so the model never lies there unquantized.
        quantize: `none`, `8bit` or `4bit`.
        device: Where the model will run.

    Returns:
        What the record says: None, `dynamic-int8`, `bitsandbytes-int8` or `bitsandbytes-nf4`.

    Raises:
        ConfigurationError: There is no such quantization, or not on this machine.
        MissingExtraError: bitsandbytes is not installed.
    """
    if quantize not in QUANTIZATIONS:
        message = f"there is no quantization {quantize!r}"
        raise ConfigurationError(message, hint=f"use --quantize {', '.join(QUANTIZATIONS)}")
    if quantize == "none":
        return None
    if quantize == "8bit" and device.type == "cpu":
        if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            raise ConfigurationError("this torch has no oneDNN: --quantize 8bit cannot run here")
        _replace(model, Int8Linear, keep=None)
        return "dynamic-int8"
    library = _import_bitsandbytes()
    head = _head(model)
    if quantize == "8bit":
        _replace(model, partial(_llm_int8, library, device), keep=head)
        return "bitsandbytes-int8"
    _replace(model, partial(_nf4, library, device), keep=head)
    return "bitsandbytes-nf4"


def quantized_bytes(model: torch.nn.Module) -> int:
    """Memory of packed weights that are neither parameters nor buffers of the model."""
    return sum(layer.weight_bytes for layer in model.modules() if isinstance(layer, Int8Linear))


def _head(model: torch.nn.Module) -> torch.nn.Module | None:
    find: Any = getattr(model, "get_output_embeddings", None)
    head: torch.nn.Module | None = find() if find is not None else None
    return head


def _replace(
    model: torch.nn.Module,
    build: Callable[[torch.Tensor, torch.Tensor | None], torch.nn.Module],
    *,
    keep: torch.nn.Module | None,
) -> None:
    """Replace every linear layer but one; a layer's old weights are freed as it goes."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            weight = _weight_of(child)
            if weight is not None and child is not keep:
                bias: torch.Tensor | None = getattr(child, "bias", None)
                setattr(parent, name, build(weight, bias).eval())


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
