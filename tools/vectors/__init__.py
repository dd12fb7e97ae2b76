"""Ledgers that are made byte for byte, attacks on them, and what must be said of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.vectors.checkpoints import checkpoint_attacks, head_attacks
from tools.vectors.forgeries import forged_records, rewritten_ledgers, rotation_attacks
from tools.vectors.lines import line_attacks
from tools.vectors.pruned import pruned_attacks
from tools.vectors.segments import segment_attacks
from tools.vectors.spelling import shape_attacks, spelling_attacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.vectors.attack import Attack


def all_attacks() -> Iterator[Attack]:
    """Every attack there is."""
    yield from line_attacks()
    yield from spelling_attacks()
    yield from shape_attacks()
    yield from segment_attacks()
    yield from forged_records()
    yield from rewritten_ledgers()
    yield from rotation_attacks()
    yield from checkpoint_attacks()
    yield from head_attacks()
    yield from pruned_attacks()
