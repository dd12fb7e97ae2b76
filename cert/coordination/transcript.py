"""What was asked and what came of it, as frozen values that a record can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from cert.coordination.digests import digest_of
from cert.coordination.protocol import (
    Attempt,
    Call,
    CallError,
    CallFailure,
    Message,
    Reply,
    Role,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.prompts import Rendered

STOPS_THE_RUN: Final = frozenset({CallFailure.FATAL, CallFailure.LATER, CallFailure.BUDGET})
"""Failures that say nothing about the call: it is made again when the run goes on."""

MAX_MESSAGE_CHARS: Final = 1000


class Purpose(StrEnum):
    """What a call was for."""

    ARM = "arm"
    """Part of the arrangement that is measured; its tokens are the arm's."""
    JUDGE = "judge"
    """Part of the measurement."""


@dataclass(frozen=True, slots=True)
class CallFault:
    """A call without a reply, as a value; the attributes are those of `CallError`."""

    failure: CallFailure
    message: str
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    is_unknown_billed: bool = False

    @classmethod
    def from_error(cls, error: CallError) -> CallFault:
        """Describe an error; its message is cut at `MAX_MESSAGE_CHARS`."""
        return cls(
            error.failure,
            error.message[:MAX_MESSAGE_CHARS],
            error.attempts,
            error.usage,
            error.is_unknown_billed,
        )

    def to_error(self) -> CallError:
        """The error again."""
        return CallError(
            self.message,
            failure=self.failure,
            attempts=self.attempts,
            usage=self.usage,
            is_unknown_billed=self.is_unknown_billed,
        )


@dataclass(frozen=True, slots=True)
class PastCall:
    """A call of an earlier process of the same run.

    Attributes:
        digest: `request_digest` of the call.
        outcome: What came of it.
    """

    digest: str
    outcome: Reply | CallFault


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCall:
    """A call and what came of it.

    Attributes:
        call: What was asked.
        digest: `request_digest` of it.
        outcome: What came back.
        purpose: Whose cost it is.
        prompt: `id@version` and digest of the template that it was made from.
        is_replayed: Whether it was answered before, and not asked again; not compared.
    """

    call: Call
    digest: str
    outcome: Reply | CallFault
    purpose: Purpose
    prompt: tuple[str, str]
    is_replayed: bool = field(default=False, compare=False)

    @property
    def usage(self) -> Usage | None:
        """Tokens charged for; None where nobody said."""
        return self.outcome.usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a strategy or a judge wants to ask; the run adds the key's first parts.

    Attributes:
        round: Part of the key: `0`, `1`, ... or what the call is for.
        agent: Part of the key: the agent's number.
        model: Who is asked.
        prompt: What is asked.
        max_tokens: Tokens that the reply may have.
        timeout_s: Seconds for the call with all its attempts.
        schema: JSON schema of the reply; None for free text.
        purpose: Whose cost it is.
    """

    round: str
    agent: str
    model: str
    prompt: Rendered
    max_tokens: int
    timeout_s: float
    schema: Mapping[str, object] | None = None
    purpose: Purpose = Purpose.ARM


class Ask(Protocol):
    """Makes the calls of one replicate."""

    async def __call__(self, request: Request) -> Reply:
        """Ask, and wait until the call is recorded.

        Raises:
            CallError: There is no reply.
        """


def build_call(unit_key: str, request: Request) -> Call:
    """The call of a request; its key is `task/arm/replicate/round/agent`."""
    return Call(
        key=f"{unit_key}/{request.round}/{request.agent}",
        model=request.model,
        messages=(Message(Role.USER, request.prompt.user),),
        system=request.prompt.system,
        max_tokens=request.max_tokens,
        schema=request.schema,
        timeout_s=request.timeout_s,
    )


def request_digest(call: Call) -> str:
    """`sha256:` over the canonical bytes (RFC 8785) of what the model is given.

    The key and the time limit are no part of it.
    """
    return digest_of(
        {
            "model": call.model,
            "system": call.system,
            "messages": [[message.role.value, message.text] for message in call.messages],
            "max_tokens": call.max_tokens,
            "schema": None if call.schema is None else dict(call.schema),
        }
    )


def total_tokens(usage: Usage) -> int:
    """All tokens of a call, read from a cache or not."""
    return (
        usage.input_tokens
        + usage.output_tokens
        + usage.cache_read_tokens
        + usage.cache_write_tokens
    )
