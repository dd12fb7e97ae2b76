"""From a checked folder to a model in memory, with its identity.

    folder -> digests (in the background) -> tensors -> our decoder, or transformers -> device

Our decoder runs the families that it knows; transformers' model classes run everything else.
transformers is given the parsed configuration and the tensors, never the folder:
so it opens no file of it, and adapters, kernels or code that a folder could name are out of its
reach. It is not imported where it is not needed.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from cert.backends.config_values import NotHandledError
from cert.backends.decoder import Decoder
from cert.backends.decoder_config import read_config
from cert.backends.decoder_weights import tensor_names
from cert.backends.manifest import hash_files, manifest_digest
from cert.backends.model_files import one_line
from cert.backends.protocol import ModelIdentity
from cert.backends.quantize import choose_quantization, swap_layers
from cert.backends.self_check import self_check
from cert.backends.tokenization import Tokenization, load_tokenization
from cert.core.errors import (
    ConfigurationError,
    GPUOutOfMemoryError,
    ModelRefusedError,
    ModelUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.backends.causal_lm import CausalLM
    from cert.backends.folder import ModelFolder
    from cert.backends.quantize import Quantization
    from cert.backends.transformers_lm import TransformersLM

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_one_at_a_time = threading.Lock()
"""transformers keeps what it loads in globals: of two at once both may fail, and any later one."""
_LIBRARIES = ("torch", "tokenizers", "safetensors")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: Its forward passes; no parameter requires a gradient.
        identity: What it is.
        tokenization: How it reads and writes.
    """

    model: CausalLM
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
    own_decoder: bool = True,
) -> LoadedModel:
    """Load a model.

    Args:
        folder: By `inspect_folder`.
        name: As the user called it; part of the identity.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        dtype: Of the computation: `float32`, `bfloat16`, `float16`, or `auto`, which is float32
            on a CPU (whatever the file holds) and the file's own type on a GPU.
        quantize: `none`, `8bit` or `4bit`; see `choose_quantization`.
        expect_digest: Load nothing that has another digest.
        own_decoder: False leaves every model to transformers, for comparisons.

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
        quantization = choose_quantization(quantize, target, compute)
        model: Decoder | TransformersLM | None = None
        with _memory_errors(target):
            if own_decoder:
                model = _own_decoder(folder, quantization)
            if model is None:
                model = _with_transformers(folder, quantization)
        files = hashing.result()
    if _fingerprints(folder) != before:
        message = f"{folder.path} changed while it was loaded"
        raise ModelRefusedError(message)
    tokenization = load_tokenization(
        folder,
        vocab_size=model.vocab_size,
        files={name: files[name] for name in folder.tokenizer_files},
    )
    identity = ModelIdentity(
        name=name,
        digest=manifest_digest(files),
        tokenizer_digest=tokenization.digest,
        files=files,
        architecture=model.architecture,
        dtype=str(compute).removeprefix("torch."),
        device=str(model.device),
        quantization=quantization.name,
        attention=model.attention,
        vocab_size=model.vocab_size,
        max_context_tokens=model.max_context_tokens,
        parameters=model.parameter_count,
        versions=_versions(
            quantization.name,
            uses_transformers=not isinstance(model, Decoder) or tokenization.through_transformers,
        ),
    )
    if not isinstance(model, Decoder):
        self_check(model, identity)
    _give_memory_back()
    return LoadedModel(model, identity, tokenization)


def _give_memory_back() -> None:
    """What laying weights out took for a moment; glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _own_decoder(folder: ModelFolder, quantization: Quantization) -> Decoder | None:
    """Our decoder, or None where it does not run this folder."""
    try:
        config = read_config(folder)
        names = tensor_names(folder, config)
    except NotHandledError as reason:
        logger.debug("%s is left to transformers: %s", folder.path, reason)
        return None
    tensors = _read_tensors(folder)
    return Decoder(config, {name: tensors[stored] for name, stored in names.items()}, quantization)


def _with_transformers(folder: ModelFolder, quantization: Quantization) -> TransformersLM:
    """A model of transformers, its linear layers replaced where that is faster or asked for."""
    # Together more than a second, which our own decoder does without.
    from cert.backends.model_class import build_config, build_model, find_model_class  # noqa: PLC0415
    from cert.backends.transformers_lm import TransformersLM  # noqa: PLC0415

    def build(*, swaps: bool) -> TransformersLM:
        with _one_at_a_time:
            config = build_config(folder)
            model_class = find_model_class(folder, config)
            tensors = _read_tensors(folder)
            model = build_model(model_class, config, tensors, quantization.dtype, str(folder.path))
        parameters = model.num_parameters()
        if swaps:
            swap_layers(model, quantization)
        torch.nn.Module.to(model, quantization.device)
        model.train(mode=False).requires_grad_(requires_grad=False)
        return TransformersLM(model, parameters=parameters)

    built = build(swaps=True)
    if quantization.name is None and not _runs(built):
        logger.debug("%s uses its weights otherwise: they stay as they are", folder.path)
        return build(swaps=False)
    return built


def _runs(model: TransformersLM) -> bool:
    """Whether a forward pass finds everything in the place where the model looks for it."""
    try:
        with torch.inference_mode():
            model.head(model.hidden([[0, 0]], [0]))
    except AttributeError:
        return False
    return True


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


def _versions(quantization: str | None, *, uses_transformers: bool) -> dict[str, str]:
    libraries = list(_LIBRARIES)
    if uses_transformers:
        libraries.append("transformers")
    if "bitsandbytes" in (quantization or ""):
        libraries.append("bitsandbytes")
    found = {library: metadata.version(library) for library in libraries}
    return {"python": platform.python_version(), **found}
