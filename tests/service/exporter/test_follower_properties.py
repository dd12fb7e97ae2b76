"""Whatever happens to a ledger, the count is that of its lines, and its state the right one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from prometheus_client import CollectorRegistry

from cert.service.exporter import follower as module
from cert.service.exporter.exporter import LedgerExporter
from cert.service.exporter.state import StateFile
from tests.service.exporter.disk import Disk, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.samples import Sample


@pytest.fixture(autouse=True, scope="module")
def small_rounds() -> Iterator[None]:
    """So that a look ends in the middle of a ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROUND_BYTES", 3000)
        yield


class Following(RuleBasedStateMachine):
    """What the ledger's files went through, and what was counted of them."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        root = Path(self.home.name)
        self.disk = Disk(root / "ledger")
        self.file = StateFile(root / "state.json")
        self.number = 0
        self.missed: set[int] = set()
        """Numbers of records that were pruned before they were counted."""
        self.seen = 0
        self.is_broken = False
        self.restarts = 0
        self.open()

    def teardown(self) -> None:
        self.home.cleanup()

    def open(self) -> None:
        self.exporter = LedgerExporter({"a": self.disk.folder}, state_file=self.file)
        self.registry = CollectorRegistry()
        self.registry.register(self.exporter)

    @rule(count=st.integers(1, 12))
    def grow(self, count: int) -> None:
        self.disk.grow(range(self.number, self.number + count))
        self.number += count

    @rule(share=st.floats(0.01, 0.99))
    def tear(self, share: float) -> None:
        line = self.disk.made.lines[-1]
        self.disk.write(torn=line[: max(1, int(len(line) * share))])

    @rule()
    def mend(self) -> None:
        self.disk.write()

    @rule()
    def seal(self) -> None:
        self.disk.seal()

    @rule()
    def close_segment(self) -> None:
        self.disk.cut()

    @rule()
    def rotate_key(self) -> None:
        self.number += 1
        self.disk.rotate(f"key-{self.number}")

    @rule()
    def prune(self) -> None:
        self.disk.prune()
        self.missed |= set(range(self.seen, self.disk.pruned))

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        self.look()
        size = data.draw(st.integers(max(1, self.disk.pruned), len(self.disk.made.lines)))
        if size < len(self.disk.made.lines):
            self.disk.truncate(size)
            self.is_broken = True
            self.restarts += 1
            self.missed = set(range(self.disk.pruned))
            self.seen = 0
            self.look()

    @rule()
    def swap(self) -> None:
        self.look()
        self.number += 1
        self.disk.swap(f"other-{self.number}")
        self.missed, self.seen, self.is_broken = set(), 0, False
        self.restarts += 1
        self.look()

    @rule()
    @precondition(lambda self: self.seen)
    def restart(self) -> None:
        self.exporter.save()
        self.open()
        self.look()

    @rule()
    def look(self) -> None:
        self.exporter.look()
        while self.exporter.is_behind:
            self.exporter.look()
        self.seen = len(self.disk.made.lines)
        self.compare()

    def compare(self) -> None:
        made = self.disk.made
        lines = [line for seq, line in enumerate(made.lines) if seq not in self.missed]
        samples = self.samples()
        assert counted(samples) == fold(lines)
        assert value(samples, "cert_ledger_records") == len(lines)
        assert value(samples, "cert_exporter_restarts_total") == self.restarts
        assert value(samples, "cert_exporter_errors_total") == 0
        size = len(made.lines)
        sealed = max((one for one in made.seals if one <= size), default=0)
        assert value(samples, "cert_ledger_unsealed_records") == size - sealed
        states = {s.labels["state"]: s.value for s in samples if s.name == "cert_ledger_state"}
        good = "consistent" if sealed == size else "unsealed"
        assert [name for name, is_it in states.items() if is_it] == [
            "broken" if self.is_broken else good
        ], self.exporter.followers["a"].state.fault

    def samples(self) -> list[Sample]:
        return [sample for family in self.registry.collect() for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return found


def counted(samples: list[Sample]) -> dict[str, Any]:
    """What the metrics say, in the form of `fold`."""

    def by(name: str, *labels: str) -> dict[Any, int]:
        found = {}
        for s in samples:
            if s.name == name and s.value:
                key = tuple(s.labels[one] for one in labels)
                found[key if len(key) > 1 else key[0]] = int(s.value)
        return found

    def histogram(name: str, edge: str) -> tuple[int, float, int]:
        def total(suffix: str, **labels: str) -> float:
            return sum(
                s.value
                for s in samples
                if s.name == name + suffix and labels.items() <= s.labels.items()
            )

        return int(total("_count")), total("_sum"), int(total("_bucket", le=edge))

    return {
        "kinds": by("cert_ledger_records_by_kind", "kind"),
        "statuses": by("cert_requests_total", "status"),
        "verdicts": by("cert_verdicts_total", "policy", "verdict"),
        "hits": int(value(samples, "cert_cache_hits_total")),
        "misses": int(value(samples, "cert_cache_misses_total")),
        "durations": histogram("cert_request_duration_seconds", "10.0"),
        "perplexities": histogram("cert_hamiltonian_perplexity", "50.0"),
    }


TestFollowing = Following.TestCase
TestFollowing.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
