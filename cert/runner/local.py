"""An engine in this process, made from the configuration; the one place that does so."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import cert
from cert.core.errors import ConfigurationError
from cert.core.extras import missing_extra
from cert.observability.metrics import MetricsCollector, start_metrics_server
from cert.observability.tracing import exporting_traces
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.resources import HamiltonianModelResource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.assessment.policy import Policy
    from cert.core.config import CERTConfig
    from cert.trajectory.resources import Loader

logger = logging.getLogger(__name__)


@contextmanager
def open_engine(
    config: CERTConfig,
    *,
    policy: Policy | str | None = None,
    expect_digest: str | None = None,
    metrics: MetricsCollector | None = None,
    loader: Loader | None = None,
) -> Iterator[HamiltonianEngine]:
    """Make an engine, and free its model at the end.

    The model is loaded by the first prompt, or in the background from
    `engine.model_resource.request_backend()` on. With `METRICS_ENABLED` and no `metrics` given,
    metrics are served on loopback for as long as the engine is open.

    Args:
        config: Model, device, memory, cache, metrics.
        policy: What judges where a request names no other; None is the model's own default.
        expect_digest: Refuse any other model than the one of this digest.
        metrics: Where requests are counted, for a caller who serves them; None as said above.
        loader: Makes the backend; None loads a local model.
    """
    resource = HamiltonianModelResource(
        config=config, preload=False, expect_digest=expect_digest, loader=loader
    )
    with ExitStack() as stack:
        if config.traces == "otlp":
            stack.enter_context(_exporting_traces())
        if metrics is None and config.metrics_enabled:
            metrics = MetricsCollector()
            try:
                stack.enter_context(start_metrics_server(port=config.metrics_port))
            except OSError as error:
                # An audit is worth more than its metrics: two runs at once share one port.
                logger.warning("metrics are not served: port %d: %s", config.metrics_port, error)
        engine = HamiltonianEngine(
            resource, cache_size=config.cache_size, policy=policy, metrics=metrics
        )
        try:
            yield engine
        finally:
            # Unloading waits for a load in progress, which whoever interrupts it won't.
            if resource.is_loaded:
                resource.unload()


@contextmanager
def _exporting_traces() -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(exporting_traces(cert.__version__))
        except ModuleNotFoundError as error:
            raise missing_extra(f"traces need {error.name}", "traces") from error
        except ValueError as error:
            raise ConfigurationError(
                f"traces: a variable OTEL_* has a wrong value: {error}",
                hint="correct it, or leave traces out: CERT_TRACES=none",
            ) from error
        yield
