"""One contestant, loaded and kept, for `benchmarks/engine.py`.

    PYTHON benchmarks/engine_worker.py NAME FOLDER THREADS

Reads one JSON object a line and answers each with one. NAME is a contestant, `judge` (float32
forward passes that tell how far others are off) or `machine` (what the hardware can do at best).
Answers to a task hold `wall_s` and `cpu_s` of that task alone and `peak_bytes` of the process.
Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_contestants import CONTESTANTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    Request = dict[str, Any]
    Handler = Callable[[Request], dict[str, Any]]

MODULES = {
    **dict.fromkeys(("cert", "loop", "generate", "continuous"), "engine_decoders"),
    "llamacpp": "engine_llamacpp",
    "openvino": "engine_openvino",
}
PACKAGES = (
    "torch",
    "transformers",
    "llama_cpp_python",
    "openvino",
    "openvino-genai",
    "optimum-intel",
    "lm_eval",
    "minicons",
    "evaluate",
    "lm-polygraph",
)


def peak_bytes() -> int:
    """Largest resident size of this process so far, not of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def versions() -> dict[str, str]:
    """Versions of what is installed here, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def contestant_handler(name: str, folder: Path) -> Handler:
    """Load a contestant; what runs its task, timed."""
    contestant = CONTESTANTS[name]
    decoders = import_module("engine_decoders")
    if contestant.task == "score":
        runner = import_module("engine_scorers").SCORERS[contestant.library](folder, contestant)
    else:
        module = import_module(MODULES[contestant.library])
        runner = module.DECODERS[contestant.library](folder, contestant)

    def handle(request: Request) -> dict[str, Any]:
        prompts = [decoders.Prompt(**one) for one in request["prompts"]]
        given = request.get("new_tokens")
        if contestant.task == "score":
            given = [decoders.Prompt(**one) for one in request["responses"]]
        begin, cpu = time.perf_counter(), time.process_time()
        answers = runner.run(prompts, given)
        spent = {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
        rows = getattr(runner, "rows", contestant.rows)
        seen = {"peak_bytes": peak_bytes(), "rows": rows}
        return {**spent, **seen, "answers": [asdict(one) for one in answers]}

    return handle


def handler(name: str, folder: Path) -> Handler:
    """Find what answers the requests."""
    if name == "judge":
        answer: Handler = import_module("engine_judge").Judge(folder).answer
        return answer
    if name == "machine":
        ceilings = import_module("engine_machine").ceilings
        return lambda _: {"ceilings": ceilings()}
    return contestant_handler(name, folder)


def serve(name: str, folder: Path, requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        handle = handler(name, folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        say({"error": describe(error)})
        return
    say({"ready": True, "versions": versions()})
    for line in requests:
        try:
            say(handle(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - the same
            say({"error": describe(error)})


def describe(error: Exception) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def main() -> None:
    """Keep stdout for answers, then serve."""
    name, folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["OMP_NUM_THREADS"] = threads
    import torch  # noqa: PLC0415 - after the number of threads is set

    torch.set_num_threads(int(threads))
    serve(name, Path(folder), sys.stdin, answers)


if __name__ == "__main__":
    main()
