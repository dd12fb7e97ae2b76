"""What a trace says of an analysis: numbers and names, never a text.

Names are those of OpenTelemetry's semantic conventions for generative AI, version 1.37.0
(`cert.observability.tracing.SCHEMA_URL`), and `cert.*` for what they have no name for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.core.errors import AnalysisError
from cert.observability.redaction import redact
from cert.observability.tracing import record_span

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from cert.backends.protocol import SamplingParams
    from cert.inputs.case import PromptCase
    from cert.observability.tracing import Value
    from cert.trajectory.types import AnalysisResult

_PROVIDER = "transformers"


def record_analysis(  # noqa: PLR0913 - everything that one span says
    case: PromptCase,
    outcome: AnalysisResult | AnalysisError,
    sampling: SamplingParams,
    *,
    model: str,
    parent: Context | None,
    duration_s: float,
) -> None:
    """Trace an analysis that has ended; nothing happens where traces are not asked for.

    Args:
        case: Of it, only whether a response was given is told.
        outcome: How it ended.
        sampling: How tokens were chosen.
        model: As the user named it.
        parent: Of `current_trace` when it was submitted.
        duration_s: From submission to the end.
    """
    operation = "text_completion" if case.response is None else "score"
    name = redact(model)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": name,
    }
    if case.response is None:
        attributes |= {
            "gen_ai.request.max_tokens": sampling.max_new_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            **({"gen_ai.request.top_k": float(sampling.top_k)} if sampling.top_k else {}),
            **({} if sampling.seed is None else {"gen_ai.request.seed": sampling.seed}),
        }
    error_type = None
    if isinstance(outcome, AnalysisError):
        error_type = outcome.error_type
    else:
        generation, assessment = outcome.generation, outcome.assessment
        attributes |= {
            "gen_ai.response.model": outcome.identity.digest,
            "gen_ai.response.finish_reasons": (generation.finish_reason.value,),
            "gen_ai.usage.input_tokens": len(generation.prompt_token_ids),
            "gen_ai.usage.output_tokens": len(generation.trace),
            "cert.verdict": assessment.verdict.value,
            "cert.policy": f"{assessment.policy_id}@{assessment.policy_version}",
            "cert.cached": outcome.cached,
        }
    record_span(
        f"{operation} {name}",
        parent=parent,
        duration_s=duration_s,
        attributes=attributes,
        error_type=error_type,
    )
