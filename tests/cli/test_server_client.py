"""`--server`: the program against a server that does what it should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.errors import NumericalError
from tests.cli.fake_server import FakeServer
from tests.cli.helpers import Processes, records_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.helpers import Program

PASSING = "id: p\nversion: 1\nchecks:\n  - {signal: perplexity, op: '<', threshold: 50}\n"
TOKEN = "a-token-of-enough-characters"  # noqa: S105 - of a test
MIXED = [
    b'{"prompt": "first", "id": "one", "group": "g", "label": "l"}',
    b"{",
    b'{"prompt": "bad"}',
    b'{"prompt": "scored", "response": "a model measures"}',
    b'{"prompt": "\xff"}',
    b"",
    b'{"prompt": "first", "id": "one"}',
    b'{"prompt": "first"}',
    b'{"prompt": "first"}',
]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(backend={"logprob": -0.5}) as running:
        yield running


@pytest.fixture(autouse=True)
def inputs(folder: Path) -> None:
    (folder / "in.txt").write_text("".join(f"prompt {n}\n" for n in range(1, 11)))
    (folder / "mixed.jsonl").write_bytes(b"\n".join(MIXED))
    (folder / "p.yaml").write_text(PASSING)


def stable(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between two runs of the same."""
    rest = {name: value for name, value in record.items() if name not in {"id", "time", "run_id"}}
    for name in ("timing", "correlation_id", "_seq", "_prev"):
        rest.pop(name, None)
    return rest


def test_a_batch_gives_the_records_of_a_local_run(cert: Program, folder: Path) -> None:
    errors = {"bad": NumericalError("NaN")}
    cert.loader.settings = {"logprob": -0.5, "errors": errors}
    args = ("batch", "mixed.jsonl", "in.txt", "--max-new-tokens", "3", "-o")
    here = cert(*args, "here.jsonl", "-m", "fake", "--no-ledger")
    with FakeServer(backend={"logprob": -0.5, "errors": errors}) as server:
        there = cert(*args, "there.jsonl", "--server", server.url)
    assert (there.code, there.err.splitlines()[-1]) == (here.code, here.err.splitlines()[-1])
    assert there.code == 4
    assert (folder / "there.jsonl").read_text() == there.out
    assert [stable(one) for one in there.records] == [stable(one) for one in here.records]
    kinds = [one["kind"] for one in there.records[:8]]
    assert (
        kinds
        == ["analysis", "refused", "error", "analysis", "refused", "refused"] + ["analysis"] * 2
    )
    assert not cert.loader.backends[1:]


def test_one_prompt_is_analysed_and_drawn_as_here(cert: Program, server: FakeServer) -> None:
    cert.loader.settings = {"logprob": -0.5}
    args = ("analyze", "Explain AI", "--format", "human", "--max-new-tokens", "3")
    there = cert(*args, "--server", server.url)
    here = cert(*args, "-m", "fake", "--no-ledger")
    assert there.code == here.code

    def without_duration(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("output")]

    assert without_duration(there.out) == without_duration(here.out)
    assert "surprise:" in there.out
    assert f"note: {server.url} measures, with fake; its ledger keeps the records" in there.err


def test_a_page_is_drawn_without_tokens_where_the_server_gives_none(
    cert: Program, server: FakeServer
) -> None:
    server.replies["/v1/tokens"] = [(500, {}, b"no"), (200, {}, b'{"pieces": ["one"]}')]
    for _ in range(2):
        shown = cert("analyze", "Explain AI", "--format", "human", "--server", server.url)
        assert shown.code == 0, shown.err
        assert "surprise:" not in shown.out
        assert "│ " in shown.out


def test_what_nobody_set_is_left_to_the_server(cert: Program, server: FakeServer) -> None:
    assert cert("analyze", "x", "--server", server.url).code == 0
    assert server.batches()[0].query == []
    assert "cert-policy" not in server.batches()[0].headers


