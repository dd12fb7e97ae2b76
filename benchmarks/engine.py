"""cert's engine beside its peers, on one CPU machine, in one run.

    python benchmarks/engine.py --models FOLDER --peers-python PATH [--model gpt2] [--rounds 3]

Contestants are processes of their own that keep their model loaded and are asked in turn, so that
what disturbs the machine disturbs all of them. All get the same prompts as token ids, write the
same number of tokens, greedily, and say what they measured. transformers' forward pass in float32
then tells how far each is off (`engine_contestants.TOLERANCES`); exit 1 where one is too far.

Peers need libraries that cert does not: `--peers-python` and `--openvino-python` name interpreters
that have them. A contestant that cannot run is listed with the reason. `--only` takes names or
their beginnings; `--quick` runs a handful of short texts.

Printed as JSON: tokens per second and CPU seconds per 1,000 tokens (medians of all rounds), ratios
to the one-at-a-time loop and to batched `generate`, peaks of memory, versions, and what the machine
does at best.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_contestants import CONTESTANTS, TOLERANCES, Contestant, Tolerance
from engine_models import CONTEXT, PLANS, Plan, ensure_model, make_texts, quick

HERE = Path(__file__).resolve().parent
LOOP, BATCHED = "loop-scores-float32-1", "generate-scores-float32-16"

WARM_UP_TEXTS, WARM_UP_TOKENS = 32, 4

Asked = dict[str, Any]


class Worker:
    """A process of `engine_worker.py`."""

    def __init__(self, name: str, folder: Path, python: str, arguments: argparse.Namespace) -> None:
        """Start it; `reason` says why it cannot take part, where it cannot."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "OMP_NUM_THREADS": str(arguments.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        if arguments.evaluate_perplexity:
            environment["EVALUATE_PERPLEXITY"] = arguments.evaluate_perplexity
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [
                python,
                "-W",
                "ignore",
                HERE / "engine_worker.py",
                name,
                folder,
                str(arguments.threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        first = self._read()
        self.reason: str | None = first.get("error")
        self.versions: dict[str, str] = first.get("versions", {})

    def ask(self, request: Asked) -> Asked:
        """Send a request; the answer, or `error`."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> Asked:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if line:
            answer: Asked = json.loads(line)
            return answer
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"error": f"the process has ended: {' '.join(tail)}"[:300]}


@dataclass(slots=True)
class Result:
    """What a contestant did in all rounds."""

    tokens: int = 0
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    rows: int = 0
    answers: list[Asked] = field(default_factory=list)

    def add(self, answer: Asked, tokens: int) -> None:
        """Take a round in."""
        self.tokens = tokens
        self.wall_s.append(answer["wall_s"])
        self.cpu_s.append(answer["cpu_s"])
        self.peak_bytes, self.rows = answer["peak_bytes"], answer["rows"]
        self.answers = answer["answers"]

    @property
    def tokens_per_s(self) -> float:
        """Median of all rounds."""
        return self.tokens / statistics.median(self.wall_s)

    def described(self) -> Asked:
        """For the report."""
        return {
            "tokens_per_s": round(self.tokens_per_s, 1),
            "rounds": [round(self.tokens / wall, 1) for wall in self.wall_s],
            "cpu_s_per_1000": round(1000 * statistics.median(self.cpu_s) / self.tokens, 3),
            "peak_mb": self.peak_bytes // 2**20,
            "rows": self.rows,
        }


def spread(items: list[Asked], count: int) -> list[Asked]:
    """`count` of them, from the first to the last."""
    return [items[n * len(items) // count] for n in range(min(count, len(items)))]


def compare(answers: list[Asked], truth: list[Asked]) -> dict[str, float]:
    """How far answers are from the truth: the worst near tie, the largest and the mean nats."""
    differences: list[float] = []
    gaps = [0.0]
    for answer, true in zip(answers, truth, strict=True):
        gaps += true["gaps"]
        for name in ("logprobs", "entropies"):
            if answer[name] and len(answer[name]) != len(true[name]):
                differences.append(math.inf)  # it measured something else
            elif answer[name]:
                pairs = zip(answer[name], true[name], strict=True)
                differences += [abs(a - b) for a, b in pairs]
        if answer["logprob_sum"] is not None:
            off = abs(answer["logprob_sum"] - sum(true["logprobs"]))
            differences.append(off / len(true["logprobs"]))
    return {
        "compared": len(differences),
        "largest_gap": max(gaps),
        "largest_nats": max(differences, default=0.0),
        "mean_nats": statistics.fmean(differences) if differences else 0.0,
    }


def is_near(found: dict[str, float], allowed: Tolerance, *, greedy: bool) -> bool:
    """Whether a contestant computed the same thing; one that scores must have said something."""
    return (
        (found["largest_gap"] <= allowed.near_tie if greedy else found["compared"] > 0)
        and found["largest_nats"] <= allowed.largest_nats
        and found["mean_nats"] <= allowed.mean_nats
    )


def requests(contestant: Contestant, plan: Plan, encoded: dict[str, list[Asked]]) -> Asked:
    """What a contestant is asked in every round."""
    if contestant.task == "score":
        return {"prompts": encoded["contexts"], "responses": encoded["responses"]}
    count = plan.single_texts if contestant.rows == 1 else min(plan.texts, 2 * contestant.rows)
    return {"prompts": spread(encoded["prompts"], count), "new_tokens": plan.new_tokens}


def warm_up(asked: Asked) -> Asked:
    """Less of the same, before anything is timed; scorers find their best batch with it."""
    if "responses" in asked:
        return {name: spread(items, WARM_UP_TEXTS) for name, items in asked.items()}
    return {"prompts": spread(asked["prompts"], WARM_UP_TEXTS), "new_tokens": WARM_UP_TOKENS}


def encode(judge: Worker, plan: Plan) -> dict[str, list[Asked]]:
    """Texts with their token ids."""
    prompts = make_texts(plan.texts, plan.words)
    responses = [" " + text for text in make_texts(plan.scored_texts, plan.scored_words)]
    ids = judge.ask({"texts": [*prompts, CONTEXT], "responses": responses})
    context = {"text": CONTEXT, "token_ids": ids["texts"][-1]}
    return {
        "prompts": [
            {"text": text, "token_ids": one}
            for text, one in zip(prompts, ids["texts"][:-1], strict=True)
        ],
        "contexts": [context] * len(responses),
        "responses": [
            {"text": text, "token_ids": one}
            for text, one in zip(responses, ids["responses"], strict=True)
        ],
    }


def start(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Worker], dict[str, str]]:
    """Those who can take part, and why the others cannot."""
    pythons = {
        "own": sys.executable,
        "peers": arguments.peers_python,
        "openvino": arguments.openvino_python,
    }
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    for one, contestant in CONTESTANTS.items():
        if arguments.only and not one.startswith(tuple(arguments.only)):
            continue
        python = pythons[contestant.python]
        if python is None:
            absent[one] = f"no interpreter: give --{contestant.python}-python"
            continue
        worker = Worker(one, folder, python, arguments)
        if worker.reason is None:
            workers[one] = worker
        else:
            absent[one] = worker.reason
            worker.close()
    return workers, absent


def run_model(name: str, arguments: argparse.Namespace) -> Asked:
    """Everything about one model."""
    plan = quick(PLANS[name]) if arguments.quick else PLANS[name]
    folder = ensure_model(name, arguments.models)
    judge = Worker("judge", folder, sys.executable, arguments)
    encoded = encode(judge, plan)
    workers, absent = start(folder, arguments)
    asked = {one: requests(CONTESTANTS[one], plan, encoded) for one in workers}
    results: dict[str, Result] = {one: Result() for one in workers}
    for turn in range(arguments.rounds + 1):
        for one in [one for one in workers if one not in absent]:
            answer = workers[one].ask(asked[one] if turn else warm_up(asked[one]))
            if "error" in answer:
                absent[one] = answer["error"]
            elif turn:
                given = asked[one].get("responses", answer["answers"])
                results[one].add(answer, sum(len(a["token_ids"]) for a in given))
    done = {one: found for one, found in results.items() if one not in absent}
    agreement = {one: check(one, found, asked[one], judge) for one, found in done.items()}
    versions = {one: worker.versions for one, worker in workers.items() if one in done}
    for worker in (judge, *workers.values()):
        worker.close()
    return {
        "model": name,
        "contestants": {one: found.described() for one, found in done.items()},
        "agreement": agreement,
        "ratios": ratios(done),
        "absent": absent,
        "versions": versions,
    }


def check(one: str, found: Result, asked: Asked, judge: Worker) -> Asked:
    """How far a contestant is from transformers' forward pass, and whether that is near enough."""
    contestant = CONTESTANTS[one]
    pairs = [
        (prompt["token_ids"], answer["token_ids"])
        for prompt, answer in zip(asked["prompts"], found.answers, strict=True)
    ]
    distance = compare(found.answers, judge.ask({"pairs": pairs})["truth"])
    allowed = TOLERANCES[contestant.precision]
    near = is_near(distance, allowed, greedy=contestant.task == "decode")
    return {**{name: float(f"{value:.3g}") for name, value in distance.items()}, "same": near}


def ratios(done: dict[str, Result]) -> Asked:
    """Of medians of tokens per second; for llama.cpp and OpenVINO also of CPU seconds."""
    found: Asked = {}
    for base in (LOOP, BATCHED):
        if base in done:
            found[f"over {base}"] = {
                one: round(result.tokens_per_s / done[base].tokens_per_s, 2)
                for one, result in done.items()
                if CONTESTANTS[one].task == "decode"
            }
    for one, result in done.items():
        contestant = CONTESTANTS[one]
        if contestant.library in {"llamacpp", "openvino"}:
            precision = contestant.precision.replace("q8_0", "int8")
            ours = done.get(f"cert-{precision}-{contestant.rows}")
            if ours is not None:
                cpu = [statistics.median(r.cpu_s) / r.tokens for r in (result, ours)]
                found[f"cert over {one}"] = {
                    "tokens_per_s": round(ours.tokens_per_s / result.tokens_per_s, 2),
                    "cpu_seconds": round(cpu[0] / cpu[1], 2),
                }
    scorers = {one: result for one, result in done.items() if CONTESTANTS[one].task == "score"}
    for one, result in scorers.items():
        if CONTESTANTS[one].library == "cert":
            found[f"{one} over"] = {
                other: round(result.tokens_per_s / theirs.tokens_per_s, 2)
                for other, theirs in scorers.items()
            }
    return found


def main() -> int:
    """Print the figures; 1 where a contestant computed something else."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="where models are built; kept there")
    parser.add_argument("--model", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--only", nargs="+", help="names of contestants, or their beginnings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers-python")
    parser.add_argument("--openvino-python")
    parser.add_argument("--evaluate-perplexity", help="folder metrics/perplexity of `evaluate`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.models is None:
            arguments.models = Path(temporary)
        machine = Worker("machine", Path(temporary), sys.executable, arguments)
        ceilings = machine.ask({})
        machine.close()
        print(
            json.dumps(
                {
                    "cpus": arguments.threads,
                    "machine": platform.machine(),
                    "python": platform.python_version(),
                    **ceilings,
                }
            )
        )
        is_same = True
        for name in arguments.model:
            found = run_model(name, arguments)
            print(json.dumps(found, indent=1), flush=True)
            is_same &= all(one["same"] for one in found["agreement"].values())
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
