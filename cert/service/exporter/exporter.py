"""Followers of several ledgers, as one thing to scrape, kept over restarts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector

from cert.core.errors import ConfigurationError
from cert.core.health import CheckResult
from cert.service.exporter.collector import build_families
from cert.service.exporter.follower import Condition, Follower
from cert.service.exporter.state import LedgerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from prometheus_client import Metric

    from cert.ledger.keys import PublicKey
    from cert.service.exporter.state import StateFile

logger = logging.getLogger(__name__)

MAX_LEDGERS: Final = 50
_GOOD: Final = (Condition.CONSISTENT, Condition.UNSEALED)


class LedgerExporter(Collector):
    """Looks at ledgers, and hands out what they held when it last did.

    One thread calls `look` and `save`; any may `collect`. A scrape reads nothing from the disk, and
    all it shows is of one moment.
    """

    def __init__(
        self,
        ledgers: Mapping[str, Path],
        *,
        state_file: StateFile | None = None,
        pinned: PublicKey | None = None,
    ) -> None:
        """Take up where the state file stands.

        Args:
            ledgers: Folder by name, at most `MAX_LEDGERS`.
            state_file: Keeps the counts; None counts from the beginning.
            pinned: The key that all of them must be of; None takes each by its own word.

        Raises:
            ConfigurationError: There are too many, or the state file cannot be read or written.
        """
        if not 0 < len(ledgers) <= MAX_LEDGERS:
            raise ConfigurationError(
                f"{len(ledgers)} ledgers; one process follows 1 to {MAX_LEDGERS}",
                hint="start several, each with a --state of its own",
            )
        self._state_file = state_file
        kept = {} if state_file is None else state_file.load()
        self.followers = {
            name: Follower(root, kept.get(name, LedgerState()), pinned=pinned)
            for name, root in ledgers.items()
        }
        self._updated_s: float | None = None
        self._families: list[Metric] = []
        self._publish()
        if state_file is not None:
            self._write(state_file)

    @property
    def is_behind(self) -> bool:
        """Whether something was left unread by the last look."""
        return any(one.behind_bytes for one in self.followers.values())

    def look(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read what is new in each ledger, up to a bound (`is_behind`), and show it.

        Args:
            stopped: Asked between two ledgers.
        """
        for follower in self.followers.values():
            if stopped():
                return
            follower.look()
            self._publish()
        self._updated_s = time.time()
        self._publish()

    def save(self) -> None:
        """Keep the counts; a disk that does not take them is logged, and tried again next time."""
        if self._state_file is None:
            return
        try:
            self._write(self._state_file)
        except ConfigurationError as error:
            logger.error(  # noqa: TRY400 - its message says it all
                "the state is not kept: after a restart, counting begins where it was last",
                extra={"reason": error.message},
            )

    def collect(self) -> Iterable[Metric]:
        """Hand out what the last look found."""
        return self._families

    def check(self) -> CheckResult:
        """Say how the ledgers are, for a health report."""
        conditions = {name: one.condition for name, one in self.followers.items()}
        words = ", ".join(f"{name} {condition.value}" for name, condition in conditions.items())
        if all(condition in _GOOD for condition in conditions.values()):
            return CheckResult.healthy(words)
        return CheckResult.degraded(words)

    def _publish(self) -> None:
        self._families = build_families(self.followers, updated_s=self._updated_s)

    def _write(self, state_file: StateFile) -> None:
        state_file.save({name: one.state for name, one in self.followers.items()})
