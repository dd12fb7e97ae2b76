"""What a trial refuses, and what it makes of missing scores."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cert.statistics import Arm, Replicate, Strategy, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

NAN = math.nan
ONE = Replicate(score=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either a score or a reason"),
        ({"unscored": ""}, "either a score or a reason"),
        ({"score": 0.5, "unscored": "timeout"}, "either a score or a reason"),
        ({"score": 1.5}, "score is 1.5"),
        ({"score": -0.1}, "score is -0.1"),
        ({"score": NAN}, "score is nan"),
        ({"score": 1.0, "tokens": -1}, "tokens is -1"),
        ({"score": 1.0, "tokens": NAN}, "tokens is nan"),
        ({"score": 1.0, "tokens": math.inf}, "tokens is inf"),
        ({"score": 1.0, "cost_usd": -0.01}, "cost_usd is -0.01"),
        ({"score": 1.0, "cost_usd": NAN}, "cost_usd is nan"),
        ({"score": 1.0, "cost_usd": math.inf}, "cost_usd is inf"),
    ],
)
def test_a_replicate_refuses_what_is_no_measurement(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replicate(**fields)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("", ((ONE,),), "no name"),
        ("A", (), "rows of"),
        ("A", ((), ()), "rows of"),
        ("A", ((ONE,), (ONE, ONE)), r"rows of \[1, 2\]"),
    ],
)
def test_an_arm_is_a_table(
    name: str, rows: tuple[tuple[Replicate, ...], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Arm(name, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": (), "groups": ()}, "no task"),
        ({"tasks": ("x", "x")}, "task 'x' stands there twice"),
        ({"groups": ("x",)}, "1 groups for 2 tasks"),
        ({"single": Arm("A", ((ONE,),))}, "arm 'A' has 1 rows for 2 tasks"),
        ({"strategies": (Strategy(name="S", coordinated=Arm("A", ((ONE,),) * 2)),)}, "arm 'A'"),
        (
            {
                "strategies": tuple(
                    Strategy(name="S", coordinated=Arm(name, ((ONE,),) * 2)) for name in "BC"
                )
            },
            "strategy 'S' stands there twice",
        ),
        (
            {
                "strategies": (
                    Strategy(
                        name="S",
                        coordinated=Arm("B", ((ONE,),) * 2),
                        placebo=Arm("E", ((ONE,),) * 3),
                    ),
                )
            },
            "arm 'E' has 3 rows",
        ),
    ],
)
def test_a_trial_refuses_tables_that_dont_belong_together(
    change: dict[str, Any], message: str
) -> None:
    fields: dict[str, Any] = {
        "tasks": ("x", "y"),
        "groups": ("g", "g"),
        "single": Arm("A", ((ONE,),) * 2),
    }
    Trial(**fields)
    with pytest.raises(ValueError, match=message):
        Trial(**(fields | change))


def test_missing_scores_are_left_out_of_means_and_never_zero(make_arm: Callable[..., Arm]) -> None:
    arm = make_arm("A", [[1.0, None, 0.0], [None, None, None], [0.25, 0.25, 1.0]])
    assert arm.replicates == 3
    np.testing.assert_array_equal(arm.scores()[0], [1.0, NAN, 0.0])
    np.testing.assert_array_equal(arm.task_scores(), [0.5, NAN, 0.5])


def test_tokens_count_with_the_scores_that_they_bought() -> None:
    known = Replicate(score=1.0, tokens=10)
    arm = Arm(
        "A",
        (
            (known, Replicate(unscored="refusal", tokens=1000)),
            (known, Replicate(score=1.0)),
            (Replicate(unscored="refusal", tokens=5), Replicate(unscored="refusal", tokens=5)),
            (known, Replicate(score=0.0, tokens=30)),
        ),
    )
    np.testing.assert_array_equal(arm.task_tokens(), [10.0, NAN, NAN, 20.0])


def test_arms_come_in_a_fixed_order_and_without_those_not_run() -> None:
    arms = {name: Arm(name, ((ONE,),)) for name in "ABCDE"}
    strategy = Strategy(name="S", coordinated=arms["B"], refine=arms["D"], placebo=arms["E"])
    trial = Trial(tasks=("x",), groups=("x",), single=arms["A"], strategies=(strategy,))
    assert [arm.name for arm in trial.arms()] == ["A", "B", "D", "E"]
    full = Strategy(name="S", coordinated=arms["B"], matched=arms["C"])
    assert [arm.name for arm in full.arms()] == ["B", "C"]


def test_importing_the_package_loads_neither_numpy_nor_scipy() -> None:
    program = (
        "import sys, cert.statistics; assert not {'numpy', 'scipy'} & set(sys.modules);"
        "cert.statistics.judge; assert 'scipy.special' in sys.modules;"
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_every_name_that_the_package_hands_on_is_there() -> None:
    import cert.statistics

    for name in cert.statistics.__all__:
        assert getattr(cert.statistics, name).__name__ == name
