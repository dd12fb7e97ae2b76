"""The numeric noise floor: how far readings of the same text differ for no reason but rounding.

    .venv/bin/python benchmarks/noise.py [--device cuda] [--write] [--quick]

By arithmetic (float32, bfloat16, float16, and int8, which is `--quantize 8bit`) and by rows that
run side by side, in nats (the margin in logits), over all tokens of all models:

- `batching`: the same text with the same weights, written in a batch against written alone, and
  scored in a batch against scored alone and against written alone;
- `exact`: the same text, written in a batch and scored in one, against a plain forward pass of
  transformers in float64 with the checkpoint's weights. The rounding of weights is part of it.

Texts are compared up to the first token that differs. Models: the embedded reference model, and
random ones of five families. With --write, the figures go into cert/backends/noise_floor.json,
in the place of those of the same processor. Exit 1 where a float32 reading is off by more than
--broken nats: then something else than rounding was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from random_llama import build_model, make_prompts
from transformers import AutoModelForCausalLM

from cert.backends.decode_loop import DecodeLoop, Job
from cert.backends.folder import inspect_folder, resolve_model
from cert.backends.kernels import COLUMNS, signals_of
from cert.backends.linear import multiplies_bfloat16
from cert.backends.loading import load_model
from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.backends.scoring import Scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from cert.backends.decode_loop import Finished
    from cert.backends.loading import LoadedModel

    Reading = tuple[list[int], NDArray[np.float64]]

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "cert" / "backends" / "noise_floor.json"
ARITHMETICS = {
    "float32": ("float32", "none"),
    "bfloat16": ("bfloat16", "none"),
    "float16": ("float16", "none"),
    "int8": ("auto", "8bit"),
}
SIGNALS = ("logprob", "entropy", "logit_margin")
PLACES = [COLUMNS.index(name) for name in SIGNALS]
CONTEXT_TOKENS = 256
SHARE = 99.9
"""Percentile that the table holds beside the largest difference."""


def make_job(number: int, prompt_ids: list[int], response_ids: list[int], limit: int) -> Job:
    """One text to write, or to score."""
    sampling = SamplingParams(max_new_tokens=limit)
    return Job(
        request=GenerationRequest(id=str(number), prompt="", sampling=sampling),
        sampling=sampling,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        future=Future(),
        submitted=time.monotonic(),
        deadline=None,
        limit=limit,
    )


def readings(run: Callable[[Callable[[Finished], None]], None]) -> dict[int, Reading]:
    """What a loop delivers, by the number of the text: its tokens and (signals, tokens)."""
    found: dict[int, Reading] = {}

    def deliver(finished: Finished) -> None:
        if finished.error is not None:
            raise finished.error
        job = finished.job
        signals = signals_of(np.stack(job.measured))
        found[int(job.request.id)] = job.token_ids, signals[PLACES]

    run(deliver)
    return found


def write(
    loaded: LoadedModel, prompts: Sequence[list[int]], rows: int, tokens: int
) -> dict[int, Reading]:
    """Write a greedy text after every prompt, in the decode loop."""
    loop = DecodeLoop(loaded.model, loaded.tokenization, rows, CONTEXT_TOKENS)
    loop.add(make_job(number, ids, [], tokens) for number, ids in enumerate(prompts))

    def run(deliver: Callable[[Finished], None]) -> None:
        while len(loop):
            loop.turn(deliver)

    return readings(run)


def score(
    loaded: LoadedModel, prompts: Sequence[list[int]], texts: dict[int, Reading], rows: int
) -> dict[int, Reading]:
    """Score those texts, `rows` of them in one pass."""
    scorer = Scorer(loaded.model, loaded.identity.vocab_size)
    numbers = sorted(texts)

    def run(deliver: Callable[[Finished], None]) -> None:
        for first in range(0, len(numbers), rows):
            chosen = numbers[first : first + rows]
            scorer.add(make_job(n, prompts[n], texts[n][0], len(texts[n][0])) for n in chosen)
            while len(scorer):
                scorer.turn(deliver)

    return readings(run)


@torch.inference_mode()
def read_exactly(model: Any, prompt: list[int], text: list[int]) -> NDArray[np.float64]:  # noqa: ANN401 - transformers has no types
    """Signals of a text by a plain float64 pass, shape (signals, tokens)."""
    ids = torch.tensor([[*prompt, *text]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(text)[:, None])[:, 0]
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    first, second = logits.topk(2).values.unbind(-1)
    return torch.stack([chosen, entropies, first - second]).numpy()


class Differences:
    """Absolute differences, gathered over texts and models.

    Attributes:
        parted: Texts with a token that differs.
        largest_parting_margin: In logits, where they do.
    """

    def __init__(self) -> None:
        self._gathered: list[NDArray[np.float64]] = []
        self.parted = 0
        self.largest_parting_margin = 0.0

    def add(self, one: Reading, other: Reading) -> None:
        """Compare two readings up to the first other token."""
        pairs = list(zip(one[0], other[0], strict=False))
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if same < len(pairs):
            self.parted += 1
            margin = float(other[1][SIGNALS.index("logit_margin"), same])
            self.largest_parting_margin = max(self.largest_parting_margin, margin)
        self._gathered.append(np.abs(one[1][:, :same] - other[1][:, :same]))

    def report(self) -> dict[str, Any]:
        """Largest difference and percentile of each signal."""
        all_of_them = np.concatenate(self._gathered, axis=1)
        largest = all_of_them.max(axis=1)
        shares = np.percentile(all_of_them, SHARE, axis=1)
        return {
            "tokens": all_of_them.shape[1],
            **{
                name: {"largest": rounded(largest[place]), "p999": rounded(shares[place])}
                for place, name in enumerate(SIGNALS)
            },
        }


def rounded(value: float) -> float:
    """Three digits, upwards: a floor is never written down too low."""
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / unit) * unit:.3g}")


def models(folder: Path, *, is_quick: bool) -> Iterator[tuple[str, Path]]:
    """The reference model, and random ones with their tokenizers."""
    sys.path.append(str(ROOT / "tests"))
    from model_factory import FAMILIES, build_tiny_model  # noqa: PLC0415 - found just now

    yield "reference", resolve_model("reference", aliases={}, allow_download=False)
    for family in FAMILIES[:1] if is_quick else FAMILIES:
        shape = {"hidden_size": 64, "layers": 4, "vocab_size": 1000}
        yield f"random {family}", build_tiny_model(folder / family, family, **shape)
    if not is_quick:
        yield "random llama 15M", build_model(folder, "15M")


def measure_model(
    path: Path, arguments: argparse.Namespace, found: dict[tuple[str, int, str], Differences]
) -> None:
    """All arithmetics and batch sizes of one model."""
    exact = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    texts = make_prompts(arguments.prompts, 2, 24)
    for name in arguments.arithmetics:
        dtype, quantize = ARITHMETICS[name]
        loaded = load_model(
            inspect_folder(path),
            name="noise",
            device=arguments.device,
            dtype=dtype,
            quantize=quantize,
        )
        prompts = [loaded.tokenization.encode_prompt(text, chat="never") for text in texts]
        alone = write(loaded, prompts, 1, arguments.new_tokens)
        scored_alone = score(loaded, prompts, alone, 1)
        plain = {
            number: (ids, read_exactly(exact, prompts[number], ids))
            for number, (ids, _) in alone.items()
        }
        for rows in arguments.rows:
            batching, off = found[name, rows, "batching"], found[name, rows, "exact"]
            together = write(loaded, prompts, rows, arguments.new_tokens)
            scored = score(loaded, prompts, alone, rows)
            for number, before in alone.items():
                batching.add(together[number], before)
                batching.add(scored[number], before)
                batching.add(scored[number], scored_alone[number])
                off.add(together[number], plain[number])
                off.add(scored[number], plain[number])


def main() -> int:
    """Print the figures as JSON; 1 where they are no noise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--arithmetics", nargs="+", default=list(ARITHMETICS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--broken", type=float, default=1e-3, help="nats")
    parser.add_argument("--write", action="store_true", help="into the library's table")
    parser.add_argument("--quick", action="store_true", help="two models, a few short texts")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.prompts, arguments.new_tokens, arguments.rows = 6, 4, [1, 4]
    found: dict[tuple[str, int, str], Differences] = defaultdict(Differences)
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder), is_quick=arguments.quick):
            measure_model(path, arguments, found)
            names.append(name)
    floors = [
        {
            "arithmetic": arithmetic,
            "device": arguments.device,
            "processor": processor(arguments.device),
            "rows": rows,
            "against": against,
            **differences.report(),
        }
        for (arithmetic, rows, against), differences in found.items()
    ]
    about = {
        "models": names,
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    parted = {
        f"{arithmetic}, {rows} rows, {against}": {
            "texts": differences.parted,
            "largest_margin": differences.largest_parting_margin,
        }
        for (arithmetic, rows, against), differences in found.items()
        if differences.parted
    }
    print(json.dumps({**about, "texts_that_part": parted, "floors": floors}, indent=2))
    if arguments.write:
        write_table(processor(arguments.device), about, floors)
    worst = max(
        (f["logprob"]["largest"] for f in floors if f["arithmetic"] == "float32"), default=0
    )
    if worst > arguments.broken:
        print(f"float32 readings differ by {worst:g} nats: that is no noise", file=sys.stderr)
        return 1
    return 0


def processor(device: str) -> str:
    """What rounding depends on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    products = ", bfloat16 products" if multiplies_bfloat16() else ""
    return torch.backends.cpu.get_cpu_capability() + products


def write_table(name: str, about: dict[str, Any], floors: list[dict[str, Any]]) -> None:
    """Put the figures of one processor in the place of its old ones."""
    table = (
        json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {"measured": {}, "floors": []}
    )
    kept = [one for one in table["floors"] if one["processor"] != name]
    table = {"measured": {**table["measured"], name: about}, "floors": [*kept, *floors]}
    lines = ",\n".join(json.dumps(one) for one in table["floors"])
    measured = json.dumps(table["measured"])
    TABLE.write_text(f'{{"measured": {measured}, "floors": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
