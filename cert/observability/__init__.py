"""Logs with correlation ids, secrets kept out of them, and Prometheus metrics."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.observability.controls import escape_controls as escape_controls
    from cert.observability.correlation import (
        correlation_id_context as correlation_id_context,
    )
    from cert.observability.correlation import (
        get_correlation_id as get_correlation_id,
    )
    from cert.observability.logging import (
        configure_logging as configure_logging,
    )
    from cert.observability.logging import (
        reset_logging as reset_logging,
    )
    from cert.observability.logging import (
        safe_extra as safe_extra,
    )
    from cert.observability.metrics import (
        MetricsCollector as MetricsCollector,
    )
    from cert.observability.metrics import (
        MetricsServer as MetricsServer,
    )
    from cert.observability.metrics import (
        start_metrics_server as start_metrics_server,
    )
    from cert.observability.redaction import redact as redact

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "MetricsCollector": "cert.observability.metrics",
        "MetricsServer": "cert.observability.metrics",
        "configure_logging": "cert.observability.logging",
        "correlation_id_context": "cert.observability.correlation",
        "escape_controls": "cert.observability.controls",
        "get_correlation_id": "cert.observability.correlation",
        "redact": "cert.observability.redaction",
        "reset_logging": "cert.observability.logging",
        "safe_extra": "cert.observability.logging",
        "start_metrics_server": "cert.observability.metrics",
    },
)
