"""Build and forge ledgers byte for byte: fixed keys, fixed times, fixed ids.

The genuine ledger has 20 records in three segments, two keys and four checkpoints:

    lines 1..7    seq 0..6     genesis, notes                  checkpoint 7, by the old key
    lines 8..14   seq 7..13    notes, line 11 rotates the key  checkpoints 11 and 14, by the new key
    lines 15..20  seq 14..19   notes                           checkpoint 20, tail.json
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cert.ledger.canonical import canonical_bytes, parse_canonical
from cert.ledger.checkpoint import Checkpoint, sign_checkpoint
from cert.ledger.keys import Signer, rotation_message
from cert.ledger.line import genesis_prev, join_links, leaf_hash
from cert.ledger.merkle import Frontier, inclusion_ranges, range_roots
from cert.ledger.pruned import KeptLine, PrunedPart
from cert.ledger.tail import Tail
from tools.vectors.image import SEGMENTS, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ORIGIN = "example.org/vectors"
RECORDS = 20
ROTATION_SEQ = 10
PRUNING_SEQ = 17
FIRSTS = (0, 7, 14)
SEALED = (7, 11, 14, 20)

_LINKS = re.compile(rb'\{"_prev":"[0-9a-f]{64}","_seq":[0-9]+,')


def signer(name: str) -> Signer:
    """A key that is the same every time, and known to everybody."""
    seed = hashlib.sha256(f"cert vectors: {name}".encode()).digest()
    return Signer(Ed25519PrivateKey.from_private_bytes(seed))


@dataclass(frozen=True, slots=True)
class Scene:
    """What an attack starts from.

    Attributes:
        image: The ledger.
        accounted: The same up to line 17; line 18 is a `pruned` record of the first two segments.
        other: Another ledger of the same shape and the same keys.
        origin: Of the ledger.
        old: Signs up to the rotation.
        new: Signs after it.
        stranger: Has no right to sign anything.
    """

    image: Image
    accounted: Image
    other: Image
    origin: str
    old: Signer
    new: Signer
    stranger: Signer

    def owner(self, size: int) -> Signer:
        """Who signs the checkpoint of a size."""
        return self.old if size <= ROTATION_SEQ else self.new

    def stranger_at(self, _size: int) -> Signer:
        """Sign as the stranger, whatever the size."""
        return self.stranger

    def sign(self, lines: Sequence[bytes], by: Signer) -> bytes:
        """A checkpoint of some lines under the ledger's origin."""
        return note_of(lines, self.origin, by)

    def reseal(self, image: Image, by: Callable[[int], Signer]) -> Image:
        """Sign every checkpoint anew that the lines reach, and write the notes about the end."""
        lines = image.lines
        for size in image.sizes:
            if size <= len(lines):
                image = image.put_note(size, self.sign(lines[:size], by(size)))
        return image.put("tail.json", tail_of(image))


def record(kind: str, seq: int, **members: object) -> bytes:
    """A record's canonical bytes without links."""
    head = {
        "clock": "system",
        "id": f"00000000-0000-4000-8000-{seq:012d}",
        "kind": kind,
        "schema": "1.0",
        "time": f"2026-11-23T10:{seq // 60:02d}:{seq % 60:02d}.000Z",
    }
    return canonical_bytes({**head, **members})


def note(seq: int, text: str = "") -> bytes:
    """A note; `Größe` is written with a combining diaeresis."""
    return record("note", seq, note={"text": text or f"Gro\u0308ße {seq}"}, value=42, one=1)


def pruning(seq: int, removed: Sequence[bytes]) -> bytes:
    """The record that accounts for the removal of the first lines."""
    export = {"sha256": hashlib.sha256(b"export.zip").hexdigest(), "bytes": 4711}
    root = base64.b64encode(tree_of(removed).root()).decode()
    said = {"size": len(removed), "root": root, "before": "2026-11-23T10:00:14.000Z"}
    return record("pruned", seq, pruned={**said, "export": export, "reason": "retention"})


def genesis(origin: str, by: Signer) -> bytes:
    """Record 0, with its links."""
    member = {"format": "1", "origin": origin, "public_key": by.public.base64}
    return join_links(genesis_prev(origin, by.public), 0, record("genesis", 0, ledger=member))


def rotation(lines: Sequence[bytes], origin: str, old: Signer, new: Signer) -> bytes:
    """The line that passes a ledger on, behind some lines."""
    seq, prev = len(lines), leaf_hash(lines[-1])
    message = rotation_message(origin, seq, prev, old.public, new.public)
    member = {
        "previous": old.public.base64,
        "public_key": new.public.base64,
        "signature": base64.b64encode(old.sign(message)).decode(),
        "proof": base64.b64encode(new.sign(message)).decode(),
    }
    return join_links(prev, seq, record("key", seq, key=member))


def chained(lines: Sequence[bytes], *bodies: bytes) -> list[bytes]:
    """Lines, and records linked to their end."""
    result = list(lines)
    for body in bodies:
        result.append(join_links(leaf_hash(result[-1]), len(result), body))
    return result


