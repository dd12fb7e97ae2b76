"""What the analysis of one prompt returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.assessment.verdict import Verdict

if TYPE_CHECKING:
    from cert.assessment.verdict import Assessment
    from cert.backends.protocol import Generation, ModelIdentity
    from cert.inputs.case import PromptCase
    from cert.signals.summary import SignalSummary


@dataclass(frozen=True, slots=True, repr=False)
class AnalysisResult:
    """A text, what was measured of it, and the verdict of the policy in force.

    Where an analysis was not possible, an `AnalysisError` stands in its place.

    Attributes:
        case: The prompt, its id, and where it came from.
        generation: The text with its per-token trace, and how it came about.
        summary: The signals of the whole text.
        assessment: Every check of the policy, and the verdict.
        identity: The model that measured.
        cached: Whether the text was measured for an earlier request of the same engine.
        total_s: Seconds from submission to result, waiting included.
        correlation_id: Ties this result to log lines and records.
    """

    case: PromptCase
    generation: Generation
    summary: SignalSummary
    assessment: Assessment
    identity: ModelIdentity
    cached: bool
    total_s: float
    correlation_id: str | None

    @property
    def prompt(self) -> str:
        """The prompt as it was given."""
        return self.case.text

    @property
    def generated_text(self) -> str:
        """The text that was generated, or the response that was scored."""
        return self.generation.text

    @property
    def avg_perplexity(self) -> float:
        """exp(mean NLL) over all tokens of the raw distribution, >= 1; NaN without tokens.

        Not a mean of perplexities, and not a mean of 1/p: one impossible token makes it infinite.
        """
        return math.nan if self.summary.perplexity is None else self.summary.perplexity

    @property
    def avg_entropy(self) -> float:
        """Mean full-vocabulary entropy in nats, in [0, ln V]; NaN without tokens."""
        return math.nan if self.summary.mean_entropy is None else self.summary.mean_entropy

    @property
    def verdict(self) -> Verdict:
        """pass, fail, or inconclusive."""
        return self.assessment.verdict

    @property
    def passed_quality_check(self) -> bool:
        """Whether the verdict is `pass`; False where it is inconclusive, too."""
        return self.verdict is Verdict.PASS

    def __repr__(self) -> str:
        """Say the outcome; the texts and the trace fill screens."""
        return (
            f"<AnalysisResult {self.verdict.value}: {self.summary.tokens} tokens, perplexity "
            f"{self.avg_perplexity:.4g}, mean entropy {self.avg_entropy:.4g} nats>"
        )
