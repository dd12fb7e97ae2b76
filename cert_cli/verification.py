"""One `cert verify`, from the evidence's path to what was found. Nothing is written here.

folder -> ledger          .zip -> bundle          another file -> plain lines
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, Final

from cert.core.errors import ConfigurationError
from cert.core.places import keys_folder
from cert.ledger.checkpoint import MAX_NOTE_BYTES, parse_checkpoint
from cert.ledger.claims import Claims, read_claims
from cert.ledger.errors import LedgerError, LedgerRefusedError, ProofError
from cert.ledger.findings import State
from cert.ledger.head_memory import HeadMemory
from cert.ledger.lineage import parse_genesis
from cert.ledger.reader import CONTENT, FolderReader, read_blocks
from cert.ledger.verify import verify_ledger
from cert.ledger.verify_plain import verify_plain
from cert.ledger.zip_reader import ZipReader
from cert_cli.byte_meter import ByteMeter
from cert_cli.exit_codes import ExitCode
from cert_cli.pinned_key import PinnedKey, choose_key, load_public_key
from cert_cli.token_check import check_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.core.config import CERTConfig
    from cert.ledger.content import ContentStore
    from cert.ledger.findings import Report
    from cert.ledger.reader import Reader
    from cert.ledger.verify import RecordCheck
    from cert_cli.token_check import TokenCheck

_ZIP: Final = b"PK"
_SQLITE_HEADER_BYTES: Final = 100
_SQLITE_MODES: Final = slice(18, 20)
_WAL: Final = 2
_BROKEN: Final = frozenset({State.TORN, State.ROLLED_BACK, State.INVALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        path: Of the evidence.
        key: Of --key.
        head: File of the head that was kept elsewhere.
        is_deep: Whether every record is looked into.
        requires_head: Whether it is a failure that nothing pins the head.
        is_strict: Whether it is a failure that records are unsealed.
        on_first_use: Whether a key that only the evidence names may be trusted.
        roots: File of the certificates by which time stamps are verified.
        quiet: No progress.
        color: As in `style_of`.
    """

    path: Path
    key: str | None = None
    head: Path | None = None
    is_deep: bool = True
    requires_head: bool = False
    is_strict: bool = False
    on_first_use: bool = False
    roots: Path | None = None
    quiet: bool = False
    color: bool | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was kept.

    Attributes:
        note: Its bytes.
        size: Records that it is of.
        path: Its file.
        is_remembered: Whether it was found beside one's own key, and not given.
    """

    note: bytes
    size: int
    path: Path
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it.

    Attributes:
        request: What was asked for.
        kind: `ledger`, `bundle` or `file`.
        report: What was found.
        pinned: The key that was trusted; None where nothing is signed and no key was needed.
        head: What pins the end; None where nothing does.
        tokens: RFC 3161 tokens beside the checkpoints.
    """

    request: Request
    kind: str
    report: Report
    pinned: PinnedKey | None
    head: Head | None
    tokens: TokenCheck

    @property
    def code(self) -> ExitCode:
        """The exit code."""
        state = self.report.state
        is_bad = (
            state in _BROKEN
            or (state is State.UNSEALED and self.request.is_strict)
            or ((self.head is None or self.head.is_remembered) and self.request.requires_head)
            or self.tokens.fault is not None
        )
        return ExitCode.INTEGRITY if is_bad else ExitCode.PASS


def verify(request: Request, settings: Callable[[], CERTConfig]) -> Verified:
    """Verify whatever the path is.

    Raises:
        ConfigurationError: There is nothing to verify, or key, head or certificates are unusable.
    """
    roots = None if request.roots is None else read_small(request.roots, "the TSA's roots")
    try:
        head = None if request.head is None else _read_head(request.head)
        with ExitStack() as stack:
            if request.path.is_dir():
                reader = FolderReader(request.path)
                pinned = _choose(request, reader, settings)
                deep = _look_into(request, partial(_contents_beside, request.path, stack))
                if head is None and (head := _remembered(reader, pinned, settings)) is not None:
                    # Anew: what is remembered may be newer than what was looked at.
                    reader = FolderReader(request.path)
                return _verify_ledger(request, "ledger", reader, pinned, deep, head, roots)
            file = stack.enter_context(_open(request.path))
            if file.read(len(_ZIP)) == _ZIP:
                bundle = stack.enter_context(ZipReader(request.path))
                pinned = _choose(request, bundle, settings)
                deep = _look_into(request, partial(_contents_within, bundle, stack))
                return _verify_ledger(request, "bundle", bundle, pinned, deep, head, roots)
            file.seek(0)
            return _verify_file(request, file, settings, head)
    except LedgerError as error:
        raise ConfigurationError(error.message, hint=error.hint) from error
    except OSError as error:
        raise ConfigurationError(f"{request.path} cannot be read: {error.strerror}") from error


def _choose(request: Request, reader: Reader, settings: Callable[[], CERTConfig]) -> PinnedKey:
    claims = read_claims(reader)
    return choose_key(request.key, claims, settings, on_first_use=request.on_first_use)


def _remembered(
    reader: Reader, pinned: PinnedKey, settings: Callable[[], CERTConfig]
) -> Head | None:
    """The last head that one's own key signed here, which an older copy does not hold."""
    origin = read_claims(reader).origin
    if pinned.kind != "own" or origin is None:
        return None
    heads = HeadMemory(keys_folder(settings().keys))
    signed = heads.find(origin)
    if signed is None:
        return None
    path = heads.path_of(origin)
    return Head(signed.note, signed.checkpoint.size, path, is_remembered=True)


