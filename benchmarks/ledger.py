"""Verify, append to and open a ledger; beside bare hashing, the bare disk, and two other programs.

    python benchmarks/ledger.py [--records 1000000] [--rounds 3] [--peers-python PYTHON]

Everything of one table runs in turn, each time in a process of its own; figures are medians of the
rounds. CPU is user and system time of that process, for verifying that of the library call.
`small` records are the least that the schema allows of a measured text (one token scored, one
check, content omitted), `full` ones hold 64 tokens and all content, `error` ones (for `--fast`
only) are about 1.6 KB. The peers verify what they can hold: all of it is in their memory.

Needs about 4 KB of disk a record. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TASKS = HERE / "ledger_tasks.py"
PEER_TASKS = HERE / "ledger_peers.py"
CERT = str(Path(sys.executable).with_name("cert"))
BYTES_A_RECORD = 4000
APPENDED = 50_000
DURABLE = {"1": 1000, "64": 20_000, "256": 50_000}
WRITERS = 8
PEER_RECORDS = 50_000
OMEGA_APPENDED = (250, 500, 1000)
Samples = dict[str, list[dict[str, Any]]]


def run(command: list[str]) -> dict[str, Any]:
    """Run a command to its end: CPU and wall seconds of all of it, and what it printed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu_s, "wall_s": wall_s, "code": done.returncode, "stdout": done.stdout}


def task(*arguments: object, python: str = sys.executable, file: Path = TASKS) -> dict[str, Any]:
    """Run a task, and return what it measured."""
    done = run([python, str(file), *map(str, arguments)])
    if done["code"]:
        raise SystemExit(f"{arguments} ended with {done['code']}")
    result: dict[str, Any] = json.loads(done["stdout"])
    return result


