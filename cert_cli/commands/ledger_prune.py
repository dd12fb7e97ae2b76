"""`cert ledger prune`: remove old records whose time has come, after exporting them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.ledger.prune import Pruning
    from cert.ledger.pruning_plan import Plan
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert ledger prune --before 2027-01-01 --export 2026.zip --reason 'retention' --dry-run",
    "cert ledger prune --before 2027-01-01 --export 2026.zip --reason 'retention' --yes",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def prune(  # noqa: PLR0913 - one parameter a flag
    *,
    before: Annotated[
        str,
        typer.Option(
            metavar="DATE",
            show_default=False,
            help="Only files whose records are all older, as YYYY-MM-DD in UTC.",
        ),
    ],
    export: Annotated[
        Path,
        typer.Option(
            metavar="FILE.zip",
            show_default=False,
            help="Where the removed records go first; can be verified by itself.",
        ),
    ],
    reason: Annotated[
        str,
        typer.Option(metavar="TEXT", show_default=False, help="Why; it stays in the ledger."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Never wait for an answer; needs --yes.")
    ] = False,
    ledger: flags.LedgerOption = None,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Remove closed files of old records; what is left verifies as before.

    Refused for records younger than the setting `retention_days`, and unless the whole ledger
    verifies and the export was written and read back. A `pruned` record says what went, when and
    why. Texts behind commitments of removed records are deleted and are not in the export. Running
    the command again finishes what was cut off.
    """

    def body(_: Interrupts) -> ExitCode:
        from datetime import UTC, datetime  # noqa: PLC0415 - not for --help

        from cert.ledger import pruning_plan  # noqa: PLC0415 - not for --help
        from cert.ledger.export import check_target  # noqa: PLC0415 - the same
        from cert.ledger.key_source import keys_of  # noqa: PLC0415 - the same
        from cert.ledger.prune import prune as prune_ledger  # noqa: PLC0415 - the same
        from cert.ledger.reader import FolderReader  # noqa: PLC0415 - the same
        from cert_cli.confirmation import check_reason, confirm  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        words, moment = check_reason(reason), pruning_plan.parse_date(before)
        settings = load_settings(config, keys=keys)
        folder = find_ledger(ledger, settings)
        days = settings.retention_days
        pruning_plan.check_retention(moment, retention_days=days, now=datetime.now(UTC))
        check_target(export, folder)
        plan = pruning_plan.plan_pruning(FolderReader(folder), moment)
        if dry_run:
            return print_text(f"would remove {_describe(plan)}\n")
        if plan.segments:
            confirm(
                f"{_describe(plan).capitalize()} of {folder} will be removed, after they were "
                f"exported to {export}, and the texts that they commit to will be deleted.",
                yes=yes,
                no_input=no_input,
            )
        pruning = prune_ledger(
            folder,
            keys_of(settings),
            before=moment,
            retention_days=days,
            export=export,
            reason=words,
        )
        return print_text(_tell(pruning, export))

    run_command(body, debug=debug)


def _describe(plan: Plan) -> str:
    if not plan.segments:
        return "no record"
    return (
        f"{plan.records} records ({plan.segments[0].first} to {plan.size - 1}, in "
        f"{len(plan.segments)} files of {plan.size_bytes} bytes, the newest of {plan.newest})"
    )


def _tell(pruning: Pruning, export: Path) -> str:
    if pruning.plan is None or pruning.export is None:
        return "finished a pruning that had been cut off; nothing else is old enough\n"
    report(f"note: keep {export}: it is the only copy of what was removed")
    return (
        f"removed {_describe(pruning.plan)} and {pruning.texts} texts\n"
        f"exported to {export}, {pruning.export.size_bytes} bytes, sha256 {pruning.export.sha256}\n"
    )
