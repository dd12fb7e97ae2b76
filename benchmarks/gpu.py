"""The engine on a GPU beside transformers: 7B Qwen2.5 architecture, random weights.

    python benchmarks/gpu.py [--size 7b] [--rounds 3] [--batches 1 32 128]

Contestants, interleaved, greedy, the same random prompts and the same number of new tokens:

- `cert`: the decode loop with its signals, steps recorded as CUDA graphs; in bfloat16, and in
  bitsandbytes 8-bit and 4-bit;
- `cert, no graphs`, and `cert, no signals`, which writes without measuring;
- `generate`: transformers, batched, scores kept (`output_scores=True`), and without;
- `continuous`: transformers' continuous batching (`generate_batch`), which keeps no scores.

Prints one JSON object a finding as it goes. What cert wrote is scored again by transformers' own
forward pass: the differences of logprobs say whether both computed the same thing (exit 1 where
the median is above --tolerance nats). The limit of a step is the time to read all weights once at
the bandwidth of a copy, which is measured first.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from cert.backends.causal_lm import CausalLM
from cert.backends.decode_loop import DecodeLoop, Job
from cert.backends.decoder import Decoder
from cert.backends.decoder_config import DecoderConfig
from cert.backends.decoder_weights import shapes
from cert.backends.kernels import COLUMNS, LARGEST, signals_of
from cert.backends.kv_cache import SlotCache
from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.quantize import choose_quantization
from cert.backends.rotary import Rotary
from cert.backends.step_graphs import StepGraphs
from cert.backends.top_logits import TOP_K

if TYPE_CHECKING:
    from collections.abc import Sequence

GPU = torch.device("cuda")
SIZES = {
    "7b": (152_064, 3584, 18_944, 28, 28, 4, False),
    "0.5b": (151_936, 896, 4864, 24, 14, 2, True),
    "tiny": (1000, 64, 128, 2, 4, 2, False),
}
THETA = 1_000_000.0
CONTEXT = 4096
STD = 0.02
EPSILON = 1e-6
GB = 1e9


def say(**finding: object) -> None:
    """One line of the result."""
    print(json.dumps(finding), flush=True)


def make_config(size: str) -> DecoderConfig:
    """Qwen2.5 of this size."""
    vocab, hidden, inner, layers, heads, shared, is_tied = SIZES[size]
    half = torch.arange(0, hidden // heads, 2, dtype=torch.float32)
    return DecoderConfig(
        family="qwen2",
        vocab_size=vocab,
        hidden_size=hidden,
        inner_size=inner,
        layers=layers,
        heads=heads,
        key_value_heads=shared,
        head_size=hidden // heads,
        max_positions=CONTEXT,
        epsilon=EPSILON,
        is_tied=is_tied,
        input_bias=True,
        output_bias=False,
        inner_bias=False,
        has_head_norms=False,
        rotary=Rotary(1.0 / THETA ** (half / (hidden // heads))),
        window=None,
    )


class RandomTensors(Mapping[str, torch.Tensor]):
    """Weights in bfloat16 that are drawn anew whenever they are asked for, the same every time."""

    def __init__(self, config: DecoderConfig, device: str) -> None:
        """Hand them out on this device."""
        self._shapes = shapes(config)
        self._device = device

    def __getitem__(self, name: str) -> torch.Tensor:
        """Draw one; norms are ones."""
        shape = self._shapes[name]
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=torch.bfloat16, device=self._device)
        generator = torch.Generator(GPU).manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(shape, generator=generator, device=GPU, dtype=torch.bfloat16)
        return (drawn * STD).to(self._device)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._shapes)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._shapes)


def make_decoder(config: DecoderConfig, quantize: str) -> tuple[Decoder, dict[str, float]]:
    """Our decoder, with what building it took."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    begin = time.perf_counter()
    # bitsandbytes quantizes what comes from the CPU.
    tensors = RandomTensors(config, "cuda" if quantize == "none" else "cpu")
    model = Decoder(config, tensors, choose_quantization(quantize, GPU, torch.bfloat16))
    torch.cuda.synchronize()
    return model, {
        "build_s": round(time.perf_counter() - begin, 2),
        "weights_gb": round((torch.cuda.memory_allocated() - before) / GB, 3),
        "peak_gb": round((torch.cuda.max_memory_allocated() - before) / GB, 3),
        "nbytes_gb": round(model.nbytes() / GB, 3),
    }