def test_what_was_set_is_sent_and_comes_back(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_TOP_K", "7")
    ran = cert(
        *("analyze", "x", "--server", server.url, "--policy", "p.yaml", "--temperature", "0.5"),
        *("--seed", "3", "--stop", "\n\n", "--stop", "&=", "--timeout", "2.5", "--chat", "never"),
        *("--max-new-tokens", "2", "--correlation-id", "req-1"),
    )
    assert ran.code == 0, ran.err
    (asked,) = server.batches()
    assert dict(asked.query) == {
        "top_k": "7",
        "temperature": "0.5",
        "seed": "3",
        "stop": "&=",
        "timeout_s": "2.5",
        "chat": "never",
        "max_new_tokens": "2",
    }
    assert [value for name, value in asked.query if name == "stop"] == ["\n\n", "&="]
    assert asked.headers["x-correlation-id"] == "req-1"
    assert ran.records[0]["assessment"]["policy"]["id"] == "p"


def test_the_setting_names_the_server_as_the_flag_does(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_SERVER", server.url)
    assert cert("analyze", "x").code == 0
    refused = cert("analyze", "x", "-m", "fake")
    assert refused.code == 2
    assert "--model: decided by the server (environment CERT_SERVER)" in refused.err


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "fake"),
        ("--preload",),
        ("--device", "cpu"),
        ("--quantize", "8bit"),
        ("--dtype", "float32"),
        ("--content", "omitted"),
        ("--ledger", "l"),
        ("--no-ledger",),
        ("--allow-download",),
    ],
)
def test_flags_that_belong_to_the_server_are_refused(
    cert: Program, server: FakeServer, flags: tuple[str, ...]
) -> None:
    for more in ((), ("--dry-run",)):
        ran = cert("batch", "in.txt", "--server", server.url, *flags, *more)
        assert ran.code == 2
        assert flags[0] in ran.err
    assert not server.asked


def test_rows_belong_to_the_server(cert: Program, server: FakeServer) -> None:
    ran = cert("batch", "in.txt", "--server", server.url, "--batch-rows", "2")
    assert ran.code == 2
    assert "--batch-rows" in ran.err


def test_a_dry_run_asks_nobody(cert: Program, server: FakeServer) -> None:
    ran = cert("batch", "mixed.jsonl", "--server", server.url, "--dry-run")
    assert ran.code == 0
    assert f"server    {server.url} would be asked (POST /v1/batch) and was not" in ran.out
    assert "5 prompts, 3 refused" in ran.out
    assert not server.asked


def test_an_output_is_continued_from_where_it_is(
    cert: Program, server: FakeServer, folder: Path
) -> None:
    args = ("batch", "mixed.jsonl", "in.txt", "--server", server.url, "--max-errors", "50%", "-o")
    whole = cert(*args, "whole.jsonl")
    for lines in (1, 2, 5, 7, 17, 18):
        kept = (folder / "whole.jsonl").read_bytes().split(b"\n")[:lines]
        (folder / "part.jsonl").write_bytes(b"\n".join(kept) + b'\n{"torn')
        asked = len(server.batches())
        ran = cert(*args, "part.jsonl")
        assert ran.code == whole.code == 0, ran.err
        assert len(server.batches()[asked].lines) == 18 - lines
        assert [stable(one) for one in records_of(folder / "part.jsonl")] == [
            stable(one) for one in whole.records
        ]


def test_an_output_of_another_model_or_policy_is_not_continued(
    cert: Program, server: FakeServer, folder: Path
) -> None:
    args = ("batch", "in.txt", "--server", server.url, "-o", "out.jsonl", "--limit")
    assert cert(*args, "2").code == 0
    other = cert(*args, "4", "--policy", "p.yaml")
    assert other.code == 2
    assert "another policy judged" in other.err
    server.info = {"model": {"name": "other", "digest": "sha256:" + "0" * 64}}
    other = cert(*args, "4")
    assert other.code == 2
    assert "its model is" in other.err
    assert len(records_of(folder / "out.jsonl")) == 2


def test_omitted_content_is_the_servers_choice_and_can_be_continued(
    cert: Program, folder: Path
) -> None:
    with FakeServer(content="omitted", backend={"logprob": -0.5}) as server:
        args = ("batch", "in.txt", "--server", server.url, "-o", "out.jsonl", "--limit")
        assert cert(*args, "3").code == 0
        assert cert(*args, "6").code == 0
    records = records_of(folder / "out.jsonl")
    assert [one["prompt"]["id"] for one in records] == [f"in.txt:{n}" for n in range(1, 7)]
    assert "text" not in records[0]["prompt"]


