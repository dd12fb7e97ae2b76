"""Opening and reading the files of a model folder that nobody vouches for.

Every file is a regular one of a bounded size before a byte of it is read; JSON is read strictly.
Links are followed: a snapshot in a hub's cache is made of them.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from cert.core.errors import ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    import io
    from pathlib import Path

_LFS_POINTER = b"version https://git-lfs"

MAX_JSON_DEPTH = 64
"""Deeper nesting than any configuration has."""


def open_regular(path: Path, *, max_bytes: int | None = None) -> io.BufferedReader:
    """Open a file for reading, if it is one, and is no larger than allowed.

    Raises:
        ModelUnavailableError: It does not exist, cannot be read, or is a Git LFS pointer.
        ModelRefusedError: It is a pipe, a device or a folder, or too large.
    """
    try:
        # Without O_NONBLOCK, opening a pipe nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise ModelUnavailableError(message) from error
    try:
        _check_content(path, descriptor, max_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check_content(path: Path, descriptor: int, max_bytes: int | None) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a regular file"
        raise ModelRefusedError(message)
    size = status.st_size
    if max_bytes is not None and size > max_bytes:
        message = f"{path} has {size} bytes; at most {max_bytes} are read"
        raise ModelRefusedError(message)
    if os.pread(descriptor, len(_LFS_POINTER), 0) == _LFS_POINTER:
        message = f"{path} is a Git LFS pointer: the content itself was never fetched"
        raise ModelUnavailableError(message, hint="run `git lfs pull` in the model's repository")


def read_text(path: Path, *, max_bytes: int) -> str:
    """Read a UTF-8 text file.

    Raises:
        ModelUnavailableError, ModelRefusedError: See `open_regular`; or it is not UTF-8.
    """
    with open_regular(path, max_bytes=max_bytes) as file:
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 (byte {error.start})"
        raise ModelUnavailableError(message) from error


def read_json_object(path: Path, *, max_bytes: int) -> dict[str, object]:
    """Read a JSON object that is nested no deeper than `MAX_JSON_DEPTH`.

    Raises:
        ModelUnavailableError, ModelRefusedError: See `read_text` and `parse_json_object`.
    """
    document = parse_json_object(read_text(path, max_bytes=max_bytes), source=str(path))
    if _depth_exceeds(document, MAX_JSON_DEPTH):
        raise _too_deep(str(path))
    return document


def parse_json_object(text: str, *, source: str) -> dict[str, object]:
    """Parse a JSON object in which no name is given twice.

    Two readers of a file with a name given twice may see two different models.

    Raises:
        ModelRefusedError: A name is given twice, or the nesting is too deep to be parsed.
        ModelUnavailableError: It is no JSON, or no object.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except _RefusedJsonError as error:
        message = f"{source}: {error}"
        raise ModelRefusedError(message) from error
    except RecursionError as error:
        raise _too_deep(source) from error
    except ValueError as error:
        message = f"{source} is no JSON: {error}"
        raise ModelUnavailableError(message) from error
    if not isinstance(value, dict):
        message = f"{source} holds no JSON object"
        raise ModelUnavailableError(message)
    return value


class _RefusedJsonError(Exception):
    """JSON that can be parsed and is not taken."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            message = f"{printable(name)} is given twice"
            raise _RefusedJsonError(message)
        result[name] = value
    return result


def _depth_exceeds(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_depth_exceeds(item, depth - 1) for item in items)


def _too_deep(source: str) -> ModelRefusedError:
    message = f"{source}: nested deeper than {MAX_JSON_DEPTH}"
    return ModelRefusedError(message)


def printable(text: str, limit: int = 80) -> str:
    r"""Quote a name from an untrusted file so that a terminal shows it and does not obey it.

    >>> printable("a\x1b[31m")
    "'a\\x1b[31m'"
    """
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def one_line(error: BaseException, limit: int = 300) -> str:
    r"""Quote a library's error, which may run over many lines and repeat what a file says.

    >>> one_line(ValueError("a\nb"))
    'ValueError: a b'
    """
    text = " ".join(str(error).split())
    shown = "".join(char if char.isprintable() else "?" for char in text[:limit])
    return f"{type(error).__name__}: {shown}"
