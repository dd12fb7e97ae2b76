"""`cert coordinate --dry-run`: what a comparison would take, and what it could find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from cert.coordination.forecast import count_calls
from cert.coordination.plan import Kind
from cert.observability.controls import escape_controls
from cert.statistics.plan import detectable_delta, required_tasks, widest_deviation
from cert_cli.drawing import draw_parts
from cert_cli.exit_codes import ExitCode
from cert_cli.stdout import print_text

if TYPE_CHECKING:
    from cert.coordination.forecast import Takings
    from cert.coordination.plan import Plan
    from cert.coordination.prices import Prices
    from cert_cli.terminal import Style

_RATE: Final = 0.5
"""Of right answers: where scores vary most, so that no pilot is needed."""
_WANTED: Final = 0.1


def describe_plan_cost(plan: Plan, prices: Prices | None, style: Style) -> ExitCode:
    """Print what a plan takes at most, and the smallest effect that it finds.

    Raises:
        ConfigurationError: There is no price for a model.
    """
    forecast = count_calls(plan, prices=prices)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm", no_wrap=True)
    for name in ("calls", "tokens in", "tokens out", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, takings in forecast.arms.items():
        table.add_row(escape_controls(name), *_cells(takings))
    if forecast.judges.most_calls:
        table.add_row("judges", *_cells(forecast.judges))
    table.add_row("all", *_cells(forecast.total))
    groups = len({task.group_id for task in plan.tasks})
    replicates = plan.arms[0].replicates
    head = f"{len(plan.tasks)} tasks in {groups} groups, {replicates} replicates of each; at most:"
    print_text(
        "\n".join([head, draw_parts([table], style).rstrip("\n"), *_effects(plan)])
        + "\nnothing was asked, and nothing was written\n"
    )
    return ExitCode.PASS


def _cells(takings: Takings) -> list[str]:
    least, most = takings.least_calls, takings.most_calls
    return [
        f"{most:,}" if least == most else f"{least:,} to {most:,}",
        f"{takings.most_input_tokens:,}",
        f"{takings.most_output_tokens:,}",
        "-" if takings.most_usd is None else f"{takings.most_usd:.4f}",
    ]


def _effects(plan: Plan) -> list[str]:
    """What so many tasks find, with power .80 at the two-sided level .05."""
    single = next(arm for arm in plan.arms if arm.kind is Kind.SINGLE)
    deviation = widest_deviation(_RATE, single.replicates, single.replicates)
    smallest = detectable_delta(deviation, len(plan.tasks))
    needed = required_tasks(deviation, _WANTED)
    worst = "right or wrong answers, half of them right, tasks equally hard"
    return [
        f"smallest effect that it finds: {smallest:.3f} of mean score, at worst ({worst})",
        f"for an effect of {_WANTED:g}: {needed:,} tasks, or more replicates",
    ]
