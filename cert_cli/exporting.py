"""`cert serve-metrics`, from its arguments to its end."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs
from prometheus_client import CollectorRegistry, generate_latest

from cert.core.errors import CertError, ConfigurationError
from cert.core.health import Check, HealthChecker
from cert.core.places import ledger_folder
from cert.service.access import check_exposure, load_token
from cert.service.exporter.exporter import LedgerExporter
from cert.service.exporter.state import StateFile
from cert.service.ops import OpsListener, Probes
from cert.service.state import ServiceState
from cert_cli.errors import report
from cert_cli.pinned_key import load_public_key
from cert_cli.stdout import print_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cert.core.config import CERTConfig
    from cert.ledger.keys import PublicKey
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

logger = logging.getLogger(__name__)

NO_STATE: Final = "none"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WAKE_S: Final = 0.2
"""How often a signal is looked for."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked for.

    Attributes:
        ledgers: `NAME=DIR` or `DIR`, as given; none is the configured one.
        state: A file, `none`, or None for the usual one.
        key: A key that all ledgers must be of, as given.
        interval_s: Between two looks.
        canary: File of prompts that are run on a schedule.
        canary_interval_s: Between two runs of them.
        canary_ledger: Where they are recorded; None is the configured ledger.
    """

    ledgers: Sequence[str]
    state: str | None = None
    key: str | None = None
    interval_s: float = 5.0
    canary: Path | None = None
    canary_interval_s: float = 3600.0
    canary_ledger: Path | None = None


def name_ledgers(given: Sequence[str], config: CERTConfig) -> dict[str, Path]:
    """Folder by the name that becomes a label.

    Raises:
        ConfigurationError: Two have one name, or there is none.
    """
    named: dict[str, Path] = {}
    for one in given or [_configured(config)]:
        name, _, folder = one.partition("=")
        if not folder or not _NAME.fullmatch(name):
            folder = one
            name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(one).absolute().name)[:64] or "root"
        if name in named:
            raise ConfigurationError(
                f"two ledgers are named {name}: {named[name]} and {folder}",
                hint="name them apart: NAME=DIR",
            )
        named[name] = Path(folder)
    return named


def _configured(config: CERTConfig) -> str:
    folder = ledger_folder(config.ledger)
    if folder is None:
        raise ConfigurationError(
            "no ledger was named, and the setting `ledger` is none",
            hint="give the ledger's folder, as DIR or NAME=DIR",
        )
    return str(folder.absolute())


def print_once(asked: Export, config: CERTConfig) -> ExitCode:
    """Read the ledgers and print the exposition.

    Raises:
        CertError: The arguments are wrong, or stdout takes no more.
    """
    exporter = _open(asked, config, state=asked.state or NO_STATE)
    exporter.look()
    while exporter.is_behind:
        exporter.look()
    exporter.save()
    registry = CollectorRegistry()
    registry.register(exporter)
    return print_text(generate_latest(registry).decode())


def serve_metrics(
    asked: Export, config: CERTConfig, interrupts: Interrupts, *, quiet: bool
) -> ExitCode:
    """Serve until asked to stop, then keep the state.

    Raises:
        CertError: The arguments are wrong, or the address is taken.
    """
    token = load_token(config)
    check_exposure(config.metrics_host, token, flag="--host")
    with interrupts.deferred(), ExitStack() as stack:
        exporter = _open(asked, config, state=asked.state)
        registry = CollectorRegistry()
        registry.register(exporter)
        state = ServiceState()
        # The ledgers alone: what else `cert health` looks at is of a machine that measures.
        checker = HealthChecker({"ledgers": Check(exporter.check, critical=False)})
        probes = Probes(
            is_alive=lambda: state.is_alive,
            readiness=lambda: state.readiness,
            check=checker.run,
        )
        listener = stack.enter_context(_listen(config, registry, probes, token))
        if not quiet:
            host = f"[{listener.host}]" if ":" in listener.host else listener.host
            report(f"serving http://{host}:{listener.port}/metrics")
        if asked.canary is not None:
            stack.enter_context(_canary(asked.canary, asked, config))
        _follow(exporter, state, interrupts, asked.interval_s)
    assert interrupts.code is not None  # noqa: S101 - nothing else ends it
    return interrupts.code


def _follow(
    exporter: LedgerExporter, state: ServiceState, interrupts: Interrupts, interval_s: float
) -> None:
    pause = threading.Event()

    def stopped() -> bool:
        state.beat()
        return interrupts.seen()

    while not stopped():
        exporter.look(stopped=stopped)
        exporter.save()
        if exporter.is_behind:
            continue
        state.loaded()
        left_s = interval_s
        while left_s > 0 and not stopped():
            pause.wait(min(left_s, _WAKE_S))
            left_s -= _WAKE_S
    state.drain()
    exporter.save()


def _open(asked: Export, config: CERTConfig, *, state: str | None) -> LedgerExporter:
    path = None
    if state is None:
        path = platformdirs.user_state_path("cert", appauthor=False) / "serve-metrics.json"
    elif state != NO_STATE:
        path = Path(state)
    return LedgerExporter(
        name_ledgers(asked.ledgers, config),
        state_file=None if path is None else StateFile(path),
        pinned=_pinned(asked, config),
    )


def _pinned(asked: Export, config: CERTConfig) -> PublicKey | None:
    if asked.key is not None:
        return load_public_key(asked.key, source="--key")
    if config.verify_key is not None:
        return load_public_key(config.verify_key, source="the setting verify_key")
    return None


def _listen(
    config: CERTConfig, registry: CollectorRegistry, probes: Probes, token: str | None
) -> OpsListener:
    try:
        return OpsListener(
            config.metrics_host,
            config.metrics_port,
            registry=registry,
            probes=probes,
            token=token,
            receive_timeout_s=config.receive_timeout,
        )
    except OSError as error:
        raise ConfigurationError(
            str(error.strerror or error),
            hint="choose another with --host and --port; port 0 takes a free one",
        ) from error


@contextmanager
def _canary(source: Path, asked: Export, config: CERTConfig) -> Iterator[None]:
    """Run the canary in a thread for the time inside; a round under way is waited for."""
    from cert.observability.metrics import MetricsCollector  # noqa: PLC0415 - torch, only here
    from cert.runner.local import open_engine  # noqa: PLC0415 - the same
    from cert.service.canary import Canary  # noqa: PLC0415 - the same

    folder = asked.canary_ledger or ledger_folder(config.ledger)
    if folder is None:
        raise ConfigurationError(
            "the canary's records need a ledger, and the setting `ledger` is none",
            hint="name one with --canary-ledger DIR",
        )
    if not source.is_file():
        raise ConfigurationError(
            f"the canary's file {source} is not there", hint="one prompt a line, or JSONL"
        )
    # What it measures is counted from its ledger, like all else.
    unseen = MetricsCollector(registry=CollectorRegistry())
    with open_engine(config, policy=config.policy, metrics=unseen) as engine:
        canary = Canary(source, folder, config, engine)
        stop = threading.Event()

        def rounds() -> None:
            while not stop.is_set():
                try:
                    canary.run(stop.is_set)
                except CertError as error:
                    logger.error("the canary did not run", extra={"reason": error.message})  # noqa: TRY400 - the reason says it all
                except Exception:
                    logger.exception("the canary did not run")
                stop.wait(asked.canary_interval_s)

        thread = threading.Thread(target=rounds, name="cert-canary", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(config.drain_timeout)
