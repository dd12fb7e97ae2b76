"""Opens inputs with care: what is no regular file is not opened, what is no text is named."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cert.core.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

STDIN = "-"
PARQUET_MAGIC = b"PAR1"
_UTF8_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 16
_HEAD_BYTES = 6
_MIN_UTF16_CHARS = 4

_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32LE"),
    (b"\x00\x00\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
_ARCHIVES = (
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"BZh", "bzip2", "bzcat"),
    (b"\xfd7zXZ\x00", "xz", "xzcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"PK\x03\x04", "zip", "unzip -p"),
)
_EXTENSIONS = {
    "": "text",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".prompts": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip"}


@dataclass(slots=True)
class Source:
    """An opened input whose first bytes have been looked at.

    Attributes:
        name: As it stands in cases and records: valid Unicode whatever the file is called.
        file: The bytes, from the beginning where it is seekable.
        head: The first bytes, at least 6 of them unless the input or its first line is shorter.
    """

    name: str
    file: BufferedIOBase
    head: bytes
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self._rest = self.head.removeprefix(_UTF8_BOM)

    def read(self) -> bytes:
        """Return the next bytes without the byte order mark, as soon as there are some.

        Raises:
            ConfigurationError: The medium fails.
        """
        if self._rest:
            chunk, self._rest = self._rest, b""
            return chunk
        return _read_some(self.file, self.name)

    @property
    def seems_json(self) -> bool:
        """Whether the first visible character is an opening brace."""
        return self._rest.lstrip(b" \t\r\n").startswith(b"{")


def display_name(path: str) -> str:
    r"""Name a source in valid Unicode: bytes of a file name that are no UTF-8 show as `\xNN`."""
    return os.fsencode(path).decode(errors="backslashreplace")


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a file, or stdin for `-`.

    Symbolic links are followed. Only regular files are opened: a FIFO or a terminal device could
    block for ever, and opening some devices has effects.

    Raises:
        ConfigurationError: There is no such file, it is none, or it cannot be read.
    """
    if path == STDIN:
        stream = _stdin()
        yield Source(STDIN, stream, _read_head(stream, STDIN))
        return
    name = display_name(path)
    with _open_regular(path) as file:
        yield Source(name, file, _read_head(file, name))


def resolve_format(path: str, input_format: str, *, seems_json: bool) -> str:
    """Decide on the format of a source.

    Args:
        path: Its extension counts; for `-` there is none.
        input_format: What the user said; anything but `auto` is taken as it is.
        seems_json: Decides for stdin.

    Raises:
        ConfigurationError: The extension says nothing, or Parquet is to be read from stdin.
    """
    if path == STDIN:
        if input_format == "parquet":
            raise ConfigurationError(
                "Parquet cannot be read from stdin, its index stands at the end",
                hint="write it into a file and give that",
            )
        if input_format == "auto":
            return "jsonl" if seems_json else "text"
    if input_format != "auto":
        return input_format
    suffix = Path(path).suffix.lower()
    if suffix in _COMPRESSED:
        # Its content is refused as a record if it is what the name says.
        suffix = Path(path).with_suffix("").suffix.lower()
    known = _EXTENSIONS.get(suffix)
    if known is None:
        hint = "say which one with --input-format text|jsonl|csv|parquet"
        if suffix == ".json":
            hint = "JSON Lines: --input-format jsonl. One array: jq -c '.[]' FILE | cert batch -"
        raise ConfigurationError(
            f"{display_name(path)!r}: the extension does not tell the format", hint=hint
        )
    return known


def check_head(head: bytes, input_format: str, *, delimiter: str | None = None) -> None:
    """Refuse content that is not what the format says, by its first bytes.

    Raises:
        InvalidInput: Compressed, an archive, UTF-16, UTF-32, Parquet read as text or the reverse.
    """
    for magic, name, tool in _ARCHIVES:
        if head.startswith(magic):
            raise InvalidInput(
                f"{name} data, which is not unpacked here (it may expand without bound): "
                f"{tool} FILE | cert batch -"
            )
    if input_format == "parquet":
        if head and not head.startswith(PARQUET_MAGIC):
            raise InvalidInput("not a Parquet file")
        return
    if head.startswith(PARQUET_MAGIC) and b"\0" in head:
        raise InvalidInput("Parquet data: name it .parquet, or say --input-format parquet")
    encoding = next((name for bom, name in _ENCODINGS if head.startswith(bom)), None)
    if encoding is None and "\0" not in (delimiter or ""):
        encoding = _utf16_without_bom(head)
    if encoding is not None:
        raise InvalidInput(
            f"the encoding is {encoding}, not UTF-8: "
            f"iconv -f {encoding} -t UTF-8 FILE | cert batch -"
        )


def _utf16_without_bom(head: bytes) -> str | None:
    """Tell by the zero bytes, which stand in every other place where the text is mostly Latin."""
    pairs = min(len(head), 1024) // 2
    even = head[: 2 * pairs : 2].count(0)
    odd = head[1 : 2 * pairs : 2].count(0)
    if pairs < _MIN_UTF16_CHARS:
        return None
    if even == 0 and odd > pairs // 2:
        return "UTF-16LE"
    if odd == 0 and even > pairs // 2:
        return "UTF-16BE"
    return None


def _stdin() -> BufferedIOBase:
    stream = cast("BufferedIOBase | None", getattr(sys.stdin, "buffer", None))
    if stream is None or stream.closed:
        raise ConfigurationError("stdin is closed", hint="name an input file")
    with suppress(OSError):
        # A parent may have left it non-blocking; reading would then end before the input does.
        os.set_blocking(stream.fileno(), True)
    return stream


def _open_regular(path: str) -> BufferedIOBase:
    shown = repr(display_name(path))
    try:
        _refuse_irregular(Path(path).stat().st_mode, shown)
        # Non-blocking, in case it was replaced by a FIFO in between.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {shown}", hint="check the path; `-` reads stdin"
        ) from None
    except ValueError:
        raise ConfigurationError(f"{shown} cannot be a file name: it holds a NUL") from None
    except OSError as error:
        raise ConfigurationError(f"cannot open {shown}: {error.strerror}") from None
    try:
        _refuse_irregular(os.fstat(descriptor).st_mode, shown)
    except ConfigurationError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_irregular(mode: int, shown: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise ConfigurationError(
            f"{shown} is a folder", hint="name the files in it, for example FOLDER/*.jsonl"
        )
    raise ConfigurationError(
        f"{shown} is no regular file", hint=f"pipe it instead: cat {shown} | cert batch -"
    )


def _read_head(stream: BufferedIOBase, name: str) -> bytes:
    head = b""
    # A short first line is not kept waiting for the next one: somebody may be typing it.
    while len(head) < _HEAD_BYTES and b"\n" not in head and (chunk := _read_some(stream, name)):
        head += chunk
    return head


def _read_some(stream: BufferedIOBase, name: str) -> bytes:
    try:
        return stream.read1(_CHUNK_BYTES)
    except OSError as error:
        raise ConfigurationError(f"cannot read {name!r}: {error.strerror}") from error
