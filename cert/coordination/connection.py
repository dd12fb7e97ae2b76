"""One attempt through the real SDK: a call goes in, a JSON document or an `AttemptError` comes out.

Needs the extra `coordination`; imported when a client is built.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import anthropic
import httpx2
import orjson
from anthropic._constants import ANTHROPIC_API_VERSION

from cert.coordination.faults import (
    AttemptError,
    ServiceDownError,
    build_status_error,
    short_header,
    unsendable,
)
from cert.coordination.protocol import CallFailure
from cert.coordination.replies import invalid
from cert.coordination.streams import MessageAssembler
from cert.coordination.transport import (
    MAX_REPLY_BYTES,
    CompressedReplyError,
    ReplyTooLargeError,
    build_http_client,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from cert.coordination.protocol import Call
    from cert.coordination.scrub import Scrubber

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.anthropic.com"

# Nothing of the request can have reached the server.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt brought.

    Attributes:
        document: The body as JSON; of a stream, the message that its events make.
        status: HTTP status.
        request_id: The server's name for the request.
        rate_limits: Headers that tell how much is left.
    """

    document: object
    status: int
    request_id: str | None
    rate_limits: Mapping[str, str]


class Connection:
    """The SDK's client of one server.

    Args:
        base_url: Where `/v1/messages` is.
        api_key: Sent as a bearer token; None sends none.
        api_version: Sent as `anthropic-version`; None is the SDK's own.
        proxy: URL of a proxy; None is none.
        is_streamed: Whether answers are asked for as streams.
        max_idle: Connections kept open while nothing is asked.
        scrub: Applied to whatever the server says in an error.
    """

    def __init__(  # noqa: PLR0913 - everything that one connection is
        self,
        *,
        base_url: str,
        api_key: str | None,
        api_version: str | None,
        proxy: str | None,
        is_streamed: bool,
        max_idle: int,
        scrub: Scrubber,
    ) -> None:
        self.api_version = ANTHROPIC_API_VERSION if api_version is None else api_version
        self.sdk_version = anthropic.__version__
        headers = {"anthropic-version": self.api_version}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        # A key is always given, and always taken out again by `BoundedTransport`: without one the
        # SDK would look for its own in the environment and in ~/.config.
        self._sdk = anthropic.AsyncAnthropic(
            api_key="none",
            base_url=base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=build_http_client(headers=headers, max_idle=max_idle, proxy=proxy),
        )
        self._is_streamed = is_streamed
        self._scrub = scrub

    async def aclose(self) -> None:
        """Close all connections."""
        await self._sdk.close()

    async def send(self, call: Call) -> Answer:
        """Make one attempt. The caller limits its time.

        Raises:
            AttemptError: There is no JSON document.
        """
        asked = _request(call)
        answer = await self._typed(self._stream(asked) if self._is_streamed else self._post(asked))
        document = answer.document
        if isinstance(document, dict) and document.get("type") == "error":
            error = self._status_error(answer.status, document, {})
            error.request_id = answer.request_id
            raise error
        return answer

    async def _post(self, asked: dict[str, Any]) -> Answer:
        raw = await self._sdk.messages.with_raw_response.create(**asked)
        response = raw.http_response
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise self._noted(invalid(f"it is not JSON: {error}"), response) from None
        return self._answer(document, response)

    async def _stream(self, asked: dict[str, Any]) -> Answer:
        stream = await self._sdk.messages.create(**asked, stream=True)
        async with stream:
            response = stream.response
            kind = response.headers.get("content-type", "")
            if not kind.lower().startswith("text/event-stream"):
                wrong = invalid(f"a stream was asked for, and {self._scrub(kind)[:80]!r} came")
                raise self._noted(wrong, response)
            try:
                return self._answer(await self._assembled(response), response)
            except AttemptError as error:
                raise self._noted(error, response) from None

    async def _assembled(self, response: httpx2.Response) -> object:
        assembler = MessageAssembler()
        async for event in anthropic.AsyncStream.raw_events(response):
            try:
                document = orjson.loads(event.data)
            except orjson.JSONDecodeError:
                if event.event in {None, "ping"}:
                    continue
                raise invalid("an event of the stream is not JSON") from None
            if isinstance(document, dict) and document.get("type") == "error":
                raise self._status_error(response.status_code, document, response.headers)
            assembler.add(document)
        return assembler.message()

    async def _typed(self, attempt: Awaitable[T]) -> T:
        """Turn what the SDK and its HTTP client raise into an `AttemptError`."""
        try:
            return await attempt
        except AttemptError:
            raise
        except anthropic.APIStatusError as error:
            failure = self._status_error(error.status_code, error.body, error.response.headers)
        except anthropic.APIConnectionError as error:
            failure = self._wire_error(error.__cause__ or error)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            failure = self._wire_error(error)
        except (anthropic.APIError, json.JSONDecodeError, UnicodeError, AssertionError) as error:
            failure = invalid(f"the SDK could not read it: {self._scrub(str(error))[:200]}")
        # Raised here, so that it has no context: those texts are neither short nor redacted.
        raise failure

    def _status_error(self, status: int, body: object, headers: Mapping[str, str]) -> AttemptError:
        return build_status_error(
            status, body, headers=headers, scrub=self._scrub, now_s=time.time()
        )

    def _noted(self, error: AttemptError, response: httpx2.Response) -> AttemptError:
        """Note on an error which answer it is about."""
        error.status = response.status_code
        error.request_id = short_header(response.headers, "request-id", self._scrub)
        return error

    def _wire_error(self, error: BaseException) -> AttemptError:
        name = type(error).__name__
        if isinstance(error, ReplyTooLargeError):
            return invalid(f"it is longer than {MAX_REPLY_BYTES} bytes")
        if isinstance(error, CompressedReplyError):
            return invalid("it is compressed, which was ruled out")
        said = self._scrub(str(error))[:200]
        message = f"no answer: {name}" + (f": {said}" if said else "")
        return ServiceDownError(
            message,
            failure=CallFailure.TRANSIENT,
            error=name,
            is_maybe_billed=not isinstance(error, _UNSENT),
        )

    def _answer(self, document: object, response: httpx2.Response) -> Answer:
        headers = response.headers
        return Answer(
            document=document,
            status=response.status_code,
            request_id=short_header(headers, "request-id", self._scrub),
            rate_limits={
                self._scrub(name)[:100]: self._scrub(value)[:200]
                for name, value in headers.items()
                if name.startswith("anthropic-ratelimit-") or name == "retry-after"
            },
        )


def _request(call: Call) -> dict[str, Any]:
    try:
        for text in (call.system or "", *(one.text for one in call.messages)):
            text.encode()
    except UnicodeEncodeError:
        raise unsendable("its text holds lone surrogates") from None
    asked: dict[str, Any] = {
        "model": call.model,
        "max_tokens": call.max_tokens,
        "messages": [{"role": one.role.value, "content": one.text} for one in call.messages],
    }
    if call.system is not None:
        asked["system"] = call.system
    if call.schema is not None:
        # The API takes a part of JSON Schema only; the rest goes to the model as words, and all of
        # it is checked here.
        try:
            schema = anthropic.transform_schema(dict(call.schema))
        except (ValueError, TypeError, AttributeError, AssertionError, anthropic.AnthropicError):
            raise unsendable("the API's part of JSON Schema has no place for its schema") from None
        asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return asked
