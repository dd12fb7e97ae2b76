from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from cert.coordination.budget import Budget
from cert.coordination.client import AnthropicClient
from cert.coordination.endpoint import ClientConfig
from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.prices import parse_prices
from cert.coordination.protocol import CallError, CallFailure, Message, Reply, Role, Usage
from tests.coordination.client.stub import (
    Clock,
    call,
    client,
    fails,
    message,
    raw,
    replies,
    says,
    stub,
)

if TYPE_CHECKING:
    from tests.coordination.client.stub import Exchange, Stub

pytest.importorskip("anthropic")

PRICES = parse_prices(b"models: {model-x: {input_usd_per_mtok: 3, output_usd_per_mtok: 15}}")
SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 4}},
    "required": ["score"],
    "additionalProperties": False,
}


async def stalls(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def until(server: Stub, count: int) -> None:
    while len(server.requests) < count:  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(0.005)


async def test_the_request_is_what_the_api_asks_for() -> None:
    async with stub(replies()) as server, client(server) as agent:
        await agent.call(
            call(
                system="Be brief.",
                messages=(
                    Message(Role.USER, "How much?"),
                    Message(Role.ASSISTANT, "What?"),
                    Message(Role.USER, "Äpfel 🍎"),
                ),
            )
        )
        (request,) = server.requests
        assert request.line == "POST /v1/messages HTTP/1.1"
        assert request.body == {
            "model": "model-x",
            "max_tokens": 100,
            "system": "Be brief.",
            "messages": [
                {"role": "user", "content": "How much?"},
                {"role": "assistant", "content": "What?"},
                {"role": "user", "content": "Äpfel 🍎"},
            ],
        }
        assert request.headers["anthropic-version"] == agent.api_version
        assert request.headers["accept-encoding"] == "identity"


async def test_a_reply_says_all_that_came_with_it() -> None:
    told = {
        "anthropic-ratelimit-requests-remaining": "7",
        "retry-after": "3",
        "x-other": "not told",
    }
    body = message(
        content=[
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "4"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "2"},
        ],
        usage={
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 4,
            "server_tool_use": None,
        },
    )
    async with (
        stub(says(raw(json.dumps(body).encode(), headers=told))) as server,
        client(server) as agent,
    ):
        reply = await agent.call(call())
    assert (reply.text, reply.model, reply.message_id) == ("42", "model-x-1", "msg_1")
    assert reply.usage == Usage(1, 2, 3, 4)
    assert reply.rate_limits == {"anthropic-ratelimit-requests-remaining": "7", "retry-after": "3"}
    assert reply.attempts[0].request_id == "req_1"


# --- schema


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 1.5}',
        '{"score": 5}',
        '{"score": -1}',
        '{"score": "3"}',
        '{"score": true}',
        '{"score": 3, "extra": 1}',
        "{}",
        "3",
        '{"score": NaN}',
        '```json\n{"score": 3}\n```',
        "",
    ],
)
async def test_what_does_not_follow_the_schema_is_no_reply_and_is_paid_for(text: str) -> None:
    budget = Budget(max_tokens=10_000)
    async with (
        stub(replies(content=[{"type": "text", "text": text}])) as server,
        client(server, budget=budget) as agent,
    ):
        with pytest.raises(CallError) as raised:
            await agent.call(call(schema=SCORE))
    assert raised.value.failure is CallFailure.INVALID
    assert raised.value.usage == Usage(10, 5)
    assert len(server.requests) == 1
    assert (budget.spent.tokens, budget.spent.unknown_tokens) == (15, 0)
    assert raised.value.attempts[0].request_id == "req_1"


async def test_what_follows_the_schema_is_a_reply() -> None:
    async with (
        stub(replies(content=[{"type": "text", "text": '{"score": 4}'}])) as server,
        client(server) as agent,
    ):
        reply = await agent.call(call(schema=SCORE))
    assert reply.text == '{"score": 4}'
    asked = server.requests[0].body["output_config"]["format"]
    assert asked["type"] == "json_schema"
    # Bounds go as words: the API refuses them as keywords.
    assert "maximum" not in asked["schema"]["properties"]["score"]
    assert "4" in asked["schema"]["properties"]["score"]["description"]


async def test_a_cut_reply_does_not_follow_a_schema_even_where_it_looks_so() -> None:
    cut = replies(content=[{"type": "text", "text": '{"score": 4}'}], stop_reason="max_tokens")
    async with stub(cut) as server, client(server) as agent:
        with pytest.raises(CallError, match="max_tokens") as raised:
            await agent.call(call(schema=SCORE))
    assert raised.value.failure is CallFailure.INVALID


