"""How long the program takes to start, and where the time goes until the first record.

    .venv/bin/python benchmarks/startup.py [--rounds 7]

Fresh processes, interleaved; medians of wall time in seconds:

- `python -c pass` and `python -c "import torch"`: what no program here can be faster than;
- `cert --help`, `cert exit-codes`;
- `cert analyze`: from process start to the first record on stdout (one new token, and 64).

Then the same path once more in steps, in processes of their own that time themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

CERT = str(Path(sys.executable).with_name("cert"))
PROMPT = "Large language models are trained on"
ANALYZE = [CERT, "analyze", "--model", "reference", "--format", "jsonl", PROMPT]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "cert --help": [CERT, "--help"],
    "cert exit-codes": [CERT, "exit-codes"],
    "cert analyze, 1 token": [*ANALYZE, "--max-new-tokens", "1"],
    "cert analyze, 64 tokens": [*ANALYZE, "--max-new-tokens", "64"],
}
STEPS = f"""
import json, time
times, last = {{}}, time.perf_counter()
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
folder = inspect_folder(resolve_model("reference", aliases={{}}, allow_download=False))
step("check the model's files")
backend = load_backend("reference", device="cpu")
step("load weights and tokenizer")
def write(tokens):
    sampling = SamplingParams(max_new_tokens=tokens)
    request = GenerationRequest(id="1", prompt={PROMPT!r}, sampling=sampling)
    return len(backend.submit(request).result().trace)
write(1)
step("first token")
count = write(64)
step("64 tokens more")
print(json.dumps(times))
"""


def first_line_s(command: list[str]) -> float:
    """Seconds from starting a process to its first line on stdout, or to its end without one."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        process.stdout.readline()
        passed = time.perf_counter() - begin
        process.stdout.read()
    # 1 and 3 are verdicts (`cert exit-codes`).
    if process.returncode not in (0, 1, 3):
        raise SystemExit(f"{command} ended with {process.returncode}")
    return passed


def whole_s(command: list[str]) -> float:
    """Seconds from starting a process to its end."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def measure(rounds: int) -> dict[str, object]:
    """All commands in turn, `rounds` times, after one unmeasured time each."""
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    steps: list[dict[str, float]] = []
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            run = first_line_s if "analyze" in name else whole_s
            value = run(command)
            if turn:
                samples[name].append(value)
        output = subprocess.run(
            [sys.executable, "-c", STEPS], stdout=subprocess.PIPE, check=True
        ).stdout
        if turn:
            steps.append(json.loads(output))
    return {
        "median_s": {name: round(statistics.median(v), 3) for name, v in samples.items()},
        "least_s": {name: round(min(v), 3) for name, v in samples.items()},
        "steps_median_s": {
            name: round(statistics.median(s[name] for s in steps), 3) for name in steps[0]
        },
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    print(json.dumps(measure(parser.parse_args().rounds), indent=2))


if __name__ == "__main__":
    main()
