from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination.baseline import (
    Environment,
    baseline_key,
    recall_baselines,
    remember_baseline,
)
from cert.coordination.baseline_store import BaselineError, SqliteBaselines
from cert.coordination.plan import AgentSpec, Kind, Plan
from cert.coordination.prompts import Prompts, Template
from cert.coordination.protocol import Attempt, Call, Reply, StopReason, Usage
from cert.coordination.reply_json import ReplyFormatError, build_reply_json, parse_reply_json
from tests.coordination.helpers import (
    PROMPTS,
    FakeAgent,
    arm,
    failure,
    full_plan,
    plan,
    reply,
    run,
    task,
)

ROOT = Path(__file__).resolve().parents[2]
HERE = Environment("anthropic 2.14.0", "2026-10-21", "https://example.invalid", {"seed": 1})
FULL = Reply(
    text="ANSWER: \u00e9\u4e2d\U0001f600",
    stop_reason=StopReason.STOP_SEQUENCE,
    usage=Usage(1, 2, 3, 4),
    model="m-1",
    message_id="msg_1",
    attempts=(Attempt(529, "OverloadedError", 0.25, 1.5, "req_1"), Attempt(200, None, 0.1)),
    latency_s=1.85,
    rate_limits={"requests-remaining": "3"},
    signals={"perplexity": 1.25, "nested": {"tokens": [1, 2]}},
)


class InMemory:
    """The same interface without a file."""

    def __init__(self) -> None:
        self.kept: dict[str, Reply] = {}

    def get(self, key: str) -> Reply | None:
        return self.kept.get(key)

    def put(self, key: str, reply: Reply) -> None:
        self.kept.setdefault(key, reply)


async def filled(chosen: Plan, environment: Environment = HERE) -> InMemory:
    baselines = InMemory()
    done = await run(chosen, FakeAgent(lambda call: f"{call.key}\nANSWER: 1"))
    for call in done.calls:
        is_kept = remember_baseline(chosen, call, baselines, environment)
        assert is_kept is call.call.key.split("/")[1].startswith("single")
    return baselines


async def test_a_second_run_pays_for_the_others_only() -> None:
    chosen = full_plan()
    baselines = await filled(chosen)
    first = await run(chosen, FakeAgent(lambda call: f"{call.key}\nANSWER: 1"))
    agent = FakeAgent(lambda call: f"{call.key}\nANSWER: 1")
    known = recall_baselines(chosen, baselines, HERE)
    assert len(known) == 3 * 2
    again = await run(chosen, agent, past=known)
    assert not [key for key in agent.keys if "/single/" in key]
    assert again.replicates == first.replicates


async def test_baselines_serve_another_comparison() -> None:
    baselines = await filled(plan(arm(Kind.DEBATE, agents=2), tasks=3))
    other = plan(arm(Kind.SEQUENTIAL, agents=2), tasks=4, seed=9)
    assert len(recall_baselines(other, baselines, HERE)) == 3


def changes() -> dict[str, tuple[Plan, Environment]]:
    one = plan()
    single = one.arms[0]
    agent = single.agents[0]

    def with_agent(spec: AgentSpec) -> Plan:
        return replace(one, arms=(replace(single, agents=(spec,)),))

    def with_prompt(name: str, text: str, version: int = 2) -> Plan:
        template = Template(name, version, text)
        return replace(one, prompts=Prompts({**PROMPTS.templates, name: template}))

    solve = PROMPTS["solve"].user
    return {
        "prompt of the task": (replace(one, tasks=(task(prompt="x"),)), HERE),
        "expected": (replace(one, tasks=(task(expected=("9",)),)), HERE),
        "id": (replace(one, tasks=(task(id="x"),)), HERE),
        "model": (with_agent(replace(agent, model="x")), HERE),
        "max_tokens": (with_agent(replace(agent, max_tokens=7)), HERE),
        "solve": (with_prompt("solve", f"{solve}!"), HERE),
        "version of solve": (with_prompt("solve", solve), HERE),
        "form": (with_prompt("answer_line", "ANSWER: x"), HERE),
        "name": (replace(one, arms=(replace(single, name="alone"),)), HERE),
        "sdk": (one, replace(HERE, sdk="anthropic 2.14.1")),
        "api_version": (one, replace(HERE, api_version="2023-06-01")),
        "base_url": (one, replace(HERE, base_url="http://127.0.0.1:8000")),
        "parameters": (one, replace(HERE, parameters={"seed": 2})),
        "more parameters": (one, replace(HERE, parameters={"seed": 1, "top_k": 1})),
    }


@pytest.mark.parametrize("name", changes())
async def test_a_change_of_anything_makes_it_another_baseline(name: str) -> None:
    baselines = await filled(plan())
    assert len(recall_baselines(plan(), baselines, HERE)) == 1
    chosen, environment = changes()[name]
    assert recall_baselines(chosen, baselines, environment) == {}


async def test_a_time_limit_is_no_change() -> None:
    one = plan()
    baselines = await filled(one)
    single = one.arms[0]
    spec = replace(single.agents[0], timeout_s=1.0)
    slower = replace(one, arms=(replace(single, agents=(spec,)),))
    assert len(recall_baselines(slower, baselines, HERE)) == 1


async def test_replicates_are_kept_apart() -> None:
    chosen = plan(arm(Kind.SINGLE, replicates=3))
    baselines = await filled(chosen)
    known = recall_baselines(chosen, baselines, HERE)
    texts = {
        key: past.outcome.text for key, past in known.items() if isinstance(past.outcome, Reply)
    }
    assert texts == {key: f"{key}\nANSWER: 1" for key in known}
    assert len(texts) == 3


