"""What `cert batch` costs on top of the engine: reading, records, the ledger, its syncs.

    .venv/bin/python benchmarks/batch_throughput.py [--rounds 5] [--quick]

In turn, each in a process of its own, on the same prompts with the same rows, all greedy:

- `program`: `cert batch prompts.jsonl --ledger DIR`, its records read from its stdout;
- `engine`: `load_backend`, everything submitted at once, nothing done with the results.

Timed is what lies between the first result and the last one, by the clock and in processor time;
until the first one, both load the model and read the first prompts, which is measured apart. Both
must write the same tokens with the same signals (exit 1 otherwise), up to the measured noise floor
times its safety factor: which prompts run together depends on time, and batching changes the last
bits. The model is a random Llama of 15M parameters with a vocabulary of 32,000.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CERT = [sys.executable, "-m", "cert_cli"]
COLUMNS = ("token_ids", "logprobs", "entropies", "logit_margins")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ENDED_WITH_A_VERDICT = (0, 1, 3)
"""Exit codes of `cert batch` (`cert exit-codes`)."""


def run_program(arguments: argparse.Namespace, folder: Path, prompts: Path) -> dict[str, Any]:
    """Run `cert batch` once, with a ledger and a home of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        command = [*CERT, "batch", str(prompts), "--model", str(arguments.model)]
        command += ["--device", "cpu", "--format", "jsonl", "--quiet", "--chat", "never"]
        command += ["--ledger", f"{home}/ledger", "--batch-rows", str(arguments.rows)]
        command += ["--max-new-tokens", str(arguments.new_tokens), *arguments.options]
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
        begin = time.perf_counter()
        marks: list[tuple[float, float]] = []
        lines: list[bytes] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                lines.append(line)
                if len(lines) in {1, arguments.prompts}:
                    marks.append((time.perf_counter(), cpu_s(process.pid)))
        if process.returncode not in ENDED_WITH_A_VERDICT or len(lines) != arguments.prompts:
            raise SystemExit(f"{command} wrote {len(lines)} records, code {process.returncode}")
        generations = [json.loads(line)["generation"] for line in lines]
        texts = [[one[column] for column in COLUMNS] for one in generations]
        return {**between(begin, marks), "texts": texts}


def run_engine(arguments: argparse.Namespace, prompts: Path) -> dict[str, Any]:
    """Run the engine alone once, in a process of its own."""
    command = [sys.executable, __file__, "--engine", str(prompts), "--model", str(arguments.model)]
    command += ["--rows", str(arguments.rows), "--new-tokens", str(arguments.new_tokens)]
    command += ["--", *arguments.options]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def be_engine(arguments: argparse.Namespace) -> dict[str, Any]:
    """In that process: load, submit everything, wait."""
    begin = time.perf_counter()
    from cert.backends.protocol import GenerationRequest, SamplingParams  # noqa: PLC0415 - timed
    from cert.backends.transformers_local import load_backend  # noqa: PLC0415 - timed

    options = dict(zip(arguments.options[::2], arguments.options[1::2], strict=True))
    backend = load_backend(
        str(arguments.model),
        device="cpu",
        batch_rows=arguments.rows,
        dtype=options.get("--dtype", "auto"),
        quantize=options.get("--quantize", "none"),
    )
    sampling = SamplingParams(max_new_tokens=arguments.new_tokens)
    with arguments.engine.open(encoding="utf-8") as file:
        texts = [json.loads(line)["prompt"] for line in file]
    futures = [
        backend.submit(GenerationRequest(id=str(n), prompt=text, sampling=sampling, chat="never"))
        for n, text in enumerate(texts)
    ]
    marks = []
    for count, _ in enumerate(as_completed(futures), 1):
        if count in {1, len(futures)}:
            marks.append((time.perf_counter(), cpu_s(os.getpid())))
    traces = [future.result().trace for future in futures]
    texts = [[getattr(one, column) for column in COLUMNS] for one in traces]
    return {**between(begin, marks), "texts": texts}


