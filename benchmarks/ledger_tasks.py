"""What `benchmarks/ledger.py` measures of this program, each in a process of its own.

python benchmarks/ledger_tasks.py TASK ARGUMENT...      prints one JSON object
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cert.ledger.key_store import GivenKey
from cert.ledger.keys import Signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cert.ledger.appender import Ledger

ORIGIN = "benchmark.example/ledger"
GROUP = 256
UNSEALED = 1000


class Meter:
    """CPU and wall seconds of this process from here on."""

    def __init__(self) -> None:
        self._cpu, self._wall = cpu_s(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Seconds since the beginning."""
        return {"cpu_s": cpu_s() - self._cpu, "wall_s": time.perf_counter() - self._wall}


def cpu_s() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """Largest resident size of this process; getrusage starts from that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s*([0-9]+) kB$", status, re.MULTILINE)[0]) * 1024


def keys() -> GivenKey:
    """The key that signs, always the same one."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"benchmark").digest())
    return GivenKey(Signer(private))


def open_at(folder: str) -> Ledger:
    """Open or begin a ledger."""
    from cert.ledger.appender import open_ledger  # noqa: PLC0415 - not for verifying

    return open_ledger(Path(folder), keys(), origin=ORIGIN)


def groups(bodies: Iterator[bytes], count: int, size: int) -> Iterator[list[bytes]]:
    """Cut records into groups."""
    while count > 0 and (group := list(islice(bodies, min(size, count)))):
        count -= len(group)
        yield group


def build(shape_name: str, count: str, folder: str) -> dict[str, Any]:
    """Make a ledger of one run, measuring building, encoding and appending together."""
    import ledger_records as records  # noqa: PLC0415 - numpy, not for verifying

    shape = records.SHAPES[shape_name]
    texts = records.make_texts(shape)
    with open_at(folder) as ledger:
        ledger.append(records.begin_bodies(shape))
        bodies, meter = records.make_bodies(texts, shape), Meter()
        for group in groups(bodies, int(count), GROUP):
            ledger.append(group, is_durable=False)
        spent = meter.read()
        ledger.append([records.end_body(texts, shape, int(count))])
    return spent


def bodies(shape_name: str, count: str, file: str) -> dict[str, Any]:
    """Write encoded records without links, one a line, measuring building and encoding."""
    import ledger_records as records  # noqa: PLC0415 - as above

    shape = records.SHAPES[shape_name]
    texts, meter = records.make_texts(shape), Meter()
    made = list(islice(records.make_bodies(texts, shape), int(count)))
    spent = meter.read()
    Path(file).write_bytes(b"\n".join([*made, b""]))
    return spent


def verify(how: str, folder: str) -> dict[str, Any]:
    """Verify a ledger by the library call that `cert verify` makes."""
    from cert.ledger.findings import State  # noqa: PLC0415 - the task's own
    from cert.ledger.reader import FolderReader  # noqa: PLC0415 - the same
    from cert.ledger.verify import verify_ledger  # noqa: PLC0415 - the same

    deep: Any = None
    if how == "deep":
        from cert.evidence.content_check import ContentCheck  # noqa: PLC0415 - the same

        deep = ContentCheck(None)
    meter = Meter()
    report = verify_ledger(FolderReader(Path(folder)), keys().default().public, deep=deep)
    faults = [one for one in report.findings if one.state not in {None, State.UNANCHORED}]
    return {
        **meter.read(),
        "state": str(report.state.value),
        "faults": len(faults),
        "line": None if report.first is None else report.first.line,
        "peak_bytes": peak_bytes(),
    }


def append(how: str, size: str, file: str, folder: str) -> dict[str, Any]:
    """Append encoded records in groups, one writer; waits for a line on stdin before it starts."""
    made = Path(file).read_bytes().splitlines()
    ledger = open_at(folder)
    wait_for_start()
    meter = Meter()
    for group in groups(iter(made), len(made), int(size)):
        ledger.append(group, is_durable=how == "durable")
    spent = meter.read()
    os._exit(say(spent | {"records": len(made)}))


def threads(count: str, size: str, file: str, folder: str) -> dict[str, Any]:
    """Append durably from many threads."""
    made = Path(file).read_bytes().splitlines()
    ledger = open_at(folder)

    def work(share: list[bytes]) -> None:
        for group in groups(iter(share), len(share), int(size)):
            ledger.append(group)

    workers = [
        threading.Thread(target=work, args=(made[number :: int(count)],))
        for number in range(int(count))
    ]
    wait_for_start()
    meter = Meter()
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return meter.read() | {"records": len(made)}


def disk(size: str, file: str, target: str) -> dict[str, Any]:
    """Write and sync the same bytes in the same groups, and nothing else."""
    made = Path(file).read_bytes().splitlines(keepends=True)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    wait_for_start()
    meter = Meter()
    for group in groups(iter(made), len(made), int(size)):
        os.write(fd, b"".join(group))
        os.fdatasync(fd)
    return meter.read() | {"records": len(made)}


def key(file: str) -> dict[str, Any]:
    """Write the public key."""
    Path(file).write_bytes(keys().default().public.pem)
    return {}


def open_(folder: str) -> dict[str, Any]:
    """Open a ledger for appending, and leave it as it is."""
    from cert.ledger.appender import open_ledger  # noqa: F401, PLC0415 - imported beforehand

    before, meter = bytes_read(), Meter()
    ledger = open_at(folder)
    spent = meter.read()
    os._exit(say(spent | {"bytes_read": bytes_read() - before, "records": ledger.size}))


def kill(folder: str) -> dict[str, Any]:
    """Append records after the last checkpoint, and be killed."""
    ledger = open_at(folder)
    ledger.seal()
    note = b'{"clock":"system","kind":"note","note":{"text":"%b"}}' % (b"x" * 1500)
    for _ in range(UNSEALED - 1):
        ledger.append([note], is_durable=False)
    ledger.sync()
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def bytes_read() -> int:
    """Bytes that this process asked the system for so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def wait_for_start() -> None:
    """Say that everything is ready, and wait."""
    print("ready", flush=True)
    sys.stdin.readline()


def say(result: dict[str, Any]) -> int:
    """Print a result."""
    print(json.dumps(result), flush=True)
    return 0


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "build": build,
    "bodies": bodies,
    "verify": verify,
    "append": append,
    "threads": threads,
    "disk": disk,
    "key": key,
    "open": open_,
    "kill": kill,
}

if __name__ == "__main__":
    sys.exit(say(TASKS[sys.argv[1]](*sys.argv[2:])))
