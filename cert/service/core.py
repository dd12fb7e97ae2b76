"""What the routes share: the engine, the evidence, threads to wait in, and the way to stop."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from cert.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

    from cert.assessment.policy import Policy
    from cert.core.config import CERTConfig
    from cert.service.metrics import ServiceMetrics
    from cert.service.ops import Probes
    from cert.service.recorder import Recorder, Run
    from cert.service.requests import Options
    from cert.service.state import ServiceState
    from cert.trajectory.engine import HamiltonianEngine

P = ParamSpec("P")
T = TypeVar("T")

_SPARE_THREADS: Final = 4


@dataclass(slots=True)
class Core:
    """One server's parts.

    Attributes:
        config: The settings.
        engine: Measures and judges.
        recorder: Opens runs.
        run: The server's own, for single analyses under its own policy.
        state: What the server can do now.
        metrics: What it counts.
        defaults: Where a request says nothing.
        token: What callers show; None for nothing.
        probes: Answers of /livez, /readyz and /healthz.
        numbers: Draws the number of the next request.
        checking: Held by whoever waits for the health checks.
        cut_off: Set once what still runs is to end now.
    """

    config: CERTConfig
    engine: HamiltonianEngine
    recorder: Recorder
    run: Run
    state: ServiceState
    metrics: ServiceMetrics
    defaults: Options
    token: str | None
    probes: Probes
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _threads: ThreadPoolExecutor | None = None

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what blocks in a thread, under this request's correlation id.

        Each admitted request waits in one thread at a time, so there is always one left.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self.config.max_requests + _SPARE_THREADS, thread_name_prefix="cert-serve"
            )
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(work, *args, **kwargs))

    def close(self) -> None:
        """Wait for the threads."""
        if self._threads is not None:
            self._threads.shutdown()

    def is_own(self, policy: Policy | None) -> bool:
        """Whether a request is judged by the server's own policy."""
        return policy is None or policy.digest == self.engine.policy.digest


def require_type(request: Request, *expected: str) -> None:
    """Refuse a body that does not say what it is.

    A web page may send other types to any address without being asked first by the browser.

    Raises:
        Problem: The media type is none of those.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in expected:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send Content-Type: {expected[0]}")