def between(begin: float, marks: Sequence[tuple[float, float]]) -> dict[str, float]:
    """What the two marks, of wall and processor time, say."""
    (first_wall, first_cpu), (last_wall, last_cpu) = marks
    return {
        "until_first_s": first_wall - begin,
        "wall_s": last_wall - first_wall,
        "cpu_s": last_cpu - first_cpu,
    }


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all its threads, in user and in system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def compare(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, float]:
    """How far signals differ before the first other token, and the margin where there is one."""
    parted: list[float] = []
    largest = {"logprob_nats": 0.0, "entropy_nats": 0.0}
    for one, other in zip(ours, theirs, strict=True):
        pairs = list(zip(one[0], other[0], strict=True))
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if same < len(pairs):
            parted.append(other[3][same])
        for column, name in enumerate(largest, 1):
            differences = zip(one[column][:same], other[column][:same], strict=True)
            largest[name] = max(largest[name], *(abs(a - b) for a, b in differences), 0.0)
    return {
        "texts_that_part": len(parted),
        "largest_margin_where_they_part": max(parted, default=0.0),
        **largest,
    }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both in turn, the order changing, after one unmeasured time each."""
    from random_llama import build_model, make_prompts  # noqa: PLC0415 - not in the process timed

    arguments.model = build_model(arguments.models or folder, arguments.size)
    prompts = folder / "prompts.jsonl"
    texts = make_prompts(arguments.prompts, 4, 40)
    prompts.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in texts), "utf-8")
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "program": lambda: run_program(arguments, folder, prompts),
        "engine": lambda: run_engine(arguments, prompts),
    }
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for turn in range(arguments.rounds + 1):
        for name in sorted(runs, reverse=bool(turn % 2)):
            sample = runs[name]()
            if turn:
                samples[name].append(sample)
    return report(arguments, samples)


def report(
    arguments: argparse.Namespace, samples: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Medians, and the medians of each round's ratio."""
    pairs = list(zip(samples["program"], samples["engine"], strict=True))
    ratios = {f: [p[f] / max(e[f], TICK_S) for p, e in pairs] for f in ("wall_s", "cpu_s")}
    return {
        "median": {
            name: {
                field: round(statistics.median(one[field] for one in found), 3)
                for field in ("until_first_s", "wall_s", "cpu_s")
            }
            for name, found in samples.items()
        },
        "program_over_engine": {
            field: {
                "median": round(statistics.median(values), 3),
                "rounds": [round(value, 3) for value in values],
            }
            for field, values in ratios.items()
        },
        "agreement": worst([compare(p["texts"], e["texts"]) for p, e in pairs]),
        "prompts": arguments.prompts,
        "new_tokens": arguments.new_tokens,
        "rows": arguments.rows,
        "options": arguments.options,
        "model": arguments.size,
        "machine": {
            "cpus": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "default"),
            "arch": platform.machine(),
        },
        "versions": versions(),
    }


def is_noise(agreement: dict[str, float], arguments: argparse.Namespace) -> bool:
    """Whether program and engine differ by no more than batching does."""
    from cert.backends.noise import SAFETY_FACTOR, noise_floor  # noqa: PLC0415 - see `versions`

    options = dict(zip(arguments.options[::2], arguments.options[1::2], strict=True))
    quantization = "dynamic-int8" if options.get("--quantize") == "8bit" else None
    floor = noise_floor(options.get("--dtype", "float32"), "cpu", quantization, arguments.rows)
    if floor is None:
        raise SystemExit("the noise of this arithmetic with so many rows was not measured")
    found = max(agreement["logprob_nats"], agreement["entropy_nats"])
    margin = agreement["largest_margin_where_they_part"]
    return found <= floor.tolerance_nats() and margin <= SAFETY_FACTOR * floor.logit_margin.largest


def worst(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The largest of every figure."""
    return {name: max(one[name] for one in found) for name in found[0]}


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    from importlib.metadata import version  # noqa: PLC0415 - not in the process timed

    names = ("torch", "transformers", "tokenizers", "orjson")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def main() -> int:
    """Print the figures as JSON; 1 where the two disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one short round")
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--size", default="15M", help="of the model, as random_llama.py has them")
    parser.add_argument("--models", type=Path, help="keep the model here")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "options", nargs="*", help="for both, after `--`: --dtype bfloat16, --quantize 8bit"
    )
    arguments = parser.parse_args()
    if arguments.engine is not None:
        print(json.dumps(be_engine(arguments)))
        return 0
    if arguments.quick:
        arguments.rounds, arguments.prompts, arguments.new_tokens = 1, 24, 6
        arguments.rows, arguments.size = 4, "tiny"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    print(json.dumps(result, indent=2))
    if not is_noise(result["agreement"], arguments):
        print("the program and the engine disagree", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
