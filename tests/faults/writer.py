"""Appends to a ledger, and says in another file what was acknowledged, once it was.

    ack SEQ SHA256-of-the-line
    error TYPE: MESSAGE
    open | closed | ...

A line of that file is one write of its own, so what killed the process took none of it back.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import resource
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from cert.core.errors import CertError
from cert.ledger.appender import Ledger, open_ledger
from cert.ledger.canonical import canonical_bytes
from cert.ledger.control import utc_now
from cert.ledger.files import FolderLock
from cert.ledger.key_store import KeyStore
from cert.ledger.writer import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    parser.add_argument("keys", type=Path)
    parser.add_argument("acks", type=Path)
    parser.add_argument("--records", type=int, default=5, help="-1: for ever")
    parser.add_argument("--size-bytes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1, help="records an append")
    parser.add_argument("--seal-records", type=int, default=1000)
    parser.add_argument("--segment-bytes", type=int, default=1 << 26)
    parser.add_argument("--lock-timeout-s", type=float, default=60.0)
    parser.add_argument("--rotate-at", type=int, default=-1)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--no-lock", action="store_true")
    parser.add_argument("--stop-in-lock", action="store_true", help="SIGSTOP with the lock held")
    parser.add_argument("--fork", action="store_true", help="go on as two processes")
    parser.add_argument("--descriptors", type=int, help="this many, once all is imported")
    parser.add_argument("--spare-bytes", type=int, help="so much more memory than once imported")
    parser.add_argument("--user", type=int, help="become this one, once all is imported")
    parser.add_argument("--on-line", action="store_true", help="an append for each line of stdin")
    return parser.parse_args()


def body_of(size_bytes: int) -> bytes:
    return canonical_bytes(
        {
            "about": "x" * size_bytes,
            "id": str(uuid.uuid4()),
            "kind": "note",
            "schema": "1.0",
            "time": utc_now(),
            "clock": "system",
        }
    )


class Session:
    """One process's dealings with a ledger."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.said = os.open(args.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.keys = KeyStore(args.keys)

    def say(self, text: str) -> None:
        # Not write(): faults are put into that, and this must not fail.
        os.writev(self.said, [f"{text}\n".encode()])

    def attempt(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except (CertError, MemoryError) as error:
            self.say(f"error {type(error).__name__}: {error}")
            return False
        return True

    def open(self) -> Ledger:
        args = self.args
        limits = Limits(
            segment_bytes=args.segment_bytes,
            seal_records=args.seal_records,
            lock_timeout_s=args.lock_timeout_s,
        )
        return open_ledger(args.ledger, self.keys, origin="example.com/faults", limits=limits)

    def append(self, ledger: Ledger) -> None:
        bodies = [body_of(self.args.size_bytes) for _ in range(self.args.batch)]
        entries = ledger.append(bodies)
        digests = ((one.seq, hashlib.sha256(one.line).hexdigest()) for one in entries)
        self.say("\n".join(f"ack {seq} {digest}" for seq, digest in digests))

    def rotate(self, ledger: Ledger) -> None:
        ledger.rotate(self.keys.find(next(one for one in self.keys.all() if one != ledger.key)))

    def turns(self) -> Iterator[int]:
        number = 0
        while number != self.args.records:
            if self.args.on_line and not sys.stdin.readline():
                return
            yield number
            number += 1
            time.sleep(self.args.pause_s)

    def run(self) -> bool:
        opened: list[Ledger] = []
        if not self.attempt(lambda: opened.append(self.open())):
            return False
        (ledger,) = opened
        self.say("open")
        if self.args.stop_in_lock:
            with FolderLock(self.args.ledger).held(10):
                self.say("holding")
                os.kill(os.getpid(), signal.SIGSTOP)
        child = os.fork() if self.args.fork else None
        is_good = True
        for number in self.turns():
            if number == self.args.rotate_at:
                is_good &= self.attempt(lambda: self.rotate(ledger))
            is_good &= self.attempt(lambda: self.append(ledger))
        is_good &= self.attempt(ledger.close)
        self.say("closed")
        if child:
            _, status = os.waitpid(child, 0)
            is_good &= status == 0
        return is_good


def main() -> int:
    args = parse_arguments()
    if args.no_lock:
        FolderLock.held = lambda *_: contextlib.nullcontext()  # type: ignore[method-assign,assignment,return-value]
    session = Session(args)
    session.keys.default().sign(b"import what signing needs")
    if args.user is not None:
        os.setuid(args.user)
    if args.descriptors is not None:
        limit(resource.RLIMIT_NOFILE, args.descriptors)
    if args.spare_bytes is not None:
        used_pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit(resource.RLIMIT_AS, used_pages * resource.getpagesize() + args.spare_bytes)
    return 0 if session.run() else 3


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    sys.exit(main())
