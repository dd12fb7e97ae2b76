"""Several agents as one: each call goes to whoever answers for its model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cert.coordination.protocol import CallError, CallFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.protocol import Agent, Call, Reply


class RoutedAgent:
    """An agent of agents.

    Args:
        routes: Who answers, by the name under which a model is asked; one may answer for several.
    """

    def __init__(self, routes: Mapping[str, Agent]) -> None:
        self._routes = dict(routes)

    async def call(self, call: Call) -> Reply:
        """Answer.

        Raises:
            CallError: There is no reply, or nobody answers for the model.
        """
        agent = self._routes.get(call.model)
        if agent is None:
            raise CallError(
                f"nobody answers for the model {call.model!r}", failure=CallFailure.FATAL
            )
        return await agent.call(call)

    async def aclose(self) -> None:
        """Close each of them once."""
        agents = {id(agent): agent for agent in self._routes.values()}.values()
        await asyncio.gather(*(agent.aclose() for agent in agents))
