"""The API on a fake model: every route, every kind of answer, and what the ledger holds of it."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cert.assessment.policy import load_policy
from cert.core.errors import GenerationTimeout, ModelUnavailableError, NumericalError
from cert.evidence.validation import Validation
from cert.runner.token_pieces import split_tokens
from tests.fakes import FakeLoader, token_id
from tests.service.serving import (
    JSON,
    Running,
    analyze,
    ask,
    batch,
    configure,
    serving,
    verify,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = {
    "id": "mine",
    "version": 3,
    "checks": [{"signal": "perplexity", "op": "<", "threshold": 1e9}],
}
ERRORS = {
    "late": GenerationTimeout("too late"),
    "gone": ModelUnavailableError("no model"),
    "nan": NumericalError("no numbers"),
    "bug": RuntimeError("nobody foresaw this"),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    loader = FakeLoader(settings={"errors": ERRORS})
    with serving(configure(tmp_path_factory.mktemp("api")), loader=loader) as one:
        yield one


def test_the_reply_is_the_ledgers_line(running: Running) -> None:
    reply = analyze(running.port, "a prompt", id="mine", label="yes", group="g")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    record = reply.json
    (there,) = [one for one in running.records() if one["id"] == record["id"]]
    assert there == record
    assert there["kind"] == "analysis"
    assert there["prompt"]["text"] == "a prompt"
    assert there["prompt"]["id"] == "mine"
    assert there["prompt"]["label"] == "yes"
    assert there["prompt"]["group"] == "g"
    assert there["input"]["source"] == "request"
    assert reply.body in b"".join(
        one.read_bytes() for one in (_folder(running) / "segments").iterdir()
    )
    assert there["run_id"] == ask(running.port, "GET", "/v1/server").json["run_id"]


def test_a_response_is_scored_and_not_generated(running: Running) -> None:
    record = analyze(running.port, "a prompt", response="three given words").json
    assert record["generation"]["finish_reason"] == "scored"
    assert record["generation"]["text"] == "three given words"
    assert record["provenance"]["sampling"] is None


def test_sampling_is_taken_member_by_member(running: Running) -> None:
    asked = {"max_new_tokens": 2, "temperature": 0.5, "seed": 7, "stop": ["xyz"]}
    record = analyze(running.port, "p", sampling=asked).json
    found = record["provenance"]["sampling"]
    assert found == asked | {"top_k": 0, "top_p": 1.0}
    assert len(record["generation"]["token_ids"]) == 2


@pytest.mark.parametrize("prompt", ["", "  \n", None, 5, ["x"], "x" * 100_001, "\ud800"])
def test_a_prompt_that_is_none_is_refused_and_recorded(running: Running, prompt: object) -> None:
    reply = ask(running.port, "POST", "/v1/analyze", {"prompt": prompt}, JSON)
    assert reply.status == 422
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["kind"] == "refused"
    assert reply.json["correlation_id"] == reply.headers["x-correlation-id"]
    assert reply.json in running.records()


@pytest.mark.parametrize(
    ("prompt", "status", "error_type"),
    [
        ("late", 504, "GenerationTimeout"),
        ("gone", 503, "ModelUnavailableError"),
        ("nan", 500, "NumericalError"),
        ("bug", 500, "InternalError"),
        ("word " * 600, 422, "PromptTooLong"),
    ],
)
def test_an_error_is_answered_with_its_record(
    running: Running, prompt: str, status: int, error_type: str
) -> None:
    reply = analyze(running.port, prompt)
    assert reply.status == status
    assert reply.json["kind"] == "error"
    assert reply.json["error"]["type"] == error_type
    assert reply.json in running.records()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"prompt": "x"', "not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"prompt": "x", "prompt": "y"}', "twice"),
        (b'{"prompt": "x", "seed": 1}', "unknown member 'seed'"),
        (b'{"prompt": "x", "promt": 1}', "did you mean 'prompt'"),
        (b'{"prompt": "x", "sampling": []}', "sampling is not an object"),
        (b'{"prompt": "x", "sampling": {"sead": 1}}', "did you mean 'seed'"),
        (b'{"prompt": "x", "sampling": {"temperature": "hot"}}', "temperature"),
        (b'{"prompt": "x", "sampling": {"temperature": -1}}', "temperature"),
        (b'{"prompt": "x", "sampling": {"max_new_tokens": 0}}', "max_new_tokens"),
        (b'{"prompt": "x", "sampling": {"max_new_tokens": 1e300}}', "max_new_tokens"),
        (b'{"prompt": "x", "sampling": {"max_new_tokens": 9007199254740993}}', "max_new_tokens"),
        (b'{"prompt": "x", "sampling": {"stop": ["\\ud800"]}}', "surrogate"),
        (b'{"prompt": "x", "sampling": {"stop": "a"}}', "stop"),
        (b'{"prompt": "x", "timeout_s": 0}', "timeout_s"),
        (b'{"prompt": "x", "chat": "perhaps"}', "chat"),
        (b'{"prompt": "x", "policy": "/etc/passwd"}', "no policy"),
        (b'{"prompt": "x", "policy": "../reference"}', "no policy"),
        (b'{"prompt": "x", "policy": 5}', "neither"),
        (b'{"prompt": "x", "policy": {"id": "a"}}', "policy"),
        (b'{"prompt": "x", "policy": {"id": "a", "versoin": 1}}', "did you mean 'version'"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested"),
    ],
)
def test_what_is_no_request_is_a_problem_and_not_recorded(
    running: Running, body: bytes, words: str
) -> None:
    before = len(running.records())
    reply = ask(running.port, "POST", "/v1/analyze", body, JSON)
    assert reply.status == 400
    assert words in reply.problem
    assert len(running.records()) == before


@pytest.mark.parametrize("policy", ["strict", DOCUMENT])
def test_another_policy_is_a_run_of_its_own(running: Running, policy: object) -> None:
    own = ask(running.port, "GET", "/v1/server").json
    record = analyze(running.port, "judged otherwise", policy=policy).json
    assert record["run_id"] != own["run_id"]
    run = [
        one
        for one in running.records()
        if one["run_id" if "run_id" in one else "id"] == record["run_id"]
    ]
    assert [one["kind"] for one in run] == ["run", "analysis", "run"]
    begin, _, end = run
    assert begin["run"]["command"] == "analyze"
    assert begin["run"]["policy"]["digest"] == record["assessment"]["policy"]["digest"]
    assert end["run"] == {
        "phase": "end",
        "counts": end["run"]["counts"],
        "exit_code": None,
    }
    assert sum(end["run"]["counts"].values()) == 1
    registered = [
        one["_seq"]
        for one in running.records()
        if one["kind"] == "policy" and one["policy"]["digest"] == begin["run"]["policy"]["digest"]
    ]
    assert len(registered) == 1
    assert registered[0] < begin["_seq"]


def test_the_servers_own_policy_by_name_is_the_servers_own_run(running: Running) -> None:
    own = ask(running.port, "GET", "/v1/server").json
    record = analyze(running.port, "p", policy=own["policy"]["id"]).json
    assert record["run_id"] == own["run_id"]


def test_a_batch_is_a_run_in_input_order(running: Running) -> None:
    lines = [{"prompt": f"prompt {n}", "id": n} for n in range(40)]
    body = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
    reply = batch(running.port, body, "?max_new_tokens=2&stop=a&stop=b&temperature=0.5&seed=3")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/x-ndjson"
    records = [json.loads(line) for line in reply.body.splitlines()]
    assert [one["prompt"]["id"] for one in records] == [str(n) for n in range(40)]
    sampling = records[0]["provenance"]["sampling"]
    assert sampling["stop"] == ["a", "b"]
    assert sampling["max_new_tokens"] == 2
    run_id = reply.headers["cert-run"]
    run = [one for one in running.records() if one.get("run_id") == run_id]
    assert run[1:-1] == records
    assert run[0]["run"]["phase"] == "begin"
    assert run[0]["run"]["command"] == "batch"
    assert run[-1]["run"]["phase"] == "end"


def test_bad_lines_of_a_batch_are_refused_and_the_others_go_on(running: Running) -> None:
    lines = (
        b'{"prompt":"one","id":"x"}',
        b"not json",
        b"",
        b'{"prompt":"two","id":"x"}',
        b'{"prompt":"late"}',
        b'{"prompt":"last"}',
    )
    body = b"\n".join(lines)
    records = [json.loads(line) for line in batch(running.port, body).body.splitlines()]
    assert [one["kind"] for one in records] == [
        "analysis",
        "refused",
        "refused",
        "error",
        "analysis",
    ]
    assert [one["input"]["line"] for one in records] == [1, 2, 4, 5, 6]
    assert "line 1" in records[2]["error"]["message"]


def test_an_empty_batch_is_an_empty_run(running: Running) -> None:
    reply = batch(running.port, b"")
    assert reply.status == 200
    assert reply.body == b""
    run = [one for one in running.records() if one.get("run_id") == reply.headers["cert-run"]]
    assert [one["run"]["phase"] for one in run] == ["begin", "end"]


def test_a_batchs_policy_may_be_named_or_given(running: Running) -> None:
    given = base64.b64encode(json.dumps(DOCUMENT).encode()).decode()
    for reply, name in (
        (batch(running.port, b'{"prompt":"x"}', "?policy=strict"), "strict"),
        (batch(running.port, b'{"prompt":"x"}', **{"Cert-Policy": given}), "mine"),
    ):
        assert json.loads(reply.body)["assessment"]["policy"]["id"] == name


@pytest.mark.parametrize(
    ("query", "header", "words"),
    [
        ("?sead=1", None, "did you mean 'seed'"),
        ("?prompt=x", None, "unknown member 'prompt'"),
        ("?seed=x", None, "seed"),
        ("?seed=1&seed=2", None, "twice"),
        ("?temperature=nan", None, "temperature"),
        ("?timeout_s=inf", None, "timeout_s"),
        ("?max_new_tokens=0", None, "max_new_tokens"),
        ("?policy=./strict", None, "no policy"),
        ("?policy=strict", base64.b64encode(b"{}").decode(), "named in the query"),
        ("", "!!!", "base64"),
        ("", base64.b64encode(b"[1]").decode(), "not a JSON object"),
        ("", base64.b64encode(b"{}").decode(), "policy"),
    ],
)
def test_what_is_no_batch_is_a_problem(
    running: Running, query: str, header: str | None, words: str
) -> None:
    headers = {} if header is None else {"Cert-Policy": header}
    before = len(running.records())
    reply = batch(running.port, b'{"prompt":"x"}', query, **headers)
    assert reply.status == 400
    assert words in reply.problem
    assert len(running.records()) == before


def test_tokens_are_told_as_text(running: Running) -> None:
    ids = [token_id("sure"), token_id("model")]
    reply = ask(running.port, "POST", "/v1/tokens", {"token_ids": ids}, JSON)
    decode = running.loader.backends[0].decode
    assert reply.json == {"pieces": split_tokens(decode, ids)}
    assert ask(running.port, "POST", "/v1/tokens", {"token_ids": []}, JSON).json == {"pieces": []}


@pytest.mark.parametrize(
    "body",
    [{}, {"token_ids": "x"}, {"token_ids": [-1]}, {"token_ids": [1 << 16]}, {"ids": []},
     {"token_ids": [1] * 8193}, {"token_ids": [1.5]}, {"token_ids": [True]}],
)  # fmt: skip
def test_what_is_no_token_is_a_problem(running: Running, body: dict[str, Any]) -> None:
    reply = ask(running.port, "POST", "/v1/tokens", body, JSON)
    assert reply.status == 400
    assert reply.problem


def test_the_server_says_what_it_is(running: Running) -> None:
    found = ask(running.port, "GET", "/v1/server").json
    assert found["model"]["name"] == "fake"
    assert found["model"]["digest"].startswith("sha256:")
    policy = load_policy("default")
    assert found["policy"] == {"id": "default", "version": policy.version, "digest": policy.digest}
    assert found["content"] == "full"
    assert found["ledger"] is True
    assert found["sampling"]["max_new_tokens"] == 4
    assert found["limits"] == {
        "max_body_bytes": 10 * 2**20,
        "max_prompt_chars": 100_000,
        "max_requests": 64,
    }


def test_ids_are_taken_over_and_told(running: Running) -> None:
    reply = ask(
        running.port, "POST", "/v1/analyze", {"prompt": "x"}, {**JSON, "X-Correlation-ID": "req-7"}
    )
    assert reply.headers["x-correlation-id"] == "req-7"
    assert reply.json["correlation_id"] == "req-7"
    for bad in ("x" * 201, "a\x85b", ""):
        headers = {**JSON, "X-Correlation-ID": bad}
        drawn = ask(running.port, "POST", "/v1/analyze", {"prompt": "x"}, headers)
        assert drawn.headers["x-correlation-id"] != bad
        assert drawn.json["correlation_id"] == drawn.headers["x-correlation-id"]


def test_paths_and_methods(running: Running) -> None:
    missing = ask(running.port, "GET", "/etc/passwd")
    assert missing.status == 404
    assert "openapi.json" in missing.problem
    for method, path in (("GET", "/v1/analyze"), ("PUT", "/v1/batch"), ("POST", "/livez")):
        reply = ask(running.port, method, path)
        assert reply.status == 405, path
        assert reply.problem
        assert reply.headers["allow"]
    head = ask(running.port, "HEAD", "/v1/server")
    assert head.status == 200
    assert head.body == b""


def test_nothing_is_told_that_need_not_be(running: Running) -> None:
    reply = ask(running.port, "GET", "/v1/server", headers={"Origin": "https://a.example"})
    assert "server" not in reply.headers
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_requests_together_are_answered_each_with_its_own(running: Running) -> None:
    def one(n: int) -> tuple[int, str]:
        record = analyze(running.port, f"together {n}").json
        return n, record["prompt"]["text"]

    with ThreadPoolExecutor(16) as pool:
        for n, text in pool.map(one, range(64)):
            assert text == f"together {n}"


def test_requests_are_counted(running: Running) -> None:
    before = running.value("cert_http_requests_total", route="other", code="404")
    ask(running.port, "GET", "/nowhere")
    analyze(running.port, "counted")
    # An answer is counted once it is out.
    counted = {"route": "other", "code": "404"}
    wait_until(lambda: running.value("cert_http_requests_total", **counted) == before + 1)
    wait_until(lambda: running.value("cert_requests_in_flight") == 0.0)
    timed = "cert_http_request_duration_seconds_count"
    wait_until(lambda: running.value(timed, route="/v1/analyze") > 0)
    assert running.value("cert_ready") == 1.0
    assert running.value("cert_model_loaded") == 1.0
    assert running.value("cert_requests_total", service="hamiltonian", status="success") > 0


def test_all_of_it_verifies(tmp_path: Path) -> None:
    with serving(configure(tmp_path)) as running:
        analyze(running.port, "one")
        analyze(running.port, "")
        analyze(running.port, "two", policy=DOCUMENT)
        batch(running.port, b'{"prompt":"x"}\nbad\n')
    found = verify(tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "remark" not in found.stdout
    validation = Validation()
    for record in running.records():
        assert validation.fault_of(record, record["kind"]) is None
    (end,) = [one for one in running.records() if one.get("run", {}).get("exit_code") is not None]
    assert end["run"]["exit_code"] == 143
    assert end["run"]["counts"]["refused"] == 1


@pytest.mark.parametrize("content", ["committed", "omitted"])
def test_content_can_be_kept_out_of_records(tmp_path: Path, content: str) -> None:
    secret = "nobody should read this"  # noqa: S105 - a prompt
    with serving(configure(tmp_path, content=content)) as running:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda n: analyze(running.port, f"{secret} {n}"), range(16)))
        batch(running.port, json.dumps({"prompt": secret}).encode())
    assert all(secret.encode() not in reply.body for reply in replies)
    assert {reply.json["content"] for reply in replies} == {content}
    assert secret not in json.dumps(running.records())
    found = verify(tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr


def test_without_a_ledger_records_have_no_links(tmp_path: Path) -> None:
    with serving(configure(tmp_path, ledger="none")) as running:
        record = analyze(running.port, "x").json
        assert "_seq" not in record
        assert "_prev" not in record
        assert ask(running.port, "GET", "/v1/server").json["ledger"] is False
        assert json.loads(batch(running.port, b'{"prompt":"x"}').body)["kind"] == "analysis"
    assert not (tmp_path / "ledger").exists()


def _folder(running: Running) -> Path:
    return Path(running.config.ledger)
