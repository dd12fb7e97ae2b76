"""The API's description, and the API held against it by generated requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.core.config import CERTConfig
from cert.core.health import CheckResult, HealthChecker
from cert.service import server
from cert.service.openapi import build_openapi
from cert.service.requests import Options, parse_analyze
from tests.service.serving import (
    JSON,
    LINES,
    Reply,
    Running,
    analyze,
    ask,
    configure,
    serving,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = build_openapi(CERTConfig())
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    checker = HealthChecker({"one": lambda: CheckResult.healthy("fine")})
    with pytest.MonkeyPatch.context() as patch:
        # The real ones import torch, which is not what this is about.
        patch.setattr(server, "build_health_checks", lambda *_args, **_options: checker)
        with serving(configure(folder, max_new_tokens=2)) as one:
            yield one
    found = verify(folder)
    assert found.returncode == 0, found.stdout


def test_it_is_openapi_and_served(running: Running) -> None:
    served = ask(running.port, "GET", "/openapi.json").json
    assert served["openapi"] == "3.1.0"
    assert served["paths"].keys() == DOCUMENT["paths"].keys()
    schema.validate()


def test_the_members_it_names_are_those_that_are_parsed() -> None:
    from cert.backends.protocol import SamplingParams

    body = DOCUMENT["paths"]["/v1/analyze"]["post"]["requestBody"]["content"]["application/json"]
    full: dict[str, Any] = {
        "prompt": "x",
        "response": "y",
        "id": "i",
        "label": "l",
        "group": "g",
        "sampling": {
            "max_new_tokens": 1,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 0.5,
            "seed": 1,
            "stop": ["a"],
        },
        "timeout_s": 1.0,
        "chat": "never",
        "policy": "strict",
    }
    assert body["schema"]["properties"].keys() == full.keys()
    sampling = DOCUMENT["components"]["schemas"]["Sampling"]["properties"]
    assert sampling.keys() == full["sampling"].keys()
    defaults = Options(SamplingParams(), None, "auto")
    case, options = parse_analyze(json.dumps(full).encode(), defaults, max_chars=10, line=1)
    assert case.source == "request"
    assert options.policy is not None
    assert options.policy.id == "strict"
    assert options.sampling.stop == ("a",)


def test_a_record_follows_the_schema_that_is_described(running: Running) -> None:
    described = {"$ref": "#/components/schemas/Record", "components": DOCUMENT["components"]}
    validator = jsonschema.Draft202012Validator(described)
    validator.validate(analyze(running.port, "a record").json)
    assert list(validator.iter_errors({"kind": "analysis"}))


texts = st.text(max_size=40)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
members = {
    "prompt": texts.filter(str.strip),
    "response": texts,
    "id": texts | st.integers(),
    "label": texts,
    "group": texts,
    "timeout_s": st.floats(),
    "chat": st.sampled_from(["auto", "always", "never"]),
    "policy": st.sampled_from(["strict", "default", "reference", "../strict"]) | anything,
    "sampling": st.fixed_dictionaries(
        {},
        optional={
            "max_new_tokens": st.integers(-1, 5),
            "temperature": st.floats(),
            "top_k": st.integers(-1, 9),
            "top_p": st.floats(-0.5, 1.5),
            "seed": st.integers(),
            "stop": st.lists(texts, max_size=2),
        },
    ),
}
mostly_right = st.fixed_dictionaries(
    {"prompt": members["prompt"]},
    optional={name: one for name, one in members.items() if name != "prompt"},
)
partly_wrong = st.builds(
    lambda right, name, value: {**right, name: value},
    mostly_right,
    st.sampled_from([*members, "other"]),
    anything,
)
bodies = (mostly_right | partly_wrong | anything).map(lambda value: json.dumps(value).encode())
thorough = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def check(path: str, method: str, reply: Reply) -> None:
    """Hold an answer against the description; 500 and 503 have no place in a sound server."""
    assert reply.status not in {500, 501, 503}, reply.body
    response = schemathesis.Response(
        status_code=reply.status,
        headers={name: [value] for name, value in reply.headers.items()},
        content=reply.body,
        request=requests.Request(method, f"http://127.0.0.1{path}").prepare(),
        elapsed=0.0,
        verify=False,
    )
    schema[path][method].validate_response(response)
    assert str(reply.status) in DOCUMENT["paths"][path][method.lower()]["responses"]


@thorough
@given(bodies | st.binary(max_size=60))
def test_no_analysis_breaks_it(running: Running, body: bytes) -> None:
    check("/v1/analyze", "POST", ask(running.port, "POST", "/v1/analyze", body, JSON))


@thorough
@given(st.lists(bodies | st.binary(max_size=60), max_size=4), st.text("abpromt_=&%1.", max_size=20))
def test_no_batch_breaks_it(running: Running, lines: list[bytes], query: str) -> None:
    body = b"\n".join(lines)
    target = f"/v1/batch?{query}" if query else "/v1/batch"
    reply = ask(running.port, "POST", target, body, LINES)
    check("/v1/batch", "POST", reply)
    if reply.status == 200:
        given_lines = [one for one in body.split(b"\n") if one.strip(b" \t\r")]
        assert len(reply.body.splitlines()) == len(given_lines)


@thorough
@given(st.lists(st.integers() | anything, max_size=5) | anything)
def test_no_tokens_break_it(running: Running, token_ids: object) -> None:
    body = {"token_ids": token_ids}
    check("/v1/tokens", "POST", ask(running.port, "POST", "/v1/tokens", body, JSON))


@pytest.mark.parametrize("path", ["/v1/server", "/openapi.json", "/livez", "/readyz", "/healthz"])
def test_what_is_read_is_as_described(running: Running, path: str) -> None:
    check(path, "GET", ask(running.port, "GET", path))
