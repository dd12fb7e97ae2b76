"""What an agent is, whoever answers: a call goes in, a reply with its cost comes out.

`cert.coordination.client` answers over HTTP, a local model answers in this process; strategies and
judges know only this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from cert.core.errors import CertError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(StrEnum):
    """Who said a message."""

    USER = "user"
    ASSISTANT = "assistant"


class StopReason(StrEnum):
    """Why a reply ended, in the words of the Messages API."""

    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one agent is asked.

    Attributes:
        key: Names the call within its run, the same after a restart:
            `task/arm/replicate/round/agent`. Keys sampling together with a seed.
        model: Who is asked.
        messages: The conversation; the last one is the user's.
        system: Instructions before it; None for none.
        max_tokens: Tokens that the reply may have, >= 1.
        schema: JSON schema that the reply must follow; None for free text.
        timeout_s: Seconds for the call with all its attempts.
    """

    key: str
    model: str
    messages: tuple[Message, ...]
    system: str | None = None
    max_tokens: int = 1024
    schema: Mapping[str, object] | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a call was charged for; each >= 0."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a call.

    Attributes:
        status: HTTP status; None where none came, or nothing went over a wire.
        error: Type of what went wrong; None if nothing did.
        latency_s: Until the reply or the error.
        waited_s: Before the next attempt.
        request_id: The server's name for it.
    """

    status: int | None
    error: str | None
    latency_s: float
    waited_s: float = 0.0
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back.

    Attributes:
        text: All text blocks, joined.
        stop_reason: Why it ended.
        usage: What it cost, in tokens.
        model: Who answered, in the server's words.
        message_id: The server's name for the reply; None where it has none.
        attempts: All tries, the last one successful.
        latency_s: From the call to the reply, waiting included.
        rate_limits: Headers of the last reply that tell how much is left.
        signals: What was measured of the reply's tokens (summary of `cert.signals`), where the
            model runs here; None elsewhere.
    """

    text: str
    stop_reason: StopReason
    usage: Usage
    model: str
    message_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    latency_s: float = 0.0
    rate_limits: Mapping[str, str] = field(default_factory=dict)
    signals: Mapping[str, object] | None = None


class CallFailure(StrEnum):
    """What a failed call means for the run."""

    TRANSIENT = "transient"
    """Its tries are used up; another call may succeed."""
    INVALID = "invalid"
    """What came back is no message; never a score."""
    REJECTED = "rejected"
    """This request is refused, and would be again."""
    FATAL = "fatal"
    """No call of this run can succeed: key, credit, permission, model."""
    LATER = "later"
    """The server asks for a wait beyond the limit: stop, and resume the run later."""
    BUDGET = "budget"
    """The call was not made: it might have gone over the budget."""


class CallError(CertError):
    """A call without a reply.

    Attributes:
        failure: What it means for the run.
        attempts: All tries.
        usage: What was charged all the same, if the server said so.
        is_unknown_billed: Whether it may have been charged for without saying so.
    """

    def __init__(  # noqa: PLR0913 - everything that one failure says
        self,
        message: str,
        *,
        failure: CallFailure,
        attempts: tuple[Attempt, ...] = (),
        usage: Usage | None = None,
        is_unknown_billed: bool = False,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.failure = failure
        self.attempts = attempts
        self.usage = usage
        self.is_unknown_billed = is_unknown_billed


class Agent(Protocol):
    """Answers calls. Safe to call many times at once from one event loop."""

    async def call(self, call: Call) -> Reply:
        """Answer.

        Raises:
            CallError: There is no reply.
        """

    async def aclose(self) -> None:
        """Free what it holds."""
