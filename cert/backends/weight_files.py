"""Which files of a folder hold its weights, and what their headers say.

Tensors lie in one `model.safetensors`, or in several files that `model.safetensors.index.json`
lists; where both are there the single file counts, as for transformers.
"""

from __future__ import annotations

import re
from pathlib import Path

from cert.backends.model_files import printable, read_json_object
from cert.backends.safetensors_header import MAX_TENSORS, TensorEntry, read_header
from cert.core.errors import ModelRefusedError, ModelUnavailableError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

MAX_INDEX_BYTES = 16 * 2**20
MAX_WEIGHT_FILES = 2_000

_PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_OTHER_WEIGHTS = frozenset({".gguf", ".h5", ".msgpack", ".onnx"})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def list_weights(path: Path, names: frozenset[str]) -> dict[str, tuple[TensorEntry, ...]]:
    """Find the weights files of a folder and check their headers.

    Args:
        path: The folder.
        names: What lies in it.

    Returns:
        Tensors by file name, files in the order of loading.

    Raises:
        ModelUnavailableError: There are none, or one is missing or cut off.
        ModelRefusedError: There are only pickled ones; a header is not consistent; or the index
            names a file elsewhere or does not say what the files hold.
    """
    if WEIGHTS_FILE in names:
        return {WEIGHTS_FILE: read_header(path / WEIGHTS_FILE)}
    if INDEX_FILE in names:
        return _shards(path, names)
    for suffixes, hint in (
        (_PICKLED, "pickled weights can run code when they are read; convert them to safetensors"),
        (_OTHER_WEIGHTS, "this version reads safetensors"),
    ):
        found = sorted(name for name in names if Path(name).suffix.lower() in suffixes)
        if found:
            message = f"{path} has no {WEIGHTS_FILE}, and {printable(found[0])} is refused"
            raise ModelRefusedError(message, hint=hint)
    message = f"{path} has neither {WEIGHTS_FILE} nor {INDEX_FILE}"
    raise ModelUnavailableError(message)


def _shards(path: Path, names: frozenset[str]) -> dict[str, tuple[TensorEntry, ...]]:
    source = path / INDEX_FILE
    weight_map = read_json_object(source, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        message = f"{source} has no weight_map"
        raise ModelUnavailableError(message)
    if len(weight_map) > MAX_TENSORS:
        message = f"{source} lists {len(weight_map)} tensors; at most {MAX_TENSORS} are read"
        raise ModelRefusedError(message)
    files = sorted({_shard_name(value, source) for value in weight_map.values()})
    if len(files) > MAX_WEIGHT_FILES:
        message = f"{source} lists {len(files)} files; at most {MAX_WEIGHT_FILES} are read"
        raise ModelRefusedError(message)
    for name in files:
        if name not in names:
            message = f"{source} lists {name}, which is missing"
            raise ModelUnavailableError(message)
    shards = {name: read_header(path / name) for name in files}
    homes: dict[str, str] = {}
    for file, tensors in shards.items():
        for tensor in tensors:
            if weight_map.get(tensor.name) != file:
                message = f"{path / file} holds {tensor.name}, which {INDEX_FILE} places elsewhere"
                raise ModelRefusedError(message)
            homes[tensor.name] = file
    missing = sorted(set(weight_map) - set(homes))
    if missing:
        message = f"{source} lists {printable(missing[0])}, which no file holds"
        raise ModelRefusedError(message)
    return shards


def _shard_name(value: object, source: Path) -> str:
    if (
        not isinstance(value, str)
        or not _PLAIN_NAME.fullmatch(value)
        or not value.endswith(".safetensors")
    ):
        message = f"{source}: {printable(str(value))} is no name of a safetensors file beside it"
        raise ModelRefusedError(message)
    return value