def make_theirs(config: DecoderConfig) -> Any:  # noqa: ANN401 - transformers has no types
    """The same weights in transformers' class."""
    theirs: Any = transformers
    configuration = theirs.Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.inner_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=config.is_tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with GPU:
        model = theirs.Qwen2ForCausalLM._from_config(  # noqa: SLF001 - what takes a dtype
            configuration, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    tensors = RandomTensors(config, "cuda")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model.eval()


Steps = Callable[[CausalLM, SlotCache], StepGraphs]
LOOPS: dict[tuple[int, int, Steps], DecodeLoop] = {}
RECORDED: list[StepGraphs] = []


class NoText:
    """Stands where the loop asks for the end of texts: there is none."""

    eos_token_ids = frozenset[int]()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Show ids."""
        return " ".join(map(str, token_ids))


def recorded(model: CausalLM, cache: SlotCache) -> StepGraphs:
    """Steps as the engine runs them, kept to be asked about."""
    RECORDED.append(StepGraphs(model, cache))
    return RECORDED[-1]


def run_cert(
    model: Decoder,
    prompts: list[list[int]],
    new_tokens: int,
    steps: Steps = recorded,
) -> list[Job]:
    """All prompts at once through the decode loop."""
    key = (id(model), len(prompts), steps)
    if key not in LOOPS:
        tokenization: Any = NoText()
        LOOPS[key] = DecodeLoop(model, tokenization, len(prompts), CONTEXT, record=steps)
    loop = LOOPS[key]
    sampling = SamplingParams(max_new_tokens=new_tokens)
    now = time.monotonic()
    jobs = [
        Job(
            request=GenerationRequest(id=str(n), prompt="", sampling=sampling),
            sampling=sampling,
            prompt_ids=prompt,
            response_ids=[],
            future=Future(),
            submitted=now,
            deadline=None,
            limit=new_tokens,
        )
        for n, prompt in enumerate(prompts)
    ]
    loop.add(jobs)
    while len(loop):
        loop.turn(lambda _finished: None)
    return jobs


def first_token_s(model: Decoder, prompt: list[int]) -> float:
    """From a request to its first token."""
    begin = time.perf_counter()
    run_cert(model, [prompt], 1)
    return time.perf_counter() - begin


@torch.inference_mode()
def run_generate(model: Any, prompts: list[list[int]], new_tokens: int, *, scores: bool) -> int:  # noqa: ANN401
    """Batched `generate`; the number of tokens written."""
    ids = torch.tensor(prompts, device=GPU)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        output_scores=scores,
        return_dict_in_generate=scores,
    )
    written = output.sequences if scores else output
    torch.cuda.synchronize()
    return int((written.shape[1] - ids.shape[1]) * len(prompts))


def run_continuous(model: Any, prompts: list[list[int]], new_tokens: int) -> int:  # noqa: ANN401
    """Transformers' continuous batching; the number of tokens written."""
    settings: Any = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    outputs = model.generate_batch(
        inputs=prompts, generation_config=settings, persistent_manager=True
    )
    torch.cuda.synchronize()
    return sum(len(one.generated_tokens) for one in outputs.values())


@torch.inference_mode()
def disagreement(model: Any, jobs: Sequence[Job]) -> dict[str, float]:  # noqa: ANN401
    """Score what was written by transformers' forward pass: differences of logprobs in nats."""
    differences = []
    for job in jobs[:4]:
        ids = torch.tensor([[*job.prompt_ids, *job.token_ids]], device=GPU)
        logprobs = model(ids, use_cache=False).logits[0].float().log_softmax(-1)
        first = len(job.prompt_ids) - 1
        theirs = [logprobs[first + step, token].item() for step, token in enumerate(job.token_ids)]
        ours = signals_of(np.stack(job.measured))[COLUMNS.index("logprob")]
        differences.append(np.abs(ours - np.array(theirs)))
    found = np.concatenate(differences)
    return {"median": float(np.median(found)), "largest": float(found.max())}


class Unmeasured(StepGraphs):
    """Steps whose signals are not computed."""

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._cache.begin_step(positions, width)
        logits = self._model.step(ids, positions, self._cache)
        chosen = torch.argmax(logits, dim=-1)[:, None].float()
        return logits, torch.cat((chosen.new_ones((len(ids), LARGEST + TOP_K)), chosen), dim=1)


class Unrecorded(StepGraphs):
    """Steps that are launched one kernel at a time."""

    def __init__(self, model: CausalLM, cache: SlotCache) -> None:
        """Record nothing."""
        super().__init__(model, cache)
        self.is_recording = False


def ceilings() -> dict[str, float]:
    """Bandwidth of a copy, bytes read and written, and bfloat16 products."""
    source = torch.randn(2**30, device=GPU, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    square = torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16)

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return statistics.median(times[2:])

    copied = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    multiplied = 2 * 8192**3 / seconds(lambda: square @ square)
    return {"copy_tb_per_s": round(copied / 1e12, 3), "tflop_per_s": round(multiplied / 1e12, 1)}


def tokens_of(jobs: Sequence[Job]) -> int:
    """How many were written."""
    return sum(len(job.token_ids) for job in jobs)


def race(runs: Mapping[str, Callable[[], int]], rounds: int, **about: object) -> dict[str, float]:
    """Each in turn, after one unmeasured time; tokens per second, medians."""
    rates: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            if turn and name not in rates:
                continue
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            begin = time.perf_counter()
            try:
                written = run()
            except Exception as error:  # noqa: BLE001 - a peer that cannot is named with the reason
                say(contestant=name, failed=f"{type(error).__name__}: {error}"[:300], **about)
                continue
            torch.cuda.synchronize()
            passed = time.perf_counter() - begin
            peaks[name] = torch.cuda.max_memory_allocated() / GB
            rates.setdefault(name, [])
            if turn:
                rates[name].append(written / passed)
    medians = {name: statistics.median(found) for name, found in rates.items() if found}
    for name, median in medians.items():
        say(
            contestant=name,
            tokens_per_s=round(median, 1),
            rounds=[round(rate, 1) for rate in rates[name]],
            peak_gb=round(peaks[name], 2),
            **about,
        )
    return medians


def race_all(
    model: Decoder,
    theirs: Any,  # noqa: ANN401 - transformers has no types
    texts: list[list[int]],
    arguments: argparse.Namespace,
    weights_limit_s: float,
) -> None:
    """Every contestant at one batch size."""
    new, batch = arguments.new_tokens, len(texts)
    kinds: dict[str, Steps] = {
        "cert": recorded,
        "cert, no signals": Unmeasured,
        "cert, no graphs": Unrecorded,
    }
    runs: dict[str, Callable[[], int]] = {
        name: lambda kind=kind: tokens_of(run_cert(model, texts, new, kind))
        for name, kind in kinds.items()
    }
    runs["generate, scores kept"] = lambda: run_generate(theirs, texts, new, scores=True)
    runs["generate"] = lambda: run_generate(theirs, texts, new, scores=False)
    medians = race(runs, arguments.rounds, batch=batch)
    ours = medians["cert"]
    say(
        batch=batch,
        cert_over={name: round(ours / rate, 3) for name, rate in medians.items()},
        step_ms=round(batch / ours * 1000, 3),
        weights_limit_ms=round(weights_limit_s * 1000, 3),
    )


def race_continuous(
    model: Decoder,
    theirs: Any,  # noqa: ANN401 - transformers has no types
    texts: Mapping[int, list[list[int]]],
    arguments: argparse.Namespace,
) -> None:
    """Continuous batching beside cert; it changes the model's attention, so it comes last.

    Its manager is kept between rounds, and starting it is not measured.
    """
    for batch, prompts in texts.items():

        def run(prompts: list[list[int]] = prompts) -> int:
            return tokens_of(run_cert(model, prompts, arguments.new_tokens))

        def run_theirs(prompts: list[list[int]] = prompts) -> int:
            return run_continuous(theirs, prompts, arguments.new_tokens)

        medians = race({"cert": run, "continuous": run_theirs}, arguments.rounds, batch=batch)
        ours = medians.get("cert", 0.0)
        over = {name: round(ours / rate, 3) for name, rate in medians.items()}
        say(batch=batch, cert_over=over)
        theirs.destroy_cached_continuous_batching_manager()


def race_quantized(
    config: DecoderConfig, texts: Mapping[int, list[list[int]]], arguments: argparse.Namespace
) -> None:
    """Cert alone, in 8 and in 4 bits."""
    for quantize in ("8bit", "4bit"):
        LOOPS.clear()
        try:
            model, built = make_decoder(config, quantize)
        except Exception as error:  # noqa: BLE001 - named with the reason
            say(contestant=f"cert {quantize}", failed=f"{type(error).__name__}: {error}"[:300])
            continue
        say(contestant=f"cert {quantize}", **built)
        for batch, prompts in texts.items():

            def run(model: Decoder = model, prompts: list[list[int]] = prompts) -> int:
                return tokens_of(run_cert(model, prompts, arguments.new_tokens))

            race({f"cert {quantize}": run}, arguments.rounds, batch=batch)
        say(contestant=f"cert {quantize}", recorded=[graphs.is_recording for graphs in RECORDED])
        RECORDED.clear()
        LOOPS.clear()
        del model
        torch.cuda.empty_cache()


def main() -> int:
    """Run everything; 1 where transformers finds other logprobs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--tolerance", type=float, default=0.05, help="nats")
    parser.add_argument("--no-continuous", action="store_true")
    parser.add_argument("--no-quantized", action="store_true")
    arguments = parser.parse_args()
    measured = ceilings()
    say(
        gpu=torch.cuda.get_device_name(),
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        **measured,
    )
    torch.cuda.empty_cache()
    config = make_config(arguments.size)
    generator = torch.Generator().manual_seed(0)

    def prompts(count: int, length: int) -> list[list[int]]:
        drawn = torch.randint(config.vocab_size, (count, length), generator=generator)
        found: list[list[int]] = drawn.tolist()
        return found

    model, built = make_decoder(config, "none")
    say(contestant="cert bfloat16", **built)
    theirs = make_theirs(config)
    texts = {batch: prompts(batch, arguments.prompt_tokens) for batch in arguments.batches}
    found = disagreement(theirs, run_cert(model, prompts(4, 64), 48))
    say(check="logprobs, cert against transformers' forward pass, nats", **found)
    long = prompts(1, 512)[0]
    times = [first_token_s(model, long) for _ in range(6)][1:]
    say(first_token_ms=round(statistics.median(times) * 1000, 2), prompt_tokens=512)
    limit = model.nbytes() / (measured["copy_tb_per_s"] * 1e12)
    for batch in arguments.batches:
        race_all(model, theirs, texts[batch], arguments, limit)
    if not arguments.no_continuous:
        race_continuous(model, theirs, texts, arguments)
    LOOPS.clear()
    del model, theirs
    torch.cuda.empty_cache()
    if not arguments.no_quantized:
        race_quantized(config, texts, arguments)
    return 1 if found["median"] > arguments.tolerance else 0


if __name__ == "__main__":
    sys.exit(main())
