from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cert.backends.folder import ModelFolder
from cert.backends.safetensors_header import TensorEntry
from cert.runner.estimate import Estimate, Load, Machine, estimate, probe

LLAMA = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "max_position_embeddings": 100,
}
GPT2 = {"n_head": 4, "n_embd": 32, "n_layer": 3, "n_positions": 100}
FOLDER = ModelFolder(
    path=Path("model"),
    config=LLAMA,
    generation_config={},
    model_type="llama",
    architecture=None,
    weights={
        "a.safetensors": (TensorEntry("x", "F32", (10, 20), 0, 800),),
        "b.safetensors": (TensorEntry("y", "F32", (300,), 0, 1200),),
    },
    model_files=(),
    tokenizer_files=(),
    ignored=(),
)
MACHINE = Machine(flop_per_s=1000.0, bytes_per_s=500.0)


def guess(
    folder: ModelFolder = FOLDER, *, dtype: str = "float32", quantize: str = "none", **load: int
) -> Estimate:
    values = {"prompt_tokens": 0, "scored_tokens": 0, "new_tokens": 0, "rows": 4}
    return estimate(folder, Load(**{**values, **load}), MACHINE, dtype=dtype, quantize=quantize)


def test_parameters_come_from_the_headers() -> None:
    assert guess().parameters == 500


@pytest.mark.parametrize(
    ("dtype", "quantize", "size"),
    [
        ("auto", "none", 2000),
        ("float32", "none", 2000),
        ("bfloat16", "none", 1000),
        ("float32", "8bit", 500),
        ("float32", "4bit", 250),
    ],
)
def test_weights_take_their_dtype(dtype: str, quantize: str, size: int) -> None:
    assert guess(dtype=dtype, quantize=quantize).weights_bytes == size


def test_keys_and_values_of_every_row_take_memory() -> None:
    assert guess().cache_bytes == 2 * 4 * 3 * 100 * 2 * 8 * 4
    assert guess(replace(FOLDER, config=GPT2)).cache_bytes == 2 * 4 * 3 * 100 * 4 * 8 * 4
    assert guess(replace(FOLDER, config={**LLAMA, "head_dim": 16})).cache_bytes == (
        2 * 4 * 3 * 100 * 2 * 16 * 4
    )


def test_an_unknown_shape_is_said_to_be_unknown() -> None:
    assert guess(replace(FOLDER, config={"hidden_size": "big"})).cache_bytes is None


def test_reading_costs_two_operations_a_parameter_and_token() -> None:
    assert guess(prompt_tokens=7, scored_tokens=3).duration_s == pytest.approx(2 * 500 * 10 / 1000)


def test_a_step_takes_as_long_as_its_slower_half() -> None:
    # One row: reading 2000 bytes at 500 bytes/s takes longer than 1000 operations at 1000/s.
    assert guess(rows=1, new_tokens=5).duration_s == pytest.approx(5 * 4.0)
    # Ten rows: 10,000 operations at 1000/s, for ten tokens at a time.
    assert guess(rows=10, new_tokens=20).duration_s == pytest.approx(2 * 10.0)


def test_this_machine_is_measured_in_a_moment() -> None:
    machine = probe()
    assert machine.flop_per_s > 1e8
    assert machine.bytes_per_s > 1e8
