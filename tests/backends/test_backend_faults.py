"""What a backend does when time, memory or the numbers themselves run out."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from cert.backends.decoder import Decoder
from cert.backends.protocol import FinishReason, GenerationRequest, SamplingParams
from cert.backends.transformers_local import TransformersBackend, is_out_of_memory, load_backend
from cert.core.errors import (
    CPUFallbackFailed,
    GenerationCancelled,
    GenerationTimeout,
    GPUOutOfMemoryError,
    InvalidInput,
    ModelNotLoaded,
    NumericalError,
    PromptTooLong,
)
from tests.model_factory import build_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cert.backends.causal_lm import CausalLM


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def backend(llama: Path) -> Iterator[TransformersBackend]:
    one = load_backend(str(llama), device="cpu", batch_rows=8, max_prompt_chars=2_000)
    yield one
    one.close()


def ask(name: str = "a", timeout_s: float | None = None, **sampling: object) -> GenerationRequest:
    params = SamplingParams(**{"max_new_tokens": 8, **sampling})  # type: ignore[arg-type]
    return GenerationRequest(
        name, f"The lazy dog {name}", params, chat="never", timeout_s=timeout_s
    )


def before_each_pass(backend: TransformersBackend, action: Callable[[int], None]) -> None:
    """Run `action(rows)` before every forward pass of the body."""

    backend._model = _Observed(backend._model, action)  # type: ignore[assignment]
    backend._decoder._model = backend._scorer._model = backend._model


class _Observed:
    """A model that says how many rows a pass has before it runs it."""

    def __init__(self, model: CausalLM, action: Callable[[int], None]) -> None:
        self._model = model
        self._action = action

    def __getattr__(self, name: str) -> object:
        found = getattr(self._model, name)
        if name not in {"prefill", "step", "hidden"}:
            return found

        def observed(ids: torch.Tensor, *rest: object) -> torch.Tensor:
            self._action(len(ids))
            result: torch.Tensor = found(ids, *rest)
            return result

        return observed


def test_a_deadline_returns_what_there_is(backend: TransformersBackend) -> None:
    before_each_pass(backend, lambda _rows: time.sleep(0.05))
    got = backend.submit(ask(timeout_s=0.3, max_new_tokens=200)).result(30)
    assert got.finish_reason is FinishReason.TIMEOUT
    assert 1 <= len(got.trace) <= 7
    assert got.generate_s < 5.0  # 200 tokens would take 10 s


def test_a_deadline_before_the_first_token_is_an_error(backend: TransformersBackend) -> None:
    with pytest.raises(GenerationTimeout, match="before the first token"):
        backend.submit(ask(timeout_s=0.0)).result(30)


def test_waiting_counts_towards_the_deadline(llama: Path) -> None:
    backend = load_backend(str(llama), device="cpu", batch_rows=1)
    before_each_pass(backend, lambda _rows: time.sleep(0.02))
    long = backend.submit(ask("long", max_new_tokens=60))
    late = backend.submit(ask("late", timeout_s=0.1))
    with pytest.raises(GenerationTimeout):
        late.result(30)
    assert not long.done()
    assert len(long.result(30).trace) == 60
    backend.close()


def test_a_cancelled_request_leaves_and_the_others_go_on(backend: TransformersBackend) -> None:
    started = threading.Event()
    before_each_pass(backend, lambda _rows: (started.set(), time.sleep(0.01))[0])
    gone = backend.submit(ask("gone", max_new_tokens=200))
    stays = backend.submit(ask("stays", max_new_tokens=20))
    assert started.wait(10)
    assert gone.cancel()
    assert len(stays.result(30).trace) == 20
    deadline = time.monotonic() + 10
    while len(backend._decoder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(backend._decoder) == 0


def test_closing_answers_everybody(llama: Path) -> None:
    backend = load_backend(str(llama), device="cpu", batch_rows=1)
    started = threading.Event()

    def slowly(_rows: int) -> None:
        started.set()
        time.sleep(0.05)

    before_each_pass(backend, slowly)
    running = backend.submit(ask("running", max_new_tokens=200))
    waiting = backend.submit(ask("waiting"))
    assert started.wait(10)
    time.sleep(0.2)
    backend.close()
    assert running.result(1).finish_reason is FinishReason.CANCELLED
    assert len(running.result(1).trace) >= 1
    with pytest.raises(GenerationCancelled):
        waiting.result(1)
    with pytest.raises(ModelNotLoaded):
        backend.submit(ask())


def test_a_program_that_ends_while_a_text_is_written_ends_cleanly(llama: Path) -> None:
    program = f"""
