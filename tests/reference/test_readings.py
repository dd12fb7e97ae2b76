from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError
from cert.reference.readings import (
    Readings,
    ReadingsCheck,
    compare_readings,
    load_readings,
    parse_readings,
)
from tests.fakes import fake_trace

if TYPE_CHECKING:
    from pathlib import Path

TRACE = fake_trace(["every", "word", "here"])
READINGS = Readings(
    prompt="Measure",
    response="every word here",
    prompt_token_ids=(0, 1),
    token_ids=TRACE.token_ids,
    logprobs=TRACE.logprobs,
    entropies=TRACE.entropies,
    tolerances={"float32": 0.001},
    model_digest="sha256:00",
)


def as_json(**changes: object) -> bytes:
    fields = {name: getattr(READINGS, name) for name in READINGS.__struct_fields__}
    return json.dumps({**fields, **changes}).encode()


def test_readings_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "readings.json"
    path.write_bytes(as_json())
    assert load_readings(path) == READINGS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (as_json(extra=1), "unknown field"),
        (as_json(logprobs=["x"]), "cannot be read"),
        (as_json(logprobs=[0.0]), r"have \[1, 3\] values"),
        (as_json(logprobs=[], entropies=[], token_ids=[]), r"have \[0\] values"),
    ],
)
def test_damaged_readings_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_readings(data)


def test_missing_readings_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no pinned readings at .*absent\.json"):
        load_readings(tmp_path / "absent.json")


def test_the_readings_themselves_deviate_by_nothing() -> None:
    assert compare_readings(TRACE, READINGS, "float32") == ReadingsCheck(0.0, 0.0, 0.001, ok=True)


@pytest.mark.parametrize(("shift", "ok"), [(0.0005, True), (0.002, False)])
@pytest.mark.parametrize("signal", ["logprobs", "entropies"])
def test_one_shifted_value_counts(signal: str, shift: float, ok: bool) -> None:
    values = list(getattr(TRACE, signal))
    values[1] -= shift
    found = compare_readings(replace(TRACE, **{signal: tuple(values)}), READINGS, "float32")
    assert found.ok is ok
    deviations = (found.max_logprob_deviation, found.max_entropy_deviation)
    assert max(deviations) == pytest.approx(shift)
    assert min(deviations) == 0.0
    assert ("deviate by" in found.reason) is not ok


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_never_passes(value: float) -> None:
    trace = replace(TRACE, logprobs=(*TRACE.logprobs[:2], value))
    found = compare_readings(trace, READINGS, "float32")
    assert (found.ok, found.max_logprob_deviation) == (False, math.inf)


def test_equal_infinities_are_equal() -> None:
    logprobs = (*TRACE.logprobs[:2], -math.inf)
    fields = {name: getattr(READINGS, name) for name in READINGS.__struct_fields__}
    pinned = Readings(**{**fields, "logprobs": logprobs})
    assert compare_readings(replace(TRACE, logprobs=logprobs), pinned, "float32").ok


def test_other_tokens_are_not_compared() -> None:
    found = compare_readings(fake_trace(["other"]), READINGS, "float32")
    assert (found.ok, found.max_entropy_deviation) == (False, math.inf)
    assert "other tokens" in found.reason


def test_a_dtype_without_a_tolerance_is_not_fine() -> None:
    found = compare_readings(TRACE, READINGS, "float16")
    assert (found.ok, found.tolerance, found.max_logprob_deviation) == (False, None, 0.0)
    assert found.reason == "no tolerance is pinned for float16"
