"""Parts that records of several kinds share: heads, models, sampling, text that can be encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.ledger.control import record_head
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from cert.backends.protocol import ModelIdentity, SamplingParams

MAX_MESSAGE_CHARS: Final = 2000


def run_head(
    kind: str, run_id: str, correlation_id: str | None, time: str | None
) -> dict[str, object]:
    """Head of a record that belongs to a run."""
    return {
        **record_head(kind, time),
        "run_id": run_id,
        "correlation_id": None if correlation_id is None else encodable(correlation_id),
    }


def describe_model(identity: ModelIdentity) -> dict[str, object]:
    """The `model` of a record; secrets in its name are redacted."""
    return {
        "name": redact(encodable(identity.name)),
        "digest": identity.digest,
        "architecture": identity.architecture,
        "parameters": identity.parameters,
        "vocab_size": identity.vocab_size,
        "max_context_tokens": identity.max_context_tokens,
    }


def describe_sampling(sampling: SamplingParams) -> dict[str, object]:
    """The `sampling` of a record."""
    return {
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
    }


def encodable(text: str) -> str:
    """The text with U+FFFD for what UTF-8 cannot hold (lone surrogates)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def message(text: str) -> str:
    """A message as records hold it: encodable, without secrets, cut to its longest."""
    return encodable(redact(text))[:MAX_MESSAGE_CHARS]