async def test_a_refusal_has_no_schema_to_follow() -> None:
    async with stub(replies(content=[], stop_reason="refusal")) as server, client(server) as agent:
        assert (await agent.call(call(schema=SCORE))).text == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": {"type": "no such type"}},
        {"schema": {"type": 7}},
        {"schema": {"items": {}}},
        {"schema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}},
        {"messages": (Message(Role.USER, "\ud800"),)},
        {"system": "\udfff"},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"max_tokens": 0},
        {"messages": ()},
        {"messages": (Message(Role.ASSISTANT, "I"),)},
    ],
)
async def test_what_cannot_be_sent_is_rejected_before_it_costs(changes: dict[str, object]) -> None:
    budget = Budget(max_tokens=100_000)
    async with stub(replies()) as server, client(server, budget=budget) as agent:
        with pytest.raises(CallError) as raised:
            await agent.call(call(**changes))
    assert raised.value.failure is CallFailure.REJECTED
    assert raised.value.attempts == ()
    assert server.requests == []
    assert budget.spent.tokens == budget.reserved_tokens == 0


# --- budget


async def test_a_call_that_might_go_over_the_budget_is_not_made() -> None:
    async with (
        stub(replies()) as server,
        client(server, budget=Budget(max_tokens=100)) as agent,
    ):
        with pytest.raises(CallError, match="budget of 100 tokens") as raised:
            await agent.call(call())
    assert raised.value.failure is CallFailure.BUDGET
    assert raised.value.attempts == ()
    assert server.requests == []


async def test_a_second_attempt_has_to_fit_too() -> None:
    # One attempt reserves 9 bytes + 64 + 16 + 100 for the reply = 189.
    budget = Budget(max_tokens=300)
    async with (
        stub(fails(504, "timeout_error")) as server,
        client(server, budget=budget) as agent,
    ):
        with pytest.raises(CallError) as raised:
            await agent.call(call())
    assert raised.value.failure is CallFailure.BUDGET
    assert raised.value.is_unknown_billed
    assert [one.error for one in raised.value.attempts] == ["timeout_error"]
    assert (budget.spent.tokens, budget.spent.unknown_tokens) == (189, 189)


async def test_costs_follow_the_prices() -> None:
    budget = Budget(prices=PRICES)
    async with stub(replies()) as server, client(server, budget=budget) as agent:
        await agent.call(call())
    # 10 * 3 + 5 * 15 USD per million.
    assert str(budget.spent.usd.normalize()) == "0.000105"


async def test_many_calls_at_once_never_spend_more_than_they_may() -> None:
    """The server's own count of what it charged, over answers of every kind."""
    refused = 0
    for seed in range(12):
        draw = random.Random(seed)
        charged = 0

        async def answer(exchange: Exchange, draw: random.Random = draw) -> None:
            nonlocal charged
            usage = {
                "input_tokens": draw.randrange(80),
                "output_tokens": draw.randrange(exchange.request.body["max_tokens"] + 1),
            }
            match draw.randrange(6):
                case 0:
                    await fails(529, "overloaded_error")(exchange)
                    return
                case 1:
                    charged += sum(usage.values())
                    exchange.reset()
                case 2:
                    charged += sum(usage.values())
                    await says(raw(b"{"))(exchange)
                case 3:
                    charged += sum(usage.values())
                    await replies(usage=usage, content=[])(exchange)
                case _:
                    charged += sum(usage.values())
                    await replies(usage=usage)(exchange)

        budget = Budget(max_tokens=draw.randrange(200, 1500))
        async with stub(answer) as server, client(server, budget=budget) as agent:
            calls = [asyncio.ensure_future(agent.call(call())) for _ in range(20)]
            await until(server, 1)
            draw.choice(calls).cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
        others = [one for one in ended if not isinstance(one, Reply | CallError)]
        assert all(isinstance(one, asyncio.CancelledError) for one in others)
        assert charged <= budget.spent.tokens <= (budget.max_tokens or 0)
        assert budget.reserved_tokens == 0
        refused += sum(
            isinstance(one, CallError) and one.failure is CallFailure.BUDGET for one in ended
        )
    assert refused > 0  # the limit was in play


async def test_a_model_without_a_price_ends_the_run_before_it_is_asked() -> None:
    async with (
        stub(replies()) as server,
        client(server, budget=Budget(prices=PRICES)) as agent,
    ):
        with pytest.raises(CallError, match="no price for the model other") as raised:
            await agent.call(call(model="other"))
    assert raised.value.failure is CallFailure.FATAL
    assert server.requests == []


