"""The engine on a GPU beside the engine on a CPU; its graphs beside steps without them.

python -m pytest tests/backends/test_gpu.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from model_factory import FAMILIES, build_tiny_model

from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.transformers_local import load_backend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cert.backends.protocol import Generation
    from cert.backends.transformers_local import TransformersBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

# float32 on both sides; a GPU sums in another order.
TOLERANCE_NATS = 1e-4
SIXTEEN_BITS_NATS = 0.1
QUANTIZED_NATS = {"8bit": 0.5, "4bit": 2.0}
"""Mean differences of surprisals from float32, on random models of width 64."""

PROMPTS = (
    "The quick brown fox",
    "Define entropy",
    "It was the best of times, it was the worst of times, and there was nothing else to say. " * 3,
    "Say",
    "What is machine learning?",
)


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param) / "model"
    return build_tiny_model(place, request.param, hidden_size=64, intermediate_size=128, scale=0.1)


def run(
    backend: TransformersBackend, *, temperature: float = 0.0, response: str | None = None
) -> list[Generation]:
    sampling = SamplingParams(max_new_tokens=40, temperature=temperature, seed=5)
    futures = [
        backend.submit(
            GenerationRequest(id=str(n), prompt=prompt, sampling=sampling, response=response)
        )
        for n, prompt in enumerate(PROMPTS)
    ]
    return [future.result(120) for future in futures]


def assert_same(ours: list[Generation], theirs: list[Generation], tolerance: float) -> None:
    for got, want in zip(ours, theirs, strict=True):
        assert got.trace.token_ids == want.trace.token_ids
        for name in ("logprobs", "entropies", "top_k_entropies"):
            assert getattr(got.trace, name) == pytest.approx(
                getattr(want.trace, name), abs=tolerance
            )


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_gpu_writes_what_a_cpu_writes(folder: Path, rows: int) -> None:
    gpu = load_backend(str(folder), device="cuda", dtype="float32", batch_rows=rows)
    cpu = load_backend(str(folder), device="cpu", batch_rows=rows)
    assert_same(run(gpu), run(cpu), TOLERANCE_NATS)
    assert all(set(got.trace.ranks) == {0} for got in run(gpu))
    graphs = gpu._decoder._graphs
    assert graphs is not None
    assert graphs.is_recording
    assert all(one.graph is not None for one in graphs._graphs.values())
    # Once more, from graphs that are there.
    assert_same(run(gpu), run(cpu), TOLERANCE_NATS)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_drawn_tokens_are_the_same(folder: Path, temperature: float) -> None:
    gpu = load_backend(str(folder), device="cuda", dtype="float32")
    cpu = load_backend(str(folder), device="cpu")
    assert_same(
        run(gpu, temperature=temperature), run(cpu, temperature=temperature), TOLERANCE_NATS
    )


def test_a_gpu_scores_as_a_cpu_does(folder: Path) -> None:
    gpu = load_backend(str(folder), device="cuda", dtype="float32")
    cpu = load_backend(str(folder), device="cpu")
    text = "jumps over the lazy dog, and that is all"
    assert_same(run(gpu, response=text), run(cpu, response=text), TOLERANCE_NATS)


def test_both_decoders_agree_in_bfloat16(folder: Path) -> None:
    text = "jumps over the lazy dog"
    ours = load_backend(str(folder), device="cuda", dtype="bfloat16")
    theirs = load_backend(str(folder), device="cuda", dtype="bfloat16", own_decoder=False)
    assert theirs.identity.attention == "sdpa"
    assert_same(run(ours, response=text), run(theirs, response=text), SIXTEEN_BITS_NATS)


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantized_weights_measure_nearly_the_same(folder: Path, quantize: str) -> None:
    pytest.importorskip("bitsandbytes")
    text = "jumps over the lazy dog"
    exact = load_backend(str(folder), device="cpu")
    backend = load_backend(str(folder), device="cuda", quantize=quantize, dtype="bfloat16")
    name = {"8bit": "bitsandbytes-int8", "4bit": "bitsandbytes-nf4"}[quantize]
    assert backend.identity.quantization == name
    for got, want in zip(run(backend, response=text), run(exact, response=text), strict=True):
        pairs = zip(got.trace.logprobs, want.trace.logprobs, strict=True)
        differences = [abs(a - b) for a, b in pairs]
        assert 0 < sum(differences) / len(differences) < QUANTIZED_NATS[quantize]
    assert all(len(got.trace) >= 1 for got in run(backend))
