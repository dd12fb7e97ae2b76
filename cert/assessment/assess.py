"""Hold a summary against a policy.

A text that was cut off, or that is too short for its policy, is judged no further than it
carries. Some outcomes no further token can change: a maximum or a sum only grows, so one over its
limit stays over it; an infinite perplexity stays infinite. Those stand. Every other outcome of such
a text, pass or fail, is inconclusive, and its verdict is fail or inconclusive but never pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cert.assessment.policy import OPERATORS
from cert.assessment.verdict import Assessment, Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

    from cert.assessment.policy import Policy, Threshold
    from cert.signals.summary import SignalSummary

INCOMPLETE: Final = frozenset({"timeout", "cancelled"})
"""Finish reasons of a text that would have gone on. `length` is none of them: the limit was set
beforehand, as the thresholds were, and the text up to it is what was to be measured."""

# Looked up once: a member of an enumeration costs as much as the comparison that it is for.
_PASS: Final = Verdict.PASS
_FAIL: Final = Verdict.FAIL
_INCONCLUSIVE: Final = Verdict.INCONCLUSIVE

_GROWS: Final = frozenset(
    {
        "tokens",
        "nll",
        "max_entropy",
        "max_surprisal",
        "cumulative_surprise",
        "surprising_tokens",
    }
)
_SHRINKS: Final = frozenset({"min_logit_margin", "min_probability_margin"})
_STAYS_INFINITE: Final = frozenset({"mean_nll", "perplexity"})


def assess(summary: SignalSummary, policy: Policy, *, finish_reason: str) -> Assessment:
    """Say what a policy makes of a text.

    Args:
        summary: Of the whole text, or of what there is of it.
        policy: The thresholds.
        finish_reason: `timeout` and `cancelled` mean that the text is not complete; under a
            policy with `incomplete: judge` they make no difference.

    Returns:
        Every check with its outcome, in the policy's order, and the verdict: fail if any check
        failed, else inconclusive if any is or if `reasons` says why, else pass. An infinite value
        fails `<`. A signal that does not exist (no token) is inconclusive.
    """
    reasons = why_incomplete(summary.tokens, finish_reason, policy)
    checks = tuple(_check(summary, rule, is_partial=bool(reasons)) for rule in policy.checks)
    verdict = conclude([check.outcome for check in checks], reasons)
    return Assessment(
        policy_id=policy.id,
        policy_digest=policy.digest,
        verdict=verdict,
        checks=checks,
        reasons=tuple(reasons),
        policy_version=policy.version,
        min_tokens=policy.min_tokens,
        incomplete=policy.incomplete,
    )


def why_incomplete(tokens: int, finish_reason: str, policy: Policy) -> list[str]:
    """Say why a text is judged no further than it carries; nothing where it is complete."""
    reasons: list[str] = []
    if tokens < policy.min_tokens:
        reasons.append(f"{tokens} tokens; the policy asks for {policy.min_tokens}")
    if finish_reason in INCOMPLETE and policy.incomplete == "inconclusive":
        reasons.append(f"the text is not complete: {finish_reason}")
    return reasons


def judge(
    rule: Threshold, observed: float | None, nll: float | None, *, is_partial: bool
) -> Verdict:
    """Hold one observation against its threshold.

    Args:
        rule: Signal, comparison and threshold.
        observed: The signal; None where it does not exist.
        nll: Of the same text.
        is_partial: Whether there are reasons not to judge it as a whole.
    """
    if observed is None:
        return _INCONCLUSIVE
    outcome = _PASS if OPERATORS[rule.op](observed, rule.threshold) else _FAIL
    if is_partial and not _is_final(rule, outcome, nll):
        return _INCONCLUSIVE
    return outcome


def conclude(outcomes: Collection[Verdict], reasons: Collection[str]) -> Verdict:
    """Draw the verdict from the checks' outcomes."""
    if _FAIL in outcomes:
        return _FAIL
    if reasons or _INCONCLUSIVE in outcomes:
        return _INCONCLUSIVE
    return _PASS


def _check(summary: SignalSummary, rule: Threshold, *, is_partial: bool) -> Check:
    observed: float | None = getattr(summary, rule.signal)
    outcome = judge(rule, observed, summary.nll, is_partial=is_partial)
    return Check(rule.signal, rule.op, rule.threshold, observed, outcome)


def _is_final(rule: Threshold, outcome: Verdict, nll: float | None) -> bool:
    """Whether further tokens cannot change the outcome."""
    asks_for_more = rule.op in {">", ">="}
    beyond = asks_for_more == (outcome is Verdict.PASS)  # observed lies above the threshold
    if rule.signal in _GROWS:
        return beyond
    if rule.signal in _SHRINKS:
        return not beyond
    # A perplexity may also be beyond float64 while its NLL is finite; that one can come down.
    return rule.signal in _STAYS_INFINITE and nll == math.inf