from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.transformers_local import load_backend
backend = load_backend({str(llama)!r}, device="cpu")
request = GenerationRequest("a", "The lazy dog", SamplingParams(max_new_tokens=240), chat="never")
backend.submit(GenerationRequest("b", "a", SamplingParams(max_new_tokens=1))).result()
for _ in range(8):
    backend.submit(request)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_less_memory_means_a_smaller_batch_and_the_same_results(
    llama: Path, backend: TransformersBackend
) -> None:
    def refuse_more_than_two(rows: int) -> None:
        if rows > 2:
            raise torch.OutOfMemoryError("out of memory")

    plain = load_backend(str(llama), device="cpu", batch_rows=8)
    wanted = [ask(f"p{i}", temperature=0.8, seed=4) for i in range(9)]
    expected = [plain.submit(request).result(30) for request in wanted]
    before_each_pass(backend, refuse_more_than_two)
    futures = [backend.submit(request) for request in wanted]
    for future, want in zip(futures, expected, strict=True):
        got = future.result(30)
        assert got.trace.token_ids == want.trace.token_ids
        assert "batch_rows:8->4" in got.fallbacks
        assert "batch_rows:4->2" in got.fallbacks
    assert expected[0].fallbacks == ()
    plain.close()


def test_a_scored_batch_shrinks_too(backend: TransformersBackend) -> None:
    def refuse_more_than_two(rows: int) -> None:
        if rows > 2:
            raise torch.OutOfMemoryError("out of memory")

    backend._scorer.batch_tokens = 200
    before_each_pass(backend, refuse_more_than_two)
    wanted = [
        GenerationRequest(f"s{i}", "The lazy dog", response="jumps over", chat="never")
        for i in range(9)
    ]
    results = [f.result(30) for f in [backend.submit(request) for request in wanted]]
    for result in results:
        assert result.trace.logprobs == pytest.approx(results[0].trace.logprobs, abs=1e-4)
    assert any("batch_rows:8->4" in result.fallbacks for result in results)


def test_no_memory_for_one_text_is_a_typed_error(backend: TransformersBackend) -> None:
    def refuse(_rows: int) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    before_each_pass(backend, refuse)
    with pytest.raises(GPUOutOfMemoryError, match="one text at a time"):
        backend.submit(ask()).result(30)


class _Device(SimpleNamespace):
    """A model on a device that this machine may not have."""

    device: torch.device


def test_a_full_gpu_falls_back_to_the_cpu_and_says_so(backend: TransformersBackend) -> None:
    moved: list[str] = []
    backend._model = _Device(  # type: ignore[assignment]
        device=torch.device("cuda:0"), layers=2, to_cpu=lambda: moved.append("cpu")
    )
    backend._rows = 1
    assert backend._shrink(MemoryError()) is None
    assert moved == ["cpu"]
    assert backend._fallbacks == ("device:cuda:0->cpu",)
    assert backend.identity.device == "cpu"
    backend._model = _Device(device=torch.device("cpu"), layers=2)  # type: ignore[assignment]
    assert isinstance(backend._shrink(MemoryError()), CPUFallbackFailed)


def test_a_model_that_cannot_leave_the_gpu_says_so(backend: TransformersBackend) -> None:
    def refuse() -> None:
        raise ValueError("quantized weights stay where they are")

    backend._model = _Device(  # type: ignore[assignment]
        device=torch.device("cuda:0"), layers=2, to_cpu=refuse
    )
    backend._rows = 1
    failure = backend._shrink(MemoryError())
    assert isinstance(failure, CPUFallbackFailed)
    assert "stay where they are" in failure.message


def test_logits_that_are_no_numbers_fail_their_own_text_alone(
    backend: TransformersBackend,
) -> None:
    poisoned = backend._tokenization.encode_prompt("The lazy dog sick", chat="never")
    healthy = backend._tokenization.encode_prompt("The lazy dog well", chat="never")
    only = next(t for t in poisoned if t not in healthy)
    assert isinstance(backend._model, Decoder)
    backend._model._embedding = backend._model._embedding.clone()
    backend._model._embedding[only] = torch.nan
    sick, well = backend.submit(ask("sick")), backend.submit(ask("well"))
    with pytest.raises(NumericalError, match="token 1"):
        sick.result(30)
    assert len(well.result(30).trace) >= 1


def test_an_unexpected_error_reaches_its_callers_and_the_backend_lives_on(
    backend: TransformersBackend,
) -> None:
    broken = [True]

    def fail_once(_rows: int) -> None:
        if broken.pop() if broken else False:
            raise ZeroDivisionError("a bug")

    before_each_pass(backend, fail_once)
    with pytest.raises(ZeroDivisionError):
        backend.submit(ask()).result(30)
    assert len(backend.submit(ask()).result(30).trace) >= 1


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (GenerationRequest("a", "x" * 2_001), PromptTooLong, "2001 characters"),
        (GenerationRequest("a", "hello", response="x" * 2_001), PromptTooLong, "response"),
        (GenerationRequest("a", "qzj " * 490, chat="never"), PromptTooLong, "256 at most"),
        (GenerationRequest("a", "a", response="qzj " * 490), PromptTooLong, "and the response"),
        (GenerationRequest("a", "hello", response=""), InvalidInput, "empty"),
    ],
)
def test_requests_that_can_never_succeed_are_refused_at_once(
    backend: TransformersBackend, request_: GenerationRequest, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        backend.submit(request_)


def test_many_threads_submit_at_once(backend: TransformersBackend) -> None:
    alone = backend.submit(ask("a")).result(30)
    results: list[object] = []

    def submit() -> None:
        results.extend(backend.submit(ask("a")).result(60).trace.token_ids for _ in range(5))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [alone.trace.token_ids] * 40


def test_out_of_memory_is_told_from_other_errors() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))
