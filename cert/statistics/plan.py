"""How many tasks it takes."""

from __future__ import annotations

import math

Z = 2.80
"""1.96 + 0.84: two-sided level 0.05, power 0.80."""


def required_tasks(deviation: float, delta: float) -> int:
    """Tasks that find a difference `delta` with power 0.80 at the two-sided level 0.05.

        n = (2.80 * sd / delta)^2, rounded up

    From the normal distribution; t at few tasks takes about two more.

    Args:
        deviation: Standard deviation between tasks of the difference of two arms' task means
            (`MeanEstimate.standard_deviation` of delta, or `widest_deviation`), >= 0.
        delta: The difference of mean scores, > 0.

    Returns:
        At least 2.

    >>> required_tasks(0.4, 0.2)
    32
    """
    if not (deviation >= 0.0 and delta > 0.0):
        raise ValueError(f"sd {deviation!r}, delta {delta!r}; expected sd >= 0 and delta > 0")
    needed = (Z * deviation / delta) ** 2
    # 31.360000000000003 is no reason for a 33rd task where 32 was meant exactly.
    return max(2, math.ceil(needed - 1e-9))


def detectable_delta(deviation: float, tasks: int) -> float:
    """Smallest difference of mean scores that so many tasks find with power 0.80: 2.80 sd / sqrt n.

    >>> round(detectable_delta(0.4, 30), 3)
    0.204
    """
    if not (deviation >= 0.0 and tasks > 0):
        raise ValueError(f"sd {deviation!r}, {tasks!r} tasks; expected sd >= 0 and a task")
    return Z * deviation / math.sqrt(tasks)


def widest_deviation(rate: float, replicates_a: int, replicates_b: int) -> float:
    """Largest standard deviation of a task's difference where neither arm is better on any task.

        sqrt(rate (1 - rate) (1/k + 1/r))

    Reached by right-or-wrong scores on equally hard tasks; tasks of different difficulty and graded
    scores give less. For a plan without a pilot: rate 0.5. Effects that differ between tasks add
    to it.

    Args:
        rate: Mean score, in [0, 1].
        replicates_a: k, >= 1.
        replicates_b: r, >= 1.

    >>> round(widest_deviation(0.5, 3, 3), 3)
    0.408
    """
    if not (0.0 <= rate <= 1.0 and replicates_a >= 1 and replicates_b >= 1):
        raise ValueError(
            f"rate {rate!r}, {replicates_a!r} and {replicates_b!r} replicates;"
            " expected 0 to 1, and 1 or more of both"
        )
    return math.sqrt(rate * (1.0 - rate) * (1.0 / replicates_a + 1.0 / replicates_b))
