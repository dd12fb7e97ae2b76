"""The header of a safetensors file, parsed and checked before anything else reads the file.

    8 bytes   N, little-endian
    N bytes   JSON: {"name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...}
    the rest  the tensors, one after the other

The checks are stricter than the library's: a name given twice, control characters in a name and
any number of tensors pass there.

Source: https://github.com/huggingface/safetensors (format).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.backends.model_files import open_regular, parse_json_object, printable
from cert.core.errors import ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
MAX_PARSED_HEADER_BYTES = 16 * 2**20
"""Parsing takes several times the memory of the text; no known model has a fifth of this."""
MAX_TENSORS = 100_000
MAX_NAME_CHARS = 256
MAX_RANK = 8

_LENGTH_BYTES = 8
_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
    "I64": 8,
    "F64": 8,
}
_FOREIGN_STARTS = {
    b"PK\x03\x04": "a ZIP archive, as torch.save writes (pickled code inside)",
    b"\x80": "a pickle",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the header describes it; offsets count from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[TensorEntry, ...]:
    """Read and check a file's header; nothing is allocated for the tensors.

    Returns:
        The tensors in the order of their bytes. Together they fill the file exactly.

    Raises:
        ModelRefusedError: The file is no safetensors file, or is not consistent in itself.
        ModelUnavailableError: It is cut off, cannot be read, or uses a type not supported here.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_LENGTH_BYTES)
        for magic, what in _FOREIGN_STARTS.items():
            if start.startswith(magic) and not _is_plausible_length(start, size):
                message = f"{path} is {what}, not a safetensors file"
                raise ModelRefusedError(message)
        if len(start) < _LENGTH_BYTES:
            message = f"{path} is cut off: {size} bytes"
            raise ModelUnavailableError(message)
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER_BYTES:
            message = f"{path}: header of {length} bytes; the format allows {MAX_HEADER_BYTES}"
            raise ModelRefusedError(message)
        if length > size - _LENGTH_BYTES:
            message = f"{path} is cut off: header of {length} bytes in a file of {size}"
            raise ModelUnavailableError(message)
        if length > MAX_PARSED_HEADER_BYTES:
            message = (
                f"{path}: header of {length} bytes; {MAX_PARSED_HEADER_BYTES} are read at most"
            )
            raise ModelRefusedError(message)
        header = file.read(length)
    return parse_header(header, data_bytes=size - _LENGTH_BYTES - length, source=str(path))


def _is_plausible_length(start: bytes, size: int) -> bool:
    return len(start) == _LENGTH_BYTES and int.from_bytes(start, "little") <= size - _LENGTH_BYTES


def parse_header(header: bytes, *, data_bytes: int, source: str) -> tuple[TensorEntry, ...]:
    """Check a header against the number of bytes that follow it; see `read_header`."""
    if not header.startswith(b"{"):
        message = f"{source} is no safetensors file: its header does not start with a brace"
        raise ModelRefusedError(message)
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{source}: the header is not UTF-8 (byte {error.start})"
        raise ModelRefusedError(message) from error
    entries = parse_json_object(text, source=f"{source} (header)")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        message = f"{source}: the header's __metadata__ maps no names to texts"
        raise ModelRefusedError(message)
    if len(entries) > MAX_TENSORS:
        message = f"{source} holds {len(entries)} tensors; at most {MAX_TENSORS} are read"
        raise ModelRefusedError(message)
    tensors = [_entry(name, entry, source) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_layout(tensors, data_bytes, source)
    return tuple(tensors)


def _entry(name: str, entry: object, source: str) -> TensorEntry:
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        message = f"{source}: {printable(name)} is no name for a tensor"
        raise ModelRefusedError(message)
    fields = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != fields:
        message = f"{source}: {name} has other fields than dtype, shape and data_offsets"
        raise ModelRefusedError(message)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        message = f"{source}: {name} is stored as {printable(str(dtype))}, which is not supported"
        raise ModelUnavailableError(message)
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        message = f"{source}: {name} has no valid shape"
        raise ModelRefusedError(message)
    if not _are_sizes(offsets) or len(offsets) != len(("begin", "end")):
        message = f"{source}: {name} has no valid data_offsets"
        raise ModelRefusedError(message)
    tensor = TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * _ITEM_BYTES[dtype] != tensor.end - tensor.begin:
        message = (
            f"{source}: {name} has the shape {list(shape)} in {dtype} "
            f"but {tensor.end - tensor.begin} bytes"
        )
        raise ModelRefusedError(message[:500])
    return tensor


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 2**63 for item in value
    )


def _check_layout(tensors: list[TensorEntry], data_bytes: int, source: str) -> None:
    place = 0
    for tensor in tensors:
        if tensor.begin != place:
            problem = "overlaps the one before it" if tensor.begin < place else "follows a gap"
            message = f"{source}: {tensor.name} {problem} (byte {tensor.begin}, expected {place})"
            raise ModelRefusedError(message)
        place = tensor.end
    if place > data_bytes:
        message = f"{source} is cut off: {data_bytes} bytes of {place}"
        raise ModelUnavailableError(message)
    if place < data_bytes:
        message = f"{source}: {data_bytes - place} bytes follow the last tensor"
        raise ModelRefusedError(message)
