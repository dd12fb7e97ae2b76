from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.plan import Decide, Kind, Unit
from cert.coordination.schedule import References, build_schedule
from tests.coordination.helpers import arm, full_plan, plan, task


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(0, 2**53 - 1))
def test_every_replicate_stands_there_once_and_behind_what_it_uses(tasks: int, seed: int) -> None:
    chosen = full_plan(tasks=tasks, seed=seed)
    schedule = build_schedule(chosen)
    wanted = Counter(
        Unit(one.id, each.name, number)
        for one in chosen.tasks
        for each in chosen.arms
        for number in range(each.replicates)
    )
    assert Counter(schedule) == wanted
    places = {unit: place for place, unit in enumerate(schedule)}
    references = References(chosen)
    for unit in schedule:
        reference = references.of(unit)
        if reference is not None:
            assert places[reference] < places[unit]


def test_the_order_is_pure_and_follows_the_seed() -> None:
    assert build_schedule(full_plan(seed=1)) == build_schedule(full_plan(seed=1))
    assert build_schedule(full_plan(seed=1)) != build_schedule(full_plan(seed=2))


def test_the_order_of_tasks_in_the_file_does_not_matter() -> None:
    tasks = tuple(task(number) for number in range(5))
    forward = plan(arm(Kind.DEBATE, agents=2), tasks=tasks)
    backward = plan(arm(Kind.DEBATE, agents=2), tasks=tasks[::-1])
    assert build_schedule(forward) == build_schedule(backward)


def test_drift_hits_all_arms_alike() -> None:
    arms = [arm(Kind.DEBATE, agents=2, replicates=3), arm(Kind.SEQUENTIAL, agents=2, replicates=3)]
    chosen = plan(arm(Kind.SINGLE, replicates=3), *arms, tasks=100)
    schedule = build_schedule(chosen)
    # All arms of a task follow one another, so a drift between tasks hits them alike.
    for block in range(0, len(schedule), 3):
        assert len({unit.task_id for unit in schedule[block : block + 3]}) == 1
    # A pass has 100 tasks: each arm is first in 33 of them, give or take 4 sigma.
    for begin in range(0, 900, 300):
        firsts = Counter(unit.arm for unit in schedule[begin : begin + 300 : 3])
        assert set(firsts) == {"single", "debate", "sequential"}
        assert all(15 <= count <= 52 for count in firsts.values())


def test_fewer_replicates_are_spread_over_the_run() -> None:
    chosen = plan(arm(Kind.SINGLE, replicates=6), arm(Kind.DEBATE, agents=2, replicates=2), tasks=4)
    schedule = build_schedule(chosen)
    passes = [schedule[:4], schedule[4:12], schedule[12:16], schedule[16:20], schedule[20:28]]
    assert ["debate" in {unit.arm for unit in one} for one in passes] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_a_placebo_comes_from_another_group_where_there_is_one() -> None:
    tasks = tuple(task(number, group_id=f"g{number % 2}") for number in range(6))
    arms = [
        arm(Kind.DEBATE, agents=2, replicates=4),
        arm(Kind.PLACEBO, agents=2, reference="debate", replicates=4),
    ]
    chosen = plan(*arms, tasks=tasks)
    groups = {one.id: one.group_id for one in tasks}
    donors = Counter()
    for one in tasks:
        for number in range(4):
            reference = References(chosen).of(Unit(one.id, "placebo", number))
            assert reference is not None
            assert reference.arm == "debate"
            assert reference.replicate == number
            assert groups[reference.task_id] != one.group_id
            donors[reference.task_id] += 1
    assert len(donors) == 6
    alike = tuple(task(number, group_id="g") for number in range(3))
    chosen = plan(*arms, tasks=alike)
    for one in alike:
        reference = References(chosen).of(Unit(one.id, "placebo", 0))
        assert reference is not None
        assert reference.task_id != one.id


@pytest.mark.parametrize("kind", [Kind.SINGLE, Kind.SELF_REFINE, Kind.DEBATE])
def test_other_arms_use_nothing_of_others(kind: Kind) -> None:
    chosen = plan(
        arm(Kind.DEBATE, agents=2, decide=Decide.AGGREGATE),
        arm(Kind.SELF_REFINE, reference="debate"),
    )
    assert References(chosen).of(Unit("t0", kind.value, 0)) is None
