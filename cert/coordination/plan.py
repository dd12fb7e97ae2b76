"""What is to be run, fixed before the first call: tasks, arms, prompts, judges, seed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cert.coordination.digests import digest_of
from cert.coordination.evaluator_parameters import Judged, Object
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.coordination.canaries import Canary
    from cert.coordination.prompts import Prompts
    from cert.coordination.tasks import Task

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CANARY_ARM: Final = "canary"
"""Stands in the keys of what tests the judges."""
MAX_AGENTS: Final = 64
MAX_ROUNDS: Final = 32
MAX_REPLICATES: Final = 1000


class Kind(StrEnum):
    """What an arm does."""

    SINGLE = "single"
    """A: one agent, one call."""
    SEQUENTIAL = "sequential"
    """B: a chain; each agent goes on from the answer before."""
    PARALLEL = "parallel"
    """B: agents answer independently, then it is decided."""
    DEBATE = "debate"
    """B: agents answer, read each other for some rounds, then it is decided."""
    SELF_CONSISTENCY = "self_consistency"
    """C: one agent samples until it has spent the reference's tokens, then a vote."""
    BEST_OF_N = "best_of_n"
    """C: the same, and the sample that the evaluator prefers without knowing the answer."""
    SELF_REFINE = "self_refine"
    """D: one agent goes over its own answer, nobody else's."""
    PLACEBO = "placebo"
    """E: the reference's arrangement, with answers to other tasks in the others' place."""


COORDINATED: Final = frozenset({Kind.SEQUENTIAL, Kind.PARALLEL, Kind.DEBATE})
MATCHED: Final = frozenset({Kind.SELF_CONSISTENCY, Kind.BEST_OF_N})
DEPENDENT: Final = MATCHED | {Kind.PLACEBO}
"""What uses tokens or texts of its reference, and so runs after it."""
_REFERRING: Final = DEPENDENT | {Kind.SELF_REFINE}
_ONE_AGENT: Final = MATCHED | {Kind.SINGLE, Kind.SELF_REFINE}


