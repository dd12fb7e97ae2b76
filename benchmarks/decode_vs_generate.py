"""Batched decoding with signals against the one-at-a-time `generate` loop, side by side.

    .venv/bin/python benchmarks/decode_vs_generate.py [FOLDER] [--rows 1 16 64] [--rounds 3]

What runs, interleaved, on the same prompts with the same number of new tokens, all greedy:

- `generate`: transformers' `model.generate(output_logits=True, output_scores=True)`, one prompt
  at a time, then the same signals of the logits that were kept, in one call of our own kernel.
- `cert N rows`: our engine with N rows, signals measured as it writes.

The raw logits are what is measured, in both; the scores are asked for as users of this loop do.
Both must write the same tokens: where they part, the two largest logits have to be nearer than
--near-tie. Signals before that place must agree within --tolerance nats. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from cert.backends.folder import resolve_model
from cert.backends.kernels import signal_block
from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.transformers_local import load_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cert.backends.protocol import Backend

WORDS = (
    "the a of and to in is that it was for on with as by at from they we his not but have an "
    "model river language numbers light measure paper window morning engine history city water "
    "explain compare why how every small certain often"
)
SEED = 7
SIGNALS = 4


@dataclass(frozen=True, slots=True)
class Text:
    """What was generated for one prompt: tokens, and logprob, entropy, top-k entropy, margin."""

    token_ids: list[int]
    signals: NDArray[np.float64]


def make_prompts(count: int, shortest: int, longest: int) -> list[str]:
    """Prompts of `shortest` to `longest` words, the same every time."""
    rng = random.Random(SEED)  # noqa: S311 - inputs, not secrets
    words = WORDS.split()
    return [
        " ".join(rng.choices(words, k=rng.randint(shortest, longest))).capitalize()
        for _ in range(count)
    ]


def run_cert(backend: Backend, prompts: Sequence[str], new_tokens: int) -> list[Text]:
    """Submit everything at once and wait for it."""
    sampling = SamplingParams(max_new_tokens=new_tokens)
    futures = [
        backend.submit(GenerationRequest(id=str(n), prompt=p, sampling=sampling, chat="never"))
        for n, p in enumerate(prompts)
    ]
    texts = []
    for future in futures:
        trace = future.result().trace
        columns = (trace.logprobs, trace.entropies, trace.top_k_entropies, trace.logit_margins)
        texts.append(Text(list(trace.token_ids), np.array(columns)))
    return texts


@torch.inference_mode()
def run_generate(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[Text]:  # noqa: ANN401 - transformers has no types
    """One prompt at a time, scores kept, signals at the end of each."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            output_scores=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = output.sequences[0, len(prompt) :]
        block = signal_block(torch.cat(output.logits), written)
        texts.append(Text(written.tolist(), block[:SIGNALS].astype(np.float64)))
    return texts


def compare(ours: Sequence[Text], theirs: Sequence[Text]) -> dict[str, float]:
    """Largest differences before the first token that differs, and the margin where it does."""
    largest = np.zeros(SIGNALS)
    parted = []
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(one.token_ids, other.token_ids, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if same is not None:
            parted.append(float(other.signals[3, same]))
        elif len(one.token_ids) != len(other.token_ids):
            parted.append(float("inf"))
        shared = min(len(one.token_ids), len(other.token_ids)) if same is None else same
        if shared:
            difference = np.abs(one.signals[:, :shared] - other.signals[:, :shared])
            largest = np.maximum(largest, difference.max(axis=1))
    return {
        "texts_that_part": len(parted),
        "largest_margin_where_they_part": max(parted, default=0.0),
        "logprob_nats": float(largest[0]),
        "entropy_nats": float(largest[1]),
        "top_k_entropy_nats": float(largest[2]),
        "logit_margin": float(largest[3]),
    }


def timed(run: Callable[[], list[Text]]) -> tuple[list[Text], float]:
    """Texts, and tokens per second."""
    begin = time.perf_counter()
    texts = run()
    return texts, sum(len(t.token_ids) for t in texts) / (time.perf_counter() - begin)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Warm up, check, then time everything in turn."""
    prompts = make_prompts(arguments.prompts, arguments.shortest, arguments.longest)
    backends = {
        f"cert {rows} rows": load_backend(str(folder), device="cpu", batch_rows=rows)
        for rows in arguments.rows
    }
    first = next(iter(backends.values()))
    asked = SamplingParams(max_new_tokens=1)
    ids = [
        first.submit(GenerationRequest(id="0", prompt=p, sampling=asked, chat="never"))
        .result()
        .prompt_token_ids
        for p in prompts
    ]
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    ).eval()
    runs: dict[str, Callable[[], list[Text]]] = {
        "generate": lambda: run_generate(model, ids, arguments.new_tokens),
        **{
            name: lambda backend=backend: run_cert(backend, prompts, arguments.new_tokens)
            for name, backend in backends.items()
        },
    }
    texts = {name: run() for name, run in runs.items()}
    agreement = {name: compare(texts[name], texts["generate"]) for name in backends}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            rates[name].append(timed(run)[1])
    medians = {name: statistics.median(values) for name, values in rates.items()}
    identity = first.identity
    for backend in backends.values():
        backend.close()
    return {
        "model": {
            "architecture": identity.architecture,
            "parameters": identity.parameters,
            "vocab_size": identity.vocab_size,
            "dtype": identity.dtype,
        },
        "prompts": len(prompts),
        "prompt_tokens": [min(map(len, ids)), max(map(len, ids))],
        "new_tokens": sum(len(t.token_ids) for t in texts["generate"]),
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "tokens_per_s": {name: [round(r, 1) for r in values] for name, values in rates.items()},
        "median_tokens_per_s": {name: round(m, 1) for name, m in medians.items()},
        "times_generate": {name: round(m / medians["generate"], 2) for name, m in medians.items()},
        "agreement_with_generate": agreement,
    }


def main() -> int:
    """Print the figures as JSON; 1 where the two disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="reference", help="folder or `reference`")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=6, help="words of the shortest prompt")
    parser.add_argument("--longest", type=int, default=120, help="words of the longest prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--near-tie", type=float, default=1e-3, help="logits")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="nats")
    arguments = parser.parse_args()
    folder = resolve_model(arguments.model, aliases={}, allow_download=False)
    result = measure(folder, arguments)
    print(json.dumps(result, indent=2))
    wrong = [
        name
        for name, found in result["agreement_with_generate"].items()
        if found["largest_margin_where_they_part"] > arguments.near_tie
        or max(found["logprob_nats"], found["entropy_nats"]) > arguments.tolerance
    ]
    if wrong:
        print(f"disagrees with generate: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
