"""The plan of a comparison as a policy: everything that is fixed before its first call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cert.ledger.canonical import CanonicalError, canonical_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAN_ID: Final = "coordination"
PLAN_VERSION: Final = 1
CANARY_ARM: Final = "canary"
"""Stands as the arm of what tests the judges."""
MAX_PLANNED: Final = 1_000_000
"""Replicates that a plan may ask for: whoever verifies a result lays out all of them."""

_MEMBERS: Final = frozenset({"id", "version", "plan", "rule", "prices", "endpoints"})


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """What a comparison is held against; its members are JSON, as docs/record-format.md has them.

    Attributes:
        plan: Tasks, arms, prompts, seed, judges and what they are tested with.
        rule: How the evidence becomes a verdict.
        prices: `sha256:` over the file of prices; None where none was given.
        endpoints: Who answered for which models.

    Raises:
        ValueError: The plan asks for more than `MAX_PLANNED` replicates.
    """

    plan: Mapping[str, Any]
    rule: Mapping[str, Any]
    prices: str | None
    endpoints: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Refuse what nobody could verify."""
        replicates = sum(arm["replicates"] for arm in self.plan["arms"])
        planned = len(self.plan["tasks"]) * replicates
        if planned > MAX_PLANNED:
            raise ValueError(f"{planned} replicates are planned; expected {MAX_PLANNED} at most")

    @property
    def id(self) -> str:
        """The same for every plan."""
        return PLAN_ID

    @property
    def version(self) -> int:
        """Of the form of plans."""
        return PLAN_VERSION

    @property
    def members(self) -> dict[str, Any]:
        """The `policy` of its record, without the digest."""
        return {
            "id": PLAN_ID,
            "version": PLAN_VERSION,
            "plan": self.plan,
            "rule": self.rule,
            "prices": self.prices,
            "endpoints": list(self.endpoints),
        }

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical bytes (RFC 8785) of `members`."""
        return "sha256:" + hashlib.sha256(canonical_bytes(self.members)).hexdigest()


def is_plan(registered: Mapping[str, Any]) -> bool:
    """Whether the `policy` of a record is a plan, and no thresholds."""
    return "plan" in registered


def read_plan_policy(registered: Mapping[str, Any]) -> PlanPolicy:
    """Read the plan out of the `policy` of its record.

    Its parts are as the schema has them, or not: that is not looked at.

    Raises:
        ValueError: It is no plan, or its digest is of another one.
    """
    members = {name: value for name, value in registered.items() if name != "digest"}
    if members.keys() != _MEMBERS:
        raise ValueError(f"expected {', '.join(sorted(_MEMBERS))} and digest")
    if members["id"] != PLAN_ID or members["version"] != PLAN_VERSION:
        raise ValueError(f"expected the id {PLAN_ID} and the version {PLAN_VERSION}")
    try:
        policy = PlanPolicy(
            members["plan"], members["rule"], members["prices"], members["endpoints"]
        )
        digest = policy.digest
    except (AttributeError, KeyError, TypeError, CanonicalError) as error:
        raise ValueError(f"its plan is none: {type(error).__name__}") from error
    if digest != registered.get("digest"):
        raise ValueError(f"its digest is {digest}, not {registered.get('digest')}")
    return policy
