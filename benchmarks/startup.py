"""How long the program takes to start, beside `import torch`, and where the time goes.

    .venv/bin/python benchmarks/startup.py [--rounds 7] [--quick] [--before CHECKOUT] [--models DIR]

Fresh processes in turn, after one unmeasured turn: `python -c "import torch"`, `cert --help`, and
`cert analyze --format jsonl --max-new-tokens 1` with a new ledger on the embedded model, on a
GPT-2 of 124 million random weights, and with `--server` against a warm `cert serve`. Of each:

- seconds to the first record (to the end, where there is none), and to the process's end;
- seconds of processor time, user and system, which other work on the machine disturbs less;
- medians of the ratios to the `import torch` of the same turn.

With `--before`, the same commands from another checkout run in the same turns. All records of one
model must have the same tokens, whoever wrote them; otherwise the exit code is 1. At the end the
same path once more in steps, in processes that time themselves.
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
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine_models import ensure_model
from serve import serving

ROOT = Path(__file__).parents[1]
FLOOR = "import torch"
PROMPT = "Large language models are trained on"
ANALYZE = ("analyze", "--format", "jsonl", "--max-new-tokens", "1", PROMPT)
VERDICTS = (0, 1, 3)
STEPS = """
import json, sys, time
times, last = {}, time.perf_counter()
def step(name):
    global last
    now = time.perf_counter()
    times[name] = now - last
    last = now
import torch
step("import torch")
from cert.backends.transformers_local import load_backend
from cert.backends.protocol import GenerationRequest, SamplingParams
step("import the backend")
from cert.backends.folder import inspect_folder, resolve_model
inspect_folder(resolve_model(sys.argv[1], aliases={}, allow_download=False))
step("check the model's files")
backend = load_backend(sys.argv[1], device="cpu")
step("load weights and tokenizer")
def write(tokens):
    sampling = SamplingParams(max_new_tokens=tokens)
    request = GenerationRequest(id="1", prompt=sys.argv[2], sampling=sampling)
    return len(backend.submit(request).result().trace)
write(1)
step("first token")
write(64)
step("64 tokens more")
print(json.dumps(times))
"""


@dataclass
class Contestant:
    """A command that is run once a turn.

    Attributes:
        arguments: Of the Python interpreter.
        model: Whose record it writes; None where it writes none.
        root: The checkout that it runs from.
    """

    arguments: tuple[str, ...]
    model: str | None = None
    root: Path = ROOT
    runs: list[dict[str, float]] = field(default_factory=list)

    def run(self, folder: Path) -> tuple[dict[str, float], bytes]:
        """Run it in a folder of its user; what it took, and its first line."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "CERT_LEDGER": str(folder / "ledger"),
            "CERT_KEYS": str(folder / "keys"),
        }
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        first_s = time.perf_counter() - began
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        end_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (VERDICTS if self.model else (0,)):
            raise SystemExit(f"{self.arguments} ended with {process.returncode}")
        took = {"end_s": end_s, "cpu_s": used.ru_utime + used.ru_stime}
        return took | {"first_s": first_s if self.model else end_s}, line


def contestants(root: Path, gpt2: Path | None, server: str) -> dict[str, Contestant]:
    """The program's commands, from one checkout."""

    def cert(*words: str, model: str | None = None) -> Contestant:
        return Contestant(("-m", "cert_cli", *words), model, root)

    found = {
        "cert --help": cert("--help"),
        "reference": cert(*ANALYZE, "--model", "reference", model="reference"),
        "--server, warm": cert(*ANALYZE, "--server", server, model="reference"),
    }
    if gpt2 is not None:
        found["gpt2, 124M"] = cert(*ANALYZE, "--model", str(gpt2), model="gpt2")
    return found


def tokens_of(line: bytes) -> tuple[int, ...]:
    """Token ids of a record."""
    return tuple(json.loads(line)["generation"]["token_ids"])


def measure(all_of_them: dict[str, Contestant], rounds: int, folder: Path) -> None:
    """Run all in turn, and hold the records of each model against each other."""
    seen: dict[str, tuple[int, ...]] = {}
    for turn in range(rounds + 1):
        for name, one in all_of_them.items():
            took, line = one.run(folder)
            if turn:
                one.runs.append(took)
            if one.model is not None:
                tokens = tokens_of(line)
                if seen.setdefault(one.model, tokens) != tokens:
                    raise SystemExit(f"{name}: tokens {tokens}, but {seen[one.model]} before")


def summarize(one: Contestant, floor: Contestant) -> dict[str, float]:
    """Medians of seconds, and of ratios to the floor of the same turn."""
    summary: dict[str, float] = {}
    for name in ("first_s", "end_s", "cpu_s"):
        values = [run[name] for run in one.runs]
        ratios = [run[name] / other[name] for run, other in zip(one.runs, floor.runs, strict=True)]
        summary[name] = round(statistics.median(values), 3)
        summary[f"{name[:-2]}_ratio"] = round(statistics.median(ratios), 3)
    return summary


def time_steps(model: str, rounds: int) -> dict[str, float]:
    """Median seconds of the steps of one path, in processes of their own."""
    steps = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, model, PROMPT],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        steps.append(json.loads(done.stdout))
    return {name: round(statistics.median(one[name] for one in steps), 3) for name in steps[0]}


def compare(
    rounds: int, before: Path | None, gpt2: Path | None, folder: Path, server: str
) -> dict[str, Any]:
    """All figures."""
    floor = Contestant(("-c", "import torch"))
    all_of_them = {FLOOR: floor, **contestants(ROOT, gpt2, server)}
    if before is not None:
        old = contestants(before.resolve(), gpt2, server)
        all_of_them |= {f"before: {name}": one for name, one in old.items()}
    measure(all_of_them, rounds, folder)
    models = {"reference": "reference"} | ({} if gpt2 is None else {"gpt2, 124M": str(gpt2)})
    return {
        "commands": {name: summarize(one, floor) for name, one in all_of_them.items()},
        "steps_s": {name: time_steps(model, min(rounds, 3)) for name, model in models.items()},
        "rounds": rounds,
        "load": os.getloadavg(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="2 rounds, the embedded model only")
    parser.add_argument("--before", type=Path, help="another checkout, run in the same turns")
    parser.add_argument("--models", type=Path, help="where the GPT-2 is, or is made and stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving("--no-ledger") as server:
        folder = Path(name)
        models = asked.models or folder / "models"
        gpt2 = None if asked.quick else ensure_model("gpt2", models.resolve())
        url = f"http://127.0.0.1:{server.port}"
        rounds = 2 if asked.quick else asked.rounds
        print(json.dumps(compare(rounds, asked.before, gpt2, folder, url), indent=2))


if __name__ == "__main__":
    main()
