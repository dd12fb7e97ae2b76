"""Policies as records: thresholds and plans are in the ledger before anything is judged by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cert.assessment.policy import Policy
from cert.evidence.coordination_plan import PlanPolicy, is_plan, read_plan_policy
from cert.ledger.control import record_head

if TYPE_CHECKING:
    from collections.abc import Mapping


def build_policy_record(
    policy: Policy | PlanPolicy, *, time: str | None = None
) -> dict[str, object]:
    """Register a policy.

    Args:
        policy: In full; its digest is over every other member of `policy`.
        time: RFC 3339; now where it is not given.
    """
    if isinstance(policy, PlanPolicy):
        members = policy.members
    else:
        members = {
            "id": policy.id,
            "version": policy.version,
            "checks": [msgspec.to_builtins(check) for check in policy.checks],
            "min_tokens": policy.min_tokens,
            "incomplete": policy.incomplete,
        }
    return {**record_head("policy", time), "policy": {**members, "digest": policy.digest}}


def read_policy(registered: Mapping[str, Any]) -> Policy:
    """Read the thresholds out of the `policy` of their record.

    Raises:
        ValueError: It is no policy, or its digest is of another one.
    """
    members = {name: value for name, value in registered.items() if name != "digest"}
    policy = msgspec.convert(members, Policy)
    if policy.digest != registered.get("digest"):
        raise ValueError(f"its digest is {policy.digest}, not {registered.get('digest')}")
    return policy


def read_registered(registered: Mapping[str, Any]) -> Policy | PlanPolicy:
    """Read whatever the `policy` of a record registers.

    Raises:
        ValueError: It is no policy, or its digest is of another one.
    """
    return read_plan_policy(registered) if is_plan(registered) else read_policy(registered)
