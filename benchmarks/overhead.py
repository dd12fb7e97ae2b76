"""What measuring costs: the decode loop on a CPU with its signals, and without.

    .venv/bin/python benchmarks/overhead.py [--models FOLDER] [--rounds 24] [--quick]

Two loops of one model take turns, a step each, so that both meet the same machine. Without signals
a step takes the largest logit (torch's argmax) and keeps the same books. Texts are short, which is
when signals weigh most: attention costs more the longer they are. Both loops must write the same
tokens (exit 1 otherwise). Models are those of `engine.py`: vocabularies of 4,096 (the embedded
one), 32,000, 50,257 and 151,936 tokens.

Printed as JSON, by model and rows: the cost in percent, which is the median of what a step with
signals took more than the one without right beside it, and between which two values half of those
differences lie.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from engine_models import PLANS, ensure_model

from cert.backends import decode_loop
from cert.backends.decode_loop import DecodeLoop, Job
from cert.backends.folder import inspect_folder
from cert.backends.kernels import LARGEST
from cert.backends.loading import load_model
from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.top_logits import TOP_K

if TYPE_CHECKING:
    from cert.backends.loading import LoadedModel

PROMPT = [5, 6, 7, 8]
WARM_UPS = 3
MEASURED = decode_loop.top_logits, decode_loop.measure


def largest_only(logits: torch.Tensor) -> Any:  # noqa: ANN401 - stands in for TopLogits
    """All that a greedy choice needs."""
    return SimpleNamespace(first=logits.argmax(dim=-1))


def nothing_measured(logits: torch.Tensor, *_: object) -> np.ndarray[Any, Any]:
    """What `measure` gives, in which every token counts as finite."""
    return np.zeros((len(logits), LARGEST + TOP_K), np.float32)


def start(loaded: LoadedModel, rows: int, steps: int) -> DecodeLoop:
    """A loop whose rows are all running, as far as they may write."""
    loop = DecodeLoop(loaded.model, loaded.tokenization, rows, 1024)
    sampling = SamplingParams(max_new_tokens=steps + 1)
    for number in range(rows):
        request = GenerationRequest(id=str(number), prompt="", sampling=sampling)
        ids = [*PROMPT, 9 + number]
        future: Future[Any] = Future()
        loop.add([Job(request, sampling, ids, [], future, time.monotonic(), None, steps + 1)])
    return loop


def measure(loaded: LoadedModel, rows: int, rounds: int) -> dict[str, Any]:
    """The cost with that many rows."""
    ways = {"with": MEASURED, "without": (largest_only, nothing_measured)}
    loops = {name: start(loaded, rows, WARM_UPS + rounds) for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, dict[str, list[int]]] = {name: {} for name in ways}
    for turn in range(WARM_UPS + rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            decode_loop.top_logits, decode_loop.measure = ways[name]
            begin = time.perf_counter()
            loops[name].turn(
                lambda done, name=name: written[name].update(
                    {done.job.request.id: done.job.token_ids}
                )
            )
            spent[name].append(time.perf_counter() - begin)
    decode_loop.top_logits, decode_loop.measure = MEASURED
    pairs = list(zip(spent["with"][WARM_UPS:], spent["without"][WARM_UPS:], strict=True))
    costs = [100 * (one / other - 1) for one, other in pairs]
    low, _, high = statistics.quantiles(costs, n=4)
    return {
        "rows": rows,
        "cost_percent": round(statistics.median(costs), 2),
        "half_between": [round(low, 2), round(high, 2)],
        "step_ms": round(1e3 * statistics.median(other for _, other in pairs), 2),
        "same_tokens": len(written["with"]) == rows and written["with"] == written["without"],
    }


def main() -> int:
    """Print the figures; 1 where the loops wrote other tokens."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="where models are built; kept there")
    parser.add_argument("--model", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="the embedded model, a few steps")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.rows, arguments.rounds = ["reference"], [1, 4], 4
    is_same = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.model:
            folder = ensure_model(name, arguments.models or Path(temporary))
            loaded = load_model(
                inspect_folder(folder), name=name, device="cpu", dtype=arguments.dtype
            )
            found = [measure(loaded, rows, arguments.rounds) for rows in arguments.rows]
            is_same &= all(one["same_tokens"] for one in found)
            about = {
                "model": name,
                "vocabulary": loaded.identity.vocab_size,
                "dtype": arguments.dtype,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
            }
            print(json.dumps({**about, "rows": found}), flush=True)
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
