from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.statistics import Arm, Replicate, Strategy, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def build_arm(name: str, rows: Sequence[Sequence[float | None]], tokens: int = 100) -> Arm:
    """None is a replicate without a score."""
    return Arm(
        name,
        tuple(
            tuple(
                Replicate(unscored="timeout", tokens=tokens)
                if score is None
                else Replicate(score=score, tokens=tokens, cost_usd=0.01)
                for score in row
            )
            for row in rows
        ),
    )


def build_trial(
    a: Sequence[Sequence[float | None]],
    *others: Sequence[Sequence[float | None]],
    groups: Sequence[str] | None = None,
) -> Trial:
    """A, then B and C in turn: as many strategies as there are pairs; a last B may lack its C."""
    tasks = tuple(f"t{n:04d}" for n in range(len(a)))
    strategies = []
    for place in range(0, len(others), 2):
        number = place // 2
        matched = others[place + 1] if place + 1 < len(others) else None
        strategies.append(
            Strategy(
                name=f"S{number}",
                coordinated=build_arm(f"B{number}", others[place]),
                matched=None if matched is None else build_arm(f"C{number}", matched),
            )
        )
    return Trial(
        tasks=tasks,
        groups=tasks if groups is None else tuple(groups),
        single=build_arm("A", a),
        strategies=tuple(strategies),
    )


@pytest.fixture(scope="session")
def make_arm() -> Callable[..., Arm]:
    return build_arm


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    return build_trial
