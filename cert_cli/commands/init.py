"""`cert init`: a workflow, a crontab line, or units, ready for this installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

InputOption = Annotated[
    Path, typer.Option("--input", metavar="FILE", help="The prompts that are measured.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Print files that run cert regularly: in CI, by cron, by systemd.",
)


@app.callback()
def init() -> None:
    """Print files that run cert regularly: in CI, by cron, by systemd."""


@app.command(
    "ci",
    epilog=epilog(
        "cert init ci --input prompts.jsonl",
        "cert init ci -o .github/workflows/cert.yml",
        codes=PRINT_CODES,
    ),
)
def ci(
    *,
    source: InputOption = Path("prompts.jsonl"),
    output: flags.OutputOption = None,
    force: ForceOption = False,
    debug: flags.DebugOption = False,
) -> None:
    """Print a workflow for GitHub Actions: measure, verify, keep the evidence."""

    def body(_: Interrupts) -> ExitCode:
        from cert import __version__  # noqa: PLC0415 - not for --help
        from cert_cli.scaffold import build_ci  # noqa: PLC0415 - the same

        text = build_ci(str(source), version=__version__)
        return _deliver({"cert.yml": text}, output, force=force)

    run_command(body, debug=debug)


@app.command(
    "cron",
    epilog=epilog(
        "cert init cron --input /srv/prompts.jsonl --ledger /srv/evidence",
        "(crontab -l; cert init cron --input /srv/prompts.jsonl) | crontab -",
        codes=PRINT_CODES,
    ),
)
def cron(  # noqa: PLR0913 - one parameter a flag
    *,
    source: InputOption = Path("prompts.jsonl"),
    ledger: flags.LedgerOption = None,
    output: flags.OutputOption = None,
    force: ForceOption = False,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Print a crontab line for a nightly batch that never runs twice at once."""

    def body(_: Interrupts) -> ExitCode:
        from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
        from cert.core.places import ledger_folder  # noqa: PLC0415 - the same
        from cert_cli.scaffold import build_crontab, find_program  # noqa: PLC0415 - the same
        from cert_cli.settings import load_settings  # noqa: PLC0415 - the same

        folder = ledger if ledger is not None else ledger_folder(load_settings(config).ledger)
        if folder is None:
            raise ConfigurationError(
                "a run that nobody watches needs a ledger, and the setting `ledger` is none",
                hint="name one with --ledger",
            )
        text = build_crontab(find_program(), source=source, ledger=folder)
        return _deliver({"crontab": text}, output, force=force)

    run_command(body, debug=debug)


@app.command(
    "systemd",
    epilog=epilog(
        "cert init systemd",
        "cert init systemd serve -o /etc/systemd/system",
        codes=PRINT_CODES,
    ),
)
def systemd(
    *,
    unit: Annotated[
        Literal["nightly", "health", "serve", "serve-metrics"],
        typer.Argument(metavar="nightly|health|serve|serve-metrics", help="What runs."),
    ] = "nightly",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Write each unit into this folder, under its own name.",
        ),
    ] = None,
    force: ForceOption = False,
    debug: flags.DebugOption = False,
) -> None:
    """Print hardened units: a nightly batch or a health check with its timer, or a service.

    They run as the user `cert`, read /etc/cert and write /var/lib/cert.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert_cli.scaffold import build_units, find_program  # noqa: PLC0415 - not for --help

        program = find_program()
        if program[0].startswith(("/home/", "/root/")):
            report(
                f"warning: the units run as another user, which cannot read {program[0]}",
                hint="install cert outside of home folders, for example in /opt/cert",
            )
        return _deliver(build_units(unit, program), output, force=force, is_folder=True)

    run_command(body, debug=debug)


def _deliver(
    files: Mapping[str, str], output: Path | None, *, force: bool, is_folder: bool = False
) -> ExitCode:
    """Print the files, or write them; nothing is written where one of them is in the way.

    Raises:
        ConfigurationError: One is there already, or cannot be written.
    """
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
    from cert.ledger.files import write_file  # noqa: PLC0415 - the same
    from cert_cli.exit_codes import ExitCode  # noqa: PLC0415 - the same
    from cert_cli.files import check_target  # noqa: PLC0415 - the same
    from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

    if output is None:
        if is_folder:
            return print_text("\n".join(f"# ---- {name}\n{files[name]}" for name in files))
        return print_text("".join(files.values()))
    targets = {output / name if is_folder else output: text for name, text in files.items()}
    for target in targets:
        check_target(target)
        if target.exists() and not force:
            raise ConfigurationError(f"{target} is there already", hint="--force replaces it")
    for target, text in targets.items():
        try:
            write_file(target.absolute(), text.encode())
        except OSError as error:
            raise ConfigurationError(
                f"{target} cannot be written: {error.strerror}", hint="choose another place with -o"
            ) from error
        report(f"note: wrote {target}")
    return ExitCode.PASS
