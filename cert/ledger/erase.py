"""Erase the texts behind one record's commitment, and say so in the ledger.

    find the record -> lock the contents -> append `erased` -> delete the row -> wipe -> seal

The `erased` record is on the disk before the row is deleted, so that a row is never gone without
it. What was cut off in between is finished by erasing again. The record itself stays, and so does
every hash over it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from cert.core.errors import ConfigurationError
from cert.ledger.content import open_content
from cert.ledger.control import build_erased
from cert.ledger.errors import LedgerError
from cert.ledger.line import parse_links
from cert.ledger.reader import CONTENT, FolderReader
from cert.ledger.scan import scan_lines

if TYPE_CHECKING:
    from cert.ledger.appender import Ledger
    from cert.ledger.reader import Reader


@dataclass(slots=True)
class _Found:
    """What the ledger knows of one record's id.

    Attributes:
        commitments: By number of the record; several where a record was appended twice.
        erased: Numbers of those that an `erased` record names.
        is_there: Whether there is any record of this id.
    """

    commitments: dict[int, str] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)
    is_there: bool = False


def erase(ledger: Ledger, record_id: str, reason: str) -> list[int]:
    """Erase the content of a record for good.

    Args:
        ledger: Open for appending.
        record_id: The record's `id`.
        reason: Why; it stays in the ledger, so it names nobody.

    Returns:
        Numbers of the records whose content is gone: one, except where one was appended twice.

    Raises:
        ConfigurationError: There is no such record, it holds its content itself, or it was erased.
        LedgerError: It could not be done; what was begun is finished by doing it again.
    """
    found = _find(FolderReader(ledger.folder), record_id)
    _check(found, record_id)
    if not (ledger.folder / CONTENT).exists():
        raise ConfigurationError(
            f"the content of record {record_id} is not in {ledger.folder}: there is no {CONTENT}",
            hint="erase it where the contents are kept",
        )
    left = [seq for seq in found.commitments if seq not in found.erased]
    with open_content(ledger.folder) as store:
        with store.transaction():
            is_there = store.get(record_id) is not None
            if left and not is_there:
                raise LedgerError(
                    f"{store.path} has no content of record {record_id}, and no record says why",
                    hint="`cert verify` lists such records; nothing was erased",
                )
            ledger.append(
                [
                    build_erased(
                        record_id=record_id,
                        seq=seq,
                        commitment=found.commitments[seq],
                        reason=reason,
                    )
                    for seq in left
                ]
            )
            store.delete([record_id])
        was_due = store.wipe()
    ledger.seal()
    if not (is_there or was_due):
        raise ConfigurationError(f"the content of record {record_id} was erased already")
    return sorted(found.commitments)


def _check(found: _Found, record_id: str) -> None:
    if not found.is_there:
        raise ConfigurationError(
            f"there is no record {record_id}",
            hint="give a record's `id`; a record that was pruned took its content along",
        )
    if not found.commitments:
        raise ConfigurationError(
            f"record {record_id} has no commitment: its content, if it has any, is in the record "
            "itself and cannot be taken out without breaking the ledger",
            hint="run with --content committed to keep texts where they can be erased",
        )


def _find(reader: Reader, record_id: str) -> _Found:
    found = _Found()
    wanted = f'"{record_id}"'.encode(errors="replace")
    for one in scan_lines(reader):
        if wanted not in one.line:
            continue
        links = parse_links(one.line)
        try:
            record: dict[str, Any] = orjson.loads(one.line)
        except orjson.JSONDecodeError:
            continue
        if links is None:
            continue
        if record.get("id") == record_id:
            found.is_there = True
            if isinstance(record.get("commitment"), str):
                found.commitments[links.seq] = record["commitment"]
        match record:
            case {"kind": "erased", "erased": {"record_id": str(name), "seq": int(seq)}}:
                if name == record_id:
                    found.erased.add(seq)
            case _:
                pass
    return found