def relinked(image: Image, after: int) -> Image:
    """Number and link all lines after one anew, as anybody can."""
    lines = image.lines[:after]
    for line in image.lines[after:]:
        lines += chained(lines, b"{" + _LINKS.sub(b"", line))[-1:]
    return image.with_chunks(
        one._replace(raw=line + b"\n") for one, line in zip(image.chunks, lines, strict=True)
    )


def tree_of(lines: Sequence[bytes]) -> Frontier:
    """The tree of some lines."""
    tree = Frontier()
    tree.extend(map(leaf_hash, lines))
    return tree


def note_of(lines: Sequence[bytes], origin: str, by: Signer) -> bytes:
    """A signed checkpoint of some lines."""
    return sign_checkpoint(Checkpoint(origin, len(lines), tree_of(lines).root()), by)


def path_of(lines: Sequence[bytes], seq: int) -> list[bytes]:
    """The audit path of a line among some lines."""
    return range_roots(map(leaf_hash, lines), inclusion_ranges(seq, len(lines)))


def tail_of(image: Image) -> bytes:
    """The writer's notes about the end of all lines, as `tail.json` has them."""
    lines = image.lines
    last = image.segments[-1]
    return Tail(
        size=len(lines),
        last_leaf=leaf_hash(lines[-1]),
        proof=tuple(path_of(lines, len(lines) - 1)),
        frontier=tuple(tree_of(lines).roots()),
        segment=int(last.removesuffix(".jsonl")),
        offset=len(image.files[SEGMENTS + last]),
    ).encode()


def image_of(
    lines: Sequence[bytes], firsts: Sequence[int], notes: Mapping[int, bytes], **files: bytes
) -> Image:
    """Lay lines out in segments, beside checkpoints by size."""
    ends = [*firsts[1:], len(lines)]
    named = {
        f"{SEGMENTS}{first:012d}.jsonl": b"".join(line + b"\n" for line in lines[first:end])
        for first, end in zip(firsts, ends, strict=True)
    }
    image = Image({**named, **files})
    for size, data in notes.items():
        image = image.put_note(size, data)
    return image


def genuine(origin: str, old: Signer, new: Signer, *, accounts: bool = False) -> Image:
    """The ledger that the module describes.

    Args:
        origin: Its origin.
        old: Signs up to the rotation.
        new: Signs after it.
        accounts: Whether line 18 is a `pruned` record of the first two segments instead of a note.
    """
    lines = chained([genesis(origin, old)], *(note(seq) for seq in range(1, ROTATION_SEQ)))
    lines.append(rotation(lines, origin, old, new))
    bodies = {seq: note(seq) for seq in range(ROTATION_SEQ + 1, RECORDS)}
    if accounts:
        removed = chained(lines, *(bodies[seq] for seq in range(ROTATION_SEQ + 1, FIRSTS[2])))
        bodies[PRUNING_SEQ] = pruning(PRUNING_SEQ, removed)
    lines = chained(lines, *bodies.values())
    notes = {
        size: note_of(lines[:size], origin, old if size <= ROTATION_SEQ else new) for size in SEALED
    }
    image = image_of(lines, FIRSTS, notes)
    return image.put("tail.json", tail_of(image))


def scene() -> Scene:
    """The genuine ledger and all that attacks on it need; the same bytes every time."""
    old, new, stranger = signer("old"), signer("new"), signer("stranger")
    other = genuine("example.org/another", old, new, accounts=True)
    accounted = genuine(ORIGIN, old, new, accounts=True)
    return Scene(genuine(ORIGIN, old, new), accounted, other, ORIGIN, old, new, stranger)


def kept(lines: Sequence[bytes], seq: int, size: int) -> KeptLine:
    """A line of a removed part, with its proof in the tree of a size."""
    return KeptLine(seq, lines[seq], size, tuple(path_of(lines[:size], seq)))


def pruned_part(lines: Sequence[bytes], size: int, keep: Mapping[int, int]) -> PrunedPart:
    """What stands for the first lines.

    Args:
        lines: Of the whole ledger.
        size: How many are removed.
        keep: By `_seq` of a line that is kept: size of the checkpoint that proves it.
    """
    return PrunedPart(
        size,
        tuple(tree_of(lines[:size]).roots()),
        leaf_hash(lines[size - 1]),
        tuple(kept(lines, seq, proven) for seq, proven in sorted(keep.items())),
    )


def pruned(image: Image) -> Image:
    """The ledger without its first two segments; genesis and rotation are kept."""
    part = pruned_part(image.lines, FIRSTS[2], {0: SEALED[0], ROTATION_SEQ: SEALED[2]})
    gone = (f"{SEGMENTS}{first:012d}.jsonl" for first in FIRSTS[:2])
    return image.drop(*gone).put("pruned.json", part.encode())


def re_encoded(line: bytes, **members: object) -> bytes:
    """A line with other members, canonical again."""
    return canonical_bytes({**parse_canonical(line), **members})


def with_member(data: bytes, name: str, value: object) -> bytes:
    """Any JSON object with another member, compact and in order of keys."""
    changed = {**json.loads(data), name: value}
    return json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
