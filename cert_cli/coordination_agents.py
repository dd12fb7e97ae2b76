"""Who answers the calls of `cert coordinate`: models in this process, a server, or both."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cert.coordination.baseline import Environment
from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.routing import RoutedAgent
from cert.core.errors import ConfigurationError
from cert.evidence.run_record import Host, load_host
from cert.observability.metrics import start_metrics_server
from cert_cli.coordination_choices import REFERENCE, name_of
from cert_cli.errors import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from cert.backends.protocol import ModelIdentity
    from cert.coordination.budget import Budget
    from cert.coordination.client import AnthropicClient
    from cert.coordination.protocol import Agent
    from cert.core.config import CERTConfig
    from cert_cli.coordination_choices import Choices

REMOTE_CONCURRENCY: Final = 8
_MAX_KEY_BYTES: Final = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents:
    """What answers.

    Attributes:
        agent: Of every model.
        endpoints: Where each model is, as the plan's record says it.
        environment: Of the single agent's replies.
        identity: Of the first local model; None where there is none.
        host: This machine, and the versions of what was used on it.
        concurrency: Calls that are of use at the same time.
    """

    agent: Agent
    endpoints: Sequence[Mapping[str, object]]
    environment: Environment
    identity: ModelIdentity | None
    host: Host
    concurrency: int


def open_agents(
    choices: Choices, config: CERTConfig, budget: Budget, *, stack: ExitStack, quiet: bool
) -> Agents:
    """Load the local models, and set the server's client up; nothing is asked yet.

    Args:
        choices: Names them.
        config: How local models are loaded; whether metrics are served.
        budget: Of the server's calls.
        stack: Frees the models.
        quiet: Whether notes are left out.

    Raises:
        CertError: A model cannot be loaded, or the client not be set up.
    """
    metrics = stack.enter_context(_metrics(config))
    routes: dict[str, Agent] = {}
    endpoints: list[dict[str, object]] = []
    identity: ModelIdentity | None = None
    specs = [*choices.models, *choices.judges]
    local = list(dict.fromkeys(spec for spec in specs if not choices.is_remote(spec)))
    remote = list(dict.fromkeys(name_of(spec) for spec in specs if choices.is_remote(spec)))
    twice = next((name for name in remote if name in local), None)
    if twice is not None:
        raise ConfigurationError(f"{twice!r} names a model here and one of a server")
    host = load_host()
    for spec in local:
        agent, found = _open_local(spec, choices, config, metrics, stack)
        identity = identity or found
        routes[spec] = agent
        endpoints.append(
            {
                "kind": "local",
                "models": [spec],
                "model": found.digest,
                "dtype": found.dtype,
                "quantization": found.quantization,
                "temperature": choices.temperature,
                "seed": choices.seed,
                "chat": config.chat,
            }
        )
    if remote:
        client = _open_remote(choices, budget, metrics)
        routes |= dict.fromkeys(remote, client)
        sdk = f"anthropic {client.sdk_version}"
        host = replace(host, versions={**host.versions, "anthropic": client.sdk_version})
        endpoints.append(
            {
                "kind": "messages",
                "models": remote,
                "base_url": client.base_url,
                "api_version": client.api_version,
                "sdk": sdk,
            }
        )
    if REFERENCE in local and not quiet:
        report(
            "note: `reference` is there to try the tool: it is far too small to answer tasks "
            "(--model names another)"
        )
    first = name_of(choices.models[0])
    own = next(one for one in endpoints if first in one["models"])  # type: ignore[operator]
    concurrency = choices.concurrency
    if concurrency is None:
        concurrency = max(config.batch_rows if local else 0, REMOTE_CONCURRENCY if remote else 0)
    return Agents(
        agent=RoutedAgent(routes),
        endpoints=endpoints,
        environment=_environment(own, host),
        identity=identity,
        host=host,
        concurrency=concurrency,
    )


def _environment(endpoint: Mapping[str, object], host: Host) -> Environment:
    versions = host.versions
    if endpoint["kind"] == "messages":
        return Environment(
            sdk=str(endpoint["sdk"]),
            api_version=str(endpoint["api_version"]),
            base_url=str(endpoint["base_url"]),
        )
    settings = {name: value for name, value in endpoint.items() if name not in {"kind", "models"}}
    return Environment(
        sdk=f"cert {versions['cert']}",
        api_version="",
        base_url=str(endpoint["model"]),
        parameters=settings,
    )


def _open_local(
    spec: str,
    choices: Choices,
    config: CERTConfig,
    metrics: CoordinationMetrics | None,
    stack: ExitStack,
) -> tuple[Agent, ModelIdentity]:
    from cert.runner.local import open_engine  # noqa: PLC0415 - not for a server alone
    from cert.runner.local_agent import LocalAgent  # noqa: PLC0415 - the same

    own = config.model_copy(update={"model": spec, "metrics_enabled": False})
    engine = stack.enter_context(open_engine(own))
    identity = engine.model_resource.request_backend().result().identity
    agent = LocalAgent(
        engine,
        temperature=choices.temperature,
        seed=choices.seed,
        chat=config.chat,
        metrics=metrics,
    )
    return agent, identity


def _open_remote(
    choices: Choices, budget: Budget, metrics: CoordinationMetrics | None
) -> AnthropicClient:
    from cert.coordination.client import AnthropicClient  # noqa: PLC0415 - not for local models
    from cert.coordination.endpoint import ClientConfig  # noqa: PLC0415 - beside its use

    key = None if choices.api_key_file is None else _read_key(choices.api_key_file)
    most = choices.concurrency or REMOTE_CONCURRENCY
    return AnthropicClient(
        ClientConfig(
            api_key=key,
            # The user's key for Anthropic is nothing for another server, unless it is given.
            is_key_from_environment=choices.base_url is None,
            base_url=choices.base_url,
            api_version=choices.api_version,
            initial_concurrency=min(4, most),
            max_concurrency=most,
        ),
        budget=budget,
        metrics=metrics,
    )


def _read_key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"--api-key-file {path}: {error.strerror}") from error
    try:
        key = data.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or len(data) > _MAX_KEY_BYTES:
        raise ConfigurationError(
            f"--api-key-file {path}: it holds no key", hint="one line of ASCII, nothing else"
        )
    return key


@contextmanager
def _metrics(config: CERTConfig) -> Iterator[CoordinationMetrics | None]:
    if not config.metrics_enabled:
        yield None
        return
    metrics = CoordinationMetrics()
    try:
        server = start_metrics_server(port=config.metrics_port)
    except OSError as error:
        # A comparison is worth more than its metrics: two runs at once share one port.
        report(f"warning: metrics are not served: port {config.metrics_port}: {error.strerror}")
        yield metrics
        return
    with server:
        yield metrics
