"""The same work by ai-audit-trail and omega-audit, for `benchmarks/ledger.py`.

    PEERS_PYTHON benchmarks/ledger_peers.py TASK ARGUMENT...    prints one JSON object

Runs in a Python that has the two, and needs nothing of this program.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

KEY = bytes(range(32))


def cpu_s() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def spent_since(begin: tuple[float, float]) -> dict[str, Any]:
    """Seconds since a beginning, and the largest resident size."""
    return {
        "cpu_s": cpu_s() - begin[0],
        "wall_s": time.perf_counter() - begin[1],
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Largest resident size of this process; getrusage starts from that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s*([0-9]+) kB$", status, re.MULTILINE)[0]) * 1024


def start() -> tuple[float, float]:
    """A beginning."""
    return cpu_s(), time.perf_counter()


def versions() -> dict[str, Any]:
    """Which they are."""
    from importlib.metadata import version  # noqa: PLC0415 - the task's own

    return {name: version(name) for name in ("ai-audit-trail", "omega-audit")}


def read_bodies(file: str) -> list[dict[str, Any]]:
    """Records as objects."""
    return [json.loads(line) for line in Path(file).read_bytes().splitlines()]


def omega_append(file: str, target: str) -> dict[str, Any]:
    """Append with its ledger, which reads the whole file each time."""
    from omega_audit import Ledger  # type: ignore[import-not-found] # noqa: PLC0415 - not here

    records, ledger = read_bodies(file), Ledger(target)
    begin = start()
    for record in records:
        ledger.append(record)
    return spent_since(begin) | {"records": len(records)}


def omega_build(file: str, target: str) -> dict[str, Any]:
    """Write the file that its ledger would write, by its own hash, without reading it each time."""
    from omega_audit import GENESIS_PREV_HASH, hash_entry  # noqa: PLC0415 - not here

    prev, records = GENESIS_PREV_HASH, read_bodies(file)
    with Path(target).open("w", encoding="utf-8") as out:
        for seq, record in enumerate(records):
            stamp = record["time"]
            found = hash_entry(seq, stamp, record, prev)
            entry = {"seq": seq, "ts": stamp, "action": record, "prevHash": prev, "hash": found}
            out.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
            prev = found
    return {"records": len(records)}


def omega_verify(target: str) -> dict[str, Any]:
    """Verify its file."""
    from omega_audit import verify  # noqa: PLC0415 - not here

    begin = start()
    result = verify(target)
    return spent_since(begin) | {"is_valid": result.valid, "records": result.records}


def ai_append(file: str, target: str) -> dict[str, Any]:
    """Seal receipts into its store, which is memory; then write them down, which is not measured.

    Input, output and checks of a receipt are those of the record; all else goes into a check's
    detail, so that both are of the same size.
    """
    from ai_audit.models import CheckRecord, DecisionReceipt  # type: ignore[import-not-found] # noqa: PLC0415 - not here
    from ai_audit.receipt_store import ReceiptStore  # type: ignore[import-not-found] # noqa: PLC0415 - not here
    from nacl.signing import SigningKey  # type: ignore[import-not-found] # noqa: PLC0415 - not here

    records, key = read_bodies(file), SigningKey(KEY)
    store = ReceiptStore(max_size=len(records) + 1)
    receipts = []
    begin = start()
    for record in records:
        check = record["assessment"]["checks"][0]
        checks = [
            CheckRecord(
                name=check["signal"],
                score=check["observed"],
                threshold=check["threshold"],
                fired=check["outcome"] == "fail",
                detail=record,
            )
        ]
        receipt = DecisionReceipt(tenant_id="t", trace_id=record["id"], checks=checks)
        store.atomic_seal_and_append(receipt, key)
        receipts.append(receipt)
    spent = spent_since(begin)
    with Path(target).open("w", encoding="utf-8") as out:
        out.writelines(one.model_dump_json() + "\n" for one in receipts)
    return spent | {"records": len(records)}


def ai_verify(target: str) -> dict[str, Any]:
    """Read receipts and verify their chain, which takes all of them in memory."""
    from ai_audit import verify_chain  # noqa: PLC0415 - not here
    from ai_audit.models import DecisionReceipt  # noqa: PLC0415 - not here
    from nacl.signing import SigningKey  # noqa: PLC0415 - not here

    public = SigningKey(KEY).verify_key.encode().hex()
    begin = start()
    with Path(target).open("rb") as file:
        receipts = [DecisionReceipt.model_validate_json(line) for line in file]
    result = verify_chain(receipts, public)
    return spent_since(begin) | {"is_valid": result.valid, "records": result.total_receipts}


TASKS = {
    "versions": versions,
    "omega_append": omega_append,
    "omega_build": omega_build,
    "omega_verify": omega_verify,
    "ai_append": ai_append,
    "ai_verify": ai_verify,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
