"""What a comparison of arms measured: scores, tokens and cost by task, arm and replicate.

The type at the border: whoever runs the arms fills it, every statistic of this package reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One answer of one arm to one task.

    Attributes:
        score: Quality in [0, 1]; None where there is none, which is never a 0.
        unscored: Why there is no score; given exactly where `score` is None.
        tokens: Tokens charged for, input and output of all calls, >= 0; None where unknown.
        cost_usd: What they cost, >= 0; None where unknown.

    Raises:
        ValueError: A value outside its domain, neither score nor reason, or both.
    """

    score: float | None = None
    unscored: str | None = None
    tokens: int | None = None
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would pass for a measurement."""
        if (self.score is None) == (not self.unscored):
            raise ValueError("a replicate has either a score or a reason why it has none")
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score is {self.score!r}; expected 0 to 1")
        if self.tokens is not None and not 0 <= self.tokens < math.inf:
            raise ValueError(f"tokens is {self.tokens!r}; expected 0 or more")
        if self.cost_usd is not None and not 0.0 <= self.cost_usd < math.inf:
            raise ValueError(f"cost_usd is {self.cost_usd!r}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class Arm:
    """Everything that one arrangement answered.

    Attributes:
        name: Names the arm within its trial.
        rows: One row a task, in the trial's order, each with the same number of replicates.

    Raises:
        ValueError: No name, no task, no replicate, or rows of different lengths.
    """

    name: str
    rows: tuple[tuple[Replicate, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what is no table."""
        if not self.name:
            raise ValueError("an arm has no name")
        widths = {len(row) for row in self.rows}
        if len(widths) != 1 or 0 in widths:
            raise ValueError(
                f"arm {self.name!r}: rows of {sorted(widths)} replicates; expected one and the"
                " same number, at least 1, for every task"
            )

    @property
    def replicates(self) -> int:
        """Replicates of each task, k."""
        return len(self.rows[0])

    def scores(self) -> NDArray[np.float64]:
        """Scores, tasks x replicates; NaN where there is none."""
        return np.array(
            [[math.nan if r.score is None else r.score for r in row] for row in self.rows],
            dtype=np.float64,
        )

    def task_scores(self) -> NDArray[np.float64]:
        """Mean over the scored replicates of each task; NaN for a task without one."""
        return mean_of_known(self.scores())

    def task_tokens(self) -> NDArray[np.float64]:
        """Mean tokens over the scored replicates of each task.

        NaN for a task without one, and where the tokens of one are unknown.
        """
        rows = []
        for row in self.rows:
            tokens = [r.tokens for r in row if r.score is not None]
            known = [t for t in tokens if t is not None]
            rows.append(
                sum(known) / len(known) if known and len(known) == len(tokens) else math.nan
            )
        return np.array(rows, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way to coordinate agents, with the arms that it is held against.

    Attributes:
        name: Names the strategy within its trial.
        coordinated: Arm B.
        matched: Arm C, self-consistency or best-of-N given B's tokens; None where not run.
        refine: Arm D, one agent that refines its own answer; None where not run.
        placebo: Arm E, peers that talk of other tasks; None where not run.
    """

    name: str
    coordinated: Arm
    matched: Arm | None = None
    refine: Arm | None = None
    placebo: Arm | None = None

    def arms(self) -> tuple[Arm, ...]:
        """The arms that were run, B first."""
        given = (self.coordinated, self.matched, self.refine, self.placebo)
        return tuple(arm for arm in given if arm is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All arms over the same tasks.

    Attributes:
        tasks: Ids of the tasks, each once.
        groups: What each task belongs to (its source document, say): tasks of one group may be
            alike, tasks of different groups are taken to be independent. A task on its own is a
            group of its own.
        single: Arm A, the model alone.
        strategies: What is held against it.

    Raises:
        ValueError: No task, an id twice, lengths that differ, or a name of an arm or strategy
            that stands for two.
    """

    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    single: Arm
    strategies: tuple[Strategy, ...] = ()

    def __post_init__(self) -> None:
        """Refuse tables that don't belong together."""
        if not self.tasks:
            raise ValueError("a trial has no task")
        _refuse_twice("task", self.tasks)
        if len(self.groups) != len(self.tasks):
            raise ValueError(f"{len(self.groups)} groups for {len(self.tasks)} tasks")
        _refuse_twice("strategy", [strategy.name for strategy in self.strategies])
        arms = self.arms()
        _refuse_twice("arm", [arm.name for arm in arms])
        for arm in arms:
            if len(arm.rows) != len(self.tasks):
                raise ValueError(
                    f"arm {arm.name!r} has {len(arm.rows)} rows for {len(self.tasks)} tasks"
                )

    def arms(self) -> tuple[Arm, ...]:
        """Every arm, A first."""
        return (self.single, *(arm for strategy in self.strategies for arm in strategy.arms()))


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along the last axis over what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=-1)
    sums = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _refuse_twice(kind: str, names: tuple[str, ...] | list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{kind} {name!r} stands there twice")
        seen.add(name)
