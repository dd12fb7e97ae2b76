"""The arms of a comparison, from a few choices: what is tried, and what it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.coordination.plan import COORDINATED, ArmPlan, Decide, Kind
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.coordination.plan import AgentSpec

SINGLE_NAME = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What is compared.

    Attributes:
        strategies: Coordinated kinds, each once.
        agents: Who takes part in each of them; the first one is the model alone, too, and decides
            where one decides.
        rounds: Of a debate, after the first answers.
        decide: How parallel answers and a debate become one.
        replicates: How often each task is run, in every arm.
        matched: What the same tokens are given to; None for nothing.
        has_refine: Whether one agent goes over its own answer as often as the others talk.
        has_placebo: Whether the arrangement is run on answers to other tasks, too.
    """

    strategies: Sequence[Kind]
    agents: Sequence[AgentSpec]
    rounds: int = 1
    decide: Decide = Decide.VOTE
    replicates: int = 3
    matched: Kind | None = Kind.SELF_CONSISTENCY
    has_refine: bool = False
    has_placebo: bool = False


def build_arms(arrangement: Arrangement) -> tuple[ArmPlan, ...]:
    """Build the arms: `single`, then each strategy with those that are held against it.

    They are named by their kind, the latter behind the strategy's name and a dot.

    Raises:
        ConfigurationError: There is no strategy or no agent, or what `ArmPlan` refuses.
    """
    if not arrangement.strategies or not arrangement.agents:
        raise ConfigurationError("a comparison needs a strategy and agents")
    arms = [
        ArmPlan(
            name=SINGLE_NAME,
            kind=Kind.SINGLE,
            agents=(arrangement.agents[0],),
            replicates=arrangement.replicates,
        )
    ]
    for kind in arrangement.strategies:
        if kind not in COORDINATED:
            raise ConfigurationError(f"{kind.value} is no way to coordinate agents")
        arms += _arms_of(kind, arrangement)
    return tuple(arms)


def _arms_of(kind: Kind, arrangement: Arrangement) -> list[ArmPlan]:
    """A strategy and what it is held against."""
    everyone = tuple(arrangement.agents)
    turns = len(everyone) - 1 if kind is Kind.SEQUENTIAL else arrangement.rounds

    def build(other: Kind, agents: tuple[AgentSpec, ...], rounds: int) -> ArmPlan:
        is_strategy = other is kind
        return ArmPlan(
            name=kind.value if is_strategy else f"{kind.value}.{other.value}",
            kind=other,
            agents=agents,
            rounds=rounds,
            decide=arrangement.decide,
            replicates=arrangement.replicates,
            reference=None if is_strategy else kind.value,
        )

    arms = [build(kind, everyone, arrangement.rounds)]
    if arrangement.matched is not None:
        arms.append(build(arrangement.matched, everyone[:1], 1))
    if arrangement.has_refine:
        arms.append(build(Kind.SELF_REFINE, everyone[:1], max(turns, 1)))
    if arrangement.has_placebo:
        arms.append(build(Kind.PLACEBO, everyone, arrangement.rounds))
    return arms
