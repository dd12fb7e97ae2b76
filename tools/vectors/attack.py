"""What an attack is: a change, and what a verifier must say of it.

What is expected was worked out from docs/record-format.md, not from what a verifier said. Line
numbers are those of the ledger of `tools.vectors.forge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.vectors.forge import FIRSTS, RECORDS, Scene
from tools.vectors.image import SEGMENTS, Image, Spot

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = (f"{SEGMENTS}{first:012d}.jsonl" for first in FIRSTS)
"""Names of the three segments."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A change, how it is verified, and what must come of it.

    Attributes:
        name: Words joined by `-`.
        about: What was done, for people.
        change: Does it.
        state: As verifiers write it; None where they must refuse to say anything (exit 2).
        line: Of the first finding of that state; None where there is none.
        head: Kept elsewhere; None for none.
        key: Which key is pinned: `new`, `old` or `stranger`.
        deep: Whether records are looked into, too.
        spot: Where the finding is, if not where the line begins.
        is_schema: Whether it takes the schema to see it, which only `cert` looks at.
    """

    name: str
    about: str
    change: Callable[[Scene], Image]
    state: str | None
    line: int | None = None
    head: Callable[[Scene], bytes] | None = None
    key: str = "new"
    deep: bool = False
    spot: Spot | None = None
    is_schema: bool = False

    def spot_in(self, image: Image) -> Spot:
        """Where the finding must be in the changed ledger."""
        if self.spot is not None:
            return self.spot
        if self.line is None:
            return Spot(None, None)
        return image.spot(self.line - (FIRSTS[2] if "pruned.json" in image.files else 0))


def newest_head(scene: Scene) -> bytes:
    """The head of the genuine ledger, as it was kept elsewhere."""
    return scene.image.note(RECORDS)


def tweak(line: bytes) -> bytes:
    """A small change that leaves any record canonical."""
    return line.replace(b'"schema":"1.0"', b'"schema":"1.1"')
