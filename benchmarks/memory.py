"""How much memory a batch and the loading of a model take at their peak.

    .venv/bin/python benchmarks/memory.py [--rounds 3] [--quick]

- `batch`: `cert batch` of 200 and of 2,000 prompts (the reference model, 8 new tokens), each a
  process of its own. Its peak must be flat, and at most weights + cache + 300 MB.
- `long texts`: the same with 16 and with 160 texts of 256 tokens.
- `loading`: a random Llama, by our own decoder and by transformers' classes, in a process that
  has loaded a tiny model before, so that programs are no part of it. Peak and end, as multiples
  of the weights as they are computed with.

The kernel's peak (VmHWM) counts pages of mapped files too, which it takes back when memory is
needed: a checkpoint that is mapped while its tensors are copied counts twice, at worst. Anonymous
memory cannot be taken back; its peak is what a machine must have, and what the limits are about.
It is sampled every few milliseconds. Exit 1 where a limit is missed.
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
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CERT = [sys.executable, "-m", "cert_cli"]
ENDED_WITH_A_VERDICT = (0, 1, 3)
"""Exit codes of `cert batch` (`cert exit-codes`)."""
SAMPLE_S = 0.003
MB = 1e6
PROGRAM_MB = 300.0
LOADING = 1.1
FLAT = 1.05
"""How much higher the peak of ten times the prompts may be."""
WAYS = {
    "own decoder, float32": {"dtype": "float32"},
    "own decoder, bfloat16": {"dtype": "bfloat16"},
    "own decoder, int8": {"quantize": "8bit"},
    "transformers, float32": {"dtype": "float32", "own_decoder": False},
}


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Peak and present memory of a process, and how much of it is anonymous."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    values = dict(line.split(":", 1) for line in status.splitlines())
    names = {"peak": "VmHWM", "now": "VmRSS", "anonymous": "RssAnon"}
    return {key: int(values[name].split()[0]) * 1024 / MB for key, name in names.items()}


class Sampler:
    """Watches the anonymous memory of a process until it ends or is told to stop."""

    def __init__(self, pid: int | str = "self") -> None:
        self.peak_mb = 0.0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Return the peak in MB."""
        self._stop.set()
        self._thread.join()
        return self.peak_mb

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.peak_mb = max(self.peak_mb, memory_mb(self._pid)["anonymous"])
            except (OSError, KeyError):  # it has ended
                return
            self._stop.wait(SAMPLE_S)


def run_batch(prompts: Sequence[str], new_tokens: int) -> dict[str, float]:
    """One `cert batch`, with a ledger and a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        source = Path(home, "prompts.jsonl")
        source.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts), "utf-8")
        command = [*CERT, "batch", str(source), "--model", "reference", "--device", "cpu"]
        command += ["--format", "jsonl", "--quiet", "--ledger", f"{home}/ledger"]
        command += ["--max-new-tokens", str(new_tokens), "-o", f"{home}/records.jsonl"]
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        sampler = Sampler(process.pid)
        # Peak of a child that was waited for; this process is smaller, so it is the child's own.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        anonymous = sampler.stop()
        written = len(Path(home, "records.jsonl").read_bytes().splitlines())
        if process.returncode not in ENDED_WITH_A_VERDICT or written != len(prompts):
            raise SystemExit(f"{command} wrote {written} records, code {process.returncode}")
    return {"peak_mb": usage.ru_maxrss * 1024 / MB, "anonymous_mb": anonymous}


def be_worker(arguments: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: load a tiny model, then the one that is measured, and use it."""
    from cert.backends.protocol import GenerationRequest, SamplingParams  # noqa: PLC0415 - worker's
    from cert.backends.transformers_local import load_backend  # noqa: PLC0415 - the worker's

    sampling = SamplingParams(max_new_tokens=arguments.new_tokens)
    options = json.loads(arguments.options)
    request = GenerationRequest(id="1", prompt="a b c", sampling=SamplingParams(max_new_tokens=1))
    first = load_backend(str(arguments.tiny), device="cpu", **options)
    first.submit(request).result()
    first.close()
    before = memory_mb()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    sampler = Sampler()
    backend = load_backend(str(arguments.model), device="cpu", **options)
    weights = backend.memory_bytes() / MB
    anonymous, after = sampler.stop(), memory_mb()
    futures = [
        backend.submit(GenerationRequest(id=str(n), prompt=text, sampling=sampling))
        for n, text in enumerate(json.loads(sys.stdin.read()))
    ]
    for future in futures:
        future.result()
    return {
        "weights_mb": weights,
        "weights_and_cache_mb": backend.memory_bytes() / MB,
        "peak_mb": after["peak"] - before["now"],
        "anonymous_peak_mb": anonymous - before["anonymous"],
        "anonymous_mb": after["anonymous"] - before["anonymous"],
    }


