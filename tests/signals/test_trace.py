"""Building a trace: shortest decimals, rounding at the borders, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cert.core.errors import NumericalError
from cert.signals.trace import SignalTrace, build_trace

INF = math.inf


def build(**changed: object) -> SignalTrace:
    arrays: dict[str, Any] = {
        "token_ids": [5, 9],
        "logprobs": np.array([-0.1, -INF], np.float32),
        "entropies": np.array([0.3, 2.0], np.float32),
        "top_k_entropies": np.array([0.2, 1.5], np.float32),
        "logit_margins": np.array([INF, 0.7], np.float32),
        "probability_margins": np.array([1.0, 0.25], np.float32),
        "ranks": np.array([0, 4095]),
    }
    return build_trace(**(arrays | changed))


def test_readings_are_the_shortest_decimals_of_float32() -> None:
    trace = build()
    assert trace == SignalTrace(
        token_ids=(5, 9),
        logprobs=(-0.1, -INF),
        entropies=(0.3, 2.0),
        top_k_entropies=(0.2, 1.5),
        logit_margins=(INF, 0.7),
        probability_margins=(1.0, 0.25),
        ranks=(0, 4095),
    )
    assert len(trace) == 2


def test_items_are_plain_python_numbers() -> None:
    trace = build(token_ids=np.array([5, 9], np.int32))
    for name in SignalTrace.__slots__:
        kind = int if name in {"token_ids", "ranks"} else float
        assert [type(one) for one in getattr(trace, name)] == [kind, kind], name


def test_float64_arrays_are_rounded_to_float32() -> None:
    third = build(entropies=np.array([1 / 3, 0.0])).entropies[0]
    assert third == 0.33333334
    assert build(logprobs=[-1 / 3, -1e300]).logprobs == (-0.33333334, -INF)


@given(hnp.arrays(np.float32, 3, elements=st.floats(-(2.0**100), 0.0, width=32)))
def test_every_reading_reads_back_as_the_same_float32(values: np.ndarray) -> None:
    got = build(
        token_ids=[1, 2, 3],
        logprobs=values,
        entropies=-values,
        top_k_entropies=-values,
        logit_margins=-values,
        probability_margins=[0, 0, 0],
        ranks=[0, 0, 0],
    )
    assert np.array_equal(np.array(got.logprobs, np.float32), values)
    assert [abs(one) for one in got.logprobs] == [float(str(-one)) for one in values]
    assert got.entropies == tuple(abs(one) for one in got.logprobs)


def test_a_minus_zero_becomes_zero() -> None:
    trace = build(logprobs=[-0.0, -0.0], entropies=[-0.0, 0.0])
    assert math.copysign(1.0, trace.logprobs[0]) == 1.0
    assert math.copysign(1.0, trace.entropies[0]) == 1.0


def test_rounding_just_outside_the_domain_is_put_on_the_border() -> None:
    assert build(logprobs=[1e-7, -1.0]).logprobs == (0.0, -1.0)
    assert build(entropies=[-1e-6, 1.0]).entropies == (0.0, 1.0)
    assert build(probability_margins=[1.0000001, -1e-9]).probability_margins == (1.0, 0.0)
    assert build(logit_margins=[-1e-5, 1.0]).logit_margins == (0.0, 1.0)


def test_no_tokens() -> None:
    empty = build_trace([], [], [], [], [], [], [])
    assert empty == SignalTrace((), (), (), (), (), (), ())
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("logprobs", [0.1, -1.0]),
        ("logprobs", [INF, -1.0]),
        ("entropies", [-0.1, 1.0]),
        ("entropies", [INF, 1.0]),
        ("entropies", [1e39, 1.0]),
        ("top_k_entropies", [-INF, 1.0]),
        ("logit_margins", [-0.1, 1.0]),
        ("probability_margins", [1.1, 0.0]),
        ("probability_margins", [-0.1, 0.0]),
        *(
            (name, [math.nan, 0.0])
            for name in SignalTrace.__slots__
            if name not in {"token_ids", "ranks"}
        ),
    ],
)
def test_readings_that_measure_nothing_are_refused(name: str, values: list[float]) -> None:
    with pytest.raises(NumericalError, match=rf"{name}\[0\] is "):
        build(**{name: values})


@pytest.mark.parametrize("name", SignalTrace.__slots__)
def test_one_item_a_token(name: str) -> None:
    with pytest.raises(ValueError, match=r"token ids but|expected"):
        build(**{name: [0]})


def test_other_arguments_outside_their_domain() -> None:
    with pytest.raises(ValueError, match="not negative"):
        build(token_ids=[1, -1])
    with pytest.raises(ValueError, match="not negative"):
        build(ranks=[-1, 0])
    with pytest.raises(ValueError, match=r"logprobs have the shape \(1, 2\)"):
        build(logprobs=[[-1.0, -1.0]])
