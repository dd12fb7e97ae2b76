"""The faults of the design, each against a real socket with the real SDK: one typed outcome."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from cert.coordination.budget import Budget
from cert.coordination.protocol import CallError, CallFailure, StopReason, Usage
from tests.coordination.client.stub import (
    BLOCK,
    DELTA,
    END_BLOCK,
    KEY,
    START,
    STOP,
    Clock,
    call,
    client,
    error_body,
    events,
    fails,
    message,
    part,
    raw,
    replies,
    says,
    says_and_closes,
    says_and_resets,
    streamed,
    stub,
)

if TYPE_CHECKING:
    from tests.coordination.client.stub import Exchange, Script

pytest.importorskip("anthropic")

TRANSIENT, INVALID, REJECTED = CallFailure.TRANSIENT, CallFailure.INVALID, CallFailure.REJECTED
FATAL, LATER = CallFailure.FATAL, CallFailure.LATER

GOOD = json.dumps(message()).encode()


def drips(head: bytes, piece: bytes) -> Script:
    """Say a little, again and again: no read ever times out."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(head)
        while True:
            await exchange.send(piece)
            await asyncio.sleep(0.02)

    return script


@dataclass
class Case:
    script: Script
    failure: CallFailure
    error: str
    requests: int = 1
    is_streamed: bool = False
    timeout_s: float = 20.0
    usage: Usage | None = None
    is_unknown_billed: bool = False


PAID = Usage(10, 5)

