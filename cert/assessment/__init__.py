"""Policies (thresholds fixed beforehand) and the verdicts that follow from them."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.assessment.policy import Policy as Policy
    from cert.assessment.policy import Threshold as Threshold
    from cert.assessment.policy import builtin_policy_ids as builtin_policy_ids
    from cert.assessment.policy import load_policy as load_policy
    from cert.assessment.policy import parse_policy as parse_policy
    from cert.assessment.verdict import Assessment as Assessment
    from cert.assessment.verdict import Check as Check
    from cert.assessment.verdict import Verdict as Verdict

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Assessment": "cert.assessment.verdict",
        "Check": "cert.assessment.verdict",
        "Policy": "cert.assessment.policy",
        "Threshold": "cert.assessment.policy",
        "Verdict": "cert.assessment.verdict",
        "builtin_policy_ids": "cert.assessment.policy",
        "load_policy": "cert.assessment.policy",
        "parse_policy": "cert.assessment.policy",
    },
)
