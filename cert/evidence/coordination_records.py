"""Records of a comparison: each call, each replicate behind its calls, the result behind all.

policy (the plan) -> run begin -> call ... replicate ... -> coordination -> run end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cert.evidence.parts import run_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.evidence.coordination_plan import PlanPolicy

COORDINATION_KINDS: Final = frozenset({"call", "replicate", "coordination"})
COORDINATION_CONTENT_MODES: Final = ("full", "omitted")

CALL_CONTENT: Final = ("request", "request_digest")
REPLY_CONTENT: Final = ("text",)
REPLICATE_CONTENT: Final = ("evidence", "labels", "text")
"""A digest of a short prompt can be tried against guesses; evidence quotes the reply."""

OUTCOMES: Final[dict[str, str]] = {
    "beneficial": "pass",
    "harmful": "fail",
    "inconclusive": "inconclusive",
    "undefined": "inconclusive",
}
"""What a verdict on a strategy counts as in its run."""


def build_call_record(
    call: Mapping[str, Any],
    *,
    run_id: str,
    content: str,
    correlation_id: str | None = None,
    time: str | None = None,
) -> dict[str, object]:
    """Record one call, before anything builds on its reply.

    Args:
        call: The members, as docs/record-format.md has them.
        run_id: Of the run that this belongs to.
        content: `full` or `omitted`.
        correlation_id: Ties the record to log lines.
        time: RFC 3339; now where it is not given.

    Raises:
        ValueError: Another `content`, or members that don't go with it.
    """
    _check_content("call", call, CALL_CONTENT, content)
    if call["reply"] is not None:
        _check_content("reply", call["reply"], REPLY_CONTENT, content)
    return {
        **run_head("call", run_id, correlation_id, time),
        "content": content,
        "call": dict(call),
    }


def build_replicate_record(
    replicate: Mapping[str, Any],
    *,
    run_id: str,
    content: str,
    correlation_id: str | None = None,
    time: str | None = None,
) -> dict[str, object]:
    """Record what a replicate came to, behind all of its calls; arguments as for a call.

    Raises:
        ValueError: Another `content`, or members that don't go with it.
    """
    _check_content("replicate", replicate, REPLICATE_CONTENT, content)
    return {
        **run_head("replicate", run_id, correlation_id, time),
        "content": content,
        "replicate": dict(replicate),
    }


def build_coordination_record(  # noqa: PLR0913 - everything that one record says
    result: Mapping[str, Any],
    policy: PlanPolicy,
    *,
    run_id: str,
    content: str,
    correlation_id: str | None = None,
    time: str | None = None,
) -> dict[str, object]:
    """Record the result of a comparison, behind all of its replicates.

    Args:
        result: What `build_result` made of them.
        policy: The plan that the run began with.
        run_id: Of the run that this belongs to.
        content: `full` or `omitted`, as in the run's other records; there is none here.
        correlation_id: Ties the record to log lines.
        time: RFC 3339; now where it is not given.

    Raises:
        ValueError: Another `content`.
    """
    _check_content("result", {}, (), content)
    named = {"id": policy.id, "version": policy.version, "digest": policy.digest}
    return {
        **run_head("coordination", run_id, correlation_id, time),
        "content": content,
        "coordination": {"policy": named, **result},
    }


def _check_content(
    what: str, members: Mapping[str, Any], names: tuple[str, ...], content: str
) -> None:
    if content not in COORDINATION_CONTENT_MODES:
        raise ValueError(f"content is {content!r}; expected full or omitted")
    for name in names:
        if (name in members) != (content == "full"):
            raise ValueError(
                f"{what}: {name} stands there exactly where content is full, and it is {content}"
            )
