"""The HTTP API as an ASGI application: which path does what."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

import cert
from cert.evidence.parts import describe_model, describe_sampling
from cert.ledger.errors import LedgerError
from cert.runner.token_pieces import split_tokens
from cert.service.access import shows_token
from cert.service.analysis import analyze
from cert.service.batch import BatchRoute
from cert.service.body import ClientGoneError, read_body
from cert.service.core import require_type
from cert.service.gate import Admission, Guard, Trail
from cert.service.openapi import build_openapi
from cert.service.problems import Problem, answer_problem, answer_routing, retry_later
from cert.service.requests import parse_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from cert.observability.http_server import Answer
    from cert.service.core import Core


class App:
    """The application and what has to be asked of it from outside.

    Attributes:
        asgi: The application.
    """

    def __init__(self, core: Core, *, host: str) -> None:
        """Put it together.

        Args:
            core: The server's parts.
            host: The address that is bound, which requests have to name if it is loopback.
        """
        self._admission = Admission(
            _build_routes(core),
            state=core.state,
            max_requests=core.config.max_requests,
            metrics=core.metrics,
        )
        guard = Guard(self._admission, host=host, token=core.token)
        self.asgi: ASGIApp = Trail(guard, core.metrics)

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self._admission.in_flight


def _build_routes(core: Core) -> Starlette:
    openapi = orjson.dumps(build_openapi(core.config), option=orjson.OPT_INDENT_2)

    def route(
        path: str, endpoint: Callable[[Core, Request], Awaitable[Response]], method: str = "GET"
    ) -> Route:
        async def answer(request: Request) -> Response:
            return await endpoint(core, request)

        return Route(path, answer, methods=[method])

    async def describe_api(_core: Core, _request: Request) -> Response:
        return Response(openapi, media_type="application/json")

    return Starlette(
        routes=[
            route("/v1/analyze", analyze, "POST"),
            Route("/v1/batch", BatchRoute(core), methods=["POST"]),
            route("/v1/tokens", _split_tokens, "POST"),
            route("/v1/server", _describe_server),
            route("/openapi.json", describe_api),
            route("/livez", _livez),
            route("/readyz", _readyz),
            route("/healthz", _healthz),
        ],
        exception_handlers={
            Problem: answer_problem,
            HTTPException: answer_routing,
            LedgerError: _answer_ledger,
            ClientGoneError: _answer_nobody,
            Exception: _answer_bug,
        },
    )


async def _split_tokens(core: Core, request: Request) -> Response:
    require_type(request, "application/json")
    config = core.config
    body = await read_body(
        request, limit_bytes=config.max_body_bytes, timeout_s=config.receive_timeout
    )
    backend = core.engine.model_resource.backend
    token_ids = parse_tokens(body)
    if max(token_ids, default=0) >= backend.identity.vocab_size:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"the model has {backend.identity.vocab_size} tokens only"
        )
    return _json({"pieces": await core.in_thread(split_tokens, backend.decode, token_ids)})


async def _describe_server(core: Core, _request: Request) -> Response:
    if not core.state.is_loaded:
        raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "the model is loading", after_s=5)
    config, policy = core.config, core.engine.policy
    identity = core.engine.model_resource.backend.identity
    return _json(
        {
            "api": 1,
            "cert": cert.__version__,
            "model": {
                **describe_model(identity),
                "tokenizer_digest": identity.tokenizer_digest,
                "dtype": identity.dtype,
                "quantization": identity.quantization,
                "attention": identity.attention,
                "device": identity.device,
                "versions": dict(identity.versions),
            },
            "policy": {"id": policy.id, "version": policy.version, "digest": policy.digest},
            "content": config.content,
            "ledger": core.recorder.has_ledger,
            "sampling": describe_sampling(core.defaults.sampling),
            "timeout_s": core.defaults.timeout_s,
            "chat": core.defaults.chat,
            "limits": {
                "max_body_bytes": config.max_body_bytes,
                "max_prompt_chars": config.max_prompt_chars,
                "max_requests": config.max_requests,
            },
            "run_id": core.run.run_id,
        }
    )


async def _livez(core: Core, _request: Request) -> Response:
    return _response(core.probes.livez())


async def _readyz(core: Core, _request: Request) -> Response:
    return _response(core.probes.readyz())


async def _healthz(core: Core, request: Request) -> Response:
    is_shown = core.token is None or shows_token(request.headers.get("authorization"), core.token)
    # One at a time: callers who wait for the checks must not use up the threads of those who work.
    async with core.checking:
        return _response(await core.in_thread(core.probes.healthz, is_detailed=is_shown))


def _response(answer: Answer) -> Response:
    return Response(
        answer.body,
        status_code=answer.status,
        headers=dict(answer.headers),
        media_type=answer.content_type,
    )


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def _answer_ledger(_request: Request, _error: Exception) -> Response:
    detail = "the ledger does not take the record, so there is no answer"
    return retry_later(HTTPStatus.SERVICE_UNAVAILABLE, detail, after_s=5).response()


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _answer_bug(_request: Request, _error: Exception) -> Response:
    detail = "a bug; the server's log says more under the correlation id"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()
