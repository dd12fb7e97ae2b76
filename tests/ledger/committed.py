"""Whole ledgers whose records commit to their texts, as runs write them, and how they verify."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cert.assessment.policy import load_policy
from cert.evidence.commitment import commit
from cert.evidence.content_check import ContentCheck
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import encode_record
from cert.inputs.case import PromptCase
from cert.ledger.appender import Ledger, open_ledger
from cert.ledger.content import open_content, read_content
from cert.ledger.key_store import GivenKey
from cert.ledger.keys import Signer
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from cert.ledger.writer import Limits
from tests.evidence.builders import analysis, begin, generation, stop
from tests.ledger.ledgers import private

if TYPE_CHECKING:
    from cert.ledger.findings import Report
    from cert.ledger.writer import Keys

SECOND_VERIFIER = Path(__file__).parents[2] / "docs" / "verifier" / "cert_verify.py"
SIGNER = Signer(private("first"))
KEYS = GivenKey(SIGNER)
LIMITS = Limits(segment_bytes=12_000, seal_records=4, seal_s=1e9, lock_timeout_s=20)


def text_of(number: int) -> str:
    """A prompt that is nowhere else."""
    return f"SECRET-PROMPT-{number:04d}-" + "abcdefgh" * (number % 40)


def answer_of(number: int) -> str:
    return f"SECRET-ANSWER-{number:04d}"


@dataclass
class Made:
    """A ledger that grows run by run.

    Attributes:
        folder: Where it is.
        ids: Record id by the number of its text.
        keys: Where its key is.
        verdicts: Counts by run id.
    """

    folder: Path
    ids: dict[int, str] = field(default_factory=dict)
    keys: Keys = KEYS
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)

    def open(self) -> Ledger:
        return open_ledger(self.folder, self.keys, origin="example.com/ledger", limits=LIMITS)

    def run(
        self, numbers: range, *, run_id: str, time: str, ends: bool = True, begins: bool = True
    ) -> None:
        """Append one run's records, each with its content kept first."""
        with self.open() as ledger:
            records: list[dict[str, Any]] = []
            policy = load_policy("default")
            if policy.digest not in ledger.index.policies:
                records.append(build_policy_record(policy, time=time))
            if begins:
                records.append(begin(run_id=run_id, content="committed", time=time))
            ledger.append([encode_record(one) for one in records])
            verdicts = self.verdicts.setdefault(run_id, Counter())
            for number in numbers:
                full = analysis(
                    generation(text=answer_of(number)),
                    case=PromptCase(id=f"p-{number}", text=text_of(number)),
                    run_id=run_id,
                )
                rest, sealed = commit(full | {"time": time})
                with open_content(self.folder) as store:
                    store.put([sealed])
                self.ids[number] = sealed.record_id
                verdicts[rest["assessment"]["verdict"]] += 1
                ledger.append([encode_record(rest)])
            if ends:
                counts = {
                    "passed": verdicts["pass"],
                    "failed": verdicts["fail"],
                    "inconclusive": verdicts["inconclusive"],
                }
                ledger.append([encode_record(stop(run_id=run_id, time=time, **counts))])

    def verify(self, head: bytes | None = None) -> Report:
        return verify(self.folder, head)

    def texts_in_files(self) -> set[int]:
        """Numbers of the texts of which prompt or answer is anywhere in the folder's files."""
        data = b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())
        return {
            number
            for number in self.ids
            if text_of(number)[:18].encode() in data or answer_of(number).encode() in data
        }


def verify(folder: Path, head: bytes | None = None) -> Report:
    """Look into every record, and into the contents where they are there."""
    store = read_content(folder)
    try:
        return verify_ledger(
            FolderReader(folder), SIGNER.public, head=head, deep=ContentCheck(store)
        )
    finally:
        if store is not None:
            store.close()


def second_opinion(path: Path, head: Path | None = None) -> str:
    """What the verifier of one file calls it."""
    command = [sys.executable, SECOND_VERIFIER, path, "--key", SIGNER.public.text, "--deep"]
    if head is not None:
        command += ["--head", head]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode in {0, 5}, ran.stderr
    return ran.stdout.partition(":")[0]


def faults(report: Report) -> list[tuple[str, str]]:
    return [(one.code, one.message) for one in report.findings if one.state is not None]
