"""What operators ask, on a listener of its own, so that it is answered under any load.

    GET /metrics    the registry; needs the token where one is set
    GET /livez      200 while the process's main loop goes round, else 503
    GET /readyz     200 while requests are taken, else 503; says why not
    GET /healthz    runs the checks: 200 for healthy and degraded, 503 for unhealthy and unknown

The probes need no token: an orchestrator has none. What was checked, and why it is as it is, is
told to whoever has the token, or to anyone where none is set.
"""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson

from cert.core.health import HealthStatus
from cert.observability.exposition import (
    METRICS_PATH,
    answer_method,
    answer_unknown_path,
    expose,
)
from cert.observability.http_server import Answer, HttpServer, Request
from cert.service.access import is_loopback, shows_token
from cert.service.state import Readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from prometheus_client import CollectorRegistry

    from cert.core.health import HealthReport

LIVEZ: Final = "/livez"
READYZ: Final = "/readyz"
HEALTHZ: Final = "/healthz"
HEALTH_CACHE_S: Final = 10.0

_JSON: Final = "application/json"
_NO_STORE: Final = {"Cache-Control": "no-store"}
_GOOD: Final = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)


class Probes:
    """The three questions, and their answers.

    Args:
        is_alive: Whether the main loop goes round; asked often, must not wait.
        readiness: Whether requests are taken; the same.
        check: Runs the health checks. One caller at a time, at most every `HEALTH_CACHE_S` seconds;
            the others wait for that result, or get the last one.
    """

    def __init__(
        self,
        *,
        is_alive: Callable[[], bool],
        readiness: Callable[[], Readiness],
        check: Callable[[], HealthReport],
    ) -> None:
        self._is_alive = is_alive
        self._readiness = readiness
        self._check = check
        self._lock = threading.Lock()
        self._report: HealthReport | None = None
        self._checked_at = 0.0

    def livez(self) -> Answer:
        """Whether to let the process live."""
        is_alive = self._is_alive()
        return _answer(is_alive, {"status": "alive" if is_alive else "hung"})

    def readyz(self) -> Answer:
        """Whether to send requests."""
        readiness = self._readiness()
        return _answer(readiness is Readiness.READY, {"status": readiness.value})

    def healthz(self, *, is_detailed: bool) -> Answer:
        """What the checks found; may take as long as they do.

        Args:
            is_detailed: Whether the single checks are told, too.
        """
        report = self._recent()
        body = report.as_dict() if is_detailed else {"status": report.status.value}
        return _answer(report.status in _GOOD, body)

    def _recent(self) -> HealthReport:
        with self._lock:
            now = time.monotonic()
            if self._report is None or now - self._checked_at >= HEALTH_CACHE_S:
                self._report = self._check()
                self._checked_at = time.monotonic()
            return self._report


class OpsListener:
    """A running listener. `close()` it, or use it in a `with` block.

    Whoever starts it refuses beforehand to listen to other machines without a token
    (`access.check_exposure`).

    Attributes:
        host: The address it is bound to.
        port: The port it listens on, also where 0 was asked for.
    """

    def __init__(  # noqa: PLR0913 - an address, what is told there, and to whom
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        probes: Probes,
        token: str | None,
        receive_timeout_s: float = 10.0,
    ) -> None:
        """Listen, and answer from a thread.

        Args:
            host: Address or name to bind.
            port: 0 takes a free one.
            registry: What /metrics exposes.
            probes: What the other paths answer.
            token: What /metrics and the whole of /healthz ask for; None for nothing.
            receive_timeout_s: In which a request's head must have arrived.

        Raises:
            OSError: The address cannot be bound.
        """
        self._registry = registry
        self._probes = probes
        self._token = token
        self._is_local = is_loopback(host)
        self._server = HttpServer(host, port, self._handle, receive_timeout_s=receive_timeout_s)
        self.host = self._server.host
        self.port = self._server.port

    def close(self) -> None:
        """Stop listening and wait for the thread; a second call does nothing."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handle(self, request: Request) -> Answer | Callable[[], Answer]:
        if self._is_local and not names_loopback(request.headers.get("host")):
            # A page in a browser on this machine can reach loopback under a name of its own.
            return Answer(HTTPStatus.MISDIRECTED_REQUEST, b"this is loopback under another name\n")
        return answer_method(request) or self._answer(request)

    def _answer(self, request: Request) -> Answer | Callable[[], Answer]:
        authorization = request.headers.get("authorization")
        knows_token = self._token is None or shows_token(authorization, self._token)
        if request.path == LIVEZ:
            return self._probes.livez()
        if request.path == READYZ:
            return self._probes.readyz()
        if request.path == HEALTHZ:
            return lambda: self._probes.healthz(is_detailed=knows_token)
        if request.path != METRICS_PATH:
            return answer_unknown_path(METRICS_PATH, LIVEZ, READYZ, HEALTHZ)
        if not knows_token:
            challenge = {"WWW-Authenticate": "Bearer"}
            return Answer(HTTPStatus.UNAUTHORIZED, b"a token is needed\n", headers=challenge)
        return lambda: expose(self._registry, request)


def names_loopback(host: str | None) -> bool:
    """Whether a request's `Host` names this machine by a loopback address, whatever the port.

    >>> [names_loopback(host) for host in ("localhost:9090", "[::1]:1", "127.0.0.1", "a.example")]
    [True, True, True, False]
    """
    if host is None:  # HTTP/1.0, which no browser speaks
        return True
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name.lower())


def _answer(is_good: bool, body: Mapping[str, object]) -> Answer:  # noqa: FBT001 - a status
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, orjson.dumps(body), _JSON, _NO_STORE)
