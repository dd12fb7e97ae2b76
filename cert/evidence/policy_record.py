"""Policies as records: thresholds are in the ledger before anything is judged by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cert.assessment.policy import Policy
from cert.ledger.control import record_head

if TYPE_CHECKING:
    from collections.abc import Mapping


def build_policy_record(policy: Policy, *, time: str | None = None) -> dict[str, object]:
    """Register a policy.

    Args:
        policy: In full; its digest is over every other member of `policy`.
        time: RFC 3339; now where it is not given.
    """
    return {
        **record_head("policy", time),
        "policy": {
            "id": policy.id,
            "version": policy.version,
            "checks": [msgspec.to_builtins(check) for check in policy.checks],
            "min_tokens": policy.min_tokens,
            "incomplete": policy.incomplete,
            "digest": policy.digest,
        },
    }


def read_policy(registered: Mapping[str, Any]) -> Policy:
    """Read the policy out of the `policy` of its record.

    Raises:
        ValueError: It is no policy, or its digest is of another one.
    """
    members = {name: value for name, value in registered.items() if name != "digest"}
    policy = msgspec.convert(members, Policy)
    if policy.digest != registered.get("digest"):
        raise ValueError(f"its digest is {policy.digest}, not {registered.get('digest')}")
    return policy
