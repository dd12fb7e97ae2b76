"""`cert health`: is everything there that an audit needs, and does it measure right?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.options import NO_LEDGER
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cert.core.config import CERTConfig
    from cert.core.health import HealthReport
    from cert_cli.interrupts import Interrupts

_option = partial(typer.Option, show_default=False)

MAX_S: Final = 10 * 365 * 86_400
_LOG_LEVELS: Final = (None, "INFO", "DEBUG")
_CODES: Final = {
    "healthy": ExitCode.PASS,
    "degraded": ExitCode.INCONCLUSIVE,
    "unhealthy": ExitCode.UNAVAILABLE,
    "unknown": ExitCode.NOTHING,
}

EPILOG = epilog(
    "cert health",
    "cert health --model ./my-model --expect-digest sha256:... --json | jq .status",
    "cert health --check ledger --check disk --max-checkpoint-age 90000 -q",
    "cert health --server http://127.0.0.1:8000",
    codes=(
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.INCONCLUSIVE,
        ExitCode.INCOMPLETE,
        ExitCode.UNAVAILABLE,
        ExitCode.NOTHING,
        ExitCode.INTERRUPTED,
        ExitCode.TERMINATED,
    ),
)


def health(  # noqa: PLR0913 - one parameter a flag
    *,
    check: Annotated[
        list[str] | None,
        _option(metavar="NAME", help="Run this check alone. Repeatable; --list has the names."),
    ] = None,
    list_checks: Annotated[
        bool, _option("--list", help="Name the checks there are, and run none.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Limit each check; they run at the same time."),
    ] = 60.0,
    record: Annotated[
        bool,
        _option("--record", help="Append the report to the ledger; otherwise nothing is written."),
    ] = False,
    as_json: flags.JsonOption = False,
    model: Annotated[
        str | None,
        _option(
            "--model",
            "-m",
            metavar="SPEC",
            help="`reference`, a folder, or hf:ORG/NAME; never downloaded. [default: reference]",
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, _option(help="Where the model runs. [default: auto]")
    ] = None,
    expect_digest: Annotated[
        str | None,
        _option(metavar="sha256:HEX", help="Any other model than the one of this digest is wrong."),
    ] = None,
    ledger: flags.LedgerOption = None,
    no_ledger: Annotated[
        bool, _option("--no-ledger", help="Leave out ledger, checkpoint, key and disk.")
    ] = False,
    keys: flags.KeysOption = None,
    max_checkpoint_age: Annotated[
        float | None,
        _option(
            metavar="SECONDS",
            help="An older checkpoint is degraded, whatever came after it. [default: one that "
            "records came after, older than an hour]",
        ),
    ] = None,
    min_free_bytes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Less free disk space is degraded.")
    ] = 2**30,
    min_free_percent: Annotated[
        float, typer.Option(metavar="P", min=0, max=100, help="The same, of the whole.")
    ] = 5.0,
    full_bytes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Less free disk space is unhealthy.")
    ] = 50 * 2**20,
    server: Annotated[
        str | None,
        _option(
            metavar="URL",
            help="Ask this `cert serve` about itself; the model and ledger of this machine are "
            "then left out.",
        ),
    ] = None,
    config: flags.ConfigOption = None,
    quiet: Annotated[
        bool, _option("--quiet", "-q", help="Show only what is not healthy; no notes on stderr.")
    ] = False,
    verbose: Annotated[
        int, _option("--verbose", "-v", count=True, help="Log what happens; -vv logs more.")
    ] = 0,
    color: Annotated[
        bool | None,
        _option("--color/--no-color", help="Otherwise NO_COLOR, FORCE_COLOR and TERM decide."),
    ] = None,
    debug: flags.DebugOption = False,
) -> None:
    """Check everything that an audit needs: model, instrument, ledger, key, disk, clock.

    Exit code 0 is healthy, 3 degraded, 6 unhealthy, 7 nothing could be checked. The instrument
    check reads a pinned text with the reference model and compares with float64.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert.core.health_host import DiskLimits  # noqa: PLC0415 - not for --help
        from cert.runner.health import (  # noqa: PLC0415 - the same
            CHECKS,
            HealthOptions,
            build_health_checks,
        )
        from cert_cli.settings import load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        if list_checks:
            return print_text("".join(f"{name:<12} {what}\n" for name, what in CHECKS.items()))
        _require_positive(timeout, "--timeout")
        if max_checkpoint_age is not None:
            _require_positive(max_checkpoint_age, "--max-checkpoint-age")
        if server is not None:
            _refuse_beside_server(
                {
                    "--model": model,
                    "--device": device,
                    "--expect-digest": expect_digest,
                    "--max-checkpoint-age": max_checkpoint_age,
                    "--ledger": None if record else ledger,
                    "--no-ledger": no_ledger or None,
                    "--keys": None if record else keys,
                },
                check or [],
            )
        settings = load_settings(
            config,
            model=model,
            device=device,
            ledger=NO_LEDGER if no_ledger else None if ledger is None else str(ledger),
            keys=keys,
            server=server,
            log_level=_LOG_LEVELS[min(verbose, 2)] if not quiet else "ERROR",
        )
        options = HealthOptions(
            timeout_s=timeout,
            expect_digest=expect_digest,
            max_checkpoint_age_s=max_checkpoint_age,
            disk=DiskLimits(min_free_bytes, min_free_percent / 100, full_bytes),
            only=tuple(check or ()),
        )
        checker = build_health_checks(settings, options)
        if record:
            _require_ledger(settings)
        report = checker.run()
        code = _CODES[report.status]
        seq = None
        if record:
            seq, failed = _record(report, settings, quiet=quiet)
            code = failed if code is ExitCode.PASS and failed is not None else code
        _tell(report, code, seq, as_json=as_json, quiet=quiet, color=color)
        return code

    run_command(body, debug=debug)


