"""What is wrong with a request, as RFC 9457 says it; nothing of it is recorded."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from starlette.responses import Response

from cert.observability.controls import escape_controls
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.exceptions import HTTPException
    from starlette.requests import Request

PROBLEM_JSON = "application/problem+json"
_MAX_CHARS = 1000


class Problem(Exception):  # noqa: N818 - RFC 9457's name for it
    """A request that gets no record.

    Attributes:
        status: HTTP status.
        detail: What is wrong, and what to do about it.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        return Response(
            encode_problem(self.status, self.detail),
            status_code=self.status,
            headers=self.headers,
            media_type=PROBLEM_JSON,
        )


def encode_problem(status: HTTPStatus, detail: str) -> bytes:
    """The body of an answer that says what is wrong; secrets and control characters don't pass."""
    text = escape_controls(redact(detail))[:_MAX_CHARS]
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": int(status),
            "detail": text.encode("utf-8", "replace").decode(),
        }
    )


def retry_later(status: HTTPStatus, detail: str, *, after_s: int) -> Problem:
    """A request that may succeed in some seconds."""
    return Problem(status, detail, headers={"Retry-After": str(after_s)})


async def answer_problem(_request: Request, problem: Exception) -> Response:
    """Starlette's handler of `Problem`."""
    assert isinstance(problem, Problem)  # noqa: S101 - registered for this type alone
    return problem.response()


async def answer_routing(request: Request, error: Exception) -> Response:
    """Starlette's handler of what its router raises: no such path, or another method."""
    caught: HTTPException = error  # type: ignore[assignment]  # registered for this type alone
    status = HTTPStatus(caught.status_code)
    detail = f"{request.method} is not answered here"
    if status is HTTPStatus.NOT_FOUND:
        detail = "there is no such path; GET /openapi.json lists those there are"
    return Problem(status, detail, headers=caught.headers).response()
