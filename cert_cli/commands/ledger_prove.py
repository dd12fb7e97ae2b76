"""`cert ledger prove`: a proof of one record, or that the ledger continues an older head."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.ledger.checkpoint import SignedCheckpoint
    from cert_cli.interrupts import Interrupts

EPILOG = epilog(
    "cert ledger prove 41 -o record-41.tlog-proof",
    "cert ledger prove --from head.note -o consistency.txt",
    "python cert_verify.py --proof record-41.tlog-proof --key public-key.pem",
    "python cert_verify.py --consistency consistency.txt --old head.note --key public-key.pem",
    codes=(ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY),
)


def prove(  # noqa: PLR0913 - one parameter a flag
    seq: Annotated[
        int | None,
        typer.Argument(
            metavar="SEQ", min=0, show_default=False, help="The record's number, its `_seq`."
        ),
    ] = None,
    *,
    from_head: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="HEADFILE",
            show_default=False,
            help="Prove instead that the ledger continues this head, which `cert ledger head` "
            "wrote earlier.",
        ),
    ] = None,
    output: flags.OutputOption = None,
    ledger: flags.LedgerOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Write a proof that whoever trusts the key can check alone, without the ledger.

    With SEQ: that this record is in the ledger that the newest checkpoint signs; the proof holds
    the record itself. With --from: that nothing before that head was changed, removed or inserted
    since.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
        from cert.ledger.proofs import prove_consistency, prove_inclusion  # noqa: PLC0415 - same
        from cert.ledger.reader import FolderReader  # noqa: PLC0415 - the same
        from cert_cli.files import write_output  # noqa: PLC0415 - the same
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import write_stdout  # noqa: PLC0415 - the same

        if (seq is None) == (from_head is None):
            raise ConfigurationError(
                "give a record's number, or --from HEADFILE, and not both",
                hint="cert ledger prove 41, or: cert ledger prove --from head.note",
            )
        folder = find_ledger(ledger, load_settings(config))
        reader = FolderReader(folder)
        if from_head is not None:
            proof = prove_consistency(reader, _load_head(from_head))
            said = f"the ledger of {proof.signed.checkpoint.size} records continues that head"
            data = proof.encode()
        elif seq is not None:
            found = prove_inclusion(reader, seq)
            said = f"record {seq} is in the ledger of {found.signed.checkpoint.size} records"
            data = found.encode()
        if output is None:
            write_stdout(data)
        else:
            write_output(output, data, ledger=folder)
            report(f"note: {output} proves that {said}")
        return ExitCode.PASS

    run_command(body, debug=debug)


def _load_head(path: Path) -> SignedCheckpoint:
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
    from cert.ledger.checkpoint import MAX_NOTE_BYTES, parse_checkpoint  # noqa: PLC0415 - same
    from cert.ledger.errors import ProofError  # noqa: PLC0415 - the same

    try:
        with path.open("rb") as file:
            return parse_checkpoint(file.read(MAX_NOTE_BYTES + 1))
    except (OSError, ValueError, ProofError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"--from {path} is no head: {reason}", hint="`cert ledger head -o FILE` writes one"
        ) from error
