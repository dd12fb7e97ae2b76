"""Baselines: replies of the single agent, kept so that the next run need not pay for them again.

A kept reply counts only for the very same question in the very same circumstances: its key is a
digest over task, prompts, model, parameters, place in the run, versions and base URL. Scores are
not kept; they are computed, or judged, anew.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from cert.coordination.digests import digest_of
from cert.coordination.evaluators import Computed
from cert.coordination.plan import Kind, Unit
from cert.coordination.protocol import Reply
from cert.coordination.strategies import Setup, first_request
from cert.coordination.transcript import FinishedCall, PastCall, build_call, request_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.plan import Plan
    from cert.coordination.protocol import Call
    from cert.coordination.tasks import Task


@dataclass(frozen=True, slots=True)
class Environment:
    """Where replies come from; a change of any of it makes every kept reply another one.

    Attributes:
        sdk: Name and version of what speaks to the server, or of what runs the model here.
        api_version: What the server is asked to speak; empty where there is none.
        base_url: The server's address; the model's digest where it runs here.
        parameters: Everything else that a reply depends on: sampling, seed.
    """

    sdk: str
    api_version: str
    base_url: str
    parameters: Mapping[str, object] = field(default_factory=dict)


class Baselines(Protocol):
    """Keeps replies by key."""

    def get(self, key: str) -> Reply | None:
        """The reply of a key; None where there is none."""

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; one that is there already is left as it is."""


def baseline_key(plan: Plan, task: Task, call: Call, environment: Environment) -> str:
    """The digest under which a reply is kept.

    Args:
        plan: Gives the prompts.
        task: That was asked.
        call: As it was asked; its key counts, since it keys sampling.
        environment: Where.
    """
    used = {name: plan.prompts[name].digest for name in ("solve", "answer_line", "answer_text")}
    return digest_of(
        {
            "task": task.digest,
            "prompts": used,
            "request": request_digest(call),
            "model": call.model,
            "max_tokens": call.max_tokens,
            "key": call.key,
            "environment": asdict(environment),
        }
    )


def recall_baselines(
    plan: Plan, baselines: Baselines, environment: Environment
) -> dict[str, PastCall]:
    """Look up the single arm's replies.

    Returns:
        What is known, for `run_plan(past=...)`, by the call's key.
    """
    known: dict[str, PastCall] = {}
    arm = next(arm for arm in plan.arms if arm.kind is Kind.SINGLE)
    setup = Setup(arm, plan.prompts, arm.kind, Computed())
    for task in plan.tasks:
        request = first_request(task, setup)
        for replicate in range(arm.replicates):
            call = build_call(Unit(task.id, arm.name, replicate).key, request)
            reply = baselines.get(baseline_key(plan, task, call, environment))
            if reply is not None:
                known[call.key] = PastCall(request_digest(call), reply)
    return known


def remember_baseline(
    plan: Plan, finished: FinishedCall, baselines: Baselines, environment: Environment
) -> bool:
    """Keep the reply of a finished call, if it is one of the single arm's.

    Returns:
        Whether it is. Calls that failed are not kept.
    """
    task_id, arm_name = finished.call.key.rsplit("/", 4)[:2]
    arm = next(arm for arm in plan.arms if arm.kind is Kind.SINGLE)
    if arm_name != arm.name or not isinstance(finished.outcome, Reply):
        return False
    task = next((task for task in plan.tasks if task.id == task_id), None)
    if task is None or not finished.call.key.endswith("/0/0"):
        return False
    baselines.put(baseline_key(plan, task, finished.call, environment), finished.outcome)
    return True
