"""What every backend must hold to, shown on the local one against transformers' own pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from cert.backends.decoder import Decoder
from cert.backends.protocol import FinishReason, GenerationRequest, SamplingParams
from cert.backends.transformers_local import TransformersBackend, load_backend
from cert.signals.rows import row_signals
from tests.model_factory import FAMILIES, build_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cert.backends.protocol import Generation

# float32 forward passes that batch, pad or cache differently: the last bits of each product differ.
# Measured on these models: below 4e-6 nats.
TOLERANCE_NATS = 1e-4

PROMPTS = [
    "The quick brown fox",
    "Explain",
    "What is machine learning? Define neural networks and the entropy of a distribution.",
    "It was the best of times,",
    "a",
    "quantum computing in one paragraph " * 4,
    "lazy dog",
]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module", params=[True, False], ids=["own decoder", "transformers"])
def own_decoder(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture
def backend(llama: Path, own_decoder: bool) -> Iterator[TransformersBackend]:
    one = load_backend(str(llama), device="cpu", batch_rows=4, own_decoder=own_decoder)
    yield one
    one.close()


def requests(n: int = len(PROMPTS), **sampling: object) -> list[GenerationRequest]:
    params = SamplingParams(**{"max_new_tokens": 12, **sampling})  # type: ignore[arg-type]
    return [
        GenerationRequest(f"p{i}", PROMPTS[i % len(PROMPTS)], params, chat="never")
        for i in range(n)
    ]


def run(backend: TransformersBackend, wanted: list[GenerationRequest]) -> list[Generation]:
    futures = [backend.submit(request) for request in wanted]
    return [future.result(timeout=60) for future in futures]


def plain(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def assert_close(ours: Generation, theirs: Generation) -> None:
    assert ours.trace.token_ids == theirs.trace.token_ids
    for name in ("logprobs", "entropies", "top_k_entropies", "logit_margins"):
        got, want = getattr(ours.trace, name), getattr(theirs.trace, name)
        assert got == pytest.approx(want, abs=TOLERANCE_NATS), name


def test_greedy_tokens_and_signals_equal_transformers_own_forward_pass(
    folder: Path, own_decoder: bool
) -> None:
    backend = load_backend(str(folder), device="cpu", batch_rows=3, own_decoder=own_decoder)
    assert isinstance(backend._model, Decoder) is own_decoder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for got in run(backend, requests()):
        ids = list(got.prompt_token_ids)
        assert 1 <= len(got.trace) <= 12
        for step, token in enumerate(got.trace.token_ids):
            logits = plain(model, ids)[-1]
            assert token == int(logits.argmax())
            want = row_signals(logits.double().numpy(), token)
            assert got.trace.logprobs[step] == pytest.approx(want.logprob, abs=TOLERANCE_NATS)
            assert got.trace.entropies[step] == pytest.approx(want.entropy, abs=TOLERANCE_NATS)
            assert got.trace.logit_margins[step] == pytest.approx(
                want.logit_margin, abs=TOLERANCE_NATS
            )
            assert got.trace.ranks[step] == want.rank == 0
            ids.append(token)
    backend.close()


def test_scoring_equals_transformers_own_forward_pass(folder: Path, own_decoder: bool) -> None:
    backend = load_backend(str(folder), device="cpu", own_decoder=own_decoder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = [
        replace(r, response=f"{r.prompt} fox jumps over {i}") for i, r in enumerate(requests())
    ]
    for request, got in zip(wanted, run(backend, wanted), strict=True):
        assert got.finish_reason is FinishReason.SCORED
        assert got.text == request.response
        ids = [*got.prompt_token_ids, *got.trace.token_ids]
        logits = plain(model, ids)
        for step, token in enumerate(got.trace.token_ids):
            row = logits[len(got.prompt_token_ids) + step - 1].double().numpy()
            want = row_signals(row, token)
            assert got.trace.logprobs[step] == pytest.approx(want.logprob, abs=TOLERANCE_NATS)
            assert got.trace.entropies[step] == pytest.approx(want.entropy, abs=TOLERANCE_NATS)
            assert got.trace.ranks[step] == want.rank
    backend.close()


def test_a_batch_gives_what_each_prompt_gives_alone(
    llama: Path, backend: TransformersBackend, own_decoder: bool
) -> None:
    alone = load_backend(str(llama), device="cpu", batch_rows=1, own_decoder=own_decoder)
    together = run(backend, requests(20))
    for request, got in zip(requests(20), together, strict=True):
        assert_close(got, run(alone, [request])[0])
    alone.close()


def test_sampling_depends_neither_on_neighbours_nor_on_order(backend: TransformersBackend) -> None:
    wanted = requests(14, temperature=0.9, top_p=0.95, seed=11)
    forwards = run(backend, wanted)
    backwards = run(backend, wanted[::-1])[::-1]
    single = [run(backend, [request])[0] for request in wanted[:3]]
    for one, other in zip(forwards, backwards, strict=True):
        assert_close(one, other)
    for one, other in zip(single, forwards, strict=False):
        assert_close(one, other)
    assert len({g.trace.token_ids for g in forwards}) > 7
    assert forwards[0].trace.token_ids != forwards[7].trace.token_ids, "the id keys the draw"


def test_signals_do_not_depend_on_temperature_or_top_k(backend: TransformersBackend) -> None:
    greedy = run(backend, requests(1, max_new_tokens=1))[0]
    hot = run(backend, requests(1, max_new_tokens=1, temperature=5.0, top_k=3, seed=1))[0]
    assert hot.trace.entropies == greedy.trace.entropies
    assert hot.trace.top_k_entropies == greedy.trace.top_k_entropies
    assert hot.trace.ranks[0] < 3


def test_an_unseeded_draw_records_the_seed_that_repeats_it(backend: TransformersBackend) -> None:
    first = run(backend, requests(1, temperature=1.0))[0]
    assert first.sampling.seed is not None
    again = run(backend, requests(1, temperature=1.0, seed=first.sampling.seed))[0]
    assert again.trace.token_ids == first.trace.token_ids
    other = run(backend, requests(1, temperature=1.0))[0]
    assert other.sampling.seed != first.sampling.seed


def test_every_eos_id_ends_a_text_and_is_measured(backend: TransformersBackend) -> None:
    free = run(backend, requests(1))[0]
    third = free.trace.token_ids[2]
    place = free.trace.token_ids.index(third)
    backend._tokenization.eos_token_ids = backend._tokenization.eos_token_ids | {third}
    ended = run(backend, requests(1))[0]
    assert ended.finish_reason is FinishReason.EOS
    assert ended.trace.token_ids == free.trace.token_ids[: place + 1]


def test_a_stop_string_cuts_the_text_and_keeps_the_tokens(backend: TransformersBackend) -> None:
    free = run(backend, requests(1, max_new_tokens=30))[0]
    assert free.finish_reason is FinishReason.LENGTH
    middle = len(free.text) // 2
    stop = free.text[middle : middle + 3]
    ended = run(backend, requests(1, max_new_tokens=30, stop=("never there", stop)))[0]
    assert ended.finish_reason is FinishReason.STOP
    assert ended.text == free.text[: free.text.index(stop)]
    count = len(ended.trace)
    assert ended.trace.token_ids == free.trace.token_ids[:count]
    assert stop in backend._tokenization.decode(list(ended.trace.token_ids))
    assert stop not in backend._tokenization.decode(list(ended.trace.token_ids[:-1]))


def test_a_text_ends_at_the_model_s_context(backend: TransformersBackend) -> None:
    got = run(backend, requests(1, max_new_tokens=10_000))[0]
    if got.finish_reason is FinishReason.LENGTH:
        total = len(got.prompt_token_ids) + len(got.trace)
        assert total == backend.identity.max_context_tokens
    assert all(math.isfinite(value) for value in got.trace.entropies)


def test_more_texts_than_slots_all_finish_and_the_cache_is_the_slots_alone(
    backend: TransformersBackend,
) -> None:
    before = backend.memory_bytes()
    assert len(run(backend, requests(50))) == 50
    held = backend.memory_bytes() - before
    row = 2 * backend._model.layers * 2 * 8 * 4  # 2 key-value heads of 8 float32 values
    assert held <= 4 * row * 256


def test_nothing_of_shape_tokens_by_vocabulary_ever_exists(
    backend: TransformersBackend,
) -> None:
    """Watch every tensor that the loop makes; V is 300, and only 4 rows run."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim and out.shape[-1] == 300:
                largest = max(largest, out.numel() // 300)
            return out

    jobs = [backend._job(request) for request in requests(9, max_new_tokens=40)]
    backend._decoder.add(jobs)
    done = []
    with Watch():
        while len(backend._decoder):
            backend._decoder.turn(done.append)
    assert len(done) == 9
    assert 1 <= largest <= 4
