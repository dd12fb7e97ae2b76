"""Who answers the calls of `cert coordinate`: keys, metrics, mixed models, judges."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.messages_server import Ability, MessagesServer, write_tasks
from tests.cli.test_coordinate import FEW, coordinate, result_of
from tests.cli.test_ledger_runs import check

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.helpers import Program

pytest.importorskip("anthropic")


@pytest.fixture(autouse=True)
def tasks(folder: Path) -> Path:
    return write_tasks(folder / "tasks.jsonl", 12)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\xff\xfe", b"x" * (1 << 14) + b"y", "schl\u00fcssel".encode()]
)
def test_a_file_that_holds_no_key_is_refused_before_anything_is_asked(
    cert: Program, folder: Path, data: bytes
) -> None:
    (folder / "key").write_bytes(data)
    with MessagesServer(Ability(0.5, 0.5)) as server:
        ran = coordinate(cert, server, "--no-ledger", "--api-key-file", "key")
    assert ran.code == 2
    assert "holds no key" in ran.err
    assert not server.bodies


def test_one_name_for_two_models_is_refused(cert: Program, tmp_path: Path) -> None:
    del tmp_path
    ran = cert(
        *("coordinate", "tasks.jsonl", "--no-ledger", "-m", "reference"),
        *("-m", "anthropic:reference"),
    )
    assert ran.code == 2
    assert "names a model here and one of a server" in ran.err


def test_metrics_are_served_while_it_runs(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("METRICS_ENABLED", "true")
    monkeypatch.setenv("METRICS_PORT", str(port))
    seen: list[str] = []
    ability = Ability(0.5, 0.5)

    def answer(body: dict[str, Any]) -> str:
        if len(server.bodies) == 6:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
                seen.append(reply.read().decode())
        return ability(body)

    with MessagesServer(answer) as server:
        assert coordinate(cert, server, *FEW, "--limit", "2").code == 3
    assert "cert_coordination_in_flight 1.0" in seen[0]
    assert re.search(r'cert_coordination_calls_total\{outcome="ok"\} [1-9]', seen[0])


def test_a_port_that_is_taken_costs_the_metrics_and_not_the_run(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("METRICS_ENABLED", "true")
        monkeypatch.setenv("METRICS_PORT", str(listener.getsockname()[1]))
        with MessagesServer(Ability(0.5, 0.5)) as server:
            ran = coordinate(cert, server, *FEW, "--limit", "2")
    assert ran.code == 3
    assert "metrics are not served" in ran.err


JUDGED = {
    "id": "water",
    "prompt": "Say in one sentence why ice floats.",
    "evaluator": {"name": "judge", "rubric": [{"id": "right", "text": "Is it right?"}]},
}


def judged(score: int) -> Any:  # noqa: ANN401 - an answer of the server
    """Writes, and judges everything alike."""

    def answer(body: dict[str, Any]) -> str:
        if body["model"] != "judge":
            return "Ice floats because it is less dense than water."
        ids = re.findall(r"- (\w+): ", body["messages"][-1]["content"])
        return json.dumps({name: {"quote": "", "score": score} for name in ids})

    return answer


def test_a_judge_that_fails_on_answers_of_known_worth_makes_nothing_conclusive(
    cert: Program, folder: Path
) -> None:
    rows = [JUDGED | {"id": f"water-{number}"} for number in range(2)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with MessagesServer(judged(0)) as server:
        ran = coordinate(cert, server, *FEW, "--judge", "judge", "--judge-repeats", "1")
        assert ran.code == 3, ran.err
        again = coordinate(
            cert, server, *FEW, "--judge", "judge", "--judge-repeats", "1", "--seed", "1"
        )
    result = result_of(ran)
    assert "judge_mistrusted" in result["strategies"][0]["doubts"]
    assert any(one["fault"] == "misjudged" for one in result["judges"]["findings"])
    assert result["judges"]["earlier"] == []
    assert len(result_of(again)["judges"]["earlier"]) == len(result["judges"]["readings"])
    check(folder / "ledger")


def test_judges_are_shown_to_people(cert: Program, folder: Path) -> None:
    (folder / "tasks.jsonl").write_text(json.dumps(JUDGED))
    with MessagesServer(judged(0)) as server:
        ran = coordinate(
            cert,
            server,
            *FEW,
            *("--judge", "judge", "--judge-repeats", "1", "--format", "human"),
            *("--self-refine",),
        )
    assert ran.code == 3, ran.err
    assert "judges  judge on canary-" in ran.out
    assert "the judges failed on answers of known worth" in ran.out
    assert "gamma_refine" in ran.out
    assert "of them of judges" in ran.out
