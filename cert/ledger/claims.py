"""What a ledger says of itself before anything is verified: a hint, never trust.

Which of several keys may be meant is found by it; the verification then decides.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.ledger.checkpoint import parse_checkpoint
from cert.ledger.errors import ProofError
from cert.ledger.lineage import Genesis, parse_genesis
from cert.ledger.pruned import parse_pruned
from cert.ledger.reader import PRUNED, read_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.ledger.checkpoint import SignedCheckpoint
    from cert.ledger.keys import PublicKey
    from cert.ledger.reader import Reader


@dataclass(frozen=True, slots=True)
class Claims:
    """What is claimed, where it can be read.

    Attributes:
        genesis: Origin and first key.
        newest: The newest checkpoint.
    """

    genesis: Genesis | None = None
    newest: SignedCheckpoint | None = None

    @property
    def origin(self) -> str | None:
        """The ledger's name, as claimed."""
        if self.genesis is not None:
            return self.genesis.origin
        return None if self.newest is None else self.newest.checkpoint.origin

    def choose(self, keys: Sequence[PublicKey]) -> PublicKey | None:
        """Find the key that is meant: it signed the newest checkpoint, or began the ledger.

        Returns:
            One of the keys; None where none of them is meant.
        """
        if self.newest is not None:
            for key in keys:
                with suppress(ProofError):
                    self.newest.verify(key)
                    return key
        first = None if self.genesis is None else self.genesis.key
        return next((key for key in keys if key == first), None)


def read_claims(reader: Reader) -> Claims:
    """Read what a ledger claims; what is not there or broken is left out.

    Raises:
        LedgerError: A file cannot be read.
    """
    genesis, newest = None, None
    with suppress(ProofError):
        line = _first_line(reader)
        genesis = None if line is None else parse_genesis(line)
    with suppress(ProofError, IndexError):
        newest = parse_checkpoint(reader.read_checkpoint(reader.checkpoints[-1]))
    return Claims(genesis, newest)


def _first_line(reader: Reader) -> bytes | None:
    data = reader.read_side_file(PRUNED)
    if data is not None:
        return next((one.line for one in parse_pruned(data).kept), None)
    for segment in reader.segments:
        with reader.open_segment(segment) as file:
            for block in read_blocks(file, segment.size_bytes):
                return block.lines[0]
    return None
