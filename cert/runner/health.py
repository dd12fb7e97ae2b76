"""Every health check there is, put together for `cert health` and for a running server.

One set of checks, two ways to look at the model: `cert health` loads it, a server is asked about
the one that it has loaded already. Nothing is written, and nothing is downloaded.
"""

from __future__ import annotations

import difflib
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from cert.backends.folder import REFERENCE_NAME, inspect_folder, resolve_model
from cert.backends.manifest import hash_files, manifest_digest
from cert.core.errors import ConfigurationError, ModelNotLoaded
from cert.core.health import Check, CheckResult, HealthChecker
from cert.core.health_host import (
    ClockWatch,
    DiskLimits,
    check_disk,
    check_environment,
    check_memory,
)
from cert.core.health_net import check_anthropic, check_server
from cert.core.places import ledger_folder
from cert.core.resources import BYTES_PER_GB, read_memory
from cert.ledger.errors import LedgerError
from cert.ledger.glance import load_end
from cert.ledger.health import check_checkpoint, check_key, check_writable
from cert.ledger.key_source import keys_of
from cert.runner.remote_target import parse_server_url
from cert.trajectory.checks import check_inference, check_instrument, check_model
from cert.trajectory.resources import HamiltonianModelResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cert.core.config import CERTConfig

CHECKS: Final = {
    "environment": "versions of Python and of the libraries",
    "device": "the device that is asked for, and the one that is there",
    "memory": "memory of the machine, and under MAX_MEMORY_GB",
    "files": "the model's folder and its digest",
    "model": "the model can be loaded",
    "inference": "a token is generated and measured",
    "instrument": "the reference model reads as it was pinned in float64",
    "ledger": "records could be appended; none is",
    "checkpoint": "the end of the ledger is whole, sealed, and not long ago",
    "key": "the signing key is here, signs, and is the one in force",
    "disk": "room in the ledger's file system",
    "clock": "the year, the newest record's time, and whether somebody set the clock",
    "server": "what a running cert serve says of itself (--server)",
    "anthropic": "the Anthropic endpoint is there; no token is spent",
}
"""What each check looks at, by name, in the order of the report."""

_OF_LEDGER: Final = frozenset({"ledger", "checkpoint", "key", "disk"})
_OF_MODEL: Final = frozenset({"device", "files", "model", "inference", "instrument"})
_ASKED_FOR: Final = frozenset({"server", "anthropic"})
SERVER_CHECKS: Final = frozenset({"environment", "clock"}) | _ASKED_FOR
"""What can be looked at from beside a server."""
_NOT_CRITICAL: Final = frozenset({"memory"})
_LOCK_S: Final = 5.0
_GRACE_S: Final = 0.5
"""A check gives up on its own a moment before it is given up: it has more to say."""

_importing = threading.Lock()
"""Two threads that import torch at once can each see half of it."""


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """How to look.

    Attributes:
        timeout_s: Seconds that each check may take; they run at the same time.
        expect_digest: The model's; any other is unhealthy. None for any.
        max_checkpoint_age_s: See `cert.ledger.health.check_checkpoint`.
        disk: When there is too little room.
        only: Names of the checks to run; empty for those that the settings call for.
    """

    timeout_s: float = 60.0
    expect_digest: str | None = None
    max_checkpoint_age_s: float | None = None
    disk: DiskLimits = field(default_factory=DiskLimits)
    only: tuple[str, ...] = ()


def build_health_checks(
    config: CERTConfig,
    options: HealthOptions | None = None,
    *,
    resource: HamiltonianModelResource | None = None,
) -> HealthChecker:
    """Put the checks together; nothing is looked at before `run`.

    Without `options.only`: those of the ledger unless it is `none`; those of the model unless the
    setting `server` names who measures instead, which is then asked; `anthropic` never.

    Args:
        config: The settings.
        options: How to look.
        resource: The model of a running server, which is neither loaded nor unloaded here. None
            makes one that the checks load.

    Raises:
        ConfigurationError: There is no check of a name in `options.only`.
    """
    options = options or HealthOptions()
    checks = _Checks(config, options, resource)
    names = options.only or _default_names(config, is_server=resource is not None)
    if config.server is not None and "server" in names:
        parse_server_url(config.server)
    return HealthChecker({name: checks.build(name) for name in _in_order(names)})


