"""Where the reading of ledgers stands, and the file that keeps it over a restart."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from cert.core.errors import ConfigurationError
from cert.ledger.files import make_folder, write_file
from cert.observability.metrics import DURATION_BUCKETS_S, PERPLEXITY_BUCKETS
from cert.service.exporter.totals import Histogram, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

FORMAT: Final = 1
MAX_STATE_BYTES: Final = 1 << 26


class Position(msgspec.Struct, frozen=True):
    """How far a ledger was read.

    Attributes:
        size: Records up to here, removed ones included.
        seq: Number that the next one should have; other than `size` only where there is a fault.
        last_leaf: Leaf hash of the last one, in hex: what the next one links to.
        frontier: Roots of the full subtrees of the tree so far, in hex, the largest first.
        segment: First number of the file that holds the last line.
        start: Where that line begins in it; equal to `end` where it cannot be told again, and where
            none of its lines was read.
        end: Where the next one begins.
    """

    size: int
    seq: int
    last_leaf: str
    frontier: list[str]
    segment: int
    start: int
    end: int


class LedgerState(msgspec.Struct):
    """What is known of one ledger.

    Attributes:
        position: None before anything was read.
        lineage: The genesis and the records that pass its key on, as lines; empty where there is
            no good genesis.
        sealed: Records that the newest good checkpoint covers.
        fault: What is wrong with it, in words; empty where nothing is.
        restarts: How often counting began anew because another history was found.
        errors: How often it could not be read.
        totals: The count.
    """

    position: Position | None = None
    lineage: list[str] = []
    sealed: int = 0
    fault: str = ""
    restarts: int = 0
    errors: int = 0
    totals: Totals = msgspec.field(default_factory=Totals)


class _File(msgspec.Struct):
    format: int
    ledgers: dict[str, LedgerState]


class StateFile:
    """The file. One process at a time should use it; two would count right and overwrite it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = b""

    def load(self) -> dict[str, LedgerState]:
        """State by name of the ledger; empty, with a warning, where the file is none of ours.

        Raises:
            ConfigurationError: It is there and cannot be read.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._unusable(None)
        with os.fdopen(fd, "rb") as file:
            data = file.read(MAX_STATE_BYTES)
        try:
            kept = msgspec.json.decode(data, type=_File)
            if kept.format != FORMAT or not all(map(_is_usable, kept.ledgers.values())):
                raise ValueError("of another version")  # noqa: TRY301 - handled as what is no JSON
        except (ValueError, RecursionError) as error:
            logger.warning(
                "the state file is not used: ledgers are counted from their beginning",
                extra={"file": str(self.path), "reason": str(error)},
            )
            return {}
        return kept.ledgers

    def save(self, ledgers: Mapping[str, LedgerState]) -> None:
        """Write it, if anything changed; mode 0600, renamed into place.

        Raises:
            ConfigurationError: It cannot be written.
        """
        data = msgspec.json.encode(_File(FORMAT, dict(ledgers)))
        if data == self._written:
            return
        try:
            make_folder(self.path.parent)
            write_file(self.path, data)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        self._written = data

    def _unusable(self, error: OSError | ValueError | None) -> ConfigurationError:
        reason = "it is no regular file" if error is None else getattr(error, "strerror", error)
        return ConfigurationError(
            f"the state file {self.path} cannot be used: {reason}",
            hint="name another with --state FILE, or give --state none",
        )


def _is_usable(state: LedgerState) -> bool:
    """Whether a state fits this version: its buckets, and what a position is made of."""
    totals = state.totals
    histograms = [(totals.perplexity, len(PERPLEXITY_BUCKETS))]
    histograms += [(one, len(DURATION_BUCKETS_S)) for one in totals.durations.values()]
    return all(_has_buckets(one, count) for one, count in histograms) and (
        state.position is None or _is_position(state.position)
    )


def _has_buckets(histogram: Histogram, bounds: int) -> bool:
    return len(histogram.counts) == bounds + 1


def _is_position(position: Position) -> bool:
    try:
        hashes = [bytes.fromhex(one) for one in (position.last_leaf, *position.frontier)]
    except ValueError:
        return False
    return (
        position.size.bit_count() == len(position.frontier)
        and all(len(one) == 32 for one in hashes)  # noqa: PLR2004 - SHA-256
        and 0 <= position.start <= position.end
        and min(position.size, position.seq, position.segment) >= 0
    )