async def test_failed_calls_are_not_kept() -> None:
    def fails(_call: Call) -> Reply:
        raise failure()

    baselines = InMemory()
    done = await run(plan(), FakeAgent(fails))
    assert not remember_baseline(plan(), done.calls[0], baselines, HERE)
    other = plan(tasks=(task(7),))
    done = await run(plan(), FakeAgent(lambda _call: "ANSWER: 1"))
    assert not remember_baseline(other, done.calls[0], baselines, HERE)
    assert baselines.kept == {}


def test_a_reply_is_read_as_it_was_written() -> None:
    assert parse_reply_json(build_reply_json(FULL)) == FULL
    plain = reply("x")
    assert parse_reply_json(build_reply_json(plain)) == plain


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    one = reply(text)
    assert parse_reply_json(build_reply_json(one)) == one


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"text": 1}', b"\xff"])
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    with pytest.raises(ReplyFormatError):
        parse_reply_json(data)
    with pytest.raises(ReplyFormatError):
        parse_reply_json(build_reply_json(FULL).replace(b'"model"', b'"modell"'))


@pytest.mark.parametrize("bad", [reply("\ud800"), replace(FULL, signals={"a": object()})])
def test_what_is_no_json_is_an_error(bad: Reply) -> None:
    with pytest.raises(ReplyFormatError):
        build_reply_json(bad)


def test_the_file_keeps_the_first_reply_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "baselines.sqlite"
    with SqliteBaselines(path) as baselines:
        assert baselines.get("a") is None
        baselines.put("a", FULL)
        baselines.put("a", reply("another"))
        assert baselines.get("a") == FULL
        with SqliteBaselines(path) as other:
            assert other.get("a") == FULL
            other.put("b", reply("b"))
        assert baselines.get("b") == reply("b")
    assert path.stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in tmp_path.iterdir()} == {"baselines.sqlite"}


PROGRAM = """
import sys
from pathlib import Path
from cert.coordination.baseline_store import SqliteBaselines
from cert.coordination.protocol import Reply, StopReason, Usage
name = sys.argv[2]
with SqliteBaselines(Path(sys.argv[1])) as baselines:
    for number in range(20):
        reply = Reply(text=name, stop_reason=StopReason.END_TURN, usage=Usage(1, 1), model="m")
        baselines.put(f"shared {number}", reply)
        baselines.put(f"{name} {number}", reply)
        print(baselines.get(f"shared {number}").text, flush=True)
"""


def test_processes_that_write_at_the_same_time_agree(tmp_path: Path) -> None:
    path = tmp_path / "baselines.sqlite"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b", "c")
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert said[0] == said[1] == said[2]
    assert len(said[0]) == 20
    with SqliteBaselines(path) as baselines:
        for name in ("a", "b", "c"):
            kept = baselines.get(f"{name} 19")
            assert kept is not None
            assert kept.text == name


def test_a_damaged_row_is_never_a_reply(tmp_path: Path) -> None:
    path = tmp_path / "baselines.sqlite"
    with SqliteBaselines(path) as baselines:
        baselines.put("a", FULL)
        baselines.put("b", reply("b"))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE baselines SET reply = replace(reply, 'm-1', 'm-2') WHERE key = 'a'")
        raw.execute("UPDATE baselines SET key = 'c' WHERE key = 'b'")
    raw.close()
    with SqliteBaselines(path) as baselines:
        for key in ("a", "c"):
            with pytest.raises(BaselineError, match="damaged") as raised:
                baselines.get(key)
            assert str(path) in (raised.value.hint or "")


def test_a_row_of_another_format_is_an_error(tmp_path: Path) -> None:
    from cert.coordination.baseline_store import _checksum

    path = tmp_path / "baselines.sqlite"
    with SqliteBaselines(path):
        pass
    with sqlite3.connect(path) as raw:
        data = b'{"text": "x"}'
        raw.execute("INSERT INTO baselines VALUES ('a', ?, ?)", (data, _checksum("a", data)))
    raw.close()
    with SqliteBaselines(path) as baselines, pytest.raises(BaselineError, match="damaged"):
        baselines.get("a")


@pytest.mark.parametrize("kind", ["folder", "link", "hard link", "text", "other table", "view"])
def test_what_is_no_such_file_is_not_used(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "baselines.sqlite"
    other = tmp_path / "other"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        SqliteBaselines(other).close()
        path.symlink_to(other)
    elif kind == "hard link":
        SqliteBaselines(other).close()
        path.hardlink_to(other)
    elif kind == "text":
        path.write_text("not a database, whatever its name says\n" * 100)
    else:
        statement = {
            "other table": "CREATE TABLE baselines(x)",
            "view": "CREATE VIEW baselines AS SELECT 1 AS key, 2 AS reply, 3 AS checksum",
        }[kind]
        with sqlite3.connect(path) as raw:
            raw.execute(statement)
        raw.close()
    with pytest.raises(BaselineError), SqliteBaselines(path) as baselines:
        baselines.get("a")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="No such file"):
        SqliteBaselines(tmp_path / "none" / "baselines.sqlite")


def test_a_writer_that_does_not_let_go_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "baselines.sqlite"
    with SqliteBaselines(path, timeout_s=0.05) as baselines:
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(BaselineError, match="locked"):
            baselines.put("a", FULL)
        raw.execute("ROLLBACK")
        raw.close()
        baselines.put("a", FULL)
        assert baselines.get("a") == FULL


def test_the_key_is_a_digest() -> None:
    call = Call(key="t0/single/0/0/0", model="m", messages=())
    key = baseline_key(plan(), task(), call, HERE)
    assert key.startswith("sha256:")
    assert "example.invalid" not in key
