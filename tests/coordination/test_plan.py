from __future__ import annotations

import re
from dataclasses import replace

import pytest

from cert.coordination.canaries import load_canaries
from cert.coordination.evaluator_parameters import Criterion, Judged, Object
from cert.coordination.plan import AgentSpec, ArmPlan, Decide, JudgePanel, Kind, Plan
from cert.coordination.prompts import Prompts, Template
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import PROMPTS, SINGLE, arm, full_plan, plan, task

DEBATE = arm(Kind.DEBATE, agents=2)
FREE = task(9, evaluator=Judged((Criterion("clear", "Is it clear?"),)))
PANEL = JudgePanel(("j",))

WRONG = {
    "no tasks": (lambda: plan(tasks=()), "needs tasks"),
    "no arms": (lambda: Plan(tasks=(task(),), arms=(), prompts=PROMPTS, seed=1), "and arms"),
    "task twice": (lambda: plan(tasks=(task(), task())), "task 't0' stands there twice"),
    "arm twice": (lambda: plan(DEBATE, DEBATE), "arm 'debate' stands there twice"),
    "two singles": (lambda: plan(SINGLE, arm(Kind.SINGLE, "x")), "one single arm"),
    "no single": (
        lambda: Plan(tasks=(task(),), arms=(DEBATE,), prompts=PROMPTS, seed=1),
        "one single arm",
    ),
    "seed": (lambda: plan(seed=-1), "seed is -1"),
    "no judge": (lambda: plan(tasks=(FREE,)), "no judge is named"),
    "canaries": (lambda: plan(canaries=load_canaries()), "no judge is named"),
    "canary twice": (
        lambda: plan(canaries=load_canaries()[:1] * 2, panel=PANEL),
        "stands there twice",
    ),
    "name": (lambda: arm(Kind.SINGLE, "A/B"), "expected lower-case"),
    "canary": (lambda: arm(Kind.SINGLE, "canary"), "not canary"),
    "no replicates": (lambda: arm(Kind.SINGLE, replicates=0), "0 replicates"),
    "rounds": (lambda: arm(Kind.DEBATE, agents=2, rounds=33), "33 rounds"),
    "agents": (lambda: arm(Kind.DEBATE, agents=65), "65 agents"),
    "no agents": (lambda: arm(Kind.DEBATE, agents=0), "0 agents"),
    "one agent": (lambda: arm(Kind.PARALLEL), "two agents or more"),
    "two agents": (lambda: arm(Kind.SINGLE, agents=2), "has one agent"),
    "reference": (lambda: arm(Kind.SELF_CONSISTENCY), "a reference belongs to"),
    "reference too much": (lambda: arm(Kind.SINGLE, reference="debate"), "a reference belongs to"),
    "unknown reference": (
        lambda: plan(arm(Kind.SELF_CONSISTENCY, reference="x")),
        "is no coordinated arm",
    ),
    "reference to A": (
        lambda: plan(arm(Kind.SELF_CONSISTENCY, reference="single")),
        "is no coordinated arm",
    ),
    "more replicates": (
        lambda: plan(DEBATE, arm(Kind.SELF_CONSISTENCY, reference="debate", replicates=2)),
        "its reference has 1",
    ),
    "two of a role": (
        lambda: plan(
            DEBATE,
            arm(Kind.SELF_CONSISTENCY, reference="debate"),
            arm(Kind.BEST_OF_N, reference="debate"),
        ),
        "'matched for debate' stands there twice",
    ),
    "placebo of one": (
        lambda: plan(DEBATE, arm(Kind.PLACEBO, agents=2, reference="debate")),
        "a second task",
    ),
    "placebo of three": (
        lambda: plan(DEBATE, arm(Kind.PLACEBO, agents=3, reference="debate"), tasks=2),
        "as many agents",
    ),
    "best of known": (
        lambda: plan(DEBATE, arm(Kind.BEST_OF_N, reference="debate")),
        "task 't0' cannot be judged without its answer",
    ),
    "vote on texts": (lambda: plan(DEBATE, tasks=(FREE,), panel=PANEL), "has no vote"),
    "placebo votes on texts": (
        lambda: plan(
            replace(DEBATE, decide=Decide.AGGREGATE),
            arm(Kind.PLACEBO, agents=2, reference="debate"),
            tasks=(FREE, task(1)),
            panel=PANEL,
        ),
        "arm placebo: task 't9' is answered in free text",
    ),
    "consistent texts": (
        lambda: plan(
            replace(DEBATE, decide=Decide.AGGREGATE),
            arm(Kind.SELF_CONSISTENCY, reference="debate"),
            tasks=(FREE,),
            panel=PANEL,
        ),
        "has no vote",
    ),
    "model": (lambda: AgentSpec(""), "expected a model"),
    "tokens": (lambda: AgentSpec("m", max_tokens=0), "max_tokens >= 1"),
    "time": (lambda: AgentSpec("m", timeout_s=float("nan")), "timeout_s > 0"),
    "no judges": (lambda: JudgePanel(()), "needs models"),
    "judges twice": (lambda: JudgePanel(("j", "j")), "each once"),
    "repeats": (lambda: JudgePanel(("j",), repeats=0), "repeats >= 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_run_is_refused_beforehand(name: str) -> None:
    build, reason = WRONG[name]
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        build()


def test_free_text_can_be_aggregated_and_chosen_by_a_judge() -> None:
    plan(
        replace(DEBATE, decide=Decide.AGGREGATE),
        arm(Kind.SEQUENTIAL, agents=2),
        arm(Kind.BEST_OF_N, reference="debate"),
        arm(Kind.SELF_REFINE, reference="debate"),
        arm(Kind.PLACEBO, "placebo-chain", agents=2, reference="sequential"),
        tasks=(FREE, task(1, evaluator=Object({}), expected=())),
        panel=PANEL,
    )


def test_the_digest_is_of_everything_that_is_fixed() -> None:
    one = full_plan()
    assert full_plan().digest == one.digest
    template = Template("solve", 2, "{{task}} {{form}}")
    other_prompts = Prompts({**PROMPTS.templates, "solve": template})
    changed = [
        replace(one, seed=2),
        replace(one, tasks=one.tasks[:2]),
        replace(one, tasks=one.tasks[::-1]),
        replace(one, arms=one.arms[:1]),
        replace(one, arms=(replace(one.arms[0], agents=(AgentSpec("other"),)), *one.arms[1:])),
        replace(one, arms=(replace(one.arms[0], replicates=3), *one.arms[1:])),
        replace(one, panel=PANEL),
        replace(one, panel=PANEL, canaries=load_canaries()),
        replace(one, prompts=other_prompts),
    ]
    assert len({one.digest, *(each.digest for each in changed)}) == len(changed) + 1


def test_arms_are_found_by_name() -> None:
    assert full_plan().arm("debate").kind is Kind.DEBATE
    assert isinstance(full_plan().arm("single"), ArmPlan)
