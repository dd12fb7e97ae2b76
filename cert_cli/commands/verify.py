"""`cert verify`: is the evidence unchanged?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.core.config import CERTConfig
    from cert_cli.interrupts import Interrupts
    from cert_cli.proof_check import Proven
    from cert_cli.verification import Verified

EPILOG = epilog(
    "cert verify",
    "cert verify ./ledger --key auditor/public-key.pem --head auditor/head.note",
    "cert verify evidence.zip --key ed25519:... --require-head --strict --json | jq .state",
    "cert verify records.jsonl",
    "cert verify --proof record-41.tlog-proof --key public-key.pem",
    codes=(
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.INCOMPLETE,
        ExitCode.INTEGRITY,
        ExitCode.UNAVAILABLE,
        ExitCode.INTERRUPTED,
    ),
)


def verify(  # noqa: PLR0913 - one parameter a flag
    evidence: Annotated[
        Path | None,
        typer.Argument(
            metavar="LEDGER|BUNDLE.zip|FILE.jsonl",
            show_default=False,
            help="What to verify. [default: the configured ledger]",
        ),
    ] = None,
    *,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUB",
            show_default=False,
            help="The key to trust: a file, or ed25519:... It must have reached you by another way "
            "than the evidence. [default: the setting verify_key, else your own key]",
        ),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="What `cert ledger head` wrote earlier, kept elsewhere since: nothing up to it "
            "can have been taken away.",
        ),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep/--fast",
            help="Also look into every record: form, schema, that summary, checks and verdict "
            "follow from its numbers and the registered policy, counts; or bytes, links and "
            "signatures alone.",
        ),
    ] = True,
    require_head: Annotated[
        bool, typer.Option("--require-head", help="Fail where no head was given.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where records are not sealed by a checkpoint.")
    ] = False,
    trust_on_first_use: Annotated[
        bool,
        typer.Option(
            "--trust-on-first-use",
            help="Where no key is known, trust the one in the evidence, and remember it by the "
            "ledger's name: another one later is refused.",
        ),
    ] = False,
    proof: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Verify a proof of `cert ledger prove` instead of evidence: prints the record; "
            "for a proof that a ledger continues a head, give that with --head.",
        ),
    ] = None,
    tsa_roots: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            show_default=False,
            help="Root certificates by which to verify the newest RFC 3161 time stamp.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Settings, instead of ./cert.yaml or pyproject.toml.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only errors on stderr: no warnings or progress.")
    ] = False,
    color: Annotated[
        bool | None,
        typer.Option(
            "--color/--no-color",
            show_default=False,
            help="Otherwise NO_COLOR, FORCE_COLOR and TERM decide.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Verify that evidence is unchanged since it was signed. Needs no model, and writes nothing.

    One of: valid, unanchored (nothing outside pins its end), unsealed (its last records are not
    signed yet); torn, rolled-back, invalid (exit 5), with the first line at fault.
    """

    def body(_: Interrupts) -> ExitCode:
        from functools import cache  # noqa: PLC0415 - not for --help

        from cert_cli.verification import Request, verify  # noqa: PLC0415 - the same

        @cache
        def settings() -> CERTConfig:
            from cert_cli.settings import load_settings  # noqa: PLC0415 - pydantic, if needed

            return load_settings(config)

        if config is not None:
            settings()
        if proof is not None:
            from cert_cli.proof_check import check_proof  # noqa: PLC0415 - only for this

            if evidence is not None:
                from cert.core.errors import ConfigurationError  # noqa: PLC0415 - the same

                raise ConfigurationError("--proof is verified alone, without the evidence")
            return _tell_proven(check_proof(proof, key, head, settings), quiet=quiet)
        path = evidence
        if path is None:
            from cert_cli.settings import find_folder  # noqa: PLC0415 - pydantic, if needed

            path = find_folder(None, settings())
        request = Request(
            path=path,
            key=key,
            head=head,
            is_deep=deep,
            requires_head=require_head,
            is_strict=strict,
            on_first_use=trust_on_first_use,
            roots=tsa_roots,
            quiet=quiet,
            color=color,
        )
        return _tell(verify(request, settings), as_json=as_json)

    run_command(body, debug=debug)


def _tell(verified: Verified, *, as_json: bool) -> ExitCode:
    import sys  # noqa: PLC0415 - not for --help

    from cert_cli.stdout import print_text  # noqa: PLC0415 - the same
    from cert_cli.terminal import style_of  # noqa: PLC0415 - the same
    from cert_cli.verify_view import to_json, to_text  # noqa: PLC0415 - the same

    request = verified.request
    if as_json:
        text = to_json(verified)
    else:
        text = to_text(verified, style_of(sys.stdout, color=request.color))
    print_text(text)
    _warn(verified)
    return verified.code


def _tell_proven(proven: Proven, *, quiet: bool) -> ExitCode:
    """A proof's record goes to stdout as it stands in the ledger."""
    from cert_cli.errors import report as say  # noqa: PLC0415 - not for --help
    from cert_cli.stdout import print_text, write_stdout  # noqa: PLC0415 - the same

    if proven.line is None:
        print_text(f"{proven.words}\n")
    else:
        write_stdout(proven.line + b"\n")
        if not quiet:
            say(f"note: {proven.words}, by {proven.pinned.key.text}: {proven.pinned.source}")
    if proven.doubt is not None:
        say(f"warning: {proven.doubt}")
    return ExitCode.PASS


def _warn(verified: Verified) -> None:
    """Say on stderr what must not be missed where stdout goes to a program."""
    from cert.core.places import known_keys_file  # noqa: PLC0415 - not for --help
    from cert.ledger.findings import State  # noqa: PLC0415 - the same
    from cert.ledger.keys import parse_public_key  # noqa: PLC0415 - the same
    from cert.ledger.known_keys import KnownKeys  # noqa: PLC0415 - the same
    from cert_cli.errors import report as say  # noqa: PLC0415 - the same

    report, pinned = verified.report, verified.pinned
    if not verified.request.quiet and report.state is State.UNSEALED:
        say("warning: records are not sealed: no signature covers the last of them")
    if pinned is None or pinned.kind != "first-use" or report.key is None or report.origin is None:
        return
    if verified.code is not ExitCode.PASS:
        say("warning: the key in the evidence was not remembered, because of what was found")
        return
    known = KnownKeys(known_keys_file())
    known.remember(report.origin, parse_public_key(report.key.encode(), source="the evidence"))
    say(
        f"warning: trusted on first use and remembered in {known.path}: {report.key}, for "
        f"{report.origin}",
        hint="compare it with what its owner says; from now on another key is refused",
    )
