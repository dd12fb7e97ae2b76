"""The outcome of holding a trace against a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """`inconclusive` is said where the evidence does not carry a decision."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: `observed op threshold`, and what came of it.

    `observed` is None where the signal does not exist (no token was measured); the outcome is
    then inconclusive.
    """

    signal: str
    op: str
    threshold: float
    observed: float | None
    outcome: Verdict


@dataclass(frozen=True, slots=True)
class Assessment:
    """Every check of the policy in force, and the verdict that follows from them.

    Attributes:
        policy_id: The policy's own id.
        policy_digest: `sha256:` over the policy's canonical bytes.
        verdict: fail if any check failed; else inconclusive if any is, or if `reasons` says
            that the evidence is not complete; else pass.
        checks: In the policy's order.
        reasons: Why the verdict is inconclusive, beyond the checks; empty otherwise.
        policy_version: The policy's own version.
        min_tokens: The policy's; with `incomplete` and the checks it makes the policy again,
            so that whoever has the record alone can recompute digest and verdict.
        incomplete: The policy's rule for texts that were cut off: `inconclusive` or `judge`.
    """

    policy_id: str
    policy_digest: str
    verdict: Verdict
    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = ()
    policy_version: int = field(kw_only=True)
    min_tokens: int = field(kw_only=True)
    incomplete: str = field(kw_only=True)
