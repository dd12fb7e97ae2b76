from __future__ import annotations

import pickle

import pytest

from cert.core import errors
from cert.core.errors import AnalysisError, CertError

SPECIFIED = {
    "InvalidInput": (False, None),
    "PromptTooLong": (False, None),
    "ModelNotLoaded": (True, 5.0),
    "GenerationTimeout": (True, 1.0),
    "GPUOutOfMemoryError": (True, None),
    "CPUFallbackFailed": (False, None),
    "EmbeddingTimeoutError": (True, None),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_the_specified_errors_as_values(name: str) -> None:
    recoverable, retry_after = SPECIFIED[name]
    error = getattr(errors, name)("what happened")
    assert AnalysisError.from_exception(error) == AnalysisError(
        name, "what happened", recoverable, retry_after
    )


def test_an_error_may_know_better_when_to_ask_again() -> None:
    error = errors.ModelNotLoaded("loading", retry_after=0.5)
    assert AnalysisError.from_exception(error).retry_after == 0.5
    assert error.hint is None


def test_anything_else_is_internal_bounded_and_without_secrets() -> None:
    described = AnalysisError.from_exception(RuntimeError("sk-" + "a1" * 20 + " " * 9000))
    assert described.error_type == "InternalError"
    assert described.message.startswith("RuntimeError: [redacted] ")
    assert len(described.message) == 2000
    assert not described.recoverable
    own = AnalysisError.from_exception(CertError("at https://ann:pw@host/"))
    assert own.message == "at https://[redacted]@host/"


def test_errors_survive_a_process_boundary() -> None:
    error = errors.CircuitOpenError("open", hint="wait", retry_after=3.0)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line itself
    assert (copy.message, copy.hint, copy.retry_after) == ("open", "wait", 3.0)


def test_an_error_passes_no_check() -> None:
    assert AnalysisError("ModelNotLoaded", "wait", recoverable=True).passed_quality_check is False
