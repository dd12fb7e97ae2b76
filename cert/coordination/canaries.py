"""Canaries: answers of known worth, to test judges with."""

from __future__ import annotations

import msgspec

from cert.coordination.digests import digest_of
from cert.coordination.evaluator_parameters import Criterion, Judged
from cert.coordination.prompts import coordination_file
from cert.coordination.tasks import Task
from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import parse_yaml


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of known worth.

    Attributes:
        id: Names it; each once.
        kind: `good`, `bad`, or `injection` for a bad one that speaks to the judge.
        prompt: The task.
        candidate: The answer.
        rubric: The criteria.
        least: Lowest score that a sound judge gives, in [0, 1].
        most: Highest one.
    """

    id: str
    kind: str
    prompt: str
    candidate: str
    rubric: tuple[Criterion, ...]
    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if self.kind not in {"good", "bad", "injection"}:
            raise ValueError(f"kind is {self.kind!r}; expected good, bad or injection")
        if not 0.0 <= self.least <= self.most <= 1.0:
            raise ValueError(f"{self.least} to {self.most}; expected 0 <= least <= most <= 1")
        if "/" in self.id or not self.id:
            raise ValueError(f"id is {self.id!r}; expected a name without a slash")
        Judged(self.rubric)

    @property
    def task(self) -> Task:
        """What the judges see; nothing tells it from a task of the run."""
        return Task(id=self.id, group_id=self.id, prompt=self.prompt, evaluator=Judged(self.rubric))

    @property
    def digest(self) -> str:
        """`sha256:` over every field."""
        return digest_of(msgspec.to_builtins(self))


def load_canaries() -> tuple[Canary, ...]:
    """Load the canaries that come with the library."""
    name = "canaries.yaml"
    return parse_canaries(coordination_file(name).read_bytes(), source=name)


def parse_canaries(data: bytes, *, source: str) -> tuple[Canary, ...]:
    """Read canaries from YAML.

    Raises:
        ConfigurationError: They are none, or an id stands twice.
    """
    try:
        canaries = msgspec.convert(parse_yaml(data, source=source), tuple[Canary, ...])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    if len({canary.id for canary in canaries}) < len(canaries):
        raise ConfigurationError(f"{source}: a canary stands there twice")
    return canaries
