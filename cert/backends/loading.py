"""From a checked folder to a model in memory, with its identity.

    folder -> digests (in the background) -> tensors -> transformers' model class -> device

transformers is given the parsed configuration and the tensors, never the folder: so it opens no
file of it, and adapters, kernels or code that a folder could name are out of its reach.
"""

from __future__ import annotations

import platform
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from cert.backends.manifest import hash_files, manifest_digest
from cert.backends.model_class import build_config, build_model, find_model_class
from cert.backends.model_files import one_line
from cert.backends.protocol import ModelIdentity
from cert.backends.quantize import quantize_model
from cert.backends.tokenization import Tokenization, load_tokenization
from cert.core.errors import (
    ConfigurationError,
    GPUOutOfMemoryError,
    ModelRefusedError,
    ModelUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from cert.backends.folder import ModelFolder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNLIMITED_CONTEXT_TOKENS = 2**31 - 1
"""Recorded for architectures whose configuration states no limit."""

_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_one_at_a_time = threading.Lock()
"""transformers keeps what it loads in globals: of two at once both may fail, and any later one."""
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: In evaluation mode; no parameter requires a gradient.
        identity: What it is.
        tokenization: How it reads and writes.
    """

    model: PreTrainedModel
    identity: ModelIdentity
    tokenization: Tokenization


def load_model(  # noqa: PLR0913 - one keyword an option
    folder: ModelFolder,
    *,
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "none",
    expect_digest: str | None = None,
) -> LoadedModel:
    """Load a model.

    Args:
        folder: By `inspect_folder`.
        name: As the user called it; part of the identity.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        dtype: Of the computation: `float32`, `bfloat16`, `float16`, or `auto`, which is float32
            on a CPU (whatever the file holds) and the file's own type on a GPU.
        quantize: `none`, `8bit` or `4bit`; see `quantize_model`.
        expect_digest: Load nothing that has another digest.

    Raises:
        ConfigurationError: The device, dtype or quantization does not exist here.
        ModelUnavailableError: The architecture is unknown, or a file cannot be read.
        ModelRefusedError: The digest is another one; the tensors are not those of the
            architecture; or the files changed while they were read.
        MissingExtraError: Quantization needs a library that is not installed.
        GPUOutOfMemoryError: The GPU is too small.
    """
    target = _device(device)
    compute = _dtype(dtype, target, folder)
    before = _fingerprints(folder)
    with ThreadPoolExecutor(1, thread_name_prefix="cert-manifest") as pool:
        names = (*folder.model_files, *folder.tokenizer_files)
        hashing = pool.submit(hash_files, folder.path, names)
        if expect_digest is not None:
            _check_digest(manifest_digest(hashing.result()), expect_digest, folder)
        with _one_at_a_time:
            config = build_config(folder)
            model_class = find_model_class(folder, config)
            tensors = _read_tensors(folder)
            model = build_model(model_class, config, tensors, compute, str(folder.path))
        files = hashing.result()
    if _fingerprints(folder) != before:
        message = f"{folder.path} changed while it was loaded"
        raise ModelRefusedError(message)
    parameters = model.num_parameters()
    vocab_size = _vocab_size(model)
    with _memory_errors(target):
        quantization = quantize_model(model, quantize, target)
        torch.nn.Module.to(model, target)
    model.train(mode=False).requires_grad_(requires_grad=False)
    tokenization = load_tokenization(
        folder,
        vocab_size=vocab_size,
        files={name: files[name] for name in folder.tokenizer_files},
    )
    identity = ModelIdentity(
        name=name,
        digest=manifest_digest(files),
        tokenizer_digest=tokenization.digest,
        files=files,
        architecture=type(model).__name__,
        dtype=str(compute).removeprefix("torch."),
        device=str(next(model.parameters()).device),
        quantization=quantization,
        attention=str(model.config._attn_implementation),  # noqa: SLF001 - it has no other name
        vocab_size=vocab_size,
        max_context_tokens=_max_context(model),
        parameters=parameters,
        versions=_versions(quantization),
    )
    return LoadedModel(model, identity, tokenization)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        message = f"there is no device {device!r}"
        raise ConfigurationError(message, hint="use --device auto, cpu or cuda") from error
    if target.type not in {"cpu", "cuda"}:
        message = f"the device {device!r} is not supported"
        raise ConfigurationError(message, hint="use --device auto, cpu or cuda")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        message = f"there is no device {device!r}: torch sees {torch.cuda.device_count()} GPUs"
        raise ConfigurationError(message, hint="use --device auto or --device cpu")
    return target


def _dtype(dtype: str, device: torch.device, folder: ModelFolder) -> torch.dtype:
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        return DTYPES.get(stored_dtype(folder), torch.float32)
    if dtype not in DTYPES:
        message = f"there is no dtype {dtype!r}"
        raise ConfigurationError(message, hint=f"use --dtype auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def stored_dtype(folder: ModelFolder) -> str:
    """Find the floating-point type that most of the weights are stored in."""
    sizes: Counter[str] = Counter()
    for tensors in folder.weights.values():
        for tensor in tensors:
            sizes[tensor.dtype] += tensor.elements
    floating = [(size, name) for name, size in sizes.items() if name in _STORED]
    if not floating:
        message = f"{folder.path} holds no floating-point weights"
        raise ModelUnavailableError(message)
    return _STORED[max(floating)[1]]


def _check_digest(digest: str, expected: str, folder: ModelFolder) -> None:
    if digest != expected:
        message = f"{folder.path} has the digest {digest}, expected {expected}"
        raise ModelRefusedError(message)


def _fingerprints(folder: ModelFolder) -> list[tuple[int, int, int, int]]:
    """Which files these are, as far as the file system tells: inode, size, last change."""
    states = [
        (folder.path / name).stat() for name in (*folder.model_files, *folder.tokenizer_files)
    ]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in states]


def _read_tensors(folder: ModelFolder) -> dict[str, torch.Tensor]:
    """Map the weights into memory; pages are read when they are used."""
    tensors: dict[str, torch.Tensor] = {}
    for file, entries in folder.weights.items():
        path = folder.path / file
        try:
            with safe_open(path, framework="pt") as opened:
                for entry in entries:
                    tensors[entry.name] = opened.get_tensor(entry.name)
        except Exception as error:  # the library's error class differs between its versions
            message = f"{path}: {one_line(error)}"
            raise ModelUnavailableError(message) from error
    return tensors


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        message = f"the model does not fit on {device}: {one_line(error)}"
        raise GPUOutOfMemoryError(message) from error


def _vocab_size(model: PreTrainedModel) -> int:
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return int(head.weight.shape[0])


def _max_context(model: PreTrainedModel) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else UNLIMITED_CONTEXT_TOKENS


def _versions(quantization: str | None) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        if library == "bitsandbytes" and "bitsandbytes" not in (quantization or ""):
            continue
        versions[library] = metadata.version(library)
    return versions
