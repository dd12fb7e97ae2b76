"""What a server that was asked, or the way to it, got wrong.

ModelUnavailableError
└── ServerUnavailableError      it cannot be reached, or does not answer
    ├── ServerBusyError         it asks to come back later
    ├── ServerLostError         the connection ended in the middle of an answer
    └── ServerAnswerError       it answered something else than was asked
ConfigurationError
└── ServerRefusedError          it is no `cert serve`, or refuses the token or the request
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson

from cert.core.errors import ConfigurationError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.runner.remote_target import Target

_TOKEN_HINT: Final = "set CERT_TOKEN, or CERT_TOKEN_FILE, to the server's bearer token"  # noqa: S105 - words
_DETAIL_CHARS: Final = 300
_REDIRECTS: Final = range(300, 400)
_BUSY: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_UNREADABLE_WAIT_S: Final = 5.0


class ServerUnavailableError(ModelUnavailableError):
    """The server cannot be reached, or does not answer."""


class ServerBusyError(ServerUnavailableError):
    """The server asks to come back later, `retry_after` seconds from now."""

    recoverable = True


class ServerLostError(ServerUnavailableError):
    """The connection ended in the middle of an answer; what came before is complete."""


class ServerAnswerError(ServerUnavailableError):
    """The server answered something else than was asked; what came before is complete."""


class ServerRefusedError(ConfigurationError):
    """It is no `cert serve` of this version, or it refuses the token or the request."""


def error_of_status(
    target: Target, status: int, headers: Mapping[str, str], body: bytes
) -> ConfigurationError | ServerUnavailableError:
    """Build the error for an answer that is none of success.

    Args:
        target: Who answered.
        status: HTTP status.
        headers: By lower-case name.
        body: A problem (RFC 9457), or whatever else it is.
    """
    url, said = target.url, _detail(body)
    if status in _REDIRECTS:
        where = headers.get("location", "nowhere")[:_DETAIL_CHARS]
        return ServerRefusedError(
            f"{url} redirects to {where}, which is not followed",
            hint="give the URL of the `cert serve` itself",
        )
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return ServerRefusedError(f"{url} refuses the token, or the lack of one", hint=_TOKEN_HINT)
    if status in _BUSY:
        return ServerBusyError(
            f"{url} has no room now: {said}",
            hint="try again later; an -o file is continued by the same command",
            retry_after=_retry_after_s(headers.get("retry-after")),
        )
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return not_a_server(target, f"it answers {status}")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerRefusedError(f"{url} refuses the request ({status}): {said}")
    return ServerUnavailableError(f"{url} failed ({status}): {said}", hint="see the server's log")


def not_a_server(target: Target, reason: str) -> ServerRefusedError:
    """Build the error for a URL behind which something else is."""
    return ServerRefusedError(
        f"{target.url} is no `cert serve` that this program can talk to: {reason}",
        hint="cert serve --model ... starts one; its default is http://127.0.0.1:8000",
    )


def _detail(body: bytes) -> str:
    """What a problem says; nothing of a body that is none."""
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "it gives no reason"
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail[:_DETAIL_CHARS] if isinstance(detail, str) and detail else "it gives no reason"


def _retry_after_s(value: str | None) -> float:
    """Seconds; a date or anything else counts as a short while."""
    try:
        seconds = float(value) if value is not None else _UNREADABLE_WAIT_S
    except ValueError:
        return _UNREADABLE_WAIT_S
    return seconds if math.isfinite(seconds) and seconds >= 0 else _UNREADABLE_WAIT_S