def test_the_model_can_be_pinned(cert: Program, server: FakeServer) -> None:
    args = ("analyze", "x", "--server", server.url, "--expect-digest")
    assert cert(*args, server.digest).code == 0
    other = cert(*args, "sha256:" + "0" * 64)
    assert other.code == 6
    assert server.digest in other.err
    assert len(server.batches()) == 1


def test_limits_of_the_server_hold_before_anything_is_sent(
    cert: Program, server: FakeServer, folder: Path
) -> None:
    server.info = {"limits": {"max_body_bytes": 600, "max_prompt_chars": 1000}}
    prompts = ["x" * 1001, "é" * 500, "fits"]
    (folder / "in.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    args = ("batch", "in.jsonl", "--server", server.url, "-o", "out.jsonl")
    for _ in range(2):  # the second one continues
        ran = cert(*args)
        assert ran.code == 4
        records = records_of(folder / "out.jsonl")
        assert [one["kind"] for one in records] == ["refused", "refused", "analysis"]
    assert [one["error"]["type"] for one in records[:2]] == ["PromptTooLong"] * 2
    assert "at most 1,000" in records[0]["error"]["message"]
    assert "the server accepts 600" in records[1]["error"]["message"]
    assert len(server.batches()[0].lines) == 3


def test_no_input_is_nothing_audited(cert: Program, server: FakeServer) -> None:
    assert cert("batch", "-", "--server", server.url, stdin="").code == 7
    assert server.batches()[0].is_complete


def test_input_that_fails_midway_costs_no_record(
    cert: Program, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.inputs import reader

    original = reader.open_source
    opened = []

    def fails_at_last(path: str) -> Any:  # noqa: ANN401 - as the original
        opened.append(path)
        if len(opened) == 4:
            raise reader.ConfigurationError("the medium is gone")
        return original(path)

    monkeypatch.setattr(reader, "open_source", fails_at_last)
    ran = cert("batch", "in.txt", "mixed.jsonl", "--server", server.url, "-o", "out.jsonl")
    assert ran.code == 2
    assert "the medium is gone" in ran.err
    assert len(records_of(folder / "out.jsonl")) == 10


def test_slow_input_is_held_open_by_empty_lines(
    cert: Program, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cert.inputs import reader
    from cert.runner import remote_batch

    monkeypatch.setattr(remote_batch, "_BEAT_S", 0.02)
    original = reader._read_all

    def slow(*args: Any) -> Any:  # noqa: ANN401 - as the original
        for case in original(*args):
            time.sleep(0.2)
            yield case

    monkeypatch.setattr(reader, "_read_all", slow)
    ran = cert("batch", "in.txt", "--server", server.url, "--limit", "3")
    assert ran.code == 0
    assert server.batches()[0].beats >= 3
    assert len(ran.records) == 3


def test_a_token_is_sent_and_never_shown(
    cert: Program, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_TOKEN", TOKEN)
    assert cert("analyze", "x", "--server", server.url).code == 0
    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {TOKEN}"}
    monkeypatch.delenv("CERT_TOKEN")
    (folder / "t").write_text(TOKEN + "\n")
    monkeypatch.setenv("CERT_TOKEN_FILE", "t")
    server.asked.clear()
    shown = cert("analyze", "x", "--server", server.url, "-vv")
    assert shown.code == 0
    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {TOKEN}"}
    server.replies["/v1/server"] = [(401, {"www-authenticate": "Bearer"}, TOKEN.encode())]
    refused = cert("analyze", "x", "--server", server.url, "-vv", "--debug")
    assert refused.code == 2
    assert "refuses the token" in refused.err
    assert "CERT_TOKEN_FILE" in refused.err
    assert TOKEN not in shown.err + shown.out + refused.err


def test_proxies_of_the_environment_are_not_used(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert cert("analyze", "x", "--server", server.url).code == 0


def test_a_call_loads_no_model_stack(server: FakeServer) -> None:
    program = f"""
import sys
from cert_cli.app import app
app(["analyze", "x", "--server", "{server.url}"], standalone_mode=False)
heavy = {{"torch", "transformers", "tokenizers", "numpy", "prometheus_client", "starlette"}}
print(sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=Processes.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "[]"
