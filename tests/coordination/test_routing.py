from __future__ import annotations

import pytest

from cert.coordination.protocol import Call, CallError, CallFailure, Message, Role
from cert.coordination.routing import RoutedAgent
from tests.coordination.helpers import FakeAgent


class Closing(FakeAgent):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def call(model: str) -> Call:
    return Call(key="t/a/0/0/0", model=model, messages=(Message(Role.USER, "hi"),))


async def test_each_call_goes_to_whoever_answers_for_its_model() -> None:
    one, other = FakeAgent(lambda _: "one"), FakeAgent(lambda _: "other")
    agent = RoutedAgent({"a": one, "b": other, "c": other})
    texts = [(await agent.call(call(model))).text for model in ("a", "b", "c")]
    assert texts == ["one", "other", "other"]


async def test_a_model_that_nobody_answers_for_ends_the_run() -> None:
    with pytest.raises(CallError, match="'x'") as caught:
        await RoutedAgent({}).call(call("x"))
    assert caught.value.failure is CallFailure.FATAL


async def test_an_agent_of_several_models_is_closed_once() -> None:
    one, other = Closing(lambda _: ""), Closing(lambda _: "")
    await RoutedAgent({"a": one, "b": other, "c": other}).aclose()
    assert (one.closed, other.closed) == (1, 1)
