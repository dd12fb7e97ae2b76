"""Policies that a ledger registers, and what its other records state of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from cert.evidence.coordination_plan import PlanPolicy
from cert.evidence.policy_record import read_registered
from cert.ledger.canonical import canonical_bytes
from cert.ledger.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cert.assessment.policy import Policy

_SHOWN_CHARS = 200


class _Registered(NamedTuple):
    """A policy that a record registers.

    Attributes:
        id: Its id.
        version: Its version.
        packed_plan: What it registers, compressed, where that is a plan: plans are long, and only
            those of runs that are open are looked into.
    """

    id: str
    version: int
    packed_plan: bytes | None = None


class PolicyBook:
    """Every policy that was registered so far.

    Args:
        is_part: Whether records may be missing, so that a policy need not be known.
        learn: Told of policies that are thresholds.
    """

    def __init__(self, *, is_part: bool, learn: Callable[[Policy], None]) -> None:
        self._is_part = is_part
        self._learn = learn
        self._policies: dict[str, _Registered] = {}

    def register(self, registered: Mapping[str, Any], *, is_sound: bool = True) -> list[Problem]:
        """Take the `policy` of the record that registers it.

        Args:
            registered: It.
            is_sound: Whether it follows the schema; a plan that does not is not looked into.
        """
        try:
            policy = read_registered(registered)
        except ValueError as error:
            return [Problem("policy", _short(f"it registers no policy: {error}"))]
        packed_plan = None
        if not isinstance(policy, PlanPolicy):
            self._learn(policy)
        elif is_sound:
            packed_plan = zlib.compress(canonical_bytes(policy.members))
        else:
            return []
        self._policies[policy.digest] = _Registered(policy.id, policy.version, packed_plan)
        return []

    def look_for(self, stated: Mapping[str, Any]) -> list[Problem]:
        """Look whether a policy was registered as it is stated."""
        policy = self._policies.get(stated["digest"])
        if policy is None:
            if self._is_part:
                return []
            words = "no earlier record registers its policy"
            return [Problem("policy", words, found=_short(stated["digest"]))]
        return [
            Problem(
                "policy",
                f"the {name} of its policy is not the one that was registered",
                expected=str(registered),
                found=_short(str(stated[name])),
            )
            for name, registered in (("id", policy.id), ("version", policy.version))
            if stated[name] != registered
        ]

    def knows(self, digest: str) -> bool:
        """Whether a policy of this digest was registered."""
        return digest in self._policies

    def find_plan(self, digest: str) -> Mapping[str, Any] | None:
        """Return the members of the plan of this digest; None where none is known."""
        policy = self._policies.get(digest)
        if policy is None or policy.packed_plan is None:
            return None
        members: Mapping[str, Any] = orjson.loads(zlib.decompress(policy.packed_plan))
        return members


def _short(text: str) -> str:
    return text[:_SHOWN_CHARS]
