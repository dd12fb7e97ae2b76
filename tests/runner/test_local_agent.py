from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.protocol import (
    Agent,
    Call,
    CallError,
    CallFailure,
    Message,
    Role,
    StopReason,
)
from cert.core.config import CERTConfig
from cert.runner.local import open_engine
from cert.runner.local_agent import LocalAgent, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.trajectory.engine import HamiltonianEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[HamiltonianEngine]:
    with open_engine(CERTConfig(model="reference")) as engine:
        engine.model_resource.load()
        yield engine


@pytest.fixture
def agent(engine: HamiltonianEngine) -> Agent:
    return LocalAgent(engine, temperature=1.0, seed=7, chat="never")


def ask(key: str = "t1/A/0", text: str = "Once upon a time", **more: object) -> Call:
    given = {"max_tokens": 8, **more}
    return Call(key=key, model="reference", messages=(Message(Role.USER, text),), **given)  # type: ignore[arg-type]


async def test_a_reply_carries_its_signals_and_its_cost(agent: Agent) -> None:
    reply = await agent.call(ask())
    assert reply.stop_reason is StopReason.MAX_TOKENS
    assert reply.usage.output_tokens == 8
    assert reply.usage.input_tokens > 3
    assert reply.model == "reference"
    assert reply.signals is not None
    assert reply.signals["tokens"] == 8
    mean_nll = reply.signals["mean_nll"]
    assert isinstance(mean_nll, float)
    assert reply.signals["perplexity"] == pytest.approx(math.exp(mean_nll), rel=1e-12)
    assert [attempt.error for attempt in reply.attempts] == [None]
    assert reply.text


async def test_the_key_draws_the_reply_and_nothing_else_does(agent: Agent) -> None:
    calls = [ask(f"t{number}/A/0") for number in range(6)]
    together = await asyncio.gather(*(agent.call(call) for call in calls))
    alone = [await agent.call(call) for call in reversed(calls)]
    assert [one.text for one in together] == [one.text for one in reversed(alone)]
    assert len({one.text for one in together}) > 1


@pytest.mark.parametrize("text", ["", "\ud800", "a" * 100_001])
async def test_what_cannot_be_asked_is_rejected(agent: Agent, text: str) -> None:
    with pytest.raises(CallError) as caught:
        await agent.call(ask(text=text))
    assert caught.value.failure is CallFailure.REJECTED
    assert caught.value.attempts[0].error in {"InvalidInput", "PromptTooLong"}


async def test_a_reply_that_is_cut_off_is_none(agent: Agent) -> None:
    with pytest.raises(CallError, match=r"cut off after|GenerationTimeout") as caught:
        await agent.call(ask(max_tokens=1000, timeout_s=0.05))
    assert caught.value.failure is CallFailure.TRANSIENT


async def test_closing_leaves_the_engine(agent: Agent) -> None:
    await agent.aclose()
    assert (await agent.call(ask(max_tokens=2))).usage.output_tokens == 2


async def test_calls_are_counted_with_how_they_ended(engine: HamiltonianEngine) -> None:
    registry = CollectorRegistry()
    metrics = CoordinationMetrics(registry)
    agent = LocalAgent(engine, temperature=0.0, seed=0, chat="never", metrics=metrics)
    reply = await agent.call(ask(max_tokens=3))
    with pytest.raises(CallError):
        await agent.call(ask(text=""))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cert_coordination_{name}", labels)

    assert value("calls_total", outcome="ok") == value("calls_total", outcome="rejected") == 1
    assert value("tokens_total", direction="output") == 3
    assert value("tokens_total", direction="input") == reply.usage.input_tokens
    assert value("cost_usd_total") == 0


def test_a_conversation_is_one_text() -> None:
    turns = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "c"))
    assert render(Call(key="k", model="m", messages=turns, system="s")) == (
        "s\n\nUser: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"
    )
    assert render(Call(key="k", model="m", messages=turns[:1], system="s")) == "s\n\na"