class Decide(StrEnum):
    """How several answers become one."""

    VOTE = "vote"
    """The most frequent normalised answer, the first among equals."""
    AGGREGATE = "aggregate"
    """The first agent reads all of them and answers once more."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent.

    Attributes:
        model: Who is asked.
        max_tokens: Tokens that a reply may have, >= 1.
        timeout_s: Seconds for a call with all its attempts, > 0.
    """

    model: str
    max_tokens: int = 1024
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if not self.model or self.max_tokens < 1 or not self.timeout_s > 0:
            raise ConfigurationError(
                f"agent {self.model!r}: expected a model, max_tokens >= 1 and timeout_s > 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """One arm.

    Attributes:
        name: Part of every key: lower-case letters, digits, `.`, `_`, `-`.
        kind: What it does.
        agents: Who takes part, each with its own model; one where the kind has one.
        rounds: Of a debate, or of self-refinement, after the first answers; >= 1.
        decide: For `parallel`, `debate`, and a placebo of them.
        replicates: How often each task is run.
        reference: Name of the arm B that C, D and E are held against; C is given its tokens, E
            its texts.
        max_samples: C stops there even with tokens left.

    Raises:
        ConfigurationError: A value outside its domain, or one that the kind has no use for.
    """

    name: str
    kind: Kind
    agents: tuple[AgentSpec, ...]
    rounds: int = 1
    decide: Decide = Decide.VOTE
    replicates: int = 3
    reference: str | None = None
    max_samples: int = 64

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if not _NAME.fullmatch(self.name) or self.name == CANARY_ARM:
            raise ConfigurationError(
                f"arm {self.name!r}: expected lower-case letters, digits, .-_ (not {CANARY_ARM})"
            )
        counts = (
            ("agents", len(self.agents), MAX_AGENTS),
            ("rounds", self.rounds, MAX_ROUNDS),
            ("replicates", self.replicates, MAX_REPLICATES),
            ("max_samples", self.max_samples, 10 * MAX_AGENTS),
        )
        for what, count, limit in counts:
            if not 1 <= count <= limit:
                raise ConfigurationError(f"arm {self.name}: {count} {what}; expected 1 to {limit}")
        if self.kind in _ONE_AGENT and len(self.agents) != 1:
            raise ConfigurationError(f"arm {self.name}: {self.kind.value} has one agent")
        if self.kind in COORDINATED and len(self.agents) == 1:
            raise ConfigurationError(f"arm {self.name}: {self.kind.value} needs two agents or more")
        if (self.kind in _REFERRING) != (self.reference is not None):
            raise ConfigurationError(
                f"arm {self.name}: a reference belongs to self_consistency, best_of_n, self_refine "
                "and placebo, and to no other"
            )


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """Who judges, where models do.

    Attributes:
        models: One judge or more, each once.
        repeats: How often each is asked; there is no temperature to set, so replies differ.
        max_tokens: Tokens that a verdict may have.
        timeout_s: Seconds for a call with all its attempts.
    """

    models: tuple[str, ...]
    repeats: int = 3
    max_tokens: int = 1024
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if not self.models or len(set(self.models)) < len(self.models) or "" in self.models:
            raise ConfigurationError("a panel of judges needs models, each once")
        if self.repeats < 1 or self.max_tokens < 1 or not self.timeout_s > 0:
            raise ConfigurationError(
                "judges: expected repeats >= 1, max_tokens >= 1 and timeout_s > 0"
            )


@dataclass(frozen=True, slots=True)
class Unit:
    """One replicate of one arm on one task."""

    task_id: str
    arm: str
    replicate: int

    @property
    def key(self) -> str:
        """The first parts of its calls' keys."""
        return f"{self.task_id}/{self.arm}/{self.replicate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        tasks: Each id once.
        arms: Each name once.
        prompts: Templates.
        seed: Decides on order and placebos, 0 to 2^53 - 1.
        panel: Who judges; None where no task asks for a judge.
        canaries: What the judges are tested with; none where nobody judges.

    Raises:
        ConfigurationError: What cannot be run or compared; the message names arm and task.
    """

    tasks: tuple[Task, ...]
    arms: tuple[ArmPlan, ...]
    prompts: Prompts
    seed: int
    panel: JudgePanel | None = None
    canaries: tuple[Canary, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would only fail in the middle of the run."""
        if not self.tasks or not self.arms:
            raise ConfigurationError("a plan needs tasks and arms")
        _refuse_twice("task", [task.id for task in self.tasks])
        _refuse_twice("arm", [arm.name for arm in self.arms])
        if not 0 <= self.seed < 2**53:
            raise ConfigurationError(f"seed is {self.seed}; expected 0 to 2^53 - 1")
        free = next((task.id for task in self.tasks if task.is_free_text), None)
        if free is not None and self.panel is None:
            raise ConfigurationError(f"task {free!r} is judged by models, and no judge is named")
        _refuse_twice("canary", [canary.id for canary in self.canaries])
        if self.canaries and self.panel is None:
            raise ConfigurationError("there are canaries, and no judge is named")
        self._check_roles()
        for arm in self.arms:
            self._check_reference(arm)
            self._check_tasks(arm, free)

    def arm(self, name: str) -> ArmPlan:
        """The arm of a name; KeyError where there is none."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical bytes of everything above: what was fixed beforehand."""
        return digest_of(
            {
                "tasks": [task.digest for task in self.tasks],
                "arms": [
                    {**asdict(arm), "agents": [asdict(agent) for agent in arm.agents]}
                    for arm in self.arms
                ],
                "prompts": self.prompts.digests,
                "seed": self.seed,
                "panel": None if self.panel is None else asdict(self.panel),
                "canaries": [canary.digest for canary in self.canaries],
            }
        )

    def _check_roles(self) -> None:
        """One arm A, and of C, D and E one each at most for an arm B."""
        if sum(arm.kind is Kind.SINGLE for arm in self.arms) != 1:
            raise ConfigurationError("a plan has one single arm, that all others are held against")
        roles = [
            f"{'matched' if arm.kind in MATCHED else arm.kind.value} for {arm.reference}"
            for arm in self.arms
            if arm.reference is not None
        ]
        _refuse_twice("arm", roles)

    def _check_reference(self, arm: ArmPlan) -> None:
        if arm.reference is None:
            return
        reference = next((one for one in self.arms if one.name == arm.reference), None)
        if reference is None or reference.kind not in COORDINATED:
            raise ConfigurationError(
                f"arm {arm.name}: its reference {arm.reference!r} is no coordinated arm"
            )
        if arm.kind in DEPENDENT and arm.replicates > reference.replicates:
            raise ConfigurationError(
                f"arm {arm.name}: {arm.replicates} replicates, and its reference has "
                f"{reference.replicates}; each needs one of its own"
            )
        if arm.kind is Kind.PLACEBO:
            if len(self.tasks) == 1:
                raise ConfigurationError(f"arm {arm.name}: a placebo needs a second task")
            if len(arm.agents) != len(reference.agents):
                raise ConfigurationError(
                    f"arm {arm.name}: a placebo has as many agents as its reference"
                )

    def _check_tasks(self, arm: ArmPlan, free: str | None) -> None:
        if arm.kind is Kind.BEST_OF_N:
            other = next((t.id for t in self.tasks if not can_select(t)), None)
            if other is not None:
                raise ConfigurationError(
                    f"arm {arm.name}: task {other!r} cannot be judged without its answer, so a "
                    "choice among samples would know it",
                    hint="take self_consistency, or tasks with the evaluators json and judge",
                )
        votes = arm.kind is Kind.SELF_CONSISTENCY or (
            self._shape(arm) in {Kind.PARALLEL, Kind.DEBATE} and arm.decide is Decide.VOTE
        )
        if votes and free is not None:
            raise ConfigurationError(
                f"arm {arm.name}: task {free!r} is answered in free text, which has no vote",
                hint="decide by aggregate; in place of self_consistency take best_of_n",
            )

    def _shape(self, arm: ArmPlan) -> Kind:
        """The arrangement; of a placebo, its reference's."""
        if arm.kind is not Kind.PLACEBO:
            return arm.kind
        return next(one.kind for one in self.arms if one.name == arm.reference)


def can_select(task: Task) -> bool:
    """Whether answers can be judged without knowing the right one."""
    return isinstance(task.evaluator, Judged | Object)


def _refuse_twice(kind: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"{kind} {name!r} stands there twice")
        seen.add(name)
