"""Whole comparisons against a server with planted abilities: how often each verdict comes out.

    nice -n 10 .venv/bin/python benchmarks/coordination_planted.py [--runs 200]

Everything but the models is real: the SDK, HTTP over loopback, the client, the orchestrator, the
records, the statistics. Tasks have one right answer and one wrong one, and a reply is right with a
given chance: `alone` where an agent sees the task only, `together` where it sees what others
answered. With a chance of a half a vote is right half the time, too, whatever it is over: no arm
is better than another. The rate p of R runs is shown with its Clopper-Pearson interval.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cert.coordination.arms import Arrangement, build_arms
from cert.coordination.client import AnthropicClient
from cert.coordination.endpoint import ClientConfig
from cert.coordination.evaluator_parameters import Exact
from cert.coordination.plan import AgentSpec, Decide, Kind, Plan
from cert.coordination.prompts import load_prompts
from cert.coordination.tasks import Task
from cert.runner.coordination_records import describe_plan
from cert.runner.coordination_run import CoordinationJob, run_coordination
from cert.statistics import CoordinationVerdict, VerdictRule, clopper_pearson_interval
from cert.statistics.crossfit import SPLITS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TASKS = 15
REPLICATES = 3


@dataclass(frozen=True)
class World:
    """Chances of a right reply."""

    name: str
    alone: float
    together: float


WORLDS = (
    World("no effect", 0.5, 0.5),
    World("better", 0.5, 0.9),
    World("worse", 0.5, 0.1),
)


@asynccontextmanager
async def served(world: World, seed: int) -> AsyncIterator[str]:
    """A server with /v1/messages; the n-th reply to a prompt follows from seed, n and prompt."""
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["messages"][-1]["content"]
        asked[prompt] += 1
        draw = hashlib.sha256(f"{seed}:{asked[prompt]}:{prompt}".encode()).digest()
        share = world.together if "<data-" in prompt else world.alone
        is_right = int.from_bytes(draw[:4], "big") < share * 2**32
        text = f"ANSWER: {'yes' if is_right else 'no'}"
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": len(prompt) // 4, "output_tokens": 20},
        }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                data = json.dumps(answer(json.loads(await reader.readexactly(size)))).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d"
                    b"\r\n\r\n%b" % (len(data), data)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def compare(world: World, seed: int) -> tuple[str, int]:
    """Run one comparison; returns the verdict and the number of calls."""
    tasks = tuple(
        Task(
            id=f"t{number}",
            group_id=f"t{number}",
            prompt=f"Is statement {number} true?",
            evaluator=Exact(),
            expected=("yes",),
        )
        for number in range(TASKS)
    )
    arrangement = Arrangement(
        strategies=[Kind.PARALLEL],
        agents=(AgentSpec("m", max_tokens=64),) * 3,
        decide=Decide.AGGREGATE,
        replicates=REPLICATES,
    )
    plan = Plan(tasks=tasks, arms=build_arms(arrangement), prompts=load_prompts(), seed=seed)
    async with served(world, seed) as url:
        client = AnthropicClient(ClientConfig(base_url=url))
        endpoint = {"kind": "messages", "models": ["m"], "base_url": url}
        endpoint |= {"api_version": client.api_version, "sdk": f"anthropic {client.sdk_version}"}
        policy = describe_plan(
            plan, VerdictRule(), prices=None, endpoints=[endpoint], splits=SPLITS
        )
        job = CoordinationJob(plan=plan, policy=policy)
        try:
            result: dict[str, Any] = await run_coordination(
                job, client, lambda _record: None, run_id=str(seed)
            )
        finally:
            await client.aclose()
    return result["strategies"][0]["verdict"], result["spend"]["calls"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    print(
        f"anthropic {version('anthropic')}; {TASKS} tasks, k = r = {REPLICATES}, {runs} runs each"
    )
    verdicts = [verdict.value for verdict in CoordinationVerdict]
    print(f"| world | {' | '.join(verdicts)} | calls | calls/s |\n|{'---|' * (len(verdicts) + 3)}")
    for world in WORLDS:
        began, calls = time.monotonic(), 0
        found: Counter[str] = Counter()
        for seed in range(runs):
            verdict, made = asyncio.run(compare(world, seed))
            found[verdict] += 1
            calls += made
        cells = []
        for verdict in verdicts:
            low, high = clopper_pearson_interval(found[verdict], runs)
            cells.append(f"{found[verdict] / runs:.3f} [{low:.3f}, {high:.3f}]")
        rate = calls / (time.monotonic() - began)
        print(f"| {world.name} | {' | '.join(cells)} | {calls} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
