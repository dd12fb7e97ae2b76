"""`cert serve` from its first socket to its last record.

bind -> listen (503) -> load the model -> begin the run -> ready
     -> asked to stop -> drain -> cut off -> end the run
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvicorn
from prometheus_client import REGISTRY

from cert.core.errors import ConfigurationError
from cert.observability.metrics import MetricsCollector
from cert.runner.health import HealthOptions, build_health_checks
from cert.runner.local import open_engine
from cert.service.access import check_exposure
from cert.service.app import App
from cert.service.core import Core
from cert.service.metrics import ServiceMetrics
from cert.service.ops import OpsListener, Probes
from cert.service.protocol import MAX_HEAD_BYTES, build_protocol
from cert.service.recorder import Recorder, Run
from cert.service.requests import Options
from cert.service.state import Readiness, ServiceState
from cert.trajectory.settings import sampling_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry

    from cert.core.config import CERTConfig
    from cert.ledger.appender import Ledger
    from cert.trajectory.engine import HamiltonianEngine
    from cert.trajectory.resources import Loader

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.05
_PROBE_S: Final = 5.0
"""How often a ledger that failed is tried again, and one that is idle is looked at."""

_GRACE_S: Final = 10.0
"""How long what was cut off may take to be recorded."""

_BACKLOG: Final = 2048
_MAX_CONNECTIONS: Final = 4096
_HEALTH_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Binding:
    """A bound socket and the address that was asked for.

    Attributes:
        host: As it was given.
        socket: Listens, once somebody serves it.
    """

    host: str
    socket: socket.socket

    @property
    def url(self) -> str:
        """Where it is reached."""
        address, port = self.socket.getsockname()[:2]
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def bind(host: str, port: int, *, token: str | None) -> Binding:
    """Bind the API's address.

    Raises:
        ConfigurationError: It reaches beyond this machine without a token, is no address, or is
            taken.
    """
    check_exposure(host, token, flag="--host")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another with --host and --port; port 0 takes a free one",
        ) from error
    return Binding(host, bound)


def serve(  # noqa: PLR0913 - the parts of a server, which meet here
    config: CERTConfig,
    binding: Binding,
    ledger: Ledger | None,
    *,
    stop: Callable[[], int | None],
    token: str | None,
    expect_digest: str | None = None,
    registry: CollectorRegistry = REGISTRY,
    loader: Loader | None = None,
) -> None:
    """Serve until asked to stop; then finish what was accepted, and end the run.

    Args:
        config: The settings.
        binding: Where; closed at the end.
        ledger: Where the evidence goes, or None; stays the caller's to close.
        stop: Asked several times a second; returns the exit code to end with, or None.
        token: What callers have to show; None for nothing.
        expect_digest: Refuse any other model than the one of this digest.
        registry: Where metrics are registered.
        loader: Makes the backend; None loads a local model.

    Raises:
        ConfigurationError: Metrics and health cannot be served where the settings say.
        ModelUnavailableError, GPUOutOfMemoryError: The model cannot be loaded.
        LedgerError: The run cannot begin, or its end not be written.
    """
    with (
        binding.socket,
        open_engine(
            config,
            policy=config.policy,
            expect_digest=expect_digest,
            metrics=MetricsCollector(registry=registry),
            loader=loader,
        ) as engine,
    ):
        service = _Service(
            config,
            binding,
            ledger,
            engine,
            token=token,
            expect_digest=expect_digest,
            registry=registry,
        )
        with _listen_for_operators(config, service.probes, token=token, registry=registry):
            asyncio.run(service.run(stop))


def _listen_for_operators(
    config: CERTConfig, probes: Probes, *, token: str | None, registry: CollectorRegistry
) -> OpsListener:
    """Serve metrics and health on an address of their own.

    Raises:
        ConfigurationError: It reaches beyond this machine without a token, or is taken.
    """
    host, port = config.metrics_host, config.metrics_port
    check_exposure(host, token, flag="--metrics-host")
    try:
        listener = OpsListener(
            host,
            port,
            registry=registry,
            probes=probes,
            token=token,
            receive_timeout_s=config.receive_timeout,
        )
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"metrics and health cannot be served on {host} port {port}: {reason}",
            hint="choose another with --metrics-host and --metrics-port; port 0 takes a free one",
        ) from error
    shown = f"[{listener.host}]" if ":" in listener.host else listener.host
    logger.info("listening for operators", extra={"url": f"http://{shown}:{listener.port}"})
    return listener


class _Service:
    """One server's life, on one event loop."""

    def __init__(  # noqa: PLR0913 - as above
        self,
        config: CERTConfig,
        binding: Binding,
        ledger: Ledger | None,
        engine: HamiltonianEngine,
        *,
        token: str | None,
        expect_digest: str | None,
        registry: CollectorRegistry,
    ) -> None:
        self._config = config
        self._binding = binding
        self._engine = engine
        self._state = ServiceState()
        self._metrics = ServiceMetrics(self._state, lambda: self._app.in_flight, registry)
        recorder = Recorder(
            ledger,
            content=config.content,
            warns_only=config.on_ledger_failure == "warn",
            failed=self._ledger_failed,
        )
        self.probes = Probes(
            is_alive=lambda: self._state.is_alive,
            readiness=lambda: self._state.readiness,
            check=build_health_checks(
                config,
                HealthOptions(timeout_s=_HEALTH_TIMEOUT_S, expect_digest=expect_digest),
                resource=engine.model_resource,
            ).run,
        )
        self._core = Core(
            config=config,
            engine=engine,
            recorder=recorder,
            run=Run(recorder),
            state=self._state,
            metrics=self._metrics,
            defaults=_defaults(config),
            token=token,
            probes=self.probes,
        )
        self._app = App(self._core, host=binding.host)
        self._correlation_id = uuid.uuid4().hex
        self._has_begun = False

    async def run(self, stop: Callable[[], int | None]) -> None:
        """Serve until asked to stop, drain, and end the run."""
        core = self._core
        http = _Http(self._app, self._config)
        serving = asyncio.create_task(http.serve(sockets=[self._binding.socket]))
        starting = asyncio.create_task(self._start())
        probing = asyncio.create_task(self._probe())
        logger.info("listening", extra={"url": self._binding.url})
        with core.run:
            try:
                while (code := stop()) is None:
                    self._state.beat()
                    if starting.done():
                        starting.result()
                    await asyncio.sleep(_TICK_S)
                await self._drain()
            finally:
                self._state.drain()
                for one in (starting, probing):
                    one.cancel()
                http.should_exit = True
                await asyncio.wait({serving})
                await asyncio.to_thread(core.close)
            if self._has_begun:
                await asyncio.to_thread(core.run.end, int(code))
        logger.info("stopped", extra={"exit_code": code, "records": core.run.tally.total})

    async def _start(self) -> None:
        """Load the model and begin the run."""
        core, policy = self._core, self._engine.policy
        backend = await asyncio.wrap_future(self._engine.model_resource.request_backend())
        core.recorder.identity = backend.identity
        await core.in_thread(core.run.begin, "serve", policy, None, self._correlation_id)
        self._has_begun = True
        self._state.loaded()
        logger.info("ready", extra={"model": backend.identity.name, "policy": policy.id})

    async def _probe(self) -> None:
        """Try a ledger that failed again and again; seal what an idle server wrote last."""
        while True:
            await asyncio.sleep(_PROBE_S)
            if self._state.readiness is not Readiness.LEDGER_FAILED:
                await self._core.in_thread(self._core.recorder.seal_if_due)
                continue
            if await self._core.in_thread(self._core.recorder.is_back, self._engine.policy):
                self._state.ledger_failed(is_failed=False)
                logger.warning("the ledger takes records again")

    async def _drain(self) -> None:
        """Let what was accepted finish; cut off what does not."""
        self._state.drain()
        logger.info("draining", extra={"requests": self._app.in_flight})
        await self._wait_until_idle(self._config.drain_timeout)
        if self._app.in_flight:
            logger.warning("cut off", extra={"requests": self._app.in_flight})
        self._core.cut_off.set()
        await self._wait_until_idle(_GRACE_S)

    async def _wait_until_idle(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while self._app.in_flight and time.monotonic() < deadline:
            self._state.beat()
            await asyncio.sleep(_TICK_S)

    def _ledger_failed(self, is_fatal: bool) -> None:  # noqa: FBT001 - a callback's one argument
        self._metrics.append_failed()
        if is_fatal:
            self._state.ledger_failed(is_failed=True)


class _Http(uvicorn.Server):
    """uvicorn, which here neither handles signals nor logs: its owner does both."""

    def __init__(self, app: App, config: CERTConfig) -> None:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
        protocol = build_protocol(
            receive_timeout_s=config.receive_timeout, max_connections=_max_connections()
        )
        super().__init__(
            uvicorn.Config(
                app.asgi,
                http=protocol,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_graceful_shutdown=3,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever owns the process."""
        yield


def _max_connections() -> int:
    """Connections that leave descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MAX_CONNECTIONS, max(16, soft // 2))


def _defaults(config: CERTConfig) -> Options:
    return Options(sampling_of(config), config.timeout, config.chat)