# --- breaker, and how many at once


async def test_the_breaker_opens_after_five_failures_and_one_probe_closes_it() -> None:
    clock = Clock()
    down = fails(500, "api_error")
    async with (
        stub(*[down] * 5, replies()) as server,
        client(server, clock=clock) as agent,
    ):
        with pytest.raises(CallError):
            await agent.call(call())
        assert len(server.requests) == 5
        # It can wait out the 30 s, but not within its time, so it does not try.
        with pytest.raises(CallError, match="CircuitOpenError") as raised:
            await agent.call(call(timeout_s=29.0))
        assert raised.value.failure is CallFailure.TRANSIENT
        assert len(server.requests) == 5
        reply = await agent.call(call(timeout_s=31.0))
        assert len(server.requests) == 6
        await agent.call(call())
    assert [one.error for one in reply.attempts] == ["CircuitOpenError", None]
    assert reply.attempts[0].waited_s == 30.0


async def test_the_breaker_of_another_model_stays_closed() -> None:
    async with (
        stub(*[fails(529, "overloaded_error")] * 5, replies()) as server,
        client(server) as agent,
    ):
        with pytest.raises(CallError):
            await agent.call(call())
        reply = await agent.call(call(model="model-y"))
    assert len(reply.attempts) == 1


async def test_a_service_that_stays_down_is_probed_ever_more_rarely() -> None:
    clock = Clock()
    asked_at_s = []

    async def down(exchange: Exchange) -> None:
        asked_at_s.append(clock())
        await fails(503, "api_error")(exchange)

    async with stub(down) as server, client(server, clock=clock) as agent:
        for _ in range(5):
            with pytest.raises(CallError):
                await agent.call(call(timeout_s=1e6))
    between_s = [later - earlier for earlier, later in pairwise(asked_at_s)]
    assert between_s[:9] == [1.0, 2.0, 4.0, 8.0, 30.0, 60.0, 120.0, 240.0, 300.0]
    assert set(between_s[9:]) == {300.0}


async def test_429_never_opens_the_breaker_and_halves_the_concurrency() -> None:
    async with (
        stub(*[fails(429, "rate_limit_error")] * 10, replies()) as server,
        client(server, config={"initial_concurrency": 8}) as agent,
    ):
        for _ in range(2):
            with pytest.raises(CallError):
                await agent.call(call())
        reply = await agent.call(call())
        limit = agent._lane("model-x").limit.limit
    assert len(reply.attempts) == 1
    assert limit == 2  # 8, halved down to 1, and one success more


async def test_a_wait_that_the_server_asks_for_holds_the_other_calls_too() -> None:
    clock, over = Clock(), asyncio.Event()
    slept_s = []

    async def sleep(wait_s: float) -> None:
        slept_s.append(wait_s)
        await over.wait()

    throttled = fails(429, "rate_limit_error", headers={"retry-after": "60"})
    async with stub(throttled, replies()) as server:
        config = ClientConfig(base_url=server.url, initial_concurrency=1)
        agent = AnthropicClient(config, clock=clock, sleep=sleep)
        calls = [asyncio.ensure_future(agent.call(call())) for _ in range(2)]
        while len(slept_s) < 2:  # noqa: ASYNC110 - nothing tells when a call waits
            await asyncio.sleep(0.005)
        assert slept_s == [60.0, 60.0]
        assert len(server.requests) == 1
        clock.now_s += 60.0
        over.set()
        await asyncio.gather(*calls)
        await agent.aclose()
    assert len(server.requests) == 3


async def test_no_more_calls_are_in_flight_than_the_limit_allows() -> None:
    most = now = 0

    async def counted(exchange: Exchange) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        await replies()(exchange)

    async with (
        stub(counted) as server,
        client(server, config={"initial_concurrency": 3, "max_concurrency": 3}) as agent,
    ):
        done = await asyncio.gather(*(agent.call(call()) for _ in range(12)))
    assert len(done) == len(server.requests) == 12
    assert most == 3
    assert server.connections == 3


async def test_waiting_for_a_slot_does_not_count_against_the_deadline() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await replies()(exchange)

    async with (
        stub(slow) as server,
        client(server, config={"initial_concurrency": 1, "max_concurrency": 1}) as agent,
    ):
        done = await asyncio.gather(*(agent.call(call(timeout_s=2.5)) for _ in range(10)))
    assert len(done) == 10


# --- taken back, closed


