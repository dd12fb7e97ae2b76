"""Errors, as raised and as returned.

    CertError
    ├── ConfigurationError          a flag, environment variable or file is wrong
    │   └── PolicyError             a policy file is wrong
    ├── MissingExtraError           an optional dependency is not installed
    ├── InvalidInput                the prompt cannot be used
    │   └── PromptTooLong           ... because of its length
    ├── ModelNotLoaded              ask again in five seconds
    ├── ModelUnavailableError       there is no such model, or it cannot be read
    │   └── ModelRefusedError       it can be read, and is not safe to load
    ├── GenerationTimeout           the deadline passed before the first token
    ├── GenerationCancelled         the caller took the request back
    ├── NumericalError              logits that are no numbers: a measurement is impossible
    ├── GPUOutOfMemoryError         falls back to smaller batches, then to the CPU
    │   └── CPUFallbackFailed       the CPU failed too
    ├── EmbeddingTimeoutError
    └── CircuitOpenError            a circuit breaker refuses the call

`HamiltonianMonitor` does not raise what concerns one prompt; it returns an `AnalysisError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cert.observability.redaction import redact


class CertError(Exception):
    """Base of every error that this library raises on purpose."""

    recoverable: ClassVar[bool] = False
    default_retry_after_s: ClassVar[float | None] = None

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        """Keep the message, and optionally the next thing to do or to run.

        `retry_after` is in seconds; left out, it is the class's `default_retry_after_s`.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = self.default_retry_after_s if retry_after is None else retry_after


class ConfigurationError(CertError):
    """A flag, an environment variable or a configuration file is wrong."""


class PolicyError(ConfigurationError):
    """A policy file is wrong."""


class MissingExtraError(CertError):
    """An optional dependency is not installed; the hint says which command installs it."""


class InvalidInput(CertError):  # noqa: N818 - the specification's name
    """The prompt is empty, not a string, or holds what cannot be encoded."""


class PromptTooLong(InvalidInput):
    """The prompt exceeds the limit in characters or in tokens."""


class ModelNotLoaded(CertError):  # noqa: N818 - the specification's name
    """The model is not in memory yet."""

    recoverable = True
    default_retry_after_s = 5.0


class ModelUnavailableError(CertError):
    """There is no such model, or its files cannot be read."""


class ModelRefusedError(ModelUnavailableError):
    """The model's files ask for something that is not safe to do."""


class GenerationTimeout(CertError):  # noqa: N818 - the specification's name
    """The deadline passed before anything was measured."""

    recoverable = True
    default_retry_after_s = 1.0


class GenerationCancelled(CertError):  # noqa: N818 - beside GenerationTimeout
    """The caller took the request back before anything was measured."""

    recoverable = True


class NumericalError(CertError):
    """The model returned NaN, +inf, or no finite logit at all: nothing can be measured."""


class GPUOutOfMemoryError(CertError):
    """The device ran out of memory."""

    recoverable = True


class CPUFallbackFailed(GPUOutOfMemoryError):  # noqa: N818 - the specification's name
    """The device ran out of memory, and so did the CPU."""

    recoverable = False


class EmbeddingTimeoutError(CertError):
    """An embedding was not computed in time."""

    recoverable = True


class CircuitOpenError(CertError):
    """The circuit is open: the call was not made; `retry_after` says when one will be."""

    recoverable = True


@dataclass(frozen=True, slots=True)
class AnalysisError:
    """What went wrong with one prompt, as a value: returned where a result would be.

    Attributes:
        error_type: The name of the error's class, for example `"PromptTooLong"`.
        message: What was wrong, in words.
        recoverable: Whether the same request may succeed later.
        retry_after: Seconds to wait before asking again; None where waiting won't help or
            no time is known.
    """

    error_type: str
    message: str
    recoverable: bool
    retry_after: float | None = None

    @property
    def passed_quality_check(self) -> bool:
        """False: nothing was measured, so nothing passed.

        Loops over a batch's results may ask this of each; whoever needs to know why asks for the
        type first.
        """
        return False

    @classmethod
    def from_exception(cls, error: Exception) -> AnalysisError:
        """Describe an exception; anything that is no `CertError` becomes `InternalError`.

        Secrets that `redact` knows are taken out of the message.

        >>> AnalysisError.from_exception(ModelNotLoaded("still loading")).retry_after
        5.0
        """
        if isinstance(error, CertError):
            return cls(
                type(error).__name__, redact(error.message), error.recoverable, error.retry_after
            )
        message = redact(f"{type(error).__name__}: {error}")[:2000]
        return cls("InternalError", message, recoverable=False)