def together(*commands: list[object]) -> dict[str, Any]:
    """Start tasks that wait until all are ready; records, CPU and wall seconds of all."""
    started = [
        subprocess.Popen(
            [sys.executable, str(TASKS), *map(str, one)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in commands
    ]
    for one in started:
        assert one.stdout is not None  # noqa: S101 - it is a pipe
        one.stdout.readline()
    begin, results = time.perf_counter(), []
    for one in started:
        assert one.stdin is not None  # noqa: S101 - it is a pipe
        one.stdin.write("\n")
        one.stdin.flush()
    for one in started:
        assert one.stdout is not None  # noqa: S101 - it is a pipe
        results.append(json.loads(one.stdout.readline()))
    wall_s = time.perf_counter() - begin
    for one in started:
        one.communicate()
    return {
        "records": sum(one["records"] for one in results),
        "cpu_s": sum(one["cpu_s"] for one in results),
        "wall_s": wall_s,
    }


def middle(samples: list[dict[str, Any]], name: str = "cpu_s") -> float:
    """Median of one of their figures."""
    return statistics.median(one[name] for one in samples)


def segments(folder: Path) -> list[str]:
    """Files of a ledger's records."""
    return sorted(map(str, (folder / "segments").glob("*.jsonl")))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one as Markdown."""
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


class Benchmark:
    """One run in one folder."""

    def __init__(self, folder: Path, records: int, rounds: int, peers: str | None) -> None:
        self._folder = folder
        self._records = records
        self._rounds = rounds
        self._peers = peers
        self._sizes = {"small": records, "full": records // 10, "error": records // 4}

    def peer(self, *arguments: object) -> dict[str, Any]:
        """Run a task of the peers."""
        return task(*arguments, python=self._peers or "", file=PEER_TASKS)

    def run(self) -> None:
        """Measure and print everything."""
        self._print_machine()
        self._build()
        self._verify()
        self._append()
        self._append_durably()
        self._open()

    def _print_machine(self) -> None:
        cpuinfo = Path("/proc/cpuinfo").read_text()
        flags = set(re.findall(r"^flags\s*: (.*)$", cpuinfo, re.MULTILINE)[0].split())
        found = re.findall(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
        names = ("sha_ni", "avx2", "avx512f")
        shown = ", ".join(f"{one} {'yes' if one in flags else 'no'}" for one in names)
        print(f"{os.cpu_count()} x {found[0]} ({shown}), load {os.getloadavg()[0]:.1f}")
        print(f"Python {platform.python_version()}, ", end="")
        for command in (["sha256sum", "--version"], ["openssl", "version"]):
            print(run(command)["stdout"].decode().splitlines()[0], end=", ")
        print(self.peer("versions") if self._peers else "peers not measured: no --peers-python")

    def _build(self) -> None:
        rows = []
        for name, count in self._sizes.items():
            spent = task("build", name, count, self._folder / name)
            size = sum(Path(one).stat().st_size for one in segments(self._folder / name))
            rows.append(
                [name, f"{count:,}", f"{size / count:,.0f}", f"{count / spent['cpu_s']:,.0f}"]
            )
        for part in (100, 10):
            task("build", "small", self._records // part, self._folder / f"small-{part}")
        for name in ("small", "full"):
            task("bodies", name, APPENDED, self._folder / f"{name}.jsonl")
        columns = ["records", "number", "bytes each", "built, encoded, appended a CPU-second"]
        table("The ledgers", columns, rows)

    def _verify(self) -> None:
        samples: Samples = defaultdict(list)
        for _ in range(self._rounds):
            for name in self._sizes:
                folder = self._folder / name
                samples[f"sha256sum {name}"].append(run(["sha256sum", *segments(folder)]))
                samples[f"openssl {name}"].append(
                    run(["openssl", "dgst", "-sha256", *segments(folder)])
                )
                samples[f"fast {name}"].append(task("verify", "fast", folder))
                if name != "error":
                    samples[f"deep {name}"].append(task("verify", "deep", folder))
        rows = []
        for name, count in self._sizes.items():
            bare = {one: middle(samples[f"{one} {name}"]) for one in ("sha256sum", "openssl")}
            for one in ("sha256sum", "openssl", "fast", "deep"):
                found = samples.get(f"{one} {name}")
                if not found:
                    continue
                cpu_s = middle(found)
                least_s = min(sample["cpu_s"] for sample in found)
                rows.append(
                    [
                        f"{one}, {name}",
                        f"{cpu_s:.2f}",
                        f"{middle(found, 'wall_s'):.2f}",
                        f"{cpu_s / count * 1e6:.2f}",
                        f"{least_s / count * 1e6:.2f}",
                        f"{cpu_s / bare['sha256sum']:.2f}",
                        f"{cpu_s / bare['openssl']:.2f}",
                        str(found[0].get("state", "")),
                    ]
                )
        columns = ["", "CPU s", "wall s", "CPU us a record", "least", "sha256sum", "openssl", ""]
        table("Verifying", columns, rows)
        self._print_memory(samples)
        self._print_startup()
        self._verify_edited()
        if self._peers:
            self._verify_by_peers()

    def _print_memory(self, samples: Samples) -> None:
        rows = []
        for how in ("fast", "deep"):
            peaks = [task("verify", how, self._folder / f"small-{one}") for one in (100, 10)]
            peaks.append(samples[f"{how} small"][0])
            rows.append([how, *(f"{one['peak_bytes'] / 1e6:.1f}" for one in peaks)])
        sizes = [f"{self._records // one:,} records" for one in (100, 10, 1)]
        table("Peak memory of verifying, MB", ["", *sizes], rows)

    def _print_startup(self) -> None:
        key = self._folder / "public.pem"
        task("key", key)
        folder = self._folder / "empty"
        task("build", "small", 1, folder)
        rows = []
        for how in ("--fast", "--deep"):
            command = [CERT, "verify", str(folder), "--key", str(key), how, "--quiet"]
            found = [run(command) for _ in range(2 * self._rounds + 1)]
            rows.append([how, f"{middle(found):.2f}", f"{middle(found, 'wall_s'):.2f}"])
        table("`cert verify` of one record: start-up", ["", "CPU s", "wall s"], rows)

    def _verify_edited(self) -> None:
        folder = self._folder / "edited"
        shutil.copytree(self._folder / "small-100", folder)
        line = _edit(Path(segments(folder)[0]), b'"tokens":1', b'"tokens":2')
        for how in ("fast", "deep"):
            found = task("verify", how, folder)
            print(f"\nAn edited record at line {line}: {how} says {found['state']} at line "
                  f"{found['line']}.")  # fmt: skip
            if found["line"] != line:
                raise SystemExit("it was not found where it is")

    def _verify_by_peers(self) -> None:
        count = min(PEER_RECORDS, self._records)
        file = self._folder / "peers.jsonl"
        task("bodies", "small", count, file)
        targets = {"omega": self._folder / "omega.jsonl", "ai": self._folder / "ai.jsonl"}
        self.peer("omega_build", file, targets["omega"])
        self.peer("ai_append", file, targets["ai"])
        samples: Samples = defaultdict(list)
        ours = self._folder / "ours"
        task("build", "small", count, ours)
        for _ in range(self._rounds):
            for how in ("fast", "deep"):
                samples[f"cert, {how}"].append(task("verify", how, ours))
            for name, target in targets.items():
                samples[name].append(self.peer(f"{name}_verify", target))
        rows = [
            [
                name,
                f"{middle(found) / count * 1e6:.2f}",
                f"{middle(found, 'peak_bytes') / 1e6:.0f}",
            ]
            for name, found in samples.items()
        ]
        table(f"Peers, {count:,} records", ["", "CPU us a record", "peak MB"], rows)
        for name, target in targets.items():
            if not all(one["is_valid"] for one in samples[name]):
                raise SystemExit(f"{name} does not hold its own file valid")
            _edit(target, b'"tokens":1', b'"tokens":2')
            is_valid = self.peer(f"{name}_verify", target)["is_valid"]
            print(f"\nAn edited record: {name} says {'valid' if is_valid else 'invalid'}.")

    def _append(self) -> None:
        samples: Samples = defaultdict(list)
        for turn in range(self._rounds):
            for name in ("small", "full"):
                file = self._folder / f"{name}.jsonl"
                for size in ("1", "64", "256"):
                    target = self._folder / f"buffered-{name}-{size}-{turn}"
                    samples[f"{name}, groups of {size}"].append(
                        together(["append", "buffered", size, file, target])
                    )
                    shutil.rmtree(target)
        rows = [
            [name, f"{APPENDED / middle(found):,.0f}", f"{middle(found) / APPENDED * 1e6:.1f}"]
            for name, found in samples.items()
        ]
        columns = ["buffered", "records a CPU-second", "CPU us a record"]
        table("Appending encoded records", columns, rows)
        if self._peers:
            self._append_by_peers()

    def _append_by_peers(self) -> None:
        rows = []
        for count in OMEGA_APPENDED:
            file = self._folder / f"omega-{count}.in"
            task("bodies", "small", count, file)
            found = self.peer("omega_append", file, self._folder / f"omega-{count}.out")
            rows.append([f"omega-audit, {count} to an empty file", _rate(found, "cpu_s")])
        found = self.peer("ai_append", self._folder / "peers.jsonl", self._folder / "ai.out")
        rows.append(["ai-audit-trail, to memory only", _rate(found, "cpu_s")])
        table("Peers: appending", ["", "records a CPU-second"], rows)

    def _append_durably(self) -> None:
        samples: Samples = defaultdict(list)
        for turn in range(self._rounds):
            for size, count in DURABLE.items():
                file = self._folder / f"durable-{size}.jsonl"
                if not turn:
                    task("bodies", "small", count, file)
                    task("bodies", "small", count // WRITERS, f"{file}.part")
                folder = self._folder / f"durable-{size}-{turn}"
                one = ["append", "durable", size]
                several: list[list[object]] = [[*one, f"{file}.part", f"{folder}-p"]] * WRITERS
                kinds: dict[str, list[list[object]]] = {
                    "disk alone": [["disk", size, file, f"{folder}.raw"]],
                    "1 writer": [[*one, file, folder]],
                    f"{WRITERS} processes": several,
                    f"{WRITERS} threads": [["threads", WRITERS, size, file, f"{folder}-t"]],
                }
                for kind, commands in kinds.items():
                    samples[f"{kind}, groups of {size}"].append(together(*commands))
                for made in (folder, f"{folder}-p", f"{folder}-t"):
                    shutil.rmtree(made)
        rows = [
            [name, _rate_of(found, "wall_s"), _rate_of(found, "cpu_s")]
            for name, found in samples.items()
        ]
        columns = ["durable (written and synced)", "records a second", "records a CPU-second"]
        table("Appending durably", columns, rows)

    def _open(self) -> None:
        folder = self._folder / "small"
        clean = [task("open", folder) for _ in range(2 * self._rounds + 1)]
        run([sys.executable, str(TASKS), "kill", str(folder)])
        killed = [task("open", folder) for _ in range(2 * self._rounds + 1)]
        rows = [
            [
                name,
                f"{middle(found, 'wall_s') * 1e3:.1f}",
                f"{middle(found) * 1e3:.1f}",
                f"{found[0]['bytes_read']:,}",
                f"{found[0]['records']:,}",
            ]
            for name, found in (
                ("closed", clean),
                ("killed, 1,000 records after the checkpoint", killed),
            )
        ]
        columns = ["", "wall ms", "CPU ms", "bytes read", "records"]
        table("Opening to append", columns, rows)


def _rate(found: dict[str, Any], name: str) -> str:
    return f"{found['records'] / found[name]:,.0f}"


def _rate_of(found: list[dict[str, Any]], name: str) -> str:
    return f"{found[0]['records'] / middle(found, name):,.0f}"


def _edit(file: Path, old: bytes, new: bytes) -> int:
    """Change one line in the middle of a file; its number."""
    data = file.read_bytes()
    at = data.index(old, len(data) // 2)
    file.write_bytes(data[:at] + new + data[at + len(old) :])
    return data.count(b"\n", 0, at) + 1


def main() -> None:
    """Parse, look for room, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers-python", help="a Python with ai-audit-trail and omega-audit")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cert-ledger-", dir=given.folder) as name:
        needed, free = given.records * BYTES_A_RECORD + (1 << 30), shutil.disk_usage(name).free
        if free < needed:
            raise SystemExit(
                f"{name} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; "
                "name another place with --folder, or fewer --records"
            )
        Benchmark(Path(name), given.records, given.rounds, given.peers_python).run()


if __name__ == "__main__":
    main()
