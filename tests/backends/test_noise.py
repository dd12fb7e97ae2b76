from __future__ import annotations

import json

import pytest

from cert.backends import noise
from cert.backends.noise import SAFETY_FACTOR, NoiseFloor, Spread, noise_floor, parse_floors
from cert.core.errors import ConfigurationError
from tests.backends.test_backend_contract import TOLERANCE_NATS

FLOOR = {
    "arithmetic": "float32",
    "device": "cpu",
    "processor": "AVX2",
    "rows": 4,
    "against": "batching",
    "tokens": 10,
    "logprob": {"largest": 2e-6, "p999": 1e-6},
    "entropy": {"largest": 3e-6, "p999": 1e-6},
    "logit_margin": {"largest": 5e-6, "p999": 1e-6},
}


def test_the_smallest_measured_number_of_rows_that_is_not_smaller_answers() -> None:
    for asked, answered in ((1, 1), (2, 4), (4, 4), (5, 16), (64, 64)):
        floor = noise_floor("float32", "cpu", rows=asked)
        assert floor is not None
        assert (floor.arithmetic, floor.rows, floor.against) == ("float32", answered, "batching")


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("against", ["batching", "exact"])
def test_every_arithmetic_of_a_cpu_is_measured(arithmetic: str, against: str) -> None:
    dtype, quantization = arithmetic, None
    if arithmetic == "int8":
        dtype, quantization = "float32", "dynamic-int8"
    floor = noise_floor(dtype, "cpu", quantization, 64, against=against)  # type: ignore[arg-type]
    assert floor is not None
    assert (floor.arithmetic, floor.against) == (arithmetic, against)
    assert floor.tokens > 1000
    for spread in (floor.logprob, floor.entropy, floor.logit_margin):
        assert 0.0 <= spread.p999 <= spread.largest < 10.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_has_floors_of_its_own(dtype: str) -> None:
    found, on_a_cpu = noise_floor(dtype, "cuda:1", rows=64), noise_floor(dtype, "cpu", rows=64)
    assert found is not None
    assert found.device == "cuda"
    assert found != on_a_cpu


@pytest.mark.parametrize(
    ("dtype", "device", "quantization", "rows"),
    [
        ("float32", "cpu", None, 65),
        ("float64", "cpu", None, 1),
        ("float32", "xpu", None, 1),
        ("float16", "cpu", "bitsandbytes-nf4", 1),
    ],
)
def test_nothing_is_said_of_what_was_not_measured(
    dtype: str, device: str, quantization: str | None, rows: int
) -> None:
    assert noise_floor(dtype, device, quantization, rows) is None


def test_the_number_of_a_device_makes_no_difference() -> None:
    assert noise_floor("float32", "cpu:0") == noise_floor("float32", "cpu") is not None


def test_no_rows_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="rows is 0"):
        noise_floor("float32", "cpu", rows=0)


def test_a_tolerance_is_the_worse_floor_with_safety() -> None:
    (floor,) = parse_floors(json.dumps({"measured": {}, "floors": [FLOOR]}).encode())
    assert floor.logit_margin == Spread(5e-6, 1e-6)
    assert isinstance(floor, NoiseFloor)
    assert floor.tolerance_nats() == pytest.approx(SAFETY_FACTOR * 3e-6)


def test_of_two_processors_the_one_where_it_is_higher_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one(processor: str, rows: int, largest: float) -> dict[str, object]:
        spread = {"largest": largest, "p999": largest}
        return {**FLOOR, "processor": processor, "rows": rows, "logprob": spread}

    table = [one("a", 4, 0.1), one("b", 4, 0.3), one("a", 16, 0.5), one("b", 32, 0.4)]
    floors = parse_floors(json.dumps({"measured": {}, "floors": table}).encode())
    key = noise._Key("float32", "cpu", "batching")
    monkeypatch.setattr(noise, "_floors", lambda: {key: floors})
    for rows, processor in ((1, "b"), (4, "b"), (5, "a"), (17, "b")):
        floor = noise_floor("float32", "cpu", rows=rows)
        assert floor is not None
        assert floor.processor == processor
    assert noise_floor("float32", "cpu", rows=33) is None


def test_processors_that_multiply_bfloat16_are_in_the_table() -> None:
    floor = noise_floor("bfloat16", "cpu")
    assert floor is not None
    assert floor.logprob.largest > 1e-3


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"measured": {}, "floors": [{}]}'])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="noise floors cannot be read"):
        parse_floors(data)


@pytest.mark.parametrize("against", ["batching", "exact"])
def test_the_tolerance_of_the_contract_is_above_the_noise_and_near_it(against: str) -> None:
    floor = noise_floor("float32", "cpu", rows=64, against=against)  # type: ignore[arg-type]
    assert floor is not None
    assert max(floor.logprob.largest, floor.entropy.largest) < TOLERANCE_NATS
    assert floor.tolerance_nats() >= TOLERANCE_NATS