CASES = {
    # What the server says about the request or the account.
    "429 without a wait": Case(fails(429, "rate_limit_error"), TRANSIENT, "rate_limit_error", 5),
    "429 retry-after 86400": Case(
        fails(429, "rate_limit_error", headers={"retry-after": "86400"}), LATER, "rate_limit_error"
    ),
    "429 retry-after 301": Case(
        fails(429, "rate_limit_error", headers={"retry-after": "301"}), LATER, "rate_limit_error"
    ),
    "429 retry-after inf": Case(
        fails(429, "rate_limit_error", headers={"retry-after": "inf"}), LATER, "rate_limit_error"
    ),
    "429 retry-after 1e999": Case(
        fails(429, "rate_limit_error", headers={"retry-after": "1e999"}), LATER, "rate_limit_error"
    ),
    "429 retry-after in ten days": Case(
        fails(
            429,
            "rate_limit_error",
            headers={"retry-after": formatdate(time.time() + 864_000, usegmt=True)},
        ),
        LATER,
        "rate_limit_error",
    ),
    "429 retry-after nan": Case(
        fails(429, "rate_limit_error", headers={"retry-after": "nan"}),
        TRANSIENT,
        "rate_limit_error",
        5,
    ),
    "529 retry-after 86400": Case(
        fails(529, "overloaded_error", headers={"retry-after": "86400"}), LATER, "overloaded_error"
    ),
    "spend cap 429 by code": Case(
        fails(429, "rate_limit_error", code="enforced_spend_limit_reached"),
        FATAL,
        "enforced_spend_limit_reached",
    ),
    "spend cap 429 by words": Case(
        fails(429, "rate_limit_error", "You have reached your specified API usage limits."),
        FATAL,
        "rate_limit_error",
    ),
    "400 spend limit": Case(
        fails(400, "invalid_request_error", "Your credit balance is too low"),
        FATAL,
        "invalid_request_error",
    ),
    "529": Case(fails(529, "overloaded_error"), TRANSIENT, "overloaded_error", 5),
    "500": Case(fails(500, "api_error"), TRANSIENT, "api_error", 5),
    "502 with HTML": Case(
        says(raw(b"<html><body>Bad Gateway</body></html>", status=502, kind="text/html")),
        TRANSIENT,
        "http_502",
        5,
    ),
    "504": Case(fails(504, "timeout_error"), TRANSIENT, "timeout_error", 5, is_unknown_billed=True),
    "408": Case(fails(408, "x"), TRANSIENT, "x", 5, is_unknown_billed=True),
    "409": Case(fails(409, "conflict_error"), TRANSIENT, "conflict_error", 5),
    "400": Case(fails(400, "invalid_request_error"), REJECTED, "invalid_request_error"),
    "401": Case(fails(401, "authentication_error"), FATAL, "authentication_error"),
    "402": Case(fails(402, "billing_error"), FATAL, "billing_error"),
    "403": Case(fails(403, "permission_error"), FATAL, "permission_error"),
    "404 unknown model": Case(fails(404, "not_found_error", "model: x"), FATAL, "not_found_error"),
    "413": Case(fails(413, "request_too_large"), REJECTED, "request_too_large"),
    "418": Case(says(raw(b"", status=418)), REJECTED, "http_418"),
    "999": Case(says(raw(b"", status=999)), REJECTED, "http_999"),
    "501": Case(says(raw(b"", status=501)), REJECTED, "http_501"),
    "error of the wrong shape": Case(
        says(raw(b'{"error": ["not", "an", "object"]}', status=400)), REJECTED, "http_400"
    ),
    "error nested too deep": Case(says(raw(b"[" * 60_000, status=400)), REJECTED, "http_400"),
    # What the wire does.
    "slow headers": Case(
        drips(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_unknown_billed=True,
    ),
    "stalled before the headers": Case(
        drips(b"", b""), TRANSIENT, "deadline", timeout_s=0.4, is_unknown_billed=True
    ),
    "stalled body": Case(
        drips(raw(GOOD[:20], length=len(GOOD)), b""),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_unknown_billed=True,
    ),
    "dripping body": Case(
        drips(raw(b"{", length=10**6), b" "),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_unknown_billed=True,
    ),
    "dripping body of an error": Case(
        drips(raw(b"{", length=10**5, status=400), b" "),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_unknown_billed=True,
    ),
    "dripping stream": Case(
        drips(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events(START, BLOCK),
            events({"type": "ping"}),
        ),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "reset mid-body": Case(
        says_and_resets(raw(GOOD[:20], length=len(GOOD))),
        TRANSIENT,
        "ReadError",
        5,
        is_unknown_billed=True,
    ),
    "short body": Case(
        says_and_closes(raw(GOOD[:-1], length=len(GOOD))),
        TRANSIENT,
        "RemoteProtocolError",
        5,
        is_unknown_billed=True,
    ),
    "closed without a word": Case(
        says_and_closes(b""), TRANSIENT, "RemoteProtocolError", 5, is_unknown_billed=True
    ),
    "no HTTP": Case(
        says_and_closes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        TRANSIENT,
        "RemoteProtocolError",
        5,
        is_unknown_billed=True,
    ),
    "early hints without end": Case(
        drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        TRANSIENT,
        "deadline",
        timeout_s=0.4,
        is_unknown_billed=True,
    ),
    "headers without end": Case(
        drips(b"HTTP/1.1 200 OK\r\n", b"x-a: " + b"b" * 60_000 + b"\r\n"),
        TRANSIENT,
        "RemoteProtocolError",
        5,
        is_unknown_billed=True,
    ),
    # What is no message though the status is 200.
    "truncated without length": Case(
        says_and_closes(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + GOOD[:30]),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "malformed": Case(
        says(raw(b'{"type": "message",')), INVALID, "invalid_reply", is_unknown_billed=True
    ),
    "empty": Case(says(raw(b"")), INVALID, "invalid_reply", is_unknown_billed=True),
    "204": Case(
        says(b"HTTP/1.1 204 No Content\r\n\r\n"), INVALID, "invalid_reply", is_unknown_billed=True
    ),
    "HTML": Case(
        says(raw(b"<html>Sign in</html>", kind="text/html")),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "null": Case(says(raw(b"null")), INVALID, "invalid_reply", is_unknown_billed=True),
    "[]": Case(says(raw(b"[]")), INVALID, "invalid_reply", is_unknown_billed=True),
    "NaN": Case(
        says(raw(GOOD.replace(b"10", b"NaN"))), INVALID, "invalid_reply", is_unknown_billed=True
    ),
    "nested too deep": Case(
        says(raw(b"[" * 200_000)), INVALID, "invalid_reply", is_unknown_billed=True
    ),
    "not UTF-8": Case(
        says(raw(GOOD.replace(b"42", b"\xff\xfe"))),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "error body with 200": Case(
        says(raw(json.dumps(error_body("overloaded_error")).encode())),
        TRANSIENT,
        "overloaded_error",
        5,
        is_unknown_billed=True,
    ),
    "authentication error with 200": Case(
        says(raw(json.dumps(error_body("authentication_error")).encode())),
        FATAL,
        "authentication_error",
        is_unknown_billed=True,
    ),
    "unknown error with 200": Case(
        says(raw(json.dumps(error_body("strange_error")).encode())),
        INVALID,
        "strange_error",
        is_unknown_billed=True,
    ),
    "no usage": Case(replies(usage=...), INVALID, "invalid_reply", is_unknown_billed=True),
    "usage of text": Case(
        replies(usage={"input_tokens": "10", "output_tokens": 5}),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "negative usage": Case(
        replies(usage={"input_tokens": 10, "output_tokens": -5}),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "usage that is a truth value": Case(
        replies(usage={"input_tokens": True, "output_tokens": 5}),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "another type": Case(
        replies(type="completion"), INVALID, "invalid_reply", is_unknown_billed=True
    ),
    "another role": Case(replies(role="user"), INVALID, "invalid_reply", usage=PAID),
    "no model": Case(replies(model=...), INVALID, "invalid_reply", usage=PAID),
    "id of a number": Case(replies(id=7), INVALID, "invalid_reply", usage=PAID),
    "no stop reason": Case(replies(stop_reason=None), INVALID, "invalid_reply", usage=PAID),
    "stop reason of a list": Case(replies(stop_reason=[]), INVALID, "invalid_reply", usage=PAID),
    "content of text": Case(replies(content="42"), INVALID, "invalid_reply", usage=PAID),
    "content of null": Case(replies(content=[None]), INVALID, "invalid_reply", usage=PAID),
    "text of a number": Case(
        replies(content=[{"type": "text", "text": 42}]), INVALID, "invalid_reply", usage=PAID
    ),
    "block of an unhashable type": Case(
        replies(content=[{"type": ["text"]}]), INVALID, "invalid_reply", usage=PAID
    ),
    "lone surrogate": Case(
        says(raw(GOOD.replace(b"42", b"\\ud800"))),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "tool_use": Case(
        replies(
            content=[{"type": "tool_use", "id": "t", "name": "n", "input": {}}],
            stop_reason="tool_use",
        ),
        INVALID,
        "invalid_reply",
        usage=PAID,
    ),
    "thinking only": Case(
        replies(content=[{"type": "thinking", "thinking": "hm", "signature": "s"}]),
        INVALID,
        "invalid_reply",
        usage=PAID,
    ),
    "huge": Case(
        drips(raw(b"[", length=2**33), b" " * 2**18),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    "huge by its own word": Case(
        drips(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
            b"data: " + b"x" * 2**18,
        ),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "gzip": Case(
        says(raw(gzip.compress(GOOD), headers={"content-encoding": "gzip"})),
        INVALID,
        "invalid_reply",
        is_unknown_billed=True,
    ),
    # Streams.
    "JSON to a stream request": Case(
        says(raw(GOOD)), INVALID, "invalid_reply", is_streamed=True, is_unknown_billed=True
    ),
    "stream without stop": Case(
        says(streamed(events(START, BLOCK, part("42"), END_BLOCK, DELTA))),
        TRANSIENT,
        "cut_stream",
        5,
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream without anything": Case(
        says(streamed(b"")),
        TRANSIENT,
        "cut_stream",
        5,
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream cut off": Case(
        says_and_closes(streamed(events(START, BLOCK, part("4")))[:-5]),
        TRANSIENT,
        "RemoteProtocolError",
        5,
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream without stop reason": Case(
        says(streamed(events(START, BLOCK, part("42"), END_BLOCK, STOP))),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        usage=Usage(10, 1),
    ),
    "overloaded within a stream": Case(
        says(streamed(events(START, BLOCK, error_body("overloaded_error")))),
        TRANSIENT,
        "overloaded_error",
        5,
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "error before a stream": Case(
        fails(401, "authentication_error"), FATAL, "authentication_error", is_streamed=True
    ),
    "stream of no JSON": Case(
        says(streamed(events(START) + b"event: content_block_start\ndata: {\n\n")),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream of no UTF-8": Case(
        says(streamed(events(START) + b"event: x\ndata: \xff\xfe\n\n")),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream of null": Case(
        says(streamed(b"event: message_start\ndata: null\n\n")),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "stream out of order": Case(
        says(streamed(events(part("42"), START))),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
    "two messages in a stream": Case(
        says(streamed(events(START, START))),
        INVALID,
        "invalid_reply",
        is_streamed=True,
        is_unknown_billed=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_each_fault_has_one_typed_outcome(name: str) -> None:
    case = CASES[name]
    budget = Budget(max_tokens=10_000)
    async with (
        stub(case.script) as server,
        client(server, budget=budget, config={"is_streamed": case.is_streamed}) as agent,
    ):
        began_s = time.monotonic()
        with pytest.raises(CallError) as raised:
            await agent.call(call(timeout_s=case.timeout_s))
        took_s = time.monotonic() - began_s
    error = raised.value
    assert (error.failure, error.attempts[-1].error) == (case.failure, case.error)
    assert len(server.requests) == len(error.attempts) == case.requests
    assert took_s < case.timeout_s + 1.0
    assert (error.usage, error.is_unknown_billed) == (case.usage, case.is_unknown_billed)
    assert budget.reserved_tokens == 0
    if case.usage is not None:
        assert budget.spent.tokens == case.usage.input_tokens + case.usage.output_tokens
    assert (budget.spent.unknown_tokens > 0) is case.is_unknown_billed
    assert len(str(error)) <= 2000
    assert KEY not in repr(error)
    assert error.__context__ is error.__cause__ is None


@pytest.mark.parametrize("text", ["1", "0.5", "-3", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""])
async def test_a_short_wait_is_waited_for_and_the_call_goes_on(text: str) -> None:
    clock = Clock()
    throttled = fails(429, "rate_limit_error", headers={"retry-after": text})
    async with stub(throttled, replies()) as server, client(server, clock=clock) as agent:
        reply = await agent.call(call())
    assert reply.text == "42"
    assert [one.status for one in reply.attempts] == [429, 200]
    # The jitter draws its maximum here: one second before the second attempt.
    assert clock.slept_s == [1.0]
    assert reply.attempts[0].waited_s == 1.0


async def test_a_wait_of_300_s_is_waited_for_and_does_not_count_against_the_deadline() -> None:
    clock = Clock()
    throttled = fails(429, "rate_limit_error", headers={"retry-after": "300"})
    async with stub(throttled, replies()) as server, client(server, clock=clock) as agent:
        reply = await agent.call(call(timeout_s=2.0))
    assert clock.slept_s == [300.0]
    assert reply.latency_s == 300.0


async def test_retry_after_ms_is_the_finer_word() -> None:
    clock = Clock()
    headers = {"retry-after": "2", "retry-after-ms": "1500"}
    async with (
        stub(fails(503, "api_error", headers=headers), replies()) as server,
        client(server, clock=clock) as agent,
    ):
        await agent.call(call())
    assert clock.slept_s == [1.5]


async def test_later_says_how_long() -> None:
    throttled = fails(429, "rate_limit_error", headers={"retry-after": "86400"})
    async with stub(throttled) as server, client(server) as agent:
        with pytest.raises(CallError, match="429") as raised:
            await agent.call(call())
    assert raised.value.retry_after == 86400.0
    assert "resume" in (raised.value.hint or "")


async def test_backing_off_grows_and_is_drawn_from_zero() -> None:
    clock = Clock()
    async with stub(fails(500, "api_error")) as server, client(server, clock=clock) as agent:
        with pytest.raises(CallError):
            await agent.call(call())
    assert clock.slept_s == [1.0, 2.0, 4.0, 8.0]


async def test_backing_off_ends_with_the_deadline() -> None:
    clock = Clock()
    async with stub(fails(500, "api_error")) as server, client(server, clock=clock) as agent:
        with pytest.raises(CallError, match="api_error") as raised:
            await agent.call(call(timeout_s=2.5))
    assert raised.value.failure is TRANSIENT
    assert len(server.requests) == 2
    assert clock.slept_s == [1.0]


async def test_a_refusal_and_a_cut_reply_are_replies() -> None:
    refused = replies(content=[], stop_reason="refusal")
    cut = replies(stop_reason="max_tokens")
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    cut_in_thought = replies(content=thinking, stop_reason="max_tokens")
    async with stub(refused, cut, cut_in_thought) as server, client(server) as agent:
        answers = [await agent.call(call()) for _ in range(3)]
    assert [(one.text, one.stop_reason) for one in answers] == [
        ("", StopReason.REFUSAL),
        ("42", StopReason.MAX_TOKENS),
        ("", StopReason.MAX_TOKENS),
    ]


async def test_a_redirect_elsewhere_is_not_followed() -> None:
    async with stub(replies()) as elsewhere:
        moved = says(raw(b"", status=307, headers={"location": f"{elsewhere.url}/v1/messages"}))
        async with stub(moved) as server, client(server) as agent:
            with pytest.raises(CallError) as raised:
                await agent.call(call())
        assert elsewhere.requests == []
        assert elsewhere.connections == 0
    assert raised.value.failure is FATAL
    assert "redirects are not followed" in (raised.value.hint or "")


async def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    async with (
        stub(says_and_closes(raw(GOOD)), replies()) as server,
        client(server, budget=Budget(max_tokens=10_000)) as agent,
    ):
        await agent.call(call())
        await asyncio.sleep(0.05)
        reply = await agent.call(call())
    assert len(reply.attempts) == 1
    assert server.connections == 2
    assert agent.budget.spent.unknown_tokens == 0


async def test_nobody_listens() -> None:
    async with stub(replies()) as server:
        port_of_nobody = server
    budget = Budget(max_tokens=10_000)
    async with client(port_of_nobody, budget=budget) as agent:
        with pytest.raises(CallError) as raised:
            await agent.call(call())
    assert raised.value.failure is TRANSIENT
    assert [one.error for one in raised.value.attempts] == ["ConnectError"] * 5
    # What could not be sent was not charged for.
    assert budget.spent.tokens == budget.reserved_tokens == 0


async def test_a_stream_gives_the_same_reply() -> None:
    body = events(
        START,
        BLOCK,
        {"type": "ping"},
        part("4"),
        {"type": "a_kind_of_tomorrow"},
        part("2"),
        END_BLOCK,
        DELTA,
        STOP,
    )
    async with (
        stub(says(streamed(b": comment\n\nevent: ping\ndata: pong\n\n" + body))) as server,
        client(server, config={"is_streamed": True}) as agent,
    ):
        reply = await agent.call(call())
    assert server.requests[0].body["stream"] is True
    assert (reply.text, reply.usage, reply.stop_reason) == ("42", PAID, StopReason.END_TURN)
    assert (reply.model, reply.message_id) == ("model-x-1", "msg_1")
    assert reply.attempts[0].request_id == "req_1"
