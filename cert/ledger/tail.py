"""`tail.json`: the writer's notes about the end, never trusted before they lead to a signed root.

For the writer, so that opening a ledger does not read it; for the verifier, to say whether the last
line is the one at fault (docs/record-format.md, 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from cert.ledger.errors import ProofError
from cert.ledger.index import Index
from cert.ledger.merkle import Frontier, verify_inclusion
from cert.ledger.side_file import parse_count, parse_hash, parse_hashes


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a ledger of `size` records.

    Attributes:
        size: Records.
        last_leaf: Leaf hash of the last one.
        proof: Its audit path.
        frontier: Roots of the full subtrees, the largest first.
        segment: First number of the segment that holds the end.
        offset: Where the next line begins in it.
        key: The key in force, in base64; empty where not known.
        index: Policies and runs.
    """

    size: int
    last_leaf: bytes
    proof: tuple[bytes, ...]
    frontier: tuple[bytes, ...]
    segment: int
    offset: int
    key: str = ""
    index: Index = field(default_factory=Index)

    def encode(self) -> bytes:
        """Write it as JSON."""
        return orjson.dumps(
            {
                "size": self.size,
                "last_leaf": self.last_leaf.hex(),
                "proof": [one.hex() for one in self.proof],
                "frontier": [one.hex() for one in self.frontier],
                "segment": self.segment,
                "offset": self.offset,
                "key": self.key,
                "policies": self.index.policies,
                "runs": self.index.runs,
            },
            option=orjson.OPT_SORT_KEYS,
        )

    def verify(self, root: bytes) -> None:
        """Check that both its hashes lead to the root that a checkpoint of this size signs.

        Raises:
            ProofError: They don't.
        """
        verify_inclusion(
            index=self.size - 1, size=self.size, leaf=self.last_leaf, path=self.proof, root=root
        )
        try:
            frontier = Frontier.from_roots(self.size, self.frontier)
        except ValueError as error:
            raise ProofError(str(error)) from error
        if frontier.root() != root:
            raise ProofError("the frontier leads to another root")


def parse_tail(data: bytes | None) -> Tail | None:
    """Read the notes; None where there are none that can be used."""
    if data is None:
        return None
    try:
        value = orjson.loads(data)
        tail = Tail(
            size=parse_count(value["size"]),
            last_leaf=parse_hash(value["last_leaf"]),
            proof=parse_hashes(value["proof"]),
            frontier=parse_hashes(value.get("frontier", [])),
            segment=parse_count(value.get("segment", 0)),
            offset=parse_count(value.get("offset", 0)),
            key=str(value.get("key", "")),
            index=Index(
                {str(key): parse_count(seq) for key, seq in value.get("policies", {}).items()},
                {str(key): _parse_run(run) for key, run in value.get("runs", {}).items()},
            ),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return tail if tail.size else None


def _parse_run(run: dict[str, Any]) -> dict[str, Any]:
    places = {name: parse_count(run[name]) for name in ("seq", "segment", "offset")}
    return {**places, "job": run["job"]}
