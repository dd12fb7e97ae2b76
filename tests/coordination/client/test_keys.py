"""Where a key comes from, and that it never shows."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from cert.coordination.client import AnthropicClient
from cert.coordination.endpoint import ClientConfig, resolve_endpoint
from cert.coordination.protocol import CallError, CallFailure
from cert.coordination.scrub import Scrubber
from cert.core.errors import ConfigurationError
from tests.coordination.client.stub import (
    START,
    call,
    client,
    error_body,
    events,
    fails,
    message,
    raw,
    replies,
    says,
    streamed,
    stub,
)

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("anthropic")

# Of no known shape, so that only knowing it finds it.
PLAIN = "planted-and-quite-ordinary"


def resolved(**options: Any) -> Any:  # noqa: ANN401 - any field of the configuration
    return resolve_endpoint(ClientConfig(**options), default_base_url="https://api.example")


# --- configuration


def test_neither_key_nor_address_shows_both_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", PLAIN)
    with pytest.raises(ConfigurationError, match="neither a key nor the address") as raised:
        AnthropicClient(ClientConfig())
    assert "ANTHROPIC_API_KEY" in (raised.value.hint or "")
    assert "--base-url" in (raised.value.hint or "")


@pytest.mark.parametrize("value", [None, ""])
def test_the_environment_may_have_no_key(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", value)
    with pytest.raises(ConfigurationError, match="neither a key"):
        resolved(is_key_from_environment=True)


def test_the_key_is_taken_from_the_environment_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", PLAIN)
    assert resolved(is_key_from_environment=True).api_key == PLAIN
    assert resolved(is_key_from_environment=True, api_key="other").api_key == "other"
    assert resolved(base_url="http://127.0.0.1:8000").api_key is None
    assert resolved(api_key="k").base_url == "https://api.example"
    assert resolved(api_key=" k\n").api_key == "k"


@pytest.mark.parametrize(
    "key", ["", "  ", "two words", "line\nbreak", "nul\0", "ümlaut", "x" * 5000]
)
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the key is 1 to 4096") as raised:
        resolved(api_key=key)
    assert "two words" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://ann:planted@host",
        "http://host:99999",
        "http://host:0",
        "http://host:x",
        "http://[::1",
        "http://host/?key=planted",
        "http://host/#planted",
        "http://ho st",
        "http://host\n",
        "http://hö",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the base URL is http") as raised:
        resolved(base_url=url)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://host/anthropic/", "https://host/anthropic"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_is_kept(url: str, kept: str) -> None:
    assert resolved(base_url=url).base_url == kept


@pytest.mark.parametrize(("initial", "maximum"), [(0, 4), (5, 4), (-1, -1)])
def test_a_concurrency_out_of_its_domain_is_refused(initial: int, maximum: int) -> None:
    with pytest.raises(ConfigurationError, match="initial_concurrency"):
        resolved(base_url="http://h", initial_concurrency=initial, max_concurrency=maximum)


@pytest.mark.parametrize("version", ["", "a b", "2023\r\nx: y", "ü", "x" * 65])
def test_an_api_version_that_cannot_be_sent_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match="API version"):
        resolved(base_url="http://h", api_version=version)


def test_a_proxy_that_is_none_is_refused_without_being_shown() -> None:
    config = ClientConfig(base_url="http://127.0.0.1:1", proxy="gopher://ann:planted@host")
    with pytest.raises(ConfigurationError, match="the proxy") as raised:
        AnthropicClient(config)
    assert "planted" not in "".join(traceback.format_exception(raised.value))


# --- what goes over the wire


async def test_a_local_server_gets_no_key_whatever_lies_around(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, PLAIN)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"authorization: {PLAIN}\nX-Api-Key: {PLAIN}")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_PROFILE", "work")
    folder = tmp_path / "anthropic" / "configs"
    folder.mkdir(parents=True)
    (folder / "work.json").write_text("no configuration")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path / "anthropic"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ann password {PLAIN}\n")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with stub(replies()) as server, client(server, config={"api_key": None}) as agent:
        await agent.call(call())
    headers = server.requests[0].headers
    assert "authorization" not in headers
    assert "x-api-key" not in headers
    assert PLAIN not in json.dumps(headers)


async def test_a_key_goes_as_bearer_token_and_an_api_version_as_it_is() -> None:
    config = {"api_key": PLAIN, "api_version": "2023-06-01"}
    async with stub(replies()) as server, client(server, config=config) as agent:
        await agent.call(call())
        assert agent.api_version == "2023-06-01"
    assert server.requests[0].headers["authorization"] == f"Bearer {PLAIN}"
    assert server.requests[0].headers["anthropic-version"] == "2023-06-01"


async def test_a_proxy_is_used_where_it_is_asked_for() -> None:
    async with (
        stub(replies()) as proxy,
        client(proxy, config={"base_url": "http://model.invalid", "proxy": proxy.url}) as agent,
    ):
        reply = await agent.call(call())
    assert reply.text == "42"
    assert proxy.requests[0].line == "POST http://model.invalid/v1/messages HTTP/1.1"


async def test_cookies_of_a_server_are_not_sent_back() -> None:
    set_cookie = says(
        raw(json.dumps(message()).encode(), headers={"set-cookie": "session=abc; Path=/"})
    )
    async with stub(set_cookie) as server, client(server) as agent:
        await agent.call(call())
        await agent.call(call())
    assert all("cookie" not in one.headers for one in server.requests)


# --- nothing shows it


def shown(error: BaseException) -> str:
    """All that a log, a record or a debugger's table could show of an error."""
    assert isinstance(error, CallError)
    return "\n".join(
        [
            str(error),
            repr(error),
            str(error.hint),
            repr(error.attempts),
            repr(vars(error)),
            "".join(traceback.format_exception(error)),
            repr(error.__cause__),
            repr(error.__context__),
        ]
    )


