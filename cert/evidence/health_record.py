"""Health as a record: how the machine did when somebody looked, beside what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.evidence.parts import encodable, message
from cert.ledger.control import record_head
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from cert.core.health import HealthReport
    from cert.evidence.run_record import Host


def build_health_record(
    report: HealthReport, *, model: str, host: Host, time: str | None = None
) -> dict[str, object]:
    """Record a health report.

    Args:
        report: What was checked and found; secrets are redacted from the reasons.
        model: As the user named it.
        host: The machine.
        time: RFC 3339; now where it is not given.
    """
    return {
        **record_head("health", time),
        "health": {
            "status": report.status.value,
            "duration_s": round(report.duration_s, 6),
            "checks": [
                {
                    "name": name,
                    "status": found.status.value,
                    "reason": message(found.reason),
                    "duration_s": round(found.duration_s, 6),
                }
                for name, found in report.checks.items()
            ],
            "model": redact(encodable(model)),
            "versions": dict(host.versions),
            "host": {"platform": host.platform, "arch": host.arch},
        },
    }
