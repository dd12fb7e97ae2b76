"""What following a ledger costs: reading it at first, looking again, a scrape; beside verifying.

.venv/bin/python benchmarks/exporter.py [--records N] [--shape full|small|error]

Each figure is of a process of its own. The counts are compared with those of `json.loads` on every
line; `verify --fast` of the same ledger stands beside, as the peer that reads the same bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

TASKS = Path(__file__).with_name("ledger_tasks.py")
LOOKS = 200


def task(*arguments: object) -> dict[str, Any]:
    """Run a task of the ledger's figures, or one of this file, in a process of its own."""
    file = __file__ if arguments[0] == "follow" else TASKS
    command = [sys.executable, str(file), *map(str, arguments)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def follow(folder: str) -> dict[str, Any]:
    """Read a ledger as `cert serve-metrics` does, then look and scrape without any news."""
    from ledger_tasks import Meter, keys, peak_bytes  # noqa: PLC0415 - the task's own
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - the same

    from cert.service.exporter.exporter import LedgerExporter  # noqa: PLC0415 - the same

    exporter = LedgerExporter({"bench": Path(folder)}, pinned=keys().default().public)
    registry = CollectorRegistry()
    registry.register(exporter)
    meter = Meter()
    exporter.look()
    while exporter.is_behind:
        exporter.look()
    spent = meter.read()
    looks, scrapes = [], []
    for _ in range(LOOKS):
        meter = Meter()
        exporter.look()
        looks.append(meter.read()["wall_s"])
        meter = Meter()
        text = generate_latest(registry)
        scrapes.append(meter.read()["wall_s"])
    kinds = {
        sample.labels["kind"]: int(sample.value)
        for metric in exporter.collect()
        for sample in metric.samples
        if sample.name.endswith("records_by_kind") and sample.value
    }
    return {
        **spent,
        "look_s": statistics.median(looks),
        "scrape_s": statistics.median(scrapes),
        "scrape_bytes": len(text),
        "kinds": kinds,
        "peak_bytes": peak_bytes(),
    }


def count_kinds(folder: str) -> Counter[str]:
    """Count what stands in a ledger, line by line."""
    kinds: Counter[str] = Counter()
    for path in sorted((Path(folder) / "segments").glob("*.jsonl")):
        with path.open("rb") as file:
            kinds.update(json.loads(line)["kind"] for line in file)
    return kinds


def main() -> None:
    """Build, measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--shape", default="full", choices=("full", "small", "error"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"python {platform.python_version()}, prometheus-client {version('prometheus-client')}")
    with tempfile.TemporaryDirectory() as folder:
        ledger = f"{folder}/ledger"
        task("build", given.shape, given.records, ledger)
        size = sum(path.stat().st_size for path in Path(ledger, "segments").iterdir())
        print(f"{given.records} records ({given.shape}), {size / 1e6:.0f} MB")
        ours, peers = [], []
        for _ in range(given.rounds):
            ours.append(task("follow", ledger))
            peers.append(task("verify", "fast", ledger))
        expected = count_kinds(ledger)
        for one in ours:
            if one["kinds"] != expected:
                raise SystemExit(f"other counts: {one['kinds']} and {dict(expected)}")

    def middle(found: list[dict[str, Any]], name: str) -> float:
        return statistics.median(one[name] for one in found)

    mine, other = middle(ours, "cpu_s"), middle(peers, "cpu_s")
    print(f"first reading  {mine:8.2f} CPU s, {size / mine / 1e6:.0f} MB a CPU-second")
    print(f"verify --fast  {other:8.2f} CPU s; ratio {mine / other:.2f}")
    print(f"look, no news  {middle(ours, 'look_s') * 1e3:8.2f} ms")
    print(
        f"scrape         {middle(ours, 'scrape_s') * 1e3:8.2f} ms, {ours[0]['scrape_bytes']} bytes"
    )
    print(f"peak memory    {middle(ours, 'peak_bytes') / 2**20:8.0f} MiB")
    print("counts equal those of json.loads on every line")


if __name__ == "__main__":
    if sys.argv[1:2] == ["follow"]:
        print(json.dumps(follow(sys.argv[2])))
    else:
        main()