def _default_names(config: CERTConfig, *, is_server: bool) -> Iterable[str]:
    names = set(CHECKS) - _ASKED_FOR
    if config.ledger == "none":
        names -= _OF_LEDGER
    if is_server:
        names.discard("files")  # they were read when the model was loaded
    elif config.server is not None:
        names = set(SERVER_CHECKS) - {"anthropic"}
    return names


def _in_order(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    for name in sorted(wanted):
        if name not in CHECKS:
            close = difflib.get_close_matches(name, CHECKS, n=1)
            raise ConfigurationError(
                f"there is no check {name!r}",
                hint=f"did you mean {close[0]}?" if close else f"one of {', '.join(CHECKS)}",
            )
    return [name for name in CHECKS if name in wanted]


class _Checks:
    """What each check runs."""

    def __init__(
        self,
        config: CERTConfig,
        options: HealthOptions,
        resource: HamiltonianModelResource | None,
    ) -> None:
        self._options = options
        self._is_own = resource is None
        self._is_offline = config.offline
        # A check that downloads a model would be no check.
        self._config = config = config.model_copy(update={"offline": True, "preload": False})
        self._folder = ledger_folder(config.ledger)
        self._keys = partial(keys_of, config)
        self._watch = ClockWatch()
        self._resource = resource or HamiltonianModelResource(
            config=config, expect_digest=options.expect_digest
        )
        self._reference = self._resource
        if config.model != REFERENCE_NAME:
            beside = {"model": REFERENCE_NAME, "quantize": "none", "max_memory_gb": None}
            self._reference = HamiltonianModelResource(config=config.model_copy(update=beside))

    def build(self, name: str) -> Check:
        run: Callable[[], CheckResult] = getattr(self, f"_{name}")
        return Check(run, self._options.timeout_s + _GRACE_S, critical=name not in _NOT_CRITICAL)

    @property
    def _lock_timeout_s(self) -> float:
        return min(_LOCK_S, self._options.timeout_s)

    def _environment(self) -> CheckResult:
        return check_environment()

    def _device(self) -> CheckResult:
        return _check_device(self._config.device)

    def _memory(self) -> CheckResult:
        return check_memory(self._config.max_memory_gb, read_memory())

    def _files(self) -> CheckResult:
        return _check_files(self._config, self._options.expect_digest)

    def _model(self) -> CheckResult:
        self._load(self._resource)
        found = check_model(self._resource)
        if found and self._resource.load_s is not None:
            identity = self._resource.handle.identity
            digest = f"{identity.digest}, loaded in {self._resource.load_s:.1f} s"
            return CheckResult.healthy(f"{found.reason}, {identity.dtype}, {digest}")
        return found

    def _inference(self) -> CheckResult:
        return check_inference(self._resource, self._load(self._resource))

    def _instrument(self) -> CheckResult:
        left_s = self._load(self._resource)
        if self._reference is self._resource:
            return check_instrument(self._resource, left_s)
        if not (self._is_own or self._resource.is_loaded):
            return CheckResult.unknown("nothing is measured before the server's model is loaded")
        # Only now: transformers cannot load two models at once.
        left_s = self._wait(self._reference, time.monotonic() + left_s)
        return check_instrument(self._reference, left_s)

    def _load(self, resource: HamiltonianModelResource) -> float:
        """Load a model that is these checks' own; returns the seconds that are left.

        Raises:
            ModelNotLoaded: It took too long.
        """
        ends = time.monotonic() + self._options.timeout_s
        if not self._is_own:
            return self._options.timeout_s
        _import_stack()
        return self._wait(resource, ends)

    def _wait(self, resource: HamiltonianModelResource, ends: float) -> float:
        try:
            # What goes wrong, the resource remembers and `check_model` says.
            resource.request_backend().exception(max(0.0, ends - time.monotonic()))
        except TimeoutError:
            raise ModelNotLoaded(
                f"{resource.model_name} was not loaded within {self._options.timeout_s:g} s"
            ) from None
        return max(_GRACE_S, ends - time.monotonic())

    def _ledger(self) -> CheckResult:
        return self._of_ledger(lambda folder: check_writable(folder, self._lock_timeout_s))

    def _checkpoint(self) -> CheckResult:
        return self._of_ledger(
            lambda folder: check_checkpoint(
                folder,
                self._keys,
                max_age_s=self._options.max_checkpoint_age_s,
                lock_timeout_s=self._lock_timeout_s,
            )
        )

    def _key(self) -> CheckResult:
        return self._of_ledger(
            lambda folder: check_key(folder, self._keys, lock_timeout_s=self._lock_timeout_s)
        )

    def _disk(self) -> CheckResult:
        return self._of_ledger(lambda folder: check_disk(folder, self._options.disk))

    def _of_ledger(self, look: Callable[[Path], CheckResult]) -> CheckResult:
        if self._folder is None:
            return CheckResult.unknown("there is no ledger: the setting ledger is none")
        return look(self._folder)

    def _clock(self) -> CheckResult:
        newest = None
        if self._folder is not None:
            try:
                newest = load_end(self._folder, lock_timeout_s=self._lock_timeout_s).newest_time
            except LedgerError:
                newest = None  # the ledger's own checks say what is wrong with it
        return self._watch.check(newest)

    def _server(self) -> CheckResult:
        if self._config.server is None:
            return CheckResult.unknown("no server is named: --server URL, or the setting server")
        return check_server(self._config.server, self._options.timeout_s)

    def _anthropic(self) -> CheckResult:
        return check_anthropic(self._options.timeout_s, is_offline=self._is_offline)


def _import_stack() -> None:
    """Import torch and transformers once, in one thread; without them loading says what to do."""
    with _importing:
        try:
            import cert.backends.transformers_local  # noqa: F401, PLC0415 - heavy, may be absent
        except ModuleNotFoundError:
            return


def _check_device(requested: str) -> CheckResult:
    """Whether the device is there that is asked for."""
    _import_stack()
    try:
        import torch  # noqa: PLC0415 - heavy, may be absent
    except ModuleNotFoundError:
        return CheckResult.unknown("which devices there are is not known: torch is not installed")
    if requested == "cpu" or not torch.cuda.is_available():
        where = f"cpu, {torch.get_num_threads()} threads"
        if requested == "cuda":
            return CheckResult.degraded(f"{where}: cuda was asked for, and torch sees no GPU")
        return CheckResult.healthy(f"{where} ({requested} was asked for)")
    free, total = torch.cuda.mem_get_info()
    room = f"{free / BYTES_PER_GB:.1f} of {total / BYTES_PER_GB:.1f} GB free"
    name = torch.cuda.get_device_name()
    return CheckResult.healthy(f"cuda: {name}, {room} ({requested} was asked for)")


def _check_files(config: CERTConfig, expect_digest: str | None) -> CheckResult:
    """Whether the model's folder is one, is safe to load, and has the digest that is expected."""
    folder = inspect_folder(resolve_model(config.model, aliases=config.model_aliases))
    names = (*folder.model_files, *folder.tokenizer_files)
    digest = manifest_digest(hash_files(folder.path, names))
    state = f"{len(names)} files in {folder.path}, {digest}"
    if expect_digest is not None and digest != expect_digest:
        return CheckResult.unhealthy(f"{state}; {expect_digest} is expected")
    return CheckResult.healthy(state)
