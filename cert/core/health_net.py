"""Health of what is reached over HTTP: one GET each, no secrets sent, no redirects followed."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cert.core.health import CheckResult, HealthStatus
from cert.observability.controls import escape_controls
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from typing import IO

ANTHROPIC_URL: Final = "https://api.anthropic.com"
ANTHROPIC_URL_VARIABLE: Final = "ANTHROPIC_BASE_URL"
_MAX_BYTES: Final = 1 << 20
_SHOWN_CHARS: Final = 200


def check_server(url: str, timeout_s: float) -> CheckResult:
    """What a running `cert serve` says of its own health.

    Args:
        url: The server's; `/healthz` is asked for below it.
        timeout_s: How long it may say nothing.
    """
    target = f"{url.rstrip('/')}/healthz"
    try:
        status, body = _get(target, timeout_s, is_direct=True)
    except (OSError, ValueError, HTTPException) as error:
        return CheckResult.unhealthy(f"{_shown(target)} does not answer: {_reason(error)}")
    said: Any = None
    with suppress(ValueError, RecursionError):
        said = json.loads(body)
    if not isinstance(said, dict) or said.get("status") not in tuple(HealthStatus):
        return CheckResult.unhealthy(
            f"{_shown(target)} answers {status}, and not with health: no `cert serve` is there"
        )
    found = HealthStatus(said["status"])
    reason = f"{_shown(target)} says {found.value}"
    worst = _not_healthy(said.get("checks"))
    return CheckResult(found, f"{reason}: {worst}" if worst else reason)


def _not_healthy(checks: object) -> str:
    """Name the checks that another process found something in."""
    if not isinstance(checks, dict):
        return ""
    names = [
        name
        for name, one in checks.items()
        if isinstance(one, dict) and one.get("status") != HealthStatus.HEALTHY.value
    ]
    return _shown(", ".join(map(str, names)))


def check_anthropic(timeout_s: float, *, is_offline: bool) -> CheckResult:
    """Whether the Anthropic endpoint is there; no key and no prompt is sent, no token is spent.

    Args:
        timeout_s: How long it may say nothing.
        is_offline: The setting `offline`, under which only this machine is asked.
    """
    url = os.environ.get(ANTHROPIC_URL_VARIABLE) or ANTHROPIC_URL
    target = f"{url.rstrip('/')}/v1/models"
    host = _host(target)
    if is_offline and host not in {"localhost", "127.0.0.1", "::1"}:
        return CheckResult.unknown(
            f"{_shown(host or url)} was not asked: the setting offline forbids it "
            "(CERT_OFFLINE=false allows it)"
        )
    try:
        status, _ = _get(target, timeout_s, is_direct=is_offline)
    except (OSError, ValueError, HTTPException) as error:
        return CheckResult.unhealthy(f"{_shown(target)} does not answer: {_reason(error)}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return CheckResult.degraded(f"{_shown(host or url)} is there, and answers {status}")
    if status == HTTPStatus.NOT_FOUND:
        return CheckResult.unhealthy(f"{_shown(target)} answers 404: is the base URL right?")
    return CheckResult.healthy(f"{_shown(host or url)} is there (answers {status} without a key)")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What a redirect leads to is not what was asked for."""

    def redirect_request(  # noqa: PLR0913, PLR0917 - the library's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none."""


def _get(url: str, timeout_s: float, *, is_direct: bool) -> tuple[int, bytes]:
    """Ask once.

    Args:
        url: http or https.
        timeout_s: For each wait on the socket.
        is_direct: Whether to pass by the proxies that the environment names.

    Raises:
        OSError, HTTPException: There is no answer.
        ValueError: The URL is none.
    """
    if urlsplit(url).scheme not in {"http", "https"} or not _host(url):
        raise ValueError("the URL begins with neither http:// nor https://, or names no host")
    proxies = urllib.request.ProxyHandler({} if is_direct else None)
    opener = urllib.request.build_opener(_NoRedirect, proxies)
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return int(answer.status), answer.read(_MAX_BYTES)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read(_MAX_BYTES)


def _host(url: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return _shown(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _shown(text: str) -> str:
    return escape_controls(redact(text))[:_SHOWN_CHARS]
