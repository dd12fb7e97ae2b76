"""The export of records before they are removed: a ledger of its own in a .zip.

It ends with the checkpoint that the pruning goes up to, so it verifies by itself, with the key that
was in force there. Texts behind commitments are not in it: they are to go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.core.errors import ConfigurationError
from cert.ledger.errors import LedgerError
from cert.ledger.findings import State
from cert.ledger.reader import SEGMENTS
from cert.ledger.verify import verify_ledger
from cert.ledger.zip_reader import FOLDER, ZipReader
from cert.ledger.zip_writer import Member, Packed, ledger_members, measure, member_of, zip_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cert.ledger.lineage import Lineage
    from cert.ledger.parts import FirstRecords
    from cert.ledger.reader import Segment

_README: Final = """\
RECORDS {first} TO {last} OF THE LEDGER {origin}

They were exported before they were removed from that ledger, which keeps a record of the removal
with this file's SHA-256. ledger/ is a ledger that ends with the signed checkpoint of {size}
records; head.note is that checkpoint. It can be checked as it is:

    cert verify THIS.zip --key KEY

KEY is the public key that was in force then, from where you trust it, and not from this file. Its
SHA-256 fingerprint should be

    {fingerprint}

Texts that records only commit to are not in this file.
"""


def check_target(export: Path, folder: Path) -> None:
    """Look whether an export can go there, before anything is done.

    Raises:
        ConfigurationError: It cannot.
    """
    if export.suffix != ".zip":
        raise ConfigurationError(
            f"the export {export} has to be a .zip", hint=f"--export {export}.zip"
        )
    if folder.resolve() in export.resolve().parents:
        raise ConfigurationError(
            f"the export {export} is inside of the ledger", hint="name a file elsewhere"
        )
    if not export.parent.is_dir():
        raise ConfigurationError(f"there is no folder {export.parent}", hint="make it first")


def write_export(export: Path, records: FirstRecords, lineage: Lineage) -> Packed:
    """Write the export, read it back and verify it.

    The same records give the same bytes, so that writing it again changes nothing.

    Args:
        export: Its place; another file that is there stays.
        records: What goes into it; not empty.
        lineage: The keys up to its end.

    Raises:
        ConfigurationError: Another file is there.
        LedgerError: It cannot be written, or is not what it should be when it is read back.
    """
    head = records.read_checkpoint(records.checkpoints[-1])

    def members() -> Iterator[Member]:
        yield member_of("README.txt", _readme(records, lineage).encode())
        yield member_of("head.note", head)
        yield from ledger_members(records)
        for path in torn_copies(records.root, records.segments):
            yield member_of(f"{FOLDER}{SEGMENTS}/{path.name}", path.read_bytes())

    with zip_beside(export, members) as draft:
        with ZipReader(draft) as packed:
            report = verify_ledger(packed, lineage.current, head=head)
        if report.state is not State.VALID:
            raise LedgerError(
                f"the export {export} was written, and is {report.state} when it is read back",
                hint="check the disk; nothing was removed",
            )
        written = measure(draft)
        if export.exists() and measure(export) != written:
            raise ConfigurationError(
                f"{export} is there already, and is not the export of these records",
                hint="name another file with --export",
            )
    return written


def torn_copies(root: Path, segments: Sequence[Segment]) -> list[Path]:
    """What recoveries cut off from segments."""
    folder = root / SEGMENTS
    return [path for one in segments for path in sorted(folder.glob(f"{one.name}.torn-*"))]


def _readme(records: FirstRecords, lineage: Lineage) -> str:
    size = records.checkpoints[-1]
    return _README.format(
        first=records.segments[0].first,
        last=size - 1,
        size=size,
        origin=lineage.origin,
        fingerprint=lineage.current.fingerprint,
    )