def run_worker(
    model: str, tiny: Path, options: dict[str, Any], prompts: Sequence[str], new_tokens: int
) -> dict[str, float]:
    """Measure one loading."""
    command = [sys.executable, __file__, "--model", model, "--tiny", str(tiny)]
    command += ["--options", json.dumps(options), "--new-tokens", str(new_tokens)]
    output = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, input=json.dumps(list(prompts)).encode()
    ).stdout
    found: dict[str, float] = json.loads(output)
    return found


def build(folder: Path, size: str) -> Path:
    """Build a model in another process: this one stays smaller than those it measures."""
    code = (
        "import sys; from pathlib import Path; from random_llama import build_model\n"
        "build_model(Path(sys.argv[1]), sys.argv[2])"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(folder), size], check=True, cwd=here)
    return folder / f"llama-{size}"


def measure_batches(arguments: argparse.Namespace, tiny: Path) -> tuple[dict[str, Any], list[str]]:
    """Both pairs of batches; the figures, and the limits that were missed."""
    result: dict[str, Any] = {}
    missed = []
    # Prompts of one length in tokens, and all different.
    pairs = {"batch": (arguments.prompts, 8), "long texts": (arguments.long_texts, 256)}
    for name, (fewer, new_tokens) in pairs.items():
        texts = [f"Prompt {number:06d}: what is it?" for number in range(10 * fewer)]
        worker = run_worker("reference", tiny, {}, texts[:32], new_tokens)
        found: dict[str, list[dict[str, float]]] = {"fewer": [], "more": []}
        for _ in range(arguments.rounds):
            found["fewer"].append(run_batch(texts[:fewer], new_tokens))
            found["more"].append(run_batch(texts, new_tokens))
        medians = {
            count: {
                field: round(statistics.median(one[field] for one in runs), 1)
                for field in ("peak_mb", "anonymous_mb")
            }
            for count, runs in found.items()
        }
        growth = medians["more"]["peak_mb"] / medians["fewer"]["peak_mb"]
        limit = worker["weights_and_cache_mb"] + PROGRAM_MB
        result[name] = {
            "prompts": [fewer, 10 * fewer],
            "new_tokens": new_tokens,
            **medians,
            "growth": round(growth, 3),
            "weights_and_cache_mb": round(worker["weights_and_cache_mb"], 1),
            "limit_mb": round(limit, 1),
        }
        if growth > FLAT:
            missed.append(f"{name}: ten times the prompts take {growth:.2f} times the memory")
        if medians["more"]["peak_mb"] > limit:
            missed.append(f"{name}: {medians['more']['peak_mb']} MB; the limit is {limit:.1f} MB")
    return result, missed


def measure_loading(
    arguments: argparse.Namespace, folder: Path, tiny: Path
) -> tuple[dict[str, Any], list[str]]:
    """Every way of loading; the figures, and the limits that were missed."""
    model = build(folder, arguments.size)
    result: dict[str, Any] = {}
    missed = []
    for name, options in WAYS.items():
        runs = [run_worker(str(model), tiny, options, ["a"], 1) for _ in range(arguments.rounds)]
        medians = {field: statistics.median(one[field] for one in runs) for field in runs[0]}
        weights = medians["weights_mb"]
        result[name] = {
            "weights_mb": round(weights, 1),
            **{
                f"{field.removesuffix('_mb')}_over_weights": round(medians[field] / weights, 3)
                for field in ("peak_mb", "anonymous_peak_mb", "anonymous_mb")
            },
        }
        if medians["anonymous_peak_mb"] > LOADING * weights:
            times = medians["anonymous_peak_mb"] / weights
            missed.append(f"loading, {name}: {times:.2f} times the weights")
    return result, missed


def main() -> int:
    """Print the figures as JSON; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, a small model, once")
    parser.add_argument("--prompts", type=int, default=200, help="and ten times as many")
    parser.add_argument("--long-texts", type=int, default=16, help="likewise")
    parser.add_argument("--size", default="150M", help="of the model, as random_llama.py has them")
    parser.add_argument("--models", type=Path, help="keep the models here")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    parser.add_argument("--new-tokens", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.options is not None:
        print(json.dumps(be_worker(arguments)))
        return 0
    if arguments.quick:
        arguments.rounds, arguments.prompts, arguments.long_texts, arguments.size = 1, 20, 2, "15M"
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.models or Path(temporary)
        tiny = build(folder, "tiny")
        batches, missed = measure_batches(arguments, tiny)
        loading, missed_too = measure_loading(arguments, folder, tiny)
    print(
        json.dumps(
            {
                **batches,
                "loading": loading,
                "missed": [*missed, *missed_too],
                "rounds": arguments.rounds,
                "machine": {"cpus": os.cpu_count(), "arch": platform.machine()},
                "versions": versions(),
            },
            indent=2,
        )
    )
    return 1 if missed or missed_too else 0


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    from importlib.metadata import version  # noqa: PLC0415 - not in the process measured

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "safetensors")},
    }


if __name__ == "__main__":
    sys.exit(main())
