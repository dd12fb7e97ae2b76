"""`cert coordinate`: planted effects, stops, resumption, refusals, and what is left as evidence."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cert.evidence.deep import DeepCheck
from cert.evidence.overview import load_overview
from cert.ledger.findings import State
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from tests.cli.helpers import records_of
from tests.cli.ledgers import own_keys
from tests.cli.messages_server import Ability, MessagesServer, error, message, write_tasks
from tests.cli.test_ledger_runs import check, kinds, records_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.helpers import Processes, Program, Ran

pytest.importorskip("anthropic")

LEDGER = ("--ledger", "ledger")
FEW = ("--replicates", "1", "--agents", "2", *LEDGER)
KEY = "sk-ant-api03-PLANTED0123456789abcdef"


@pytest.fixture
def tasks(folder: Path) -> Path:
    return write_tasks(folder / "tasks.jsonl", 12)


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer(Ability(0.5, 0.5)) as running:
        yield running


def coordinate(cert: Program, server: MessagesServer, *more: str | Path) -> Ran:
    return cert(
        "coordinate",
        "tasks.jsonl",
        "-m",
        "m",
        "--base-url",
        server.url,
        "--concurrency",
        "1",
        *more,
    )


def result_of(ran: Ran) -> dict[str, Any]:
    assert ran.records[-1]["kind"] == "coordination"
    found: dict[str, Any] = ran.records[-1]["coordination"]
    return found


@pytest.mark.parametrize(
    ("alone", "together", "verdict", "code"),
    [
        (0.35, 0.95, "beneficial", 0),
        (0.7, 0.1, "harmful", 1),
        (0.5, 0.5, "inconclusive", 3),
        (0.0, 0.0, "undefined", 3),
    ],
)
def test_what_was_planted_comes_out(  # noqa: PLR0917 - the effect and what it becomes
    cert: Program,
    tasks: Path,
    folder: Path,
    alone: float,
    together: float,
    verdict: str,
    code: int,
) -> None:
    assert tasks.exists()
    with MessagesServer(Ability(alone, together)) as server:
        ran = coordinate(cert, server, *LEDGER, "--replicates", "2")
    assert ran.code == code, ran.err
    (strategy,) = result_of(ran)["strategies"]
    assert strategy["name"] == "debate"
    assert strategy["verdict"] == verdict, strategy
    check(folder / "ledger")
    begin, end = (one for one in records_in(folder / "ledger") if one["kind"] == "run")
    assert begin["run"]["command"] == "coordinate"
    assert end["run"]["exit_code"] == code
    assert sum(end["run"]["counts"].values()) == 1
    (shown,) = load_overview(FolderReader(folder / "ledger")).runs
    assert (shown.command, shown.counts, shown.exit_code) == (
        "coordinate",
        end["run"]["counts"],
        code,
    )


def test_the_plan_is_registered_before_the_first_call_and_each_call_before_its_replicate(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    ran = coordinate(cert, server, *FEW, "--limit", "3", "-o", "out.jsonl", "--seed", "9")
    assert ran.code == 3, ran.err
    found = kinds(folder / "ledger")
    assert found[:4] == ["genesis", "policy", "run begin", "call"]
    assert found[-2:] == ["coordination", "run end"]
    records = records_in(folder / "ledger")
    policy = records[1]["policy"]
    assert policy["plan"]["seed"] == 9
    assert [one["id"] for one in policy["plan"]["tasks"]] == ["sum-0", "sum-1", "sum-2"]
    (endpoint,) = policy["endpoints"]
    assert endpoint["kind"] == "messages"
    assert endpoint["base_url"] == server.url
    known = set()
    for record in records:
        if record["kind"] == "call":
            known.add(record["call"]["key"])
        elif record["kind"] == "replicate":
            assert set(record["replicate"]["calls"]) <= known
    assert len(known) == len(server.bodies)
    assert (folder / "out.jsonl").read_bytes().decode() == ran.out
    assert tasks.exists()


def test_a_table_and_a_sentence_for_people(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    ran = coordinate(cert, server, *FEW, "--format", "human", "-o", "human:view.txt")
    assert ran.code == 3, ran.err
    assert "INCONCLUSIVE  debate" in ran.out
    assert "debate.self_consistency" in ran.out
    assert "nothing can be concluded of debate, neither that it helps nor that it does harm" in (
        ran.out
    )
    assert "no prices given" in ran.out
    assert (folder / "view.txt").read_text().strip() == ran.out.strip()
    assert tasks.exists()


def test_several_models_and_strategies(cert: Program, server: MessagesServer, tasks: Path) -> None:
    ran = coordinate(
        cert,
        server,
        *("-m", "n", "--strategy", "parallel", "--strategy", "sequential", "--limit", "4"),
        *("--replicates", "1", "--self-refine", "--placebo", *LEDGER),
    )
    assert ran.code == 3, ran.err
    result = result_of(ran)
    assert [one["name"] for one in result["strategies"]] == ["parallel", "sequential"]
    assert [one["name"] for one in result["arms"]] == [
        "single",
        "parallel",
        "parallel.self_consistency",
        "parallel.self_refine",
        "parallel.placebo",
        "sequential",
        "sequential.self_consistency",
        "sequential.self_refine",
        "sequential.placebo",
    ]
    assert {body["model"] for body in server.bodies} == {"m", "n"}
    assert tasks.exists()


def test_a_budget_stops_the_run_and_more_of_it_goes_on(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    (folder / "prices.yaml").write_text(
        "models:\n  m: {input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}\n"
    )
    arguments = (*FEW, "--limit", "4", "--max-tokens", "20", "--prices", "prices.yaml")
    stopped = coordinate(cert, server, *arguments, "--max-usd", "2", "-o", "out.jsonl")
    assert stopped.code == 4, stopped.err
    assert "the budget of 2" in stopped.err
    assert "the same command goes on from there" in stopped.err
    asked = len(server.bodies)
    assert asked
    again = coordinate(cert, server, *arguments, "--max-usd", "1000", "-o", "out.jsonl")
    assert again.code == 3, again.err
    assert f"going on with run {records_in(folder / 'ledger')[2]['run_id']}" in again.err
    check(folder / "ledger")
    keys = [one["call"]["key"] for one in records_of(folder / "out.jsonl") if "call" in one]
    answered = [
        one["call"]["key"]
        for one in records_of(folder / "out.jsonl")
        if "call" in one and one["call"]["reply"]
    ]
    assert len(answered) == len(set(answered)) == len(server.bodies)
    assert len(keys) > len(answered)  # those that the budget refused stand there, too
    spend = result_of(again)["spend"]
    usd = sum(
        one["call"]["cost_usd"]
        for one in records_of(folder / "out.jsonl")
        if "call" in one and one["call"]["cost_usd"] is not None
    )
    assert spend["cost_usd"] == pytest.approx(usd, rel=1e-12)
    assert tasks.exists()


def test_what_was_spent_before_counts_in_the_budget_of_the_rest(
    cert: Program, server: MessagesServer, tasks: Path
) -> None:
    arguments = (*FEW, "--limit", "4", "--max-tokens", "20", "--max-total-tokens")
    assert coordinate(cert, server, *arguments, "1500").code == 4
    asked = len(server.bodies)
    assert asked
    again = coordinate(cert, server, *arguments, "1500")
    assert again.code == 4, again.err
    assert len(server.bodies) == asked
    assert tasks.exists()


def test_without_key_and_server_both_ways_are_shown(
    cert: Program, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    ran = cert("coordinate", tasks, "-m", "anthropic:some-model", "--no-ledger")
    assert ran.code == 2
    assert "ANTHROPIC_API_KEY" in ran.err
    assert "--base-url" in ran.err


def test_the_key_goes_where_it_belongs_and_nowhere_else(
    cert: Program,
    server: MessagesServer,
    tasks: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert coordinate(cert, server, *FEW, "--limit", "2").code == 3
    assert not any("authorization" in one or "x-api-key" in one for one in server.headers)
    (folder / "key").write_text(f"{KEY}2\n")
    arguments = ("--api-key-file", "key", "--limit", "3", "--api-version", "2023-06-01")
    ran = coordinate(cert, server, *FEW, *arguments)
    assert ran.code == 3, ran.err
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}2"
    assert server.headers[-1]["anthropic-version"] == "2023-06-01"
    assert KEY not in ran.out + ran.err
    assert KEY not in "".join(map(json.dumps, records_in(folder / "ledger")))
    assert tasks.exists()


@pytest.mark.parametrize(
    ("status", "kind", "code"), [(401, "authentication_error", 6), (404, "not_found_error", 6)]
)
def test_what_no_call_can_survive_ends_the_run_after_one(  # noqa: PLR0917 - the fault
    cert: Program, tasks: Path, folder: Path, status: int, kind: str, code: int
) -> None:
    with MessagesServer(lambda _: (status, error(kind), {})) as server:
        ran = coordinate(cert, server, *FEW)
    assert ran.code == code, ran.err
    assert len(server.bodies) == 1
    assert kinds(folder / "ledger")[-2:] == ["call", "run interrupted"]
    assert "Traceback" not in ran.err
    assert tasks.exists()


def test_a_wait_beyond_the_limit_is_for_another_day(
    cert: Program, tasks: Path, folder: Path
) -> None:
    ability = Ability(0.5, 0.5)
    is_busy = [True]

    def answer(body: dict[str, Any]) -> Any:  # noqa: ANN401 - one of three forms
        if is_busy[0] and len(server.bodies) == 5:
            return 429, error("rate_limit_error"), {"retry-after": "86400"}
        return ability(body)

    with MessagesServer(answer) as server:
        ran = coordinate(cert, server, *FEW, "--limit", "3")
        assert ran.code == 4, ran.err
        assert len(server.bodies) == 5
        is_busy[0] = False
        again = coordinate(cert, server, *FEW, "--limit", "3")
    assert again.code == 3, again.err
    check(folder / "ledger")
    answered = [c for c in records_in(folder / "ledger") if "call" in c and c["call"]["reply"]]
    assert len(answered) == len({c["call"]["key"] for c in answered}) == len(server.bodies) - 1
    assert tasks.exists()


def test_a_single_agents_replies_are_used_again(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    arguments = (*FEW, "--limit", "3", "--baselines", "kept.sqlite")
    first = coordinate(cert, server, *arguments)
    asked = len(server.bodies)
    again = coordinate(cert, server, *arguments)
    assert len(server.bodies) == 2 * asked - 3
    spend = result_of(again)["spend"]
    assert spend["reused_calls"] == 3
    assert spend["calls"] == asked - 3
    alone = [result_of(ran)["arms"][0]["score"] for ran in (first, again)]
    assert alone[0] == alone[1]
    check(folder / "ledger")
    assert tasks.exists()


def test_content_can_be_left_out_but_then_nothing_is_gone_on_with(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    arguments = (*FEW, "--limit", "3", "--content", "omitted")
    done = coordinate(cert, server, *arguments)
    assert done.code == 3, done.err
    check(folder / "ledger")
    text = "".join(map(json.dumps, records_in(folder / "ledger")))
    assert "ANSWER" not in text
    assert "What is" not in text
    stopped = coordinate(cert, server, *arguments, "--seed", "2", "--max-total-tokens", "300")
    assert stopped.code == 4
    again = coordinate(cert, server, *arguments, "--seed", "2", "--max-total-tokens", "300")
    assert again.code == 2
    assert "--resume never" in again.err
    assert coordinate(cert, server, *arguments, "--seed", "2", "--resume", "never").code == 3
    assert tasks.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--content", "committed"), "committed"),
        (("--agents", "3", "-m", "n"), "2 models for 3 agents"),
        (("--judge", "j", "--judge", "j"), "each once"),
        (("--prices", "missing.yaml"), "missing.yaml"),
        (("--max-usd", "1"), "needs prices"),
        (("--prompts", "missing"), "missing"),
        (("--api-key-file", "missing"), "missing"),
        (("--matched", "best_of_n"), "cannot be judged without its answer"),
        (("-o", "tasks.jsonl"), "input and output"),
        (("--api-version", "a b"), "API version"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(
    cert: Program,
    server: MessagesServer,
    tasks: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    ran = coordinate(cert, server, "--no-ledger", *arguments)
    assert ran.code == 2, (ran.out, ran.err)
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert not server.bodies
    assert tasks.exists()


def test_a_model_without_a_price_is_found_before_anything_is_asked(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    (folder / "prices.yaml").write_text(
        "models:\n  other: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}\n"
    )
    ran = coordinate(cert, server, *LEDGER, "--prices", "prices.yaml")
    assert ran.code == 2
    assert "no price for the model m" in ran.err
    assert not (folder / "ledger").exists()
    assert tasks.exists()


def test_a_plan_that_nobody_could_verify_is_refused(
    cert: Program, server: MessagesServer, folder: Path
) -> None:
    write_tasks(folder / "tasks.jsonl", 400)
    ran = coordinate(cert, server, "--replicates", "1000", "--no-ledger")
    assert ran.code == 2
    assert "1200000 replicates are planned" in ran.err
    assert not server.bodies


def test_a_server_without_a_model_is_asked_nothing(cert: Program, tasks: Path) -> None:
    ran = cert("coordinate", tasks, "--base-url", "http://127.0.0.1:9", "--no-ledger")
    assert ran.code == 2
    assert "-m" in ran.err


def test_a_line_that_is_no_task_ends_it(cert: Program, folder: Path) -> None:
    rows = [b'{"id": "a", "prompt": "x", "label": "1", "evaluator": "exact"}', *[b"{}"] * 12]
    (folder / "bad.jsonl").write_bytes(b"\n".join(rows))
    ran = cert("coordinate", "bad.jsonl", "--no-ledger")
    assert ran.code == 2
    assert "12 lines are no task" in ran.err
    assert "bad.jsonl:2" in ran.err
    assert "and 2 more" in ran.err


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_no_task_is_nothing_audited(cert: Program, folder: Path, data: bytes) -> None:
    (folder / "none.jsonl").write_bytes(data)
    ran = cert("coordinate", "none.jsonl", "--no-ledger")
    assert ran.code == 7, ran.err


def test_tasks_for_models_to_judge_need_a_judge(cert: Program, folder: Path) -> None:
    row = {
        "id": "a",
        "prompt": "x",
        "evaluator": {"name": "judge", "rubric": [{"id": "clear", "text": "Is it clear?"}]},
    }
    (folder / "free.jsonl").write_text(json.dumps(row))
    ran = cert("coordinate", "free.jsonl", "--no-ledger")
    assert ran.code == 2
    assert "--judge" in ran.err


def test_a_dry_run_asks_nothing_and_says_what_it_would_take(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    (folder / "prices.yaml").write_text(
        "models:\n  m: {input_usd_per_mtok: 1, output_usd_per_mtok: 5}\n"
    )
    ran = coordinate(cert, server, "--dry-run", "--prices", "prices.yaml", *LEDGER)
    assert ran.code == 0, ran.err
    assert not server.bodies
    assert not (folder / "ledger").exists()
    for words in ("12 tasks", "single", "36", "USD", "smallest effect"):
        assert words in ran.out, ran.out
    assert tasks.exists()


@pytest.mark.parametrize("text", ['{"kind":"other"}\n', "half a line"])
def test_an_output_of_something_else_is_not_written_to(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path, text: str
) -> None:
    (folder / "out.jsonl").write_text(text)
    ran = coordinate(cert, server, *FEW, "-o", "out.jsonl")
    assert ran.code == 2
    assert "holds no beginning of this run" in ran.err
    assert (folder / "out.jsonl").read_text() == text
    assert sorted(one.name for one in folder.glob("out*")) == ["out.jsonl"]
    assert not server.bodies
    assert tasks.exists()


def test_a_model_of_this_process_answers_with_its_signals(
    cert: Program, tasks: Path, folder: Path
) -> None:
    ran = cert("coordinate", tasks, "-m", "reference", "--limit", "3", *FEW)
    assert ran.code == 3, ran.err
    calls = [one["call"] for one in ran.records if one["kind"] == "call"]
    assert all(one["reply"]["signals"]["tokens"] for one in calls)
    assert "`reference` is there to try the tool" in ran.err
    policy = records_in(folder / "ledger")[1]["policy"]
    assert policy["endpoints"][0]["kind"] == "local"
    check(folder / "ledger")
    again = cert("coordinate", tasks, "-m", "reference", "--limit", "3", *FEW)
    texts = [
        {one["call"]["key"]: one["call"]["reply"]["text"] for one in ran.records if "call" in one}
        for ran in (ran, again)
    ]
    assert texts[0] == texts[1]


def test_a_record_that_was_changed_is_found(
    cert: Program, server: MessagesServer, tasks: Path, folder: Path
) -> None:
    assert coordinate(cert, server, *FEW, "--limit", "3", "--no-ledger", "-q").code == 3
    assert coordinate(cert, server, *FEW, "--limit", "3").code == 3
    (segment,) = (folder / "ledger" / "segments").iterdir()
    data = segment.read_bytes()
    segment.chmod(0o600)
    segment.write_bytes(data.replace(b'"arm":"debate"', b'"arm":"debatf"', 1))
    key = own_keys().current()
    assert key is not None
    report = verify_ledger(FolderReader(folder / "ledger"), key, deep=DeepCheck())
    assert report.state is State.INVALID
    assert tasks.exists()


class TestProcesses:
    """The program as a process that is stopped where it stands."""

    def arguments(self, server: MessagesServer) -> tuple[str, ...]:
        return (
            *("coordinate", "tasks.jsonl", "-m", "m", "--base-url", server.url),
            *("--limit", "3", "--concurrency", "2", "--replicates", "1", "--agents", "2"),
            *("-o", "out.jsonl", *LEDGER),
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_seals_what_was_answered(
        self, processes: Processes, tasks: Path, folder: Path, number: signal.Signals
    ) -> None:
        reached, gate = threading.Event(), threading.Event()

        def answer(body: dict[str, Any]) -> Any:  # noqa: ANN401 - one of three forms
            if len(server.bodies) >= 5:
                reached.set()
                gate.wait(60)
            return Ability(1.0, 1.0)(body)

        with MessagesServer(answer) as server:
            process = processes.start(*self.arguments(server))
            assert reached.wait(60)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            assert process.returncode == 128 + number, err
            gate.set()
            assert check(folder / "ledger").records
            assert out.count(b"\n") == len(records_of(folder / "out.jsonl"))
            again = processes.run(*self.arguments(server))
        assert again.code == 3, again.err
        check(folder / "ledger")
        assert tasks.exists()

    @pytest.mark.parametrize("at", [1, 8, 20])
    def test_kill_9_at_any_call_and_the_rest_gives_the_same(
        self, cert: Program, processes: Processes, tasks: Path, folder: Path, at: int
    ) -> None:
        victim: list[int] = []

        def answer(body: dict[str, Any]) -> Any:  # noqa: ANN401 - one of three forms
            if victim and len(server.bodies) == at:
                os.kill(victim.pop(), signal.SIGKILL)
            # By the prompt alone, so that the order of the calls decides nothing.
            is_right = hash_of(body) % 3
            return Ability(float(bool(is_right)), float(bool(is_right)))(body)

        with MessagesServer(answer) as server:
            whole = cert(*self.arguments(server)[:-4], "--no-ledger")
            assert whole.code == 3, whole.err
            needed = len(server.bodies)
            server.bodies.clear()
            process = processes.start(*self.arguments(server))
            victim.append(process.pid)
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
            again = processes.run(*self.arguments(server))
        assert again.code == 3, again.err
        assert needed <= len(server.bodies) <= needed + 2  # those in flight were asked again
        assert (
            json.loads(again.out.splitlines()[-1])["coordination"]
            == (json.loads(whole.out.splitlines()[-1])["coordination"])
        )
        check(folder / "ledger")


def hash_of(body: dict[str, Any]) -> int:
    return sum(body["messages"][-1]["content"].encode())


def test_the_servers_reply_is_that_of_the_api() -> None:
    assert message("x", {"model": "m", "messages": [{"content": "y"}]})["type"] == "message"
