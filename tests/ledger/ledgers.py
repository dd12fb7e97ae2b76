"""Ledgers made from docs/record-format.md alone, to hold the code against. Nothing of `cert` here.

Lines are written by `rfc8785`, trees follow the recursive definitions of RFC 6962, signatures are
made with `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGIN = "example.com/ledger"


def open_files() -> set[str]:
    """Descriptors of this process, to see that none is left open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def private(name: str) -> Ed25519PrivateKey:
    """A key that is always the same one for a name."""
    return Ed25519PrivateKey.from_private_bytes(sha(name.encode()))


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


# RFC 6962, 2.1. Leaves are leaf hashes.


def leaf_of(line: bytes) -> bytes:
    return sha(b"\x00" + line)


def _half(size: int) -> int:
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = _half(len(leaves))
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path_of(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = _half(len(leaves))
    if m < k:
        return [*path_of(m, leaves[:k]), mth(leaves[k:])]
    return [*path_of(m - k, leaves[k:]), mth(leaves[:k])]


def proof_of(m: int, leaves: Sequence[bytes], *, is_whole: bool = True) -> list[bytes]:
    if m == len(leaves):
        return [] if is_whole else [mth(leaves)]
    k = _half(len(leaves))
    if m <= k:
        return [*proof_of(m, leaves[:k], is_whole=is_whole), mth(leaves[k:])]
    return [*proof_of(m - k, leaves[k:], is_whole=False), mth(leaves[:k])]


def frontier_of(leaves: Sequence[bytes]) -> list[bytes]:
    """Roots of the full subtrees, the largest first."""
    if not leaves:
        return []
    k = 1
    while 2 * k <= len(leaves):
        k *= 2
    return [mth(leaves[:k]), *frontier_of(leaves[k:])]


# Signed notes.


def signature_line(name: str, key: Ed25519PrivateKey, text: str) -> str:
    key_id = sha(name.encode() + b"\n\x01" + raw(key))[:4]
    return f"— {name} {b64(key_id + key.sign(text.encode()))}\n"


def note_of(origin: str, size: int, root: bytes, *keys: Ed25519PrivateKey) -> bytes:
    text = f"{origin}\n{size}\n{b64(root)}\n"
    return (text + "\n" + "".join(signature_line(origin, key, text) for key in keys)).encode()


# Lines.


def line_of(prev: bytes, seq: int, record: dict[str, Any]) -> bytes:
    line: bytes = rfc8785.dumps({"_prev": prev.hex(), "_seq": seq, **record})
    return line


def control(kind: str, **members: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "kind": kind,
        "schema": "1.0",
        "id": "00000000-0000-4000-8000-000000000000",
        "time": "2026-11-01T00:00:00.000Z",
        "clock": "system",
        **members,
    }


def record(number: int, **members: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """An ordinary record: its first key sorts before `clock`."""
    return {"assessment": {"n": number}, "kind": "analysis", "text": "x" * (number % 7), **members}


@dataclass
class Made:
    """A ledger in memory: lines, sizes at which checkpoints are signed, the key of each turn."""

    lines: list[bytes] = field(default_factory=list)
    origin: str = ORIGIN
    turns: list[tuple[int, Ed25519PrivateKey]] = field(default_factory=list)
    seals: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_of(line) for line in self.lines]

    @property
    def key(self) -> Ed25519PrivateKey:
        return self.turns[-1][1]

    def add(self, record: dict[str, Any]) -> None:
        self.lines.append(line_of(leaf_of(self.lines[-1]), len(self.lines), record))

    def grow(self, count: int) -> None:
        for _ in range(count):
            self.add(record(len(self.lines)))

    def seal(self) -> None:
        self.seals.append(len(self.lines))

    def cut(self) -> None:
        """Go on in a new segment."""
        self.cuts.append(len(self.lines))

    def rotate(self, new: Ed25519PrivateKey) -> None:
        seq, prev = len(self.lines), leaf_of(self.lines[-1])
        old = self.key
        text = "".join(
            f"{one}\n"
            for one in (
                "cert-ledger/key-rotation/v1",
                self.origin,
                seq,
                prev.hex(),
                b64(raw(old)),
                b64(raw(new)),
            )
        ).encode()
        member = {
            "previous": b64(raw(old)),
            "public_key": b64(raw(new)),
            "signature": b64(old.sign(text)),
            "proof": b64(new.sign(text)),
        }
        self.add(control("key", key=member))
        self.turns.append((seq + 1, new))

    def key_at(self, size: int) -> Ed25519PrivateKey:
        return [key for since, key in self.turns if since <= size][-1]

    def note(self, size: int) -> bytes:
        return note_of(self.origin, size, mth(self.leaves[:size]), self.key_at(size))

    def write(self, folder: Path) -> Path:
        """Lay it out as a folder, without tail.json."""
        for name in ("segments", "checkpoints"):
            (folder / name).mkdir(parents=True)
        starts = [0, *self.cuts]
        ends = [*self.cuts, len(self.lines)]
        for start, end in zip(starts, ends, strict=True):
            content = b"".join(line + b"\n" for line in self.lines[start:end])
            (folder / "segments" / f"{start:012d}.jsonl").write_bytes(content)
        for size in self.seals:
            (folder / "checkpoints" / f"{size:012d}.note").write_bytes(self.note(size))
        return folder

    def tail(self, size: int, /, **changed: object) -> dict[str, object]:
        """What tail.json says of this size."""
        start = max(one for one in [0, *self.cuts] if one < size)
        leaves = self.leaves[:size]
        return {
            "size": size,
            "last_leaf": leaves[-1].hex(),
            "proof": [one.hex() for one in path_of(size - 1, leaves)],
            "frontier": [one.hex() for one in frontier_of(leaves)],
            "segment": start,
            "offset": sum(len(line) + 1 for line in self.lines[start:size]),
            "key": b64(raw(self.key_at(size))),
            "policies": {},
            "runs": {},
            **changed,
        }

    def say_pruned(self, size: int, /, **changed: object) -> None:
        """Append the record without which removing the first records is not accounted for."""
        member = {"size": size, "root": b64(mth(self.leaves[:size])), **changed}
        self.add(control("pruned", pruned=member))

    def pruned(self, size: int, kept: Sequence[int]) -> dict[str, Any]:
        """What pruned.json says where the first records are gone, proven by the tree of `size`."""
        leaves = self.leaves[:size]
        return {
            "size": size,
            "last_leaf": leaves[-1].hex(),
            "frontier": [one.hex() for one in frontier_of(leaves)],
            "kept": [
                {
                    "seq": seq,
                    "line": self.lines[seq].decode(),
                    "size": size,
                    "proof": [one.hex() for one in path_of(seq, leaves)],
                }
                for seq in kept
            ],
        }


def genesis_line(key: Ed25519PrivateKey, origin: str = ORIGIN) -> bytes:
    member = {"format": "1", "origin": origin, "public_key": b64(raw(key))}
    prev = sha(b"\x02" + origin.encode() + b"\n" + raw(key))
    return line_of(prev, 0, control("genesis", ledger=member))


def begin(key: Ed25519PrivateKey | None = None, *, origin: str = ORIGIN) -> Made:
    """A ledger of its genesis alone."""
    key = key or private("first")
    return Made([genesis_line(key, origin)], origin, [(0, key)])


def make(count: int, *, seals: Sequence[int] = (), cuts: Sequence[int] = ()) -> Made:
    """A ledger of so many records with checkpoints and segments at these places."""
    made = begin()
    made.grow(count - 1)
    made.seals, made.cuts = list(seals), list(cuts)
    return made
