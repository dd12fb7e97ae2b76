"""What everything else stands on: errors, configuration, retries, circuits, health, resources."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.core.circuit_breaker import CircuitBreaker as CircuitBreaker
    from cert.core.circuit_breaker import CircuitState as CircuitState
    from cert.core.config import CERTConfig as CERTConfig
    from cert.core.errors import AnalysisError as AnalysisError
    from cert.core.errors import CertError as CertError
    from cert.core.health import Check as Check
    from cert.core.health import CheckResult as CheckResult
    from cert.core.health import HealthChecker as HealthChecker
    from cert.core.health import HealthReport as HealthReport
    from cert.core.health import HealthStatus as HealthStatus
    from cert.core.health import run_checks as run_checks
    from cert.core.resources import ManagedResource as ManagedResource
    from cert.core.retry import RetryEvent as RetryEvent
    from cert.core.retry import retry as retry

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AnalysisError": "cert.core.errors",
        "CERTConfig": "cert.core.config",
        "CertError": "cert.core.errors",
        "Check": "cert.core.health",
        "CheckResult": "cert.core.health",
        "CircuitBreaker": "cert.core.circuit_breaker",
        "CircuitState": "cert.core.circuit_breaker",
        "HealthChecker": "cert.core.health",
        "HealthReport": "cert.core.health",
        "HealthStatus": "cert.core.health",
        "ManagedResource": "cert.core.resources",
        "RetryEvent": "cert.core.retry",
        "retry": "cert.core.retry",
        "run_checks": "cert.core.health",
    },
)
