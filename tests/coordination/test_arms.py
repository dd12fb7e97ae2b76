from __future__ import annotations

import pytest

from cert.coordination.arms import Arrangement, build_arms
from cert.coordination.plan import AgentSpec, Decide, Kind
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import plan

AGENTS = (AgentSpec("a"), AgentSpec("b"), AgentSpec("c"))


def test_a_strategy_is_held_against_the_model_alone_and_against_its_own_tokens() -> None:
    single, debate, matched = build_arms(
        Arrangement(strategies=[Kind.DEBATE], agents=AGENTS, rounds=2, replicates=4)
    )
    assert (single.name, single.kind, single.agents) == ("single", Kind.SINGLE, AGENTS[:1])
    assert (debate.name, debate.agents, debate.rounds) == ("debate", AGENTS, 2)
    assert (matched.name, matched.kind) == ("debate.self_consistency", Kind.SELF_CONSISTENCY)
    assert (matched.reference, matched.agents) == ("debate", AGENTS[:1])
    assert {arm.replicates for arm in (single, debate, matched)} == {4}


def test_controls_take_as_many_turns_as_what_they_stand_for() -> None:
    arms = build_arms(
        Arrangement(
            strategies=[Kind.SEQUENTIAL, Kind.DEBATE],
            agents=AGENTS,
            rounds=3,
            decide=Decide.AGGREGATE,
            matched=None,
            has_refine=True,
            has_placebo=True,
        )
    )
    found = {arm.name: arm for arm in arms}
    assert list(found) == [
        "single",
        "sequential",
        "sequential.self_refine",
        "sequential.placebo",
        "debate",
        "debate.self_refine",
        "debate.placebo",
    ]
    assert found["sequential.self_refine"].rounds == 2  # two go on from the answer before
    assert found["debate.self_refine"].rounds == 3
    assert found["debate.placebo"].agents == AGENTS
    assert found["debate"].decide is Decide.AGGREGATE
    plan(*arms, tasks=2)  # what is built can be run


@pytest.mark.parametrize(
    ("strategies", "agents", "words"),
    [
        ([], AGENTS, "needs a strategy and agents"),
        ([Kind.DEBATE], (), "needs a strategy and agents"),
        ([Kind.PLACEBO], AGENTS, "placebo is no way to coordinate"),
        ([Kind.DEBATE], AGENTS[:1], "needs two agents"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    strategies: list[Kind], agents: tuple[AgentSpec, ...], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build_arms(Arrangement(strategies=strategies, agents=agents))
