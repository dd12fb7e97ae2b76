"""What every request passes before it is looked at: its id, its host, its token, a free place.

    Trail -> Guard -> Admission -> routes

Nothing of a body is read on this way.
"""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from cert.observability.correlation import correlation_id_context
from cert.observability.tracing import trace_parent
from cert.service.access import is_loopback, shows_token
from cert.service.metrics import REFUSALS, Refusal
from cert.service.problems import Problem, retry_later
from cert.service.state import Readiness

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cert.service.metrics import ServiceMetrics
    from cert.service.state import ServiceState

logger = logging.getLogger(__name__)

CORRELATION_HEADER: Final = "X-Correlation-ID"
CLIENT_GONE: Final = 499
"""Logged and counted where the client left before there was an answer; never sent."""

PROBES: Final = frozenset({"/livez", "/readyz", "/healthz"})
WORK: Final = frozenset({"/v1/analyze", "/v1/batch", "/v1/tokens"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_RETRY_S: Final = {Readiness.LOADING: 5, Readiness.DRAINING: 1, Readiness.LEDGER_FAILED: 5}


class Trail:
    """Gives each request its correlation id, and logs and counts its answer; never its texts."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        headers = Headers(scope=scope)
        given = headers.get(CORRELATION_HEADER)
        # An id that could forge a log line is not taken over, and no reason to refuse.
        usable = given if _is_usable(given) else None
        with (
            correlation_id_context(usable) as correlation_id,
            trace_parent(headers.get("traceparent")),
        ):
            await self._follow(scope, receive, send, correlation_id)

    async def _follow(
        self, scope: Scope, receive: Receive, send: Send, correlation_id: str
    ) -> None:
        began = time.monotonic()
        status = 0
        sent_bytes = 0
        has_body = _has_body(Headers(scope=scope))

        async def receive_counted() -> Message:
            nonlocal has_body
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                has_body = False
            return message

        async def send_marked(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[CORRELATION_HEADER] = correlation_id
                headers["Cache-Control"] = "no-store"
                headers["X-Content-Type-Options"] = "nosniff"
                if has_body:
                    headers["Connection"] = "close"
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_marked)
        except Exception:
            logger.exception("a request failed unexpectedly")
            status = status or int(HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
        finally:
            status = status or CLIENT_GONE
            duration_s = time.monotonic() - began
            self._metrics.answered(
                scope["path"], status, duration_s=duration_s, correlation_id=correlation_id
            )
            level = logging.DEBUG if scope["path"] in PROBES else logging.INFO
            extra = {
                "method": scope["method"],
                "path": scope["path"][:100],
                "code": status,
                "duration_s": round(duration_s, 6),
                "bytes": sent_bytes,
            }
            logger.log(level, "answered", extra=extra)


class Guard:
    """Lets in who may ask.

    Args:
        app: What comes next.
        host: The address that is bound. On loopback the `Host` header must name it, so that no
            web page reaches the server under a name of its own (DNS rebinding).
        token: What callers have to show; None for nothing.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None) -> None:
        self._app = app
        self._names = {*_LOOPBACK_NAMES, host} if is_loopback(host) else None
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        try:
            self._check(Headers(scope=scope), scope["path"])
        except Problem as problem:
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # Two ends of one body: what lies between them is where requests are smuggled.
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "Content-Length and Transfer-Encoding exclude each other",
                headers={"Connection": "close"},
            )
        if self._names is not None and _name_of(headers.get("host", "")) not in self._names:
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST, "the Host header names no address of this server"
            )
        if path in PROBES:
            return
        if self._token is not None and not shows_token(headers.get("authorization"), self._token):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "show the token: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="cert"'},
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as it is, without an encoding"
            )


class Admission:
    """Takes no more work than there are places, and none while there cannot be an answer."""

    def __init__(
        self, app: ASGIApp, *, state: ServiceState, max_requests: int, metrics: ServiceMetrics
    ) -> None:
        self._app = app
        self._state = state
        self._max_requests = max_requests
        self._metrics = metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["path"] not in WORK or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            self._check()
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1

    def _check(self) -> None:
        readiness = self._state.readiness
        if readiness is not Readiness.READY:
            self._metrics.refused(REFUSALS[readiness])
            raise retry_later(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"not ready: {readiness.value}",
                after_s=_RETRY_S[readiness],
            )
        if self.in_flight >= self._max_requests:
            self._metrics.refused(Refusal.OVERLOAD)
            raise retry_later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._max_requests} requests run or wait already",
                after_s=1,
            )


def _is_usable(given: str | None) -> bool:
    if given is None or not given.isascii():
        return False
    try:
        with correlation_id_context(given):
            return True
    except ValueError:
        return False


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _name_of(host: str) -> str:
    """The name in a `Host` header, without its port.

    >>> [_name_of(host) for host in ("localhost:8000", "[::1]:8000", "127.0.0.1", "")]
    ['localhost', '::1', '127.0.0.1', '']
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
