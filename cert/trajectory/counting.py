"""What is counted and logged of a request; never its text."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cert.backends.protocol import FinishReason
from cert.core.errors import (
    AnalysisError,
    GenerationCancelled,
    GenerationTimeout,
    InvalidInput,
)
from cert.observability.metrics import CacheType, Operation, QualityResult, Service, Status

if TYPE_CHECKING:
    from cert.inputs.case import PromptCase
    from cert.observability.metrics import MetricsCollector
    from cert.trajectory.types import AnalysisResult

logger = logging.getLogger(__name__)

_SYSTEM_FAILURES = (Status.ERROR, Status.TIMEOUT)
_STATUS_BY_REASON = {
    FinishReason.TIMEOUT: Status.TIMEOUT,
    FinishReason.CANCELLED: Status.CANCELLED,
}
_STATUS_BY_ERROR = (
    (InvalidInput, Status.REFUSED),
    (GenerationTimeout, Status.TIMEOUT),
    (GenerationCancelled, Status.CANCELLED),
)


def status_of_reason(reason: FinishReason) -> Status:
    """How a request ended whose text ended for this reason."""
    return _STATUS_BY_REASON.get(reason, Status.SUCCESS)


def status_of_error(error: Exception) -> Status:
    """How a request ended that ended in this error."""
    return next((s for kind, s in _STATUS_BY_ERROR if isinstance(error, kind)), Status.ERROR)


class RequestCounter:
    """Counts and logs requests as they end. Safe to use from several threads."""

    def __init__(self, metrics: MetricsCollector) -> None:
        """Count in `metrics`."""
        self._metrics = metrics

    def cache_lookup(self, *, hit: bool) -> None:
        """Count one look into the cache of measurements."""
        self._metrics.record_cache(CacheType.ANALYSIS, hit=hit)

    def outcome(
        self,
        case: PromptCase,
        outcome: AnalysisResult | AnalysisError,
        status: Status,
        *,
        duration_s: float,
    ) -> None:
        """Count and log how a request ended.

        What lies with the prompt or the caller is logged as information: it is no warning about
        this system.
        """
        operation = Operation.ANALYZE if case.response is None else Operation.SCORE
        self._metrics.record_request(Service.HAMILTONIAN, operation, status, duration_s=duration_s)
        extra: dict[str, object] = {
            "prompt_id": case.id,
            "status": status.value,
            "duration_s": round(duration_s, 6),
        }
        if isinstance(outcome, AnalysisError):
            level = logging.WARNING if status in _SYSTEM_FAILURES else logging.INFO
            logger.log(level, "analysis failed", extra={**extra, "error_type": outcome.error_type})
            return
        summary, verdict = outcome.summary, outcome.verdict.value
        self._metrics.record_quality_check(QualityResult(verdict), perplexity=summary.perplexity)
        extra |= {
            "model": outcome.identity.name,
            "verdict": verdict,
            "perplexity": summary.perplexity,
            "tokens": summary.tokens,
            "cached": outcome.cached,
        }
        logger.info("analysis finished", extra=extra)
