"""METRICS_ENABLED in a library: one exporter a process, however many monitors there are."""

from __future__ import annotations

import logging
import threading

from cert.observability.metrics import MetricsServer, start_metrics_server

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_servers: dict[int, MetricsServer] = {}


def serve_metrics_once(port: int) -> MetricsServer | None:
    """Serve the process's own registry on loopback until the process ends.

    A port that is taken is a warning: measuring goes on, and often it is the program itself that
    serves there.

    Args:
        port: Where; 0 takes a free one at the first call, and the same one afterwards.

    Returns:
        The running server, or None if the port is taken.
    """
    with _lock:
        if port not in _servers:
            try:
                _servers[port] = start_metrics_server(port=port)
            except OSError as error:
                logger.warning("metrics are not served", extra={"port": port, "reason": str(error)})
                return None
        return _servers[port]
