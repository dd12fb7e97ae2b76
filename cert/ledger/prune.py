"""Remove old records, and leave a ledger that verifies as before (docs/record-format.md, 8).

    verify -> plan -> export, read back -> append `pruned`, seal           nothing is gone yet
        -> lock -> pruned.json -> rows of the contents -> segments -> unlock -> wipe

Wherever it is cut off, doing it again finishes it. Until `pruned.json` is there, everything is as
it was; from then on, what it stands for is removed by whoever prunes next. A ledger that is left
between the two has segments too many, and nothing else is wrong with it.
"""

from __future__ import annotations

import base64
import os
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from cert.core.errors import ConfigurationError
from cert.ledger.appender import open_ledger
from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.content import open_content
from cert.ledger.control import build_pruned
from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.export import check_target, torn_copies, write_export
from cert.ledger.files import FolderLock, sync_folder, write_file
from cert.ledger.findings import State
from cert.ledger.kept import build_account, build_pruned_part
from cert.ledger.keys import parse_public_key
from cert.ledger.parts import FirstRecords, LastRecords
from cert.ledger.pruned import parse_pruned, verify_pruned
from cert.ledger.pruning_plan import Survey, check_retention, plan_pruning
from cert.ledger.reader import (
    CONTENT,
    PRUNED,
    SEGMENTS,
    FolderReader,
    Segment,
    list_segments,
    read_blocks,
    segment_name,
)
from cert.ledger.verify import verify_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cert.ledger.content import ContentStore
    from cert.ledger.keys import PublicKey
    from cert.ledger.pruning_plan import Plan
    from cert.ledger.reader import Reader
    from cert.ledger.writer import Keys
    from cert.ledger.zip_writer import Packed

_LOCK_TIMEOUT_S: Final = 60.0
_SOUND: Final = frozenset({State.VALID, State.UNANCHORED})


@dataclass(frozen=True, slots=True)
class Pruning:
    """What was removed.

    Attributes:
        plan: Which records went; None where only an earlier pruning was finished.
        export: What was written before; None likewise.
        texts: Rows of `content.sqlite` that went along.
    """

    plan: Plan | None
    export: Packed | None
    texts: int


def prune(  # noqa: PLR0913 - what a person has to say for it
    folder: Path,
    keys: Keys,
    *,
    before: datetime,
    retention_days: int,
    export: Path,
    reason: str,
    now: datetime | None = None,
) -> Pruning:
    """Export and remove the records of closed segments that are all older than a date.

    Args:
        folder: The ledger's.
        keys: Where its private key is.
        before: Records of this moment and later stay.
        retention_days: Records younger than this stay in any case.
        export: The .zip to be written first.
        reason: Why; it stays in the ledger.
        now: The time; the system's where none is given.

    Raises:
        ConfigurationError: The retention forbids it, nothing is old enough, or the export cannot go
            there.
        LedgerRefusedError: The ledger does not verify.
        LedgerError: It could not be done; what was begun is finished by doing it again.
    """
    check_retention(before, retention_days=retention_days, now=now or datetime.now(UTC))
    check_target(export, folder)
    texts = finish_pruning(folder, keys)
    with open_ledger(folder, keys) as ledger:
        ledger.seal()
        reader = FolderReader(folder)
        survey = _verify(reader, ledger.key)
        recorded = survey.recorded or {"size": 0}
        plan = plan_pruning(reader, before, at_least=recorded["size"])
        if not plan.segments:
            if texts is not None:
                return Pruning(None, None, texts)
            raise ConfigurationError(
                f"nothing is to be removed: no closed file has only records of before "
                f"{before:%Y-%m-%d}",
                hint="a file is closed at the end of a month, or when it is large",
            )
        records = FirstRecords(reader, plan.segments, plan.size, _account(reader, plan, survey))
        packed = write_export(export, records, survey.lineage_at(plan.size))
        part = build_pruned_part(reader, plan.part, plan.size)
        body = build_pruned(
            size=plan.size,
            root=parse_checkpoint(reader.read_checkpoint(plan.size)).checkpoint.root,
            before=before.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            sha256=packed.sha256,
            size_bytes=packed.size_bytes,
            reason=reason,
        )
        said = orjson.loads(body)["pruned"]
        if any(recorded.get(name) != said[name] for name in ("size", "root", "export")):
            ledger.append([body])
        ledger.seal()
        earlier = None if plan.part is None else plan.part.encode()
    return Pruning(plan, packed, (texts or 0) + _remove(folder, part.size, part.encode(), earlier))