async def test_a_call_that_is_taken_back_leaves_nothing_behind() -> None:
    budget = Budget(max_tokens=10_000)
    registry = CollectorRegistry()
    before = asyncio.all_tasks()
    async with (
        stub(stalls) as server,
        client(
            server,
            budget=budget,
            metrics=CoordinationMetrics(registry),
            config={"initial_concurrency": 2},
        ) as agent,
    ):
        calls = [asyncio.ensure_future(agent.call(call())) for _ in range(5)]
        await until(server, 2)
        for one in calls:
            one.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        limit = agent._lane("model-x").limit
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        assert limit.in_flight == limit.waiting == 0
        assert budget.reserved_tokens == 0
        # The two that were on their way may be charged for; the three that waited are not.
        assert budget.spent.unknown_tokens == 2 * 189
        while server.open_now:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.005)
    assert registry.get_sample_value("cert_coordination_in_flight") == 0
    assert registry.get_sample_value("cert_coordination_calls_total", {"outcome": "cancelled"}) == 5
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= before


async def test_a_call_that_is_taken_back_while_it_backs_off_leaves_nothing_behind() -> None:
    waiting = asyncio.Event()

    async def sleep(wait_s: float) -> None:
        waiting.set()
        await asyncio.sleep(60)

    async with stub(fails(500, "api_error")) as server:
        budget = Budget(max_tokens=10_000)
        agent = AnthropicClient(ClientConfig(base_url=server.url), budget=budget, sleep=sleep)
        running = asyncio.ensure_future(agent.call(call()))
        await waiting.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert budget.reserved_tokens == budget.spent.tokens == 0
        assert agent._lane("model-x").limit.in_flight == 0
        await agent.aclose()


async def test_a_closed_client_says_so() -> None:
    async with stub(replies()) as server, client(server) as agent:
        await agent.call(call())
        await agent.aclose()
        await agent.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await agent.call(call())
    assert len(server.requests) == 1


async def test_a_client_that_is_closed_ends_the_calls_on_their_way() -> None:
    budget = Budget(max_tokens=10_000)
    async with stub(stalls) as server, client(server, budget=budget) as agent:
        running = asyncio.ensure_future(agent.call(call()))
        await until(server, 1)
        await agent.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await running
    assert budget.reserved_tokens == 0
    assert len(server.requests) == 1


# --- metrics


async def test_the_metrics_count_what_happened() -> None:
    registry = CollectorRegistry()
    budget = Budget(prices=PRICES)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cert_coordination_{name}", labels)

    async with (
        stub(
            fails(500, "api_error"),
            replies(),
            fails(400, "invalid_request_error"),
            fails(504, "timeout_error"),
        ) as server,
        client(server, budget=budget, metrics=CoordinationMetrics(registry)) as agent,
    ):
        await agent.call(call())
        with pytest.raises(CallError):
            await agent.call(call())
        assert value("breakers", state="closed") == 1
        with pytest.raises(CallError):
            await agent.call(call())
        assert value("breakers", state="closed") == 0
        assert value("breakers", state="open") == 1
    assert value("calls_total", outcome="ok") == 1
    assert value("calls_total", outcome="rejected") == 1
    assert value("calls_total", outcome="transient") == 1
    assert value("call_duration_seconds_count", outcome="ok") == 1
    assert value("retries_total") == 1 + 0 + 4
    assert value("tokens_total", direction="input") == 10
    assert value("tokens_total", direction="output") == 5
    assert value("tokens_total", direction="unknown") == 5 * 189
    assert value("cost_usd_total") == pytest.approx(float(budget.spent.usd))
    assert value("in_flight") == 0
    assert value("breakers", state="open") == 0


def test_two_clients_of_a_registry_share_their_series() -> None:
    registry = CollectorRegistry()
    CoordinationMetrics(registry)
    CoordinationMetrics(registry).record_usage(Usage(1, 2), None)
    labels = {"direction": "output"}
    assert registry.get_sample_value("cert_coordination_tokens_total", labels) == 2


# --- without the extra

_WITHOUT = """
import sys
sys.modules["anthropic"] = sys.modules["httpx2"] = None
import cert.coordination.client as client
from cert.coordination.endpoint import ClientConfig
from cert.core.errors import MissingExtraError
try:
    client.AnthropicClient(ClientConfig(base_url="http://127.0.0.1:1"))
except MissingExtraError as error:
    print(error.hint)
"""


def test_without_the_extra_only_building_a_client_fails() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=60, check=True
    )
    assert "[coordination]'" in done.stdout


def test_importing_the_client_loads_neither_the_sdk_nor_scipy() -> None:
    code = (
        "import sys, cert.coordination.client\n"
        "print([m for m in ('anthropic', 'httpx2', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