def _read_head(path: Path) -> Head:
    note = read_small(path, "the head")
    return Head(note, parse_checkpoint(note).checkpoint.size, path)


def _verify_ledger(  # noqa: PLR0913, PLR0917 - what one verification takes
    request: Request,
    kind: str,
    reader: Reader,
    pinned: PinnedKey,
    deep: RecordCheck | None,
    head: Head | None,
    roots: bytes | None,
) -> Verified:
    total = sum(one.size_bytes for one in reader.segments)
    meter = ByteMeter(total, is_wanted=not request.quiet, color=request.color)
    with meter.running():
        note = None if head is None else head.note
        report = verify_ledger(reader, pinned.key, head=note, deep=deep, progress=meter.advance)
    tokens = check_tokens(reader, roots, sealed=report.sealed)
    return Verified(request, kind, report, pinned, head, tokens)


def _look_into(
    request: Request, open_store: Callable[[], ContentStore | None]
) -> RecordCheck | None:
    """What looks into records, with the contents that are there."""
    if not request.is_deep:
        return None
    from cert.evidence.content_check import ContentCheck  # noqa: PLC0415 - not for --fast

    try:
        return ContentCheck(open_store())
    except LedgerRefusedError as error:
        return ContentCheck(None, fault=error.message)


def _contents_beside(ledger: Path, stack: ExitStack) -> ContentStore | None:
    """Contents of a ledger in a folder.

    SQLite would write beside a file in WAL mode, which no ledger is written in: that is copied.
    """
    from cert.ledger.content import open_content, read_content  # noqa: PLC0415 - sqlite

    path = ledger / CONTENT
    if not _is_in_wal_mode(path):
        store = read_content(ledger)
        return None if store is None else stack.enter_context(store)
    copy = _temporary_folder(stack)
    for one in (path, path.with_name(f"{CONTENT}-wal")):
        if one.is_file():
            shutil.copyfile(one, copy / one.name)
    return stack.enter_context(open_content(copy))


def _is_in_wal_mode(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False  # whoever reads it for good says what is wrong with it
    with path.open("rb") as file:
        return _WAL in file.read(_SQLITE_HEADER_BYTES)[_SQLITE_MODES]


def _contents_within(bundle: ZipReader, stack: ExitStack) -> ContentStore | None:
    """Contents of a ledger in a bundle; unpacked, since SQLite reads no stream."""
    from cert.ledger.content import open_content  # noqa: PLC0415 - sqlite

    packed = bundle.open_content()
    if packed is None:
        return None
    copy = _temporary_folder(stack)
    with packed, (copy / CONTENT).open("xb") as file:
        shutil.copyfileobj(packed, file)
    return stack.enter_context(open_content(copy))


def _temporary_folder(stack: ExitStack) -> Path:
    """A folder for this user alone, which is gone at the end."""
    return Path(stack.enter_context(TemporaryDirectory(prefix="cert-verify-")))


def _verify_file(
    request: Request, file: BinaryIO, settings: Callable[[], CERTConfig], head: Head | None
) -> Verified:
    size_bytes = os.fstat(file.fileno()).st_size
    pinned = _choose_for_file(request, file, size_bytes, settings, head)
    deep: RecordCheck | None = None
    if request.is_deep:
        from cert.evidence.content_check import ContentCheck  # noqa: PLC0415 - not for --fast

        deep = ContentCheck(None, is_part=True)
    meter = ByteMeter(size_bytes, is_wanted=not request.quiet, color=request.color)
    with meter.running():
        report = verify_plain(
            file,
            size_bytes,
            pinned=None if pinned is None else pinned.key,
            head=None if head is None else head.note,
            deep=deep,
            progress=meter.advance,
        )
    return Verified(request, "file", report, pinned, head, check_tokens(None, None, sealed=0))


def _choose_for_file(
    request: Request,
    file: BinaryIO,
    size_bytes: int,
    settings: Callable[[], CERTConfig],
    head: Head | None,
) -> PinnedKey | None:
    """A key takes a signature, and the only one is the head's."""
    if head is None:
        if request.key is None:
            return None
        return PinnedKey(load_public_key(request.key, source="--key"), "flag", "--key")
    first = next((block.lines[0] for block in read_blocks(file, size_bytes)), b"")
    file.seek(0)
    try:
        claims = Claims(parse_genesis(first), parse_checkpoint(head.note))
    except ProofError:
        claims = Claims(None, parse_checkpoint(head.note))
    return choose_key(request.key, claims, settings, on_first_use=request.on_first_use)


def _open(path: Path) -> BinaryIO:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{path} cannot be read: {reason}",
            hint="give a ledger's folder, a bundle (.zip), or a file of records",
        ) from error
    file = os.fdopen(fd, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise ConfigurationError(
            f"{path} is neither a folder nor a regular file",
            hint="write it to a file first, then verify that",
        )
    return file


def read_small(path: Path, what: str, *, limit_bytes: int = MAX_NOTE_BYTES * 16) -> bytes:
    """Read a file that somebody kept.

    Raises:
        ConfigurationError: It cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{what}, {path}, cannot be read: {reason}") from error
    if len(data) > limit_bytes:
        raise ConfigurationError(f"{what}, {path}, is no such file: it is too large")
    return data
