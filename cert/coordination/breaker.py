"""The client's circuit breaker: the core's, with a recovery time that grows.

Opens on `FAILURES` failures of the service in a row. The first probe comes after `MIN_RECOVERY_S`;
each probe that fails doubles the wait, up to `MAX_RECOVERY_S`; one that succeeds resets it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cert.core.circuit_breaker import CircuitBreaker, CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = 5
MIN_RECOVERY_S = 30.0
MAX_RECOVERY_S = 300.0


def build_breaker(
    name: str,
    *,
    exceptions: tuple[type[Exception], ...],
    clock: Callable[[], float] = time.monotonic,
    on_state_change: Callable[[CircuitState, CircuitState], None] | None = None,
) -> CircuitBreaker:
    """Build the breaker of one service.

    Args:
        name: Names the service in errors and logs.
        exceptions: What counts as a failure of the service.
        clock: Monotonic seconds.
        on_state_change: Called with the old and the new state after each change.
    """

    def adapt(old: CircuitState, new: CircuitState) -> None:
        if new is CircuitState.CLOSED:
            breaker.recovery_timeout = MIN_RECOVERY_S
        elif old is CircuitState.HALF_OPEN:
            breaker.recovery_timeout = min(2 * breaker.recovery_timeout, MAX_RECOVERY_S)
        if on_state_change is not None:
            on_state_change(old, new)

    breaker = CircuitBreaker(
        FAILURES,
        MIN_RECOVERY_S,
        exceptions=exceptions,
        name=name,
        clock=clock,
        on_state_change=adapt,
    )
    return breaker