def finish_pruning(folder: Path, keys: Keys) -> int | None:
    """Remove what `pruned.json` stands for and is there still, after a pruning that was cut off.

    Anybody can make a `pruned.json` that holds, of checkpoints that were signed for other reasons.
    So it counts only with the `pruned` record that was signed before it.

    Returns:
        How many rows of the contents went along; None where there was nothing to finish.

    Raises:
        LedgerRefusedError: No signed record says that these were to be removed.
        SigningKeyError: The ledger's key is not here.
        LedgerError: A file cannot be removed.
    """
    reader = FolderReader(folder)
    data = reader.read_side_file(PRUNED)
    if data is None:
        return None
    part = parse_pruned(data)
    if not _segments_before(folder, part.size):
        with _contents(folder) as store:
            return 0 if store is not None and store.wipe() else None
    lineage = verify_pruned(part, reader.read_checkpoint)
    survey = Survey()
    report = verify_ledger(LastRecords(reader, part.size), lineage.current, deep=survey)
    root = parse_checkpoint(reader.read_checkpoint(part.size)).checkpoint.root
    said = survey.recorded or {}
    if (
        report.state not in _SOUND | {State.UNSEALED}
        or (said.get("size"), said.get("root")) != (part.size, base64.b64encode(root).decode())
        or survey.recorded_at >= report.sealed
    ):
        raise LedgerRefusedError(
            f"{folder / PRUNED} stands for {part.size} records, and no signed `pruned` record says "
            "that they were to be removed; nothing was removed",
            hint="if nobody pruned this ledger, move pruned.json away, then run `cert verify`",
        )
    keys.find(parse_public_key((report.key or "").encode(), source=str(folder)))
    return _remove(folder, part.size, data, data)


def _verify(reader: FolderReader, key: PublicKey) -> Survey:
    survey = Survey()
    report = verify_ledger(reader, key, deep=survey)
    if report.state not in _SOUND:
        first = report.first
        words = "" if first is None else f": line {first.line}: {first.message}"
        raise LedgerRefusedError(
            f"ledger {reader.root} is {report.state}{words}; nothing was removed",
            hint="`cert verify` says more",
        )
    return survey


def _account(reader: Reader, plan: Plan, survey: Survey) -> dict[str, bytes]:
    """What an export needs where the `pruned` record of what was removed before comes later."""
    seq = None if plan.part is None else survey.said_at(plan.part.size)
    if plan.part is None or seq is None or seq < plan.size:
        return {}
    return build_account(reader, plan.part, seq)


def _remove(folder: Path, size: int, data: bytes, earlier: bytes | None) -> int:
    """Put `pruned.json` in place, then remove what it stands for.

    Args:
        folder: The ledger's.
        size: Records 0 .. size - 1 go.
        data: What `pruned.json` is to hold.
        earlier: What it has to hold until then; None where it must not be there.
    """
    reader, gone = FolderReader(folder), _segments_before(folder, size)
    if size not in {one.first for one in reader.segments}:
        raise LedgerRefusedError(f"ledger {folder} has no segment that begins with record {size}")
    lock = FolderLock(folder)
    with _contents(folder) as store, closing(lock):
        with ExitStack() as held:
            # The order of the locks is everywhere: contents first, then the ledger.
            with nullcontext() if store is None else store.transaction():
                texts = 0 if store is None else store.delete(_committed(reader, gone))
                held.enter_context(lock.held(_LOCK_TIMEOUT_S))
                _put(reader, data, earlier)
            _unlink(folder, gone)
        if store is not None:
            store.wipe()
    return texts


def _contents(folder: Path) -> AbstractContextManager[ContentStore | None]:
    return open_content(folder) if os.path.lexists(folder / CONTENT) else nullcontext()


def _segments_before(folder: Path, size: int) -> list[Segment]:
    place = folder / SEGMENTS
    names = [(first, segment_name(first)) for first in list_segments(folder) if first < size]
    return [Segment(first, name, (place / name).lstat().st_size) for first, name in names]


def _committed(reader: FolderReader, segments: Sequence[Segment]) -> Iterator[str]:
    """Ids of the records that have a row in the contents."""
    for segment in segments:
        with reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                for line in block.lines:
                    if b'"commitment":"' in line:
                        match orjson.loads(line):
                            case {"id": str(record_id), "commitment": str()}:
                                yield record_id
                            case _:
                                pass


def _put(reader: FolderReader, data: bytes, earlier: bytes | None) -> None:
    """Write `pruned.json`; the ledger's lock is held."""
    found = reader.read_side_file(PRUNED)
    if found != earlier:
        raise LedgerError(
            f"ledger {reader.root} was pruned by another process meanwhile",
            hint="run the same command again",
        )
    if found != data:
        path = reader.root / PRUNED
        try:
            write_file(path, data)
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be written: {error.strerror}; nothing was removed",
                hint="make room, or check the disk",
            ) from error


def _unlink(folder: Path, segments: Sequence[Segment]) -> None:
    """Remove segments and what recoveries cut off from them; the ledger's lock is held."""
    place = folder / SEGMENTS
    try:
        for path in [*torn_copies(folder, segments), *(place / one.name for one in segments)]:
            path.unlink(missing_ok=True)
        sync_folder(place)
    except OSError as error:
        raise LedgerError(
            f"{error.filename} cannot be removed: {error.strerror}",
            hint="run the same command again when it can: it finishes what was begun",
        ) from error
