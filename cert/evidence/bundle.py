"""A bundle: a ledger in one .zip with everything that an auditor needs to check it.

    ledger/...  head.note  public-key.pem  policies/*.json  README.txt
    record-format.md  record.schema.json  cert_verify.py

It holds the ledger as it was at one moment, and the same ledger gives the same bytes. A ledger with
faults is packed as it is: that, too, is evidence.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from cert.core.errors import ConfigurationError
from cert.evidence.bundle_readme import build_readme
from cert.evidence.policy_record import read_registered
from cert.evidence.schema import record_schema
from cert.ledger.claims import read_claims
from cert.ledger.content import open_content, read_content
from cert.ledger.errors import LedgerError, LedgerRefusedError
from cert.ledger.keys import parse_public_key
from cert.ledger.reader import CONTENT, FolderReader
from cert.ledger.verify import verify_ledger
from cert.ledger.zip_reader import FOLDER, ZipReader
from cert.ledger.zip_writer import Member, Packed, ledger_members, measure, member_of, zip_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cert.ledger.findings import Problem, Report
    from cert.ledger.keys import PublicKey

_VERIFIER: Final = "verifier/cert_verify.py"
_FORMAT: Final = "record-format.md"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was written.

    Attributes:
        report: Of the ledger in it, verified with its own key and without a head.
        packed: The file.
        key: In force at the ledger's end.
    """

    report: Report
    packed: Packed
    key: PublicKey


def write_bundle(folder: Path, target: Path, *, with_content: bool = False) -> Bundle:
    """Write a ledger's bundle, and read it back.

    Args:
        folder: The ledger's.
        target: The .zip, mode 0600; a file of that name is replaced when the new one is whole.
        with_content: Whether the texts behind commitments go along.

    Raises:
        ConfigurationError: The target is inside of the ledger, or there are no such texts.
        LedgerRefusedError: There is no genesis, so it is no ledger.
        LedgerError: It cannot be read or written.
    """
    if folder.resolve() in target.resolve().parents:
        raise ConfigurationError(
            f"the bundle {target} would be inside of the ledger", hint="name a file elsewhere"
        )
    with _snapshot(folder, target, with_content=with_content) as (reader, content):
        genesis = read_claims(reader).genesis
        if genesis is None:
            raise LedgerRefusedError(
                f"ledger {folder} has no genesis", hint="`cert verify` says what is wrong"
            )
        policies = _Policies()
        report = verify_ledger(reader, genesis.key, deep=policies)
        key = parse_public_key((report.key or genesis.key.text).encode(), source=str(folder))

        def members() -> Iterator[Member]:
            yield from _documents(reader, report, key, has_content=content is not None)
            yield from policies.members()
            yield from ledger_members(reader)
            if content is not None:
                yield Member(FOLDER + CONTENT, content.stat().st_size, lambda: content.open("rb"))

        with zip_beside(target, members) as draft:
            with ZipReader(draft) as packed:
                again = verify_ledger(packed, genesis.key, deep=_Policies())
            if again != report:
                raise LedgerError(
                    f"the bundle is {again.state} when it is read back, the ledger {report.state}",
                    hint="something else changes the ledger, or the disk fails; try again",
                )
            return Bundle(report, measure(draft), key)


class _Policies:
    """Collects the policies that a ledger registers, while it is verified."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self._members: dict[str, Member] = {}

    def preload(self, seq: int, line: bytes) -> None:
        """Take a line that was kept of a removed part."""
        self.check(seq, line)

    def check(self, seq: int, line: bytes) -> Sequence[Problem]:  # noqa: ARG002 - the protocol's
        """Take a line."""
        if b'"kind":"policy"' in line:
            with suppress(ValueError):  # `--deep` finds what is no policy
                self._take(orjson.loads(line))
        return ()

    def finish(self) -> Sequence[Problem]:
        """Nothing to say."""
        return ()

    def members(self) -> Iterator[Member]:
        """The files, by name."""
        for _, member in sorted(self._members.items()):
            yield member

    def _take(self, record: object) -> None:
        match record:
            case {"kind": "policy", "policy": dict() as registered}:
                policy = read_registered(registered)
                digest = policy.digest.removeprefix("sha256:")
                name = f"policies/{policy.id}-v{policy.version}-{digest}.json"
                self._members[name] = member_of(name, _json(registered))
            case _:
                pass


def _documents(
    reader: FolderReader, report: Report, key: PublicKey, *, has_content: bool
) -> Iterator[Member]:
    verifier = _document(_VERIFIER)
    digest = hashlib.sha256(verifier).hexdigest()
    readme = build_readme(report, key, verifier_sha256=digest, has_content=has_content)
    yield member_of("README.txt", readme.encode())
    yield member_of("cert_verify.py", verifier)
    yield member_of("record-format.md", _document(_FORMAT))
    yield member_of("record.schema.json", _json(record_schema()))
    yield member_of("public-key.pem", key.pem)
    if report.sealed:
        yield member_of("head.note", reader.read_checkpoint(report.sealed))


def _document(name: str) -> bytes:
    """A wheel carries the files inside the package; a checkout has them beside the package."""
    package = resources.files("cert")
    installed = package / "_docs" / name
    if installed.is_file():
        return installed.read_bytes()
    return (Path(str(package)).parent / "docs" / name).read_bytes()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


@contextmanager
def _snapshot(
    folder: Path, target: Path, *, with_content: bool
) -> Iterator[tuple[FolderReader, Path | None]]:
    """The ledger at one moment, and a copy of its contents of the same moment.

    While the contents are copied nothing is erased: otherwise a text could be missing from the
    copy whose `erased` record is not in the bundle yet.
    """
    if not with_content:
        yield FolderReader(folder), None
        return
    if not os.path.lexists(folder / CONTENT):
        raise ConfigurationError(
            f"ledger {folder} has no {CONTENT}: its records commit to no texts, or those are kept "
            "elsewhere",
            hint="leave out --with-content",
        )
    copy = target.with_name(f".{target.name}.{secrets.token_hex(8)}.content")
    try:
        with open_content(folder) as guard, guard.transaction():
            reader = FolderReader(folder)
            _copy(folder, copy)
        yield reader, copy
    finally:
        copy.unlink(missing_ok=True)


def _copy(folder: Path, copy: Path) -> None:
    store = read_content(folder)
    if store is not None:
        with store:
            store.copy_to(copy)
