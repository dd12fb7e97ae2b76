"""The monitor: one model, held as a resource, run through an engine, judged by a policy."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.trajectory.api import HamiltonianMonitor as HamiltonianMonitor
    from cert.trajectory.cache import CacheInfo as CacheInfo
    from cert.trajectory.engine import HamiltonianEngine as HamiltonianEngine
    from cert.trajectory.resources import HamiltonianModelResource as HamiltonianModelResource
    from cert.trajectory.types import AnalysisResult as AnalysisResult

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AnalysisResult": "cert.trajectory.types",
        "CacheInfo": "cert.trajectory.cache",
        "HamiltonianEngine": "cert.trajectory.engine",
        "HamiltonianModelResource": "cert.trajectory.resources",
        "HamiltonianMonitor": "cert.trajectory.api",
    },
)
