"""In which order the replicates run, so that whatever drifts with time hits all arms alike.

A pass takes every task once, in an order of its own; within a task the arms follow each other in
an order of their own. Arms with fewer replicates are spread over the passes. Orders come from
SHA-256 of seed and names, so they are the same everywhere and for ever.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from cert.coordination.plan import CANARY_ARM, DEPENDENT, Kind, Unit

if TYPE_CHECKING:
    from cert.coordination.plan import ArmPlan, Plan
    from cert.coordination.tasks import Task


def build_schedule(plan: Plan) -> tuple[Unit, ...]:
    """Order all replicates of a plan.

    Returns:
        Each unit once, the canaries first; a unit that refers to another stands behind it.
    """
    passes = max(arm.replicates for arm in plan.arms)
    by_pass: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for arm in plan.arms:
        for replicate in range(arm.replicates):
            # The middle of its share: with 2 of 6 passes, the passes 1 and 4.
            by_pass[(2 * replicate + 1) * passes // (2 * arm.replicates)].append(
                (arm.name, replicate)
            )
    ordered: list[Unit] = []
    for number in range(passes):
        tasks = sorted(plan.tasks, key=lambda task: _draw(plan.seed, "task", number, task.id))
        for task in tasks:
            block = sorted(
                by_pass[number], key=lambda one: _draw(plan.seed, "arm", number, task.id, *one)
            )
            ordered += [Unit(task.id, name, replicate) for name, replicate in block]
    canaries = [Unit(canary.id, CANARY_ARM, 0) for canary in plan.canaries]
    return (*canaries, *_behind_references(plan, ordered))


class References:
    """Which replicate each replicate refers to."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arms = {arm.name: arm for arm in plan.arms}
        self._places = {task.id: place for place, task in enumerate(plan.tasks)}

    def of(self, unit: Unit) -> Unit | None:
        """The replicate whose tokens or texts a unit uses; None where its arm uses none.

        For C it is the same task's. For a placebo it is another task's, of another group where
        there is one, drawn by the seed.
        """
        arm = self._arms.get(unit.arm)
        if arm is None or arm.reference is None or arm.kind not in DEPENDENT:
            return None
        task_id = unit.task_id
        if arm.kind is Kind.PLACEBO:
            task_id = self._donor(arm, unit).id
        return Unit(task_id, arm.reference, unit.replicate)

    def _donor(self, arm: ArmPlan, unit: Unit) -> Task:
        tasks = self._plan.tasks
        own = self._places[unit.task_id]
        step = _draw(self._plan.seed, "donor", arm.name, unit.task_id, unit.replicate)
        count = len(tasks)
        others = (tasks[(own + 1 + (step + n) % (count - 1)) % count] for n in range(count - 1))
        first = next(others)
        group = tasks[own].group_id
        if first.group_id != group:
            return first
        return next((task for task in others if task.group_id != group), first)


def _behind_references(plan: Plan, ordered: list[Unit]) -> tuple[Unit, ...]:
    references = References(plan)
    done: set[Unit] = set()
    waiting: dict[Unit, list[Unit]] = defaultdict(list)
    result: list[Unit] = []
    for unit in ordered:
        reference = references.of(unit)
        if reference is not None and reference not in done:
            waiting[reference].append(unit)
            continue
        # Whoever waits refers to an arm that refers to none, so one step is enough.
        result += [unit, *waiting.pop(unit, ())]
        done.add(unit)
    return tuple(result)


def _draw(seed: int, *parts: object) -> int:
    text = "\0".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
