"""A model of this process as an agent: the monitor's engine behind the client's interface.

Every reply carries the signals of its tokens. Calls that arrive together are batched by the engine.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from cert.backends.protocol import FinishReason, SamplingParams
from cert.coordination.metrics import Outcome
from cert.coordination.protocol import (
    Attempt,
    Call,
    CallError,
    CallFailure,
    Reply,
    Role,
    StopReason,
    Usage,
)
from cert.core.errors import AnalysisError
from cert.evidence.record import describe_signals
from cert.inputs.case import PromptCase

if TYPE_CHECKING:
    from cert.coordination.metrics import CoordinationMetrics
    from cert.trajectory.engine import HamiltonianEngine

_STOP_REASONS: Final = {
    FinishReason.EOS: StopReason.END_TURN,
    FinishReason.LENGTH: StopReason.MAX_TOKENS,
    FinishReason.STOP: StopReason.STOP_SEQUENCE,
}
_FAILURES: Final = {
    "InvalidInput": CallFailure.REJECTED,
    "PromptTooLong": CallFailure.REJECTED,
    "ModelUnavailableError": CallFailure.FATAL,
    "ModelRefusedError": CallFailure.FATAL,
}
_NAMES: Final = {Role.USER: "User", Role.ASSISTANT: "Assistant"}


class LocalAgent:
    """Answers calls with one engine, whose model stays the caller's to load and to free."""

    def __init__(
        self,
        engine: HamiltonianEngine,
        *,
        temperature: float,
        seed: int,
        chat: str = "auto",
        metrics: CoordinationMetrics | None = None,
    ) -> None:
        """Take an engine.

        Args:
            engine: Answers every call, whatever model it names.
            temperature: Of the sampling; 0 makes all replicates of a call equal.
            seed: Keys sampling together with the call's key, so that a call that is repeated gets
                the same answer.
            chat: `auto`, `always` or `never`: whether the chat template is applied.
            metrics: Counts the calls; None counts none.
        """
        self._engine = engine
        self._temperature = temperature
        self._seed = seed
        self._chat = chat
        self._metrics = metrics

    async def call(self, call: Call) -> Reply:
        """Generate the next turn of the conversation.

        A schema is not enforced: whoever asked for one validates what comes.

        Raises:
            CallError: Nothing was generated, or not to its end.
        """
        if self._metrics is None:
            return await self._generate(call)
        started, outcome = time.monotonic(), Outcome.CANCELLED
        usage: Usage | None = None
        try:
            reply = await self._generate(call)
            outcome, usage = Outcome.OK, reply.usage
        except CallError as error:
            outcome, usage = Outcome(error.failure), error.usage
            raise
        finally:
            self._metrics.record_call(outcome, duration_s=time.monotonic() - started, attempts=1)
            if usage is not None:
                self._metrics.record_usage(usage, None)
        return reply

    async def _generate(self, call: Call) -> Reply:
        started = time.monotonic()
        sampling = SamplingParams(
            max_new_tokens=call.max_tokens,
            temperature=self._temperature,
            seed=self._seed,
        )
        outcome = await asyncio.wrap_future(
            self._engine.submit(
                PromptCase(id=call.key, text=render(call)),
                sampling=sampling,
                timeout=call.timeout_s,
                chat=self._chat,
            )
        )
        latency_s = time.monotonic() - started
        if isinstance(outcome, AnalysisError):
            raise CallError(
                f"{outcome.error_type}: {outcome.message}",
                failure=_FAILURES.get(outcome.error_type, CallFailure.TRANSIENT),
                attempts=(Attempt(None, outcome.error_type, latency_s),),
                retry_after=outcome.retry_after,
            )
        generation = outcome.generation
        usage = Usage(len(generation.prompt_token_ids), len(generation.trace))
        stop_reason = _STOP_REASONS.get(generation.finish_reason)
        if stop_reason is None:
            raise CallError(
                f"the reply was cut off after {usage.output_tokens} tokens: "
                f"{generation.finish_reason.value}",
                failure=CallFailure.TRANSIENT,
                attempts=(Attempt(None, generation.finish_reason.value, latency_s),),
                usage=usage,
            )
        return Reply(
            text=generation.text,
            stop_reason=stop_reason,
            usage=usage,
            model=outcome.identity.name,
            attempts=(Attempt(None, None, latency_s),),
            latency_s=latency_s,
            signals=describe_signals(outcome.summary),
        )

    async def aclose(self) -> None:
        """Do nothing: the engine is the caller's."""


def render(call: Call) -> str:
    """Write a conversation as the one text that an engine takes.

    A lone message stays as it is, so that a chat template can be applied to it; otherwise turns
    are named, and the assistant's is the next one.

    >>> from cert.coordination.protocol import Message
    >>> render(Call(key="k", model="m", messages=(Message(Role.USER, "hi"),)))
    'hi'
    """
    system = [] if call.system is None else [call.system]
    if len(call.messages) == 1:
        return "\n\n".join([*system, call.messages[0].text])
    turns = [f"{_NAMES[one.role]}: {one.text}" for one in call.messages]
    return "\n\n".join([*system, *turns, "Assistant:"])
