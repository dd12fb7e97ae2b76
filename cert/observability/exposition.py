"""A registry as a scraper reads it: the text format, or OpenMetrics where it is asked for."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

from cert.observability.http_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from cert.observability.http_server import Request

METRICS_PATH = "/metrics"
_METHODS = ("GET", "HEAD")


def answer_method(request: Request) -> Answer | None:
    """Refuse a method that changes something; None for one that reads."""
    if request.method in _METHODS:
        return None
    allow = {"Allow": ", ".join(_METHODS)}
    return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", headers=allow)


def answer_unknown_path(*paths: str) -> Answer:
    """Say which paths there are."""
    return Answer(HTTPStatus.NOT_FOUND, f"there are: {', '.join(paths)}\n".encode())


def answer_metrics(registry: CollectorRegistry, request: Request) -> Answer | Callable[[], Answer]:
    """Answer a server that has nothing but metrics."""
    refused = answer_method(request)
    if refused is not None:
        return refused
    if request.path not in {"/", METRICS_PATH}:
        return answer_unknown_path(METRICS_PATH)
    return lambda: expose(registry, request)


def expose(registry: CollectorRegistry, request: Request) -> Answer:
    """Write a registry in the format that a request accepts, packed if it accepts that."""
    try:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    except ValueError:  # a version that is none
        encoder, content_type = choose_encoder("")
    body = encoder(registry)
    headers = {"Vary": "Accept, Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=6)
        headers["Content-Encoding"] = "gzip"
    return Answer(HTTPStatus.OK, body, content_type, headers)
