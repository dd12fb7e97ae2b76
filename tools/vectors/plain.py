"""Plain files of lines, and proofs that stand alone: what a verifier must say of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.line import leaf_hash
from cert.ledger.merkle import consistency_ranges, range_roots
from cert.ledger.proofs import ConsistencyProof, InclusionProof
from tools.vectors.attack import newest_head, tweak
from tools.vectors.forge import RECORDS, Scene, chained, note, note_of, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class PlainCase:
    """A file of lines.

    Attributes:
        name: Words joined by `-`.
        about: What it is, for people.
        data: The file.
        state: As verifiers write it; None where they must refuse to say anything (exit 2).
        line: Of the first finding of that state; None where there is none.
        offset: Where that line begins.
        head: Kept elsewhere; None for none.
    """

    name: str
    about: str
    data: bytes
    state: str | None
    line: int | None = None
    offset: int | None = None
    head: bytes | None = None


@dataclass(frozen=True, slots=True)
class ProofCase:
    """A proof.

    Attributes:
        name: Words joined by `-`.
        about: What it is, for people.
        data: The proof.
        state: `valid` or `invalid`.
        old: The head that a proof of consistency continues; None for a proof of inclusion.
        key: Which key is pinned: `new` or `stranger`.
    """

    name: str
    about: str
    data: bytes
    state: str
    old: bytes | None = None
    key: str = "new"


def plain_cases(scene: Scene) -> Iterator[PlainCase]:
    """Files of the genuine ledger's lines, and of lines without links."""

    def case(  # noqa: PLR0913, PLR0917 - what a case is made of
        name: str,
        about: str,
        lines: Sequence[bytes],
        state: str | None,
        line: int | None = None,
        head: bytes | None = None,
        rest: bytes = b"",
    ) -> PlainCase:
        data = b"".join(one + b"\n" for one in lines) + rest
        offset = None if line is None else sum(len(one) + 1 for one in lines[: line - 1])
        return PlainCase(f"plain-{name}", about, data, state, line, offset, head)

    every, head = scene.image.lines, newest_head(scene)
    edited = [*every[:4], tweak(every[4]), *every[5:]]
    bare = [note(seq) for seq in range(5)]
    yield case("whole", "all lines: nothing in the file is signed", every, "unsealed", 1)
    yield case("whole-head", "all lines, and the ledger's head", every, "valid", head=head)
    older = scene.image.note(14)
    yield case("grown-head", "all lines, and an older head", every, "unsealed", 15, older)
    yield case("part", "the lines of the last segment", every[14:], "unsealed", 1)
    yield case("part-head", "the same; a head cannot be compared", every[14:], None, head=head)
    yield case("gaps", "other runs' lines left out", every[2:5] + every[8:10], "unsealed", 1)
    yield case("short-head", "fewer lines than the head", every[:18], "rolled-back", 19, head)
    yield case("edited", "line 5 edited", edited, "invalid", 5)
    yield case("backwards", "two lines swapped", [every[6], every[5]], "invalid", 2)
    yield case("torn", "the last line is incomplete", every[:3], "torn", 4, rest=every[3][:50])
    yield case("empty", "an empty file", [], "invalid", 1)
    yield case("bare", "lines without links: canonical form alone", bare, "unsealed", 1)
    spaced = [*bare[:2], bare[2].replace(b":", b": ", 1), *bare[3:]]
    yield case("bare-spaced", "lines without links, one with white space", spaced, "invalid", 3)
    yield case("bare-mixed", "one line with links among others", [*bare, every[5]], "invalid", 1)


def proof_cases(scene: Scene) -> Iterator[ProofCase]:
    """Proofs of the genuine ledger, and false ones."""
    lines, newest = scene.image.lines, newest_head(scene)
    good, bad = "valid", "invalid"

    def inclusion(seq: int, line: bytes | None = None, index: int | None = None) -> bytes:
        path = tuple(path_of(lines, seq))
        at = seq if index is None else index
        return InclusionProof(line or lines[seq], at, path, parse_checkpoint(newest)).encode()

    def consistency(old: int, of: Sequence[bytes] = lines) -> bytes:
        hashes = range_roots(map(leaf_hash, of), consistency_ranges(old, RECORDS))
        return ConsistencyProof(old, tuple(hashes), parse_checkpoint(newest)).encode()

    yield ProofCase("proof-first", "that the genesis is in the ledger", inclusion(0), good)
    yield ProofCase("proof-middle", "that record 12 is in the ledger", inclusion(12), good)
    yield ProofCase("proof-last", "that record 19 is in the ledger", inclusion(19), good)
    edited = inclusion(12, tweak(lines[12]))
    yield ProofCase("proof-edited", "of an edited record", edited, bad)
    yield ProofCase("proof-of-another", "of another index", inclusion(12, index=13), bad)
    yield ProofCase("proof-other-key", "another key is pinned", inclusion(12), bad, key="stranger")
    yield ProofCase("proof-cut", "a proof without its signature", inclusion(12)[:-100], bad)
    old = scene.image.note(14)
    yield ProofCase("consistency", "from 14 to 20 records", consistency(14), good, old)
    first = scene.image.note(7)
    yield ProofCase(
        "consistency-rotated", "from a head by the old key", consistency(7), good, first
    )
    other = [*lines[:5], *chained(lines[:5], *(note(seq, "x") for seq in range(5, RECORDS)))[5:]]
    fork = note_of(other[:14], scene.origin, scene.new)
    yield ProofCase("consistency-forked", "from another history", consistency(14), bad, fork)
    yield ProofCase(
        "consistency-of-another", "from a head of another size", consistency(14), bad, first
    )
