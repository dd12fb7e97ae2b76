"""`cert ledger`: heads, proofs, erasure, pruning, and what a ledger holds."""

from __future__ import annotations

import typer

from cert_cli.commands import (
    ledger_attest,
    ledger_erase,
    ledger_head,
    ledger_ls,
    ledger_note,
    ledger_prove,
    ledger_prune,
)

_HELP = "Look into a ledger, keep its head elsewhere, prove, note, erase and prune."

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)


@app.callback(help=_HELP)
def ledger() -> None:
    """Look into a ledger, keep its head elsewhere, prove, note, erase and prune."""


app.command("head", epilog=ledger_head.EPILOG)(ledger_head.head)
app.command("ls", epilog=ledger_ls.EPILOG)(ledger_ls.ls)
app.command("note", epilog=ledger_note.EPILOG)(ledger_note.note)
app.command("prove", epilog=ledger_prove.EPILOG)(ledger_prove.prove)
app.command("attest", epilog=ledger_attest.EPILOG)(ledger_attest.attest)
app.command("erase", epilog=ledger_erase.EPILOG)(ledger_erase.erase)
app.command("prune", epilog=ledger_prune.EPILOG)(ledger_prune.prune)
