"""What the health checks found: a table for a person, one object for a program."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cert.core.health import HealthStatus
from cert.observability.controls import escape_controls
from cert.observability.redaction import redact

if TYPE_CHECKING:
    from cert.core.health import HealthReport
    from cert_cli.exit_codes import ExitCode
    from cert_cli.terminal import Style

_COLORS = {
    HealthStatus.HEALTHY: "green",
    HealthStatus.DEGRADED: "bold yellow",
    HealthStatus.UNHEALTHY: "bold red",
    HealthStatus.UNKNOWN: "bold magenta",
}


def to_json(report: HealthReport, code: ExitCode, recorded_as: int | None) -> str:
    """One object: the report, the exit code, and the number of its record, if there is one."""
    value = report.as_dict() | {"exit_code": int(code), "recorded_as": recorded_as}
    return redact(json.dumps(value, indent=2)) + "\n"


def to_text(report: HealthReport, style: Style, *, quiet: bool) -> str:
    """A line for the whole and a row for each check; `quiet` leaves out what is healthy."""
    rows = {name: found for name, found in report.checks.items() if not quiet or not found}
    if quiet and not rows:
        return ""
    console = Console(
        file=io.StringIO(),
        width=style.width,
        force_terminal=style.color,
        no_color=not style.color,
        color_system="standard" if style.color else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, found in rows.items():
        table.add_row(
            Text(name),
            Text(found.status.value, _COLORS[found.status]),
            Text(f"{found.duration_s:.2f} s"),
            Text(escape_controls(redact(found.reason))),
        )
    count = "1 check" if len(report.checks) == 1 else f"{len(report.checks)} checks"
    with console.capture() as capture:
        head = Text(report.status.value.upper(), _COLORS[report.status])
        console.print(head.append(f"  {count} in {report.duration_s:.2f} s", ""))
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
