"""From a run in a ledger to a signed attestation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.core.errors import ConfigurationError
from cert.evidence.attestation import (
    PAYLOAD_TYPE,
    build_test_result,
    collect_test_result,
    sign_dsse,
)
from cert.ledger.appender import open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import ProofError
from cert.ledger.findings import State
from cert.ledger.key_source import keys_of
from cert.ledger.reader import FolderReader
from cert.ledger.scan import scan_lines
from cert.ledger.verify import verify_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cert.core.config import CERTConfig
    from cert.ledger.keys import PublicKey

_GOOD: Final = frozenset({State.VALID, State.UNSEALED})


@dataclass(frozen=True, slots=True)
class Attested:
    """A signed attestation.

    Attributes:
        envelope: DSSE, without a newline.
        result: `PASSED`, `WARNED` or `FAILED`.
        key: That signed it.
        size: Records of the checkpoint that it names.
    """

    envelope: bytes
    result: str
    key: PublicKey
    size: int


def attest_run(folder: Path, config: CERTConfig, run_id: str) -> Attested:
    """Seal and verify a ledger, and say in a signed envelope what a run of it found.

    Raises:
        ConfigurationError: There is no such run.
        ProofError: The ledger does not verify.
        SigningKeyError: The key in force is not here.
        LedgerError: The run cannot be attested, or the ledger not be read or sealed.
    """
    keys = keys_of(config)
    with open_ledger(folder, keys) as ledger:
        signed, signer = ledger.seal(), keys.find(ledger.key)
    reader = FolderReader(folder)
    report = verify_ledger(reader, signer.public, head=signed.note)
    if report.state not in _GOOD:
        words = "" if report.first is None else f": {report.first.message}"
        raise ProofError(
            f"ledger {folder} is {report.state}{words}; nothing was attested",
            hint="`cert verify` says more",
        )
    checkpoint = signed.checkpoint
    records = _records_of(reader, run_id, checkpoint.size)
    first = next(records, None)
    if first is None:
        raise ConfigurationError(
            f"there is no run {run_id} in {folder}", hint="`cert ledger ls` lists the runs"
        )
    outcome = collect_test_result(itertools.chain([first], records))
    statement = build_test_result(
        outcome, origin=checkpoint.origin, tree_size=checkpoint.size, root=checkpoint.root
    )
    envelope = sign_dsse(
        canonical_bytes(statement), PAYLOAD_TYPE, signer.sign, signer.public.fingerprint
    )
    return Attested(envelope, outcome.result, signer.public, checkpoint.size)


def _records_of(reader: FolderReader, run_id: str, size: int) -> Iterator[dict[str, Any]]:
    """The records of a run within a tree; the ledger was verified."""
    wanted = orjson.dumps(run_id)
    for one in scan_lines(reader):
        if wanted in one.line:
            record: dict[str, Any] = orjson.loads(one.line)
            if record.get("run_id") == run_id and record["_seq"] < size:
                yield record