ECHO = f"your key {PLAIN} is bad, so is Bearer {PLAIN}"
ECHOES = {
    "error": fails(400, "invalid_request_error", ECHO, headers={"request-id": PLAIN}),
    "type of the error": fails(400, f"bad_{PLAIN}", ECHO),
    "unauthorised": fails(401, "authentication_error", ECHO),
    "overloaded": fails(529, "overloaded_error", ECHO),
    "HTML": says(raw(f"<b>{ECHO}</b>".encode() * 1000, status=502, kind="text/html")),
    "text of a message": replies(content=[{"type": "text", "text": ECHO}]),
    "model of a message": replies(model=PLAIN),
    "id of a message": replies(id=PLAIN),
    "type of a message": replies(type=PLAIN),
    "stop reason": replies(stop_reason=PLAIN),
    "no JSON": says(raw(ECHO.encode())),
    "content type": says(raw(b"{", kind=f"text/{PLAIN}")),
    "redirect": says(raw(b"", status=307, headers={"location": f"http://{PLAIN}@h/"})),
    "no HTTP": says(f"{ECHO}\r\n\r\n".encode()),
}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("name", ECHOES)
async def test_a_key_that_the_server_says_back_never_shows(
    name: str, is_streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = {"api_key": PLAIN, "is_streamed": is_streamed}
    async with stub(ECHOES[name]) as server, client(server, config=config) as agent:
        assert PLAIN not in repr(agent)
        with pytest.raises(CallError) as raised:
            await agent.call(call(timeout_s=5.0))
    assert PLAIN in server.requests[0].headers["authorization"]
    assert PLAIN not in shown(raised.value)
    assert PLAIN not in caplog.text
    assert all(PLAIN not in repr(vars(record)) for record in caplog.records)


async def test_a_key_in_headers_that_a_reply_keeps_never_shows() -> None:
    told = {"anthropic-ratelimit-requests-limit": PLAIN, "request-id": PLAIN}
    answer = says(raw(json.dumps(message()).encode(), headers=told))
    async with stub(answer) as server, client(server, config={"api_key": PLAIN}) as agent:
        reply = await agent.call(call())
    assert PLAIN not in repr(reply)


@pytest.mark.parametrize("key", ["EMPTY", "none", "42"])
async def test_a_word_that_stands_for_a_key_may_be_said(key: str) -> None:
    said = replies(content=[{"type": "text", "text": f"It is {key}."}])
    async with stub(said) as server, client(server, config={"api_key": key}) as agent:
        assert (await agent.call(call())).text == f"It is {key}."


async def test_a_key_within_a_streamed_error_never_shows() -> None:
    body = streamed(events(START, error_body("overloaded_error", ECHO)))
    config = {"api_key": PLAIN, "is_streamed": True}
    async with stub(says(body)) as server, client(server, config=config) as agent:
        with pytest.raises(CallError) as raised:
            await agent.call(call())
    assert PLAIN not in shown(raised.value)


async def test_the_debug_logs_of_all_libraries_do_not_show_a_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        stub(fails(500, "api_error"), replies()) as server,
        client(server, config={"api_key": PLAIN}) as agent,
    ):
        await agent.call(call())
    assert len(caplog.records) > 5
    assert PLAIN not in caplog.text


def test_what_holds_the_key_does_not_show_it() -> None:
    config = ClientConfig(api_key=PLAIN, base_url="http://h", proxy=f"http://ann:{PLAIN}@p:1")
    assert PLAIN not in repr(config)
    assert resolved(base_url="http://h", proxy="http://[::1").secrets == ()
    assert resolved(base_url="http://h", proxy="http://u:a%40b@p").secrets == ("a%40b", "a@b")
    endpoint = resolve_endpoint(config, default_base_url="x")
    assert PLAIN not in repr(endpoint)
    assert PLAIN not in repr(Scrubber(endpoint.secrets))


async def test_a_huge_error_is_a_short_exception() -> None:
    words = "x" * 5_000_000
    async with stub(fails(400, "invalid_request_error", words)) as server, client(server) as agent:
        with pytest.raises(CallError) as raised:
            await agent.call(call())
    assert raised.value.failure is CallFailure.REJECTED
    assert len(str(raised.value)) <= 2000
    assert len(pickle.dumps(vars(raised.value))) < 5000


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (f"a {PLAIN} b", "a [redacted] b"),
        (f"{PLAIN}{PLAIN}", "[redacted][redacted]"),
        ("\x1b[2J\nnew line", "\\x1b[2J\\nnew line"),
        ("sk-ant-api03-ABCDEFGHIJKLMNOP", "[redacted]"),
        ("longer-secret and longer", "[redacted] and [redacted]"),
    ],
)
def test_scrubbing(text: str, scrubbed: str) -> None:
    scrub = Scrubber(["longer", PLAIN, "longer-secret", ""])
    assert scrub(text) == scrubbed


def test_a_key_at_the_cut_shows_no_part_of_itself() -> None:
    scrub = Scrubber([PLAIN])
    for before in range(1980, 2001):
        assert PLAIN[:6] not in scrub("." * before + PLAIN)
