"""One call of the client on its way: what was tried, and how much of its time is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cert.coordination.faults import AttemptError
from cert.coordination.protocol import Attempt, CallFailure


@dataclass(slots=True)
class Progress:
    """One call on its way.

    Attributes:
        began_s: On the client's clock.
        left_s: Of the deadline.
        attempts: So far.
        is_unknown_billed: Whether one of them may have been charged for.
    """

    began_s: float
    left_s: float
    attempts: list[Attempt] = field(default_factory=list)
    is_unknown_billed: bool = False

    def fail(self, error: AttemptError, *, latency_s: float) -> None:
        """Note an attempt that failed."""
        self.is_unknown_billed |= error.is_maybe_billed
        self.attempts.append(
            Attempt(error.status, error.error, latency_s, request_id=error.request_id)
        )

    def wait(self, delay_s: float, *, asked_s: float) -> None:
        """Note a wait before the next attempt, and take what is ours of it from the deadline.

        Raises:
            AttemptError: The deadline would pass meanwhile.
        """
        self.left_s -= max(delay_s - asked_s, 0.0)
        if self.left_s <= 0:
            last = self.attempts[-1]
            raise AttemptError(
                f"no answer within the time of the call; the last attempt ended with {last.error}",
                failure=CallFailure.TRANSIENT,
                error="deadline",
            )
        self.attempts[-1] = replace(self.attempts[-1], waited_s=delay_s)