def _refuse_beside_server(given: Mapping[str, object], checks: Sequence[str]) -> None:
    """Refuse what would not be looked at where a server is asked about itself."""
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
    from cert.runner.health import SERVER_CHECKS  # noqa: PLC0415 - the same

    names = [flag for flag, value in given.items() if value is not None]
    names += [f"--check {name}" for name in checks if name not in SERVER_CHECKS]
    if names:
        raise ConfigurationError(
            f"{', '.join(names)}: not beside --server, whose model, ledger and key are its own",
            hint="leave it out, or ask on the server's machine without --server",
        )


def _require_positive(seconds: float, flag: str) -> None:
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help

    if not 0 < seconds <= MAX_S:
        raise ConfigurationError(f"{flag} is more than 0 and at most {MAX_S} seconds")


def _require_ledger(settings: CERTConfig) -> None:
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help

    if settings.ledger == NO_LEDGER:
        raise ConfigurationError(
            "--record has nowhere to go: there is no ledger", hint="name one with --ledger DIR"
        )


def _record(
    report: HealthReport, settings: CERTConfig, *, quiet: bool
) -> tuple[int | None, ExitCode | None]:
    """Append the report; a ledger that does not take it is told on stderr.

    Returns:
        The record's number, and the exit code of what went wrong.
    """
    from cert.evidence.health_record import build_health_record  # noqa: PLC0415 - not for --help
    from cert.evidence.run_record import load_host  # noqa: PLC0415 - the same
    from cert.ledger.canonical import canonical_bytes  # noqa: PLC0415 - the same
    from cert.ledger.errors import LedgerError  # noqa: PLC0415 - the same
    from cert_cli.errors import report_error  # noqa: PLC0415 - the same
    from cert_cli.evidence import open_configured_ledger  # noqa: PLC0415 - the same

    seq = None
    try:
        with open_configured_ledger(settings, quiet=quiet) as ledger:
            if ledger is not None:  # it failed, and on_ledger_failure is warn, which it said
                built = build_health_record(report, model=settings.model, host=load_host())
                (entry,) = ledger.append([canonical_bytes(built)])
                seq = entry.seq
    except LedgerError as error:
        return seq, report_error(error)
    return seq, None


def _tell(  # noqa: PLR0913 - how to say it
    report: HealthReport,
    code: ExitCode,
    seq: int | None,
    *,
    as_json: bool,
    quiet: bool,
    color: bool | None,
) -> None:
    import sys  # noqa: PLC0415 - not for --help

    from cert_cli.health_view import to_json, to_text  # noqa: PLC0415 - rich
    from cert_cli.stdout import print_text  # noqa: PLC0415 - not for --help
    from cert_cli.terminal import style_of  # noqa: PLC0415 - the same

    if as_json:
        print_text(to_json(report, code, seq))
    else:
        print_text(to_text(report, style_of(sys.stdout, color=color), quiet=quiet))
