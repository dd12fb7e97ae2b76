"""A comparison as members of records, and calls back from them.

Records hold UTF-8 and no secrets: a lone surrogate becomes U+FFFD, names of models and addresses
and the messages of failures are redacted. With `content="omitted"` nothing is told of what was
asked and answered: no request and no digest of it, no reply, no evidence (it quotes replies), no
label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cert.coordination.evaluator import Score
from cert.coordination.protocol import Attempt, CallFailure, Reply, StopReason, Usage
from cert.coordination.tasks import find_shared_labels
from cert.coordination.transcript import CallFault, PastCall, Purpose
from cert.evidence.coordination_plan import PlanPolicy
from cert.evidence.parts import encodable, message
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cert.coordination.plan import ArmPlan, Plan
    from cert.coordination.prices import Prices
    from cert.coordination.replicate import FinishedReplicate, MemberResult
    from cert.coordination.transcript import FinishedCall
    from cert.statistics.verdict import VerdictRule

CONTENT_MODES: Final = ("full", "omitted")


def describe_plan(
    plan: Plan,
    rule: VerdictRule,
    *,
    prices: Prices | None,
    endpoints: Sequence[Mapping[str, object]],
    splits: int,
) -> PlanPolicy:
    """Describe everything that is fixed before the first call.

    Args:
        plan: What is run.
        rule: How it is judged.
        prices: Of the calls; None for none.
        endpoints: Who answers for which models, as the schema has it.
        splits: Halvings that omega is the mean over, >= 1.

    Raises:
        ValueError: What `PlanPolicy` refuses.
    """
    panel = plan.panel
    labels = find_shared_labels(plan.tasks)
    return PlanPolicy(
        plan={
            "tasks": [
                {"id": task.id, "group": task.group_id, "digest": task.digest}
                for task in plan.tasks
            ],
            "arms": [_describe_arm(arm) for arm in plan.arms],
            "prompts": plan.prompts.digests,
            "seed": plan.seed,
            "panel": None
            if panel is None
            else asdict(panel) | {"models": [_name(model) for model in panel.models]},
            "canaries": [
                {
                    "id": canary.id,
                    "kind": canary.kind,
                    "digest": canary.digest,
                    "least": canary.least,
                    "most": canary.most,
                }
                for canary in plan.canaries
            ],
            "labels": None if labels is None else list(labels),
            "splits": splits,
        },
        rule=asdict(rule),
        prices=None if prices is None else prices.digest,
        endpoints=[_named(endpoint) for endpoint in endpoints],
    )


def describe_call(
    finished: FinishedCall, *, prices: Prices | None, content: str, is_reused: bool = False
) -> dict[str, object]:
    """Describe a call and what came of it.

    Args:
        finished: The call.
        prices: Of its model; None for none.
        content: `full` or `omitted`.
        is_reused: Whether an earlier run paid for it.

    Raises:
        ValueError: Another `content`.
        ConfigurationError: There is no price for the model.
    """
    is_full = _is_full(content)
    call, outcome = finished.call, finished.outcome
    task, arm, replicate, round_, agent = call.key.rsplit("/", 4)
    request = {
        "system": None if call.system is None else encodable(call.system),
        "messages": [
            {"role": one.role.value, "text": encodable(one.text)} for one in call.messages
        ],
        "schema": None if call.schema is None else _encodable(call.schema),
    }
    fault = outcome if isinstance(outcome, CallFault) else None
    return {
        "key": call.key,
        "task": task,
        "arm": arm,
        "replicate": int(replicate),
        "round": round_,
        "agent": agent,
        "purpose": finished.purpose.value,
        "model": _name(call.model),
        "max_tokens": call.max_tokens,
        "timeout_s": call.timeout_s,
        "template": {"name": finished.prompt[0], "digest": finished.prompt[1]},
        **({"request_digest": finished.digest, "request": request} if is_full else {}),
        "is_reused": is_reused,
        "attempts": [_describe_attempt(attempt) for attempt in outcome.attempts],
        "latency_s": outcome.latency_s if isinstance(outcome, Reply) else None,
        "usage": None if outcome.usage is None else asdict(outcome.usage),
        "is_unknown_billed": fault is not None and fault.is_unknown_billed,
        "cost_usd": _float(_cost_usd(finished, prices)),
        "reply": _describe_reply(outcome, is_full=is_full) if isinstance(outcome, Reply) else None,
        "failure": None
        if fault is None
        else {"kind": fault.failure.value, "message": message(fault.message)},
    }


def describe_replicate(
    replicate: FinishedReplicate, plan: Plan, *, prices: Prices | None, content: str
) -> dict[str, object]:
    """Describe what a replicate came to.

    Args:
        replicate: With all of its calls.
        plan: That it belongs to.
        prices: Of its calls; None for none.
        content: `full` or `omitted`.

    Raises:
        ValueError: Another `content`.
        ConfigurationError: There is no price for a model.
    """
    is_full = _is_full(content)
    outcome, members = replicate.outcome, replicate.members
    score = outcome if isinstance(outcome, Score) else None
    labels = _number_labels(members, find_shared_labels(plan.tasks) or ())
    texts = {
        "evidence": _encodable(outcome.evidence),
        "text": None if replicate.text is None else encodable(replicate.text),
        "labels": list(labels),
    }
    return {
        "task": replicate.unit.task_id,
        "arm": replicate.unit.arm,
        "replicate": replicate.unit.replicate,
        "score": None if score is None else score.value,
        "unscored": None
        if isinstance(outcome, Score)
        else {"reason": outcome.reason.value, "detail": message(outcome.detail)},
        "flags": [] if score is None else list(score.flags),
        "verdicts": None if score is None else _describe_verdicts(score.evidence),
        **(texts if is_full else {}),
        "tokens": replicate.tokens,
        "cost_usd": _arm_cost_usd(replicate, prices),
        "members": [
            {
                "agent": member.agent,
                "model": _name(member.model),
                "first": _describe_answer(member.first_label, member.first_score, labels),
                "last": _describe_answer(member.last_label, member.last_score, labels),
            }
            for member in members
        ],
        "calls": [call.call.key for call in replicate.calls],
    }


def parse_past(call: Mapping[str, Any]) -> PastCall:
    """Read what was asked and what came of it out of the member `call` of a record.

    Args:
        call: Of a record with full content.

    Raises:
        ValueError: Content is left out, or it is no such call.
    """
    if "request_digest" not in call:
        raise ValueError("the record of a call holds no reply: its content is omitted")
    past = msgspec.convert(call, _PastCall)
    if past.failure is not None:
        outcome: Reply | CallFault = CallFault(
            failure=past.failure.kind,
            message=past.failure.message,
            attempts=past.attempts,
            usage=past.usage,
            is_unknown_billed=past.is_unknown_billed,
        )
    elif past.reply is not None and past.usage is not None and past.latency_s is not None:
        outcome = Reply(
            text=past.reply.text,
            stop_reason=past.reply.stop_reason,
            usage=past.usage,
            model=past.reply.model,
            message_id=past.reply.message_id,
            attempts=past.attempts,
            latency_s=past.latency_s,
            rate_limits=past.reply.rate_limits,
            signals=past.reply.signals,
        )
    else:
        raise ValueError("a call has a failure, or a reply with usage and latency_s")
    return PastCall(past.request_digest, outcome)


class _PastReply(msgspec.Struct):
    model: str
    message_id: str | None
    stop_reason: StopReason
    rate_limits: dict[str, str]
    signals: dict[str, Any] | None
    text: str


class _PastFailure(msgspec.Struct):
    kind: CallFailure
    message: str


class _PastCall(msgspec.Struct):
    request_digest: str
    attempts: tuple[Attempt, ...]
    latency_s: float | None
    usage: Usage | None
    is_unknown_billed: bool
    reply: _PastReply | None
    failure: _PastFailure | None


def _is_full(content: str) -> bool:
    if content not in CONTENT_MODES:
        raise ValueError(f"content is {content!r}; expected {' or '.join(CONTENT_MODES)}")
    return content == "full"


def _describe_arm(arm: ArmPlan) -> dict[str, object]:
    return asdict(arm) | {
        "kind": arm.kind.value,
        "decide": arm.decide.value,
        "agents": [asdict(agent) | {"model": _name(agent.model)} for agent in arm.agents],
    }


def _describe_attempt(attempt: Attempt) -> dict[str, object]:
    return asdict(attempt) | {
        "error": None if attempt.error is None else _name(attempt.error),
        "request_id": None if attempt.request_id is None else _name(attempt.request_id),
    }


def _describe_reply(reply: Reply, *, is_full: bool) -> dict[str, object]:
    return {
        "model": _name(reply.model),
        "message_id": None if reply.message_id is None else _name(reply.message_id),
        "stop_reason": reply.stop_reason.value,
        "rate_limits": {_name(name): _name(value) for name, value in reply.rate_limits.items()},
        "signals": None if reply.signals is None else dict(reply.signals),
        **({"text": encodable(reply.text)} if is_full else {}),
    }


def _describe_verdicts(evidence: Mapping[str, Any]) -> list[dict[str, object]] | None:
    """What each judge said; of a comparison in both orders one verdict each. None without one."""
    if "verdicts" in evidence:
        found = [(one["judge"], one["answered_by"], one["value"]) for one in evidence["verdicts"]]
    elif "comparisons" in evidence:
        found = [
            (one["judge"], model, worth)
            for one in evidence["comparisons"]
            for model, worth in zip(one["answered_by"], (one["forward"], one["back"]), strict=True)
        ]
    else:
        return None
    return [
        {"judge": _name(judge), "answered_by": _name(model), "value": value}
        for judge, model, value in found
    ]


def _number_labels(members: Sequence[MemberResult], known: Iterable[str]) -> dict[str, int]:
    """Number each label: those of the plan as they stand there, then others as they appear."""
    firsts = [member.first_label for member in members]
    lasts = [member.last_label for member in members]
    given = [label for label in (*firsts, *lasts) if label is not None]
    return {label: number for number, label in enumerate(dict.fromkeys((*known, *given)))}


def _describe_answer(
    label: str | None, score: float | None, labels: Mapping[str, int]
) -> dict[str, object]:
    return {"label": None if label is None else labels[label], "score": score}


def _cost_usd(finished: FinishedCall, prices: Prices | None) -> Decimal | None:
    if prices is None or finished.usage is None:
        return None
    return prices.price(finished.call.model).cost_usd(finished.usage)


def _arm_cost_usd(replicate: FinishedReplicate, prices: Prices | None) -> float | None:
    """Cost of the arm's calls, without the judges'; None without prices or unknown tokens."""
    if prices is None or replicate.tokens is None:
        return None
    costs = [_cost_usd(one, prices) for one in replicate.calls if one.purpose is Purpose.ARM]
    return float(sum((one for one in costs if one is not None), Decimal()))


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _named(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same with every text as `_name` has it."""
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, Mapping):
        return {name: _named(one) for name, one in value.items()}
    return [_named(one) for one in value] if isinstance(value, list | tuple) else value


def _name(text: str) -> str:
    return redact(encodable(text))


def _encodable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(name): _encodable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    return value
